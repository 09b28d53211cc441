"""Random numbers that are a function of a key, a stream and a counter, and of nothing else.

A generator that is drawn from in turn would make the luck of one game depend on which others are searched
beside it. Here number n of a stream is a hash of (key, stream, n), made of the mixing function of SplitMix64
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
"""

import math

import numpy as np
from numba import njit

GUMBEL, DIRICHLET, SYMMETRY, MOVE, ROLLOUT, ORDER = 1, 2, 3, 4, 5, 6
"""The streams: what a number is for, so that no two uses share one."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
_DRAWS_PER_SAMPLE = 256  # more than rejection sampling will ever take: it fails less than once in twenty


@njit(cache=True, nogil=True)
def mix(bits):
    """Return the 64 bits scrambled; one to one."""
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST_FACTOR
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND_FACTOR
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def random_bits(key, stream, counter):
    """Return 64 random bits."""
    start = mix(np.uint64(key) ^ mix(np.uint64(stream) * _GOLDEN))
    return mix(start + (np.uint64(counter) + np.uint64(1)) * _GOLDEN)


@njit(cache=True, nogil=True)
def uniform(key, stream, counter):
    """Return a number of the open interval (0, 1)."""
    return (np.float64(random_bits(key, stream, counter) >> np.uint64(12)) + 0.5) * 2.0**-52


@njit(cache=True, nogil=True)
def gumbel(key, stream, counter):
    """Return a sample of the standard Gumbel distribution."""
    return -math.log(-math.log(uniform(key, stream, counter)))


@njit(cache=True, nogil=True)
def log_gamma_sample(key, stream, sample, shape):
    """Return the logarithm of sample number `sample` of the gamma distribution with this shape and scale 1.

    By Marsaglia and Tsang (2000), "A simple method for generating gamma variables". A shape below 1 is raised
    by 1 and the sample scaled by U^(1/shape); in logarithms, for with a shape of 0.01 that factor underflows.
    """
    counter = sample * _DRAWS_PER_SAMPLE
    log_boost = 0.0
    if shape < 1.0:
        log_boost = math.log(uniform(key, stream, counter)) / shape
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        radius = math.sqrt(-2.0 * math.log(uniform(key, stream, counter + 1)))
        normal = radius * math.cos(2.0 * math.pi * uniform(key, stream, counter + 2))
        v = (1.0 + c * normal) ** 3
        if v > 0.0:
            bound = 0.5 * normal * normal + d - d * v + d * math.log(v)
            if math.log(uniform(key, stream, counter + 3)) < bound:
                return math.log(d) + math.log(v) + log_boost
        counter += 3


@njit(cache=True, nogil=True)
def dirichlet(key, stream, concentration, count):
    """Return float64 [count]: a sample of the symmetric Dirichlet distribution with this concentration."""
    sample, top, total = np.empty(count), -np.inf, 0.0
    for i in range(count):
        sample[i] = log_gamma_sample(key, stream, i, concentration)
        top = max(top, sample[i])
    for i in range(count):
        sample[i] = math.exp(sample[i] - top)
        total += sample[i]
    for i in range(count):
        sample[i] /= total
    return sample


@njit(cache=True, nogil=True)
def draw(weights, luck):
    """Return the index on which `luck`, of (0, 1), falls when each has the share of its weight."""
    left = luck * weights.sum()
    chosen = -1
    for index in range(len(weights)):
        if weights[index] > 0.0:
            chosen = index
            left -= weights[index]
            if left < 0.0:
                break
    return chosen
