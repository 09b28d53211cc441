"""Randomness that can be told again: every generator derives from (run seed, role, index, game)."""

import hashlib

import numpy as np


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """Return a 64-bit seed that depends on every part and on nothing else (not on Python's hash seed)."""
    text = "\x1f".join([str(run_seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def derive_rng(run_seed: int, *parts: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(run_seed, *parts))


def mix_keys(keys: np.ndarray, counter: int | np.ndarray) -> np.ndarray:
    """Return uint64 [B]: a new key from each of `keys` uint64 [B] and a counter, by splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = keys + np.asarray(counter, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def unit_floats(keys: np.ndarray) -> np.ndarray:
    """Return float64 [B] in [0, 1) from the upper bits of `keys` uint64 [B]."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
