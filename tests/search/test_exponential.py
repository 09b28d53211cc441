"""The exponential function of the kernels."""

import numpy as np
from numba import njit

from search.exponential import exp_single


@njit
def powers_of(numbers: np.ndarray) -> np.ndarray:
    powers = np.empty_like(numbers)
    for i in range(len(numbers)):
        powers[i] = exp_single(numbers[i])
    return powers


def test_powers_are_exact_to_a_unit_in_the_last_place() -> None:
    numbers = -np.concatenate([np.linspace(0.0, 87.0, 200_001), np.geomspace(1e-30, 87.0, 20_001)]).astype(
        np.float32
    )
    exact = np.exp(numbers.astype(np.float64))
    unit = np.spacing(exact.astype(np.float32))
    assert (abs(powers_of(numbers) - exact) <= unit).all()


def test_the_power_of_zero_is_one_and_what_is_too_low_is_nothing() -> None:
    powers = powers_of(np.array([0.0, -0.0, -88.0, -1e30, -np.inf], np.float32))
    assert powers.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
