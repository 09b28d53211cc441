"""The exponential function, inlined into kernels: math.exp is a call, and loops with calls become no vectors."""

import math

import numpy as np
from numba import njit

_LOWEST = np.float32(-87.0)
_PER_LN_2 = np.float32(1.0 / math.log(2.0))
_UPPER, _LOWER = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUNDER = np.float32(1.5 * 2.0**23)
_C2, _C3, _C4 = np.float32(5.0000001201e-1), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
_C5, _C6, _C7 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)


@njit(cache=True, nogil=True, forceinline=True)
def exp_single(x):
    """Return e^x for a float32 x ≤ 0, within a unit in the last place; 0 below -87.

    With x = n · ln 2 + r and a whole n it is 2^n · e^r, by the polynomial of the Cephes library (Moshier 1989). ln 2 is
    subtracted in two parts, for n times the first is exact; to add and subtract what has no room for fractions rounds.
    """
    kept = x if x >= _LOWEST else _LOWEST
    n = np.float32(np.float32(kept * _PER_LN_2 + _ROUNDER) - _ROUNDER)
    r = np.float32(np.float32(kept - n * _UPPER) - n * _LOWER)
    sum_ = np.float32((((((_C7 * r + _C6) * r + _C5) * r + _C4) * r) + _C3) * r + _C2)
    power = np.float32(sum_ * r * r + r + _ONE)
    scale = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * scale if x >= _LOWEST else _ZERO
