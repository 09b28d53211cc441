"""Operations on rows are those of float32, lane by lane, and on plain numbers those of float64."""

import math
import platform
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from poker.kernels import new_rows
from poker.rows import LANES, fma, load, maximum, restore, same, store, where_positive, without_denormals

NUMBER = 0.1
FMA = 4
PLAIN = [
    np.add,
    np.subtract,
    np.multiply,
    np.divide,
    lambda a, b, c: a * b + c,
    lambda a, b, c: np.where(a > b, a, b),
    lambda a, b, c: np.where(a > 0, b, c),
    lambda a, b, c: np.full_like(a, NUMBER),
    lambda a, b, c: c,
]
"""What `operate` leaves, row by row."""


@njit(error_model="numpy")
def operate(x, out):
    a, b, c = load(x, 0), load(x, 1), load(x, 2)
    store(out, 0, a + b)
    store(out, 1, a - b)
    store(out, 2, a * b)
    store(out, 3, a / b)
    store(out, 4, fma(a, b, c))
    store(out, 5, maximum(a, b))
    store(out, 6, where_positive(a, b, c))
    store(out, 7, same(x, NUMBER))
    store(out, 8, c)


def expected(k: int, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return PLAIN[k](a, b) if isinstance(PLAIN[k], np.ufunc) else PLAIN[k](a, b, c)


def equal_bits(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether numbers are the same, zeros of both signs told apart; one NaN is as good as another."""
    same_bits = found.view(f"i{found.itemsize}") == wanted.view(f"i{wanted.itemsize}")
    return found.dtype == wanted.dtype and bool((same_bits | (np.isnan(found) & np.isnan(wanted))).all())


def nearest(exact: Fraction) -> np.float32:
    """Return the float32 that is nearest to a number, of two the one with an even last bit."""
    guess = np.float32(float(exact))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(near, key=lambda each: (abs(Fraction(float(each)) - exact), each.view(np.int32) & 1))


def rows_of(floats: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(floats, min_size=LANES, max_size=LANES)
    return st.lists(row, min_size=3, max_size=3).map(lambda rows: np.array(rows, np.float32))


@given(rows_of(st.floats(width=32)))
def test_lanes_are_float32(numbers: np.ndarray) -> None:
    x, out = new_rows(3, lanes=True), new_rows(len(PLAIN), lanes=True)
    x[:] = numbers
    operate(x, out)
    for k in range(len(PLAIN)):
        if k != FMA:
            assert equal_bits(out[k], expected(k, *numbers)), k


middling = st.floats(-(2.0**40), 2.0**40, width=32)
TIE = 1 + 2.0**-12
"""Its square lies in the middle between two numbers of float32."""


@given(rows_of(middling))
@example(np.array([[TIE] * LANES, [TIE] * LANES, [2.0**-80, -(2.0**-80)] * (LANES // 2)], np.float32))
def test_fma_rounds_once(numbers: np.ndarray) -> None:
    x, out = new_rows(3, lanes=True), new_rows(len(PLAIN), lanes=True)
    x[:] = numbers
    operate(x, out)
    exact = [Fraction(a) * Fraction(b) + Fraction(c) for a, b, c in numbers.T.tolist()]
    assert out[FMA].tolist() == [float(nearest(each)) for each in exact]


@given(st.tuples(st.floats(), st.floats(), st.floats()))
@example((TIE, TIE, -1.0))
def test_one_situation_is_float64_without_fusing(numbers: tuple[float, float, float]) -> None:
    x, out = new_rows(3, lanes=False), new_rows(len(PLAIN), lanes=False)
    x[:] = numbers
    operate(x, out)
    for k in range(len(PLAIN)):
        wanted = expected(k, *(np.array([number]) for number in numbers))
        assert equal_bits(out[k : k + 1], wanted), k


@pytest.mark.parametrize("number", [0, 1, 5])
def test_each_row_lies_in_a_line_of_the_cache(number: int) -> None:
    rows = new_rows(number, lanes=True)
    assert rows.shape == (number, LANES)
    assert rows.flags.c_contiguous
    assert not rows.any()
    assert number == 0 or rows.ctypes.data % (4 * LANES) == 0


def test_a_row_is_written_where_it_belongs() -> None:
    x, out = new_rows(3, lanes=True), new_rows(len(PLAIN) + 1, lanes=True)
    x[:] = np.arange(3 * LANES).reshape(3, LANES)
    out[-1] = math.pi
    operate(x, out)
    assert out[2].tolist() == [lane * (lane + LANES) for lane in range(LANES)]
    assert (out[-1] == np.float32(math.pi)).all()


HAS_MXCSR = platform.machine() in ("x86_64", "AMD64")
"""Elsewhere denormals are computed with."""


@njit(error_model="numpy")
def halve(x, flush):
    state = without_denormals() if flush else 0
    for _ in range(2):
        store(x, 0, load(x, 0) * same(x, 0.5))
    if flush:
        restore(state)


@pytest.mark.parametrize("lanes", [False, True])
def test_denormals_are_zeros_only_where_that_is_asked(lanes: bool) -> None:
    x = new_rows(1, lanes=lanes)
    smallest = np.finfo(x.dtype).smallest_normal
    for flush in (True, False):
        x[:] = smallest
        halve(x, flush)
        assert (x == (0.0 if flush and HAS_MXCSR else smallest / 4)).all()
        assert smallest / 4 > 0.0  # nothing is left of it in this thread
