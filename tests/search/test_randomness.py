"""The random numbers have the distributions they claim, and depend on nothing but key, stream and counter."""

import math

import numpy as np
import pytest

from search.randomness import dirichlet, draw, gumbel, log_gamma_sample, mix, random_bits, uniform

GOLDEN = 0x9E3779B97F4A7C15
KEY = np.uint64(12345)
COUNT = 20_000


def test_mixing_is_that_of_splitmix64() -> None:
    # The first numbers of the reference implementation (prng.di.unimi.it/splitmix64.c) from state 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + n * GOLDEN) % 2**64 for n in (1, 2, 3)]
    assert [int(mix(np.uint64(state))) for state in states] == expected


def test_keys_streams_and_counters_all_matter() -> None:
    drawn = {
        int(random_bits(np.uint64(key), stream, counter))
        for key in (0, 1, 2, 2**64 - 1)
        for stream in (1, 2, 3)
        for counter in range(100)
    }
    assert len(drawn) == 4 * 3 * 100


def test_neighbouring_keys_are_not_alike() -> None:
    first, second = ([uniform(np.uint64(key), 1, n) for n in range(COUNT)] for key in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(COUNT)


def test_uniform_numbers_are_even_and_inside_the_interval() -> None:
    drawn = np.array([uniform(KEY, 1, n) for n in range(COUNT)])
    assert 0 < drawn.min() < drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert abs(counts / COUNT - 0.1).max() < 4 * math.sqrt(0.09 / COUNT)


def test_gumbel_numbers_have_their_mean_and_variance() -> None:
    drawn = np.array([gumbel(KEY, 1, n) for n in range(COUNT)])
    assert drawn.mean() == pytest.approx(np.euler_gamma, abs=0.04)
    assert drawn.var() == pytest.approx(math.pi**2 / 6, rel=0.06)


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.5])
def test_gamma_numbers_have_their_mean_and_variance(shape: float) -> None:
    drawn = np.exp([log_gamma_sample(KEY, 1, n, shape) for n in range(COUNT)])
    assert drawn.mean() == pytest.approx(shape, rel=0.06)
    assert drawn.var() == pytest.approx(shape, rel=0.12)


def test_dirichlet_numbers_have_their_variance() -> None:
    drawn = np.array([dirichlet(np.uint64(n), 1, 0.5, 4) for n in range(4000)])
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.25, atol=0.02)
    np.testing.assert_allclose(drawn.var(axis=0), (1 / 4) * (3 / 4) / (1 + 4 * 0.5), rtol=0.1)


def test_a_dirichlet_of_tiny_concentration_picks_one() -> None:
    drawn = np.array([dirichlet(np.uint64(n), 1, 1e-4, 5) for n in range(200)])
    assert np.isfinite(drawn).all()
    assert (drawn.max(axis=1) > 0.99).mean() > 0.95
    assert len(set(drawn.argmax(axis=1).tolist())) == 5


def test_luck_falls_on_each_by_its_weight_and_never_on_none() -> None:
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    drawn = np.array([draw(weights, luck) for luck in np.linspace(1e-9, 1 - 1e-9, 1000)])
    assert np.bincount(drawn, minlength=5).tolist() == [0, 250, 0, 750, 0]
    assert draw(weights, 1 - 2.0**-53) == 3
