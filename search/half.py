"""Half precision, in which policies travel, made single: numba has none on CPUs, and numpy does it one by one."""

import numpy as np
from numba import njit

_SIGN = np.uint32(0x8000)
_REST = np.uint32(0x7FFF)
_EXPONENT = np.uint32(0x7C00)
_WIDE_EXPONENT = np.uint32(0x7F800000)
_REBIAS = np.float32(2.0**112)


def to_float32(array: np.ndarray) -> np.ndarray:
    """Return a float16 or float32 array [K, A] as float32, contiguous; exact."""
    if array.dtype == np.float16:
        return _widen(np.ascontiguousarray(array).view(np.uint16))
    return np.ascontiguousarray(array, np.float32)


@njit(cache=True, nogil=True)
def _widen(halves):
    """Return float32 [K, A] of float16 given as uint16, in loops that the compiler turns into vector instructions.

    Without its sign a half, moved to where a single has its exponent and mantissa, is too small by 2^112, the
    difference of the biases; subnormals included. What is not finite is marked by itself.
    """
    wide = np.empty(halves.shape, np.float32)
    bits = wide.view(np.uint32)
    for i in range(halves.shape[0]):
        for k in range(halves.shape[1]):
            bits[i, k] = (np.uint32(halves[i, k]) & _REST) << np.uint32(13)
        for k in range(halves.shape[1]):
            wide[i, k] *= _REBIAS
        for k in range(halves.shape[1]):
            half = np.uint32(halves[i, k])
            special = _WIDE_EXPONENT if half & _EXPONENT == _EXPONENT else np.uint32(0)
            bits[i, k] |= ((half & _SIGN) << np.uint32(16)) | special
    return wide
