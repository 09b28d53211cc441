"""Half precision made single."""

import numpy as np
import pytest

from search.half import to_float32

EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 16)


def test_every_half_becomes_the_single_it_is() -> None:
    np.testing.assert_array_equal(to_float32(EVERY_HALF), EVERY_HALF.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_array_that_is_not_contiguous_keeps_its_numbers(dtype: type) -> None:
    array = np.linspace(-2.0, 2.0, 60).astype(dtype).reshape(6, 10)[::2, ::-3]
    wide = to_float32(array)
    assert wide.flags.c_contiguous
    np.testing.assert_array_equal(wide, array.astype(np.float32))
