import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.seeds import derive_rng, derive_seed, mix_keys, unit_floats

SPLITMIX64_OF_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
"""The first five outputs for this seed, as Rosetta Code lists them ("Pseudo-random numbers/Splitmix64")."""


def test_derived_seeds_never_change() -> None:
    assert derive_seed(0) == 8493733112532773764
    assert derive_seed(1, "replay", 0) == 2404573244871819532
    assert derive_seed(1, "replay", 1) == 8996301105415664423
    assert derive_seed(7, "game", 3, 12) == 16136128152950637952
    assert derive_rng(1, "replay", 0).integers(1 << 32, size=3).tolist() == [
        2697643528,
        3973099192,
        3665968725,
    ]


def test_a_seed_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = "from core.seeds import derive_seed; print(derive_seed(1, 'replay', 0))"
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert int(result.stdout) == 2404573244871819532


@given(st.integers(), st.integers(), st.text(max_size=5), st.text(max_size=5))
def test_every_part_counts(one: int, other: int, name: str, another: str) -> None:
    seeds = {(one, name): derive_seed(one, name), (other, name): derive_seed(other, name)}
    seeds[one, another] = derive_seed(one, another)
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds.values())


def test_parts_do_not_run_together() -> None:
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc")
    assert derive_seed(1, 2, 3) != derive_seed(1, 23)


def test_mixed_keys_are_those_of_splitmix64() -> None:
    keys = np.full(5, 1234567, np.uint64)
    assert mix_keys(keys, np.arange(1, 6)).tolist() == SPLITMIX64_OF_1234567
    assert mix_keys(keys[:1], 3).tolist() == SPLITMIX64_OF_1234567[2:3]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_unit_floats_lie_between_zero_and_one(keys: list[int]) -> None:
    floats = unit_floats(np.array(keys, np.uint64))
    assert floats.dtype == np.float64
    assert ((floats >= 0) & (floats < 1)).all()


def test_unit_floats_are_even() -> None:
    floats = unit_floats(mix_keys(np.arange(10_000, dtype=np.uint64), 1))
    counts, _ = np.histogram(floats, bins=10, range=(0, 1))
    # Binomial with n = 10,000 and p = 0.1: five standard deviations are 150.
    assert np.abs(counts - 1000).max() < 150
