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
    """Return float32 [K, A] of float16 given as uint16.

    Without its sign a half, moved to where a single has its exponent and mantissa, is too small by 2^112, the
    difference of the biases; subnormals included. What is not finite is marked by itself. One loop over all is
    made of vector instructions to the end; of rows of seven moves none would be.
    """
    wide = np.empty(halves.shape, np.float32)
    narrow, bits = halves.reshape(-1), wide.view(np.uint32).reshape(-1)
    for i in range(len(narrow)):
        half = np.uint32(narrow[i])
        magnitude = np.uint32((half & _REST) << np.uint32(13)).view(np.float32) * _REBIAS
        special = _WIDE_EXPONENT if half & _EXPONENT == _EXPONENT else np.uint32(0)
        sign = (half & _SIGN) << np.uint32(16)
        bits[i] = np.float32(magnitude).view(np.uint32) | sign | special
    return wide
