import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from replay.sampling import Arrivals


def arrivals(*sizes: int) -> Arrivals:
    """Return chunks 10, 20, … of these sizes."""
    filled = Arrivals()
    for k, rows in enumerate(sizes, start=1):
        filled.add(10 * k, rows)
    return filled


def test_rows_keep_their_positions_when_older_ones_leave() -> None:
    held = arrivals(3, 0, 2)
    assert (held.first, held.end, held.num_rows) == (0, 5, 5)
    chunk_ids, rows = held.locate(np.array([0, 2, 3, 4]))
    assert (chunk_ids.dtype, rows.dtype) == (np.int64, np.int32)
    assert (chunk_ids.tolist(), rows.tolist()) == ([10, 10, 30, 30], [0, 2, 0, 1])
    held.remove(10)
    held.add(40, 4)
    assert (held.first, held.end, held.num_rows) == (3, 9, 6)
    assert [array.tolist() for array in held.locate(np.array([3, 4, 5, 8]))] == [
        [30, 30, 40, 40],
        [0, 1, 0, 3],
    ]
    assert held.chunk_ids.tolist() == [20, 30, 40]
    assert held.ends.tolist() == [3, 5, 9]


def test_rows_that_have_left_or_never_came_have_no_position() -> None:
    held = arrivals(3, 2)
    held.remove(10)
    positions, at_hand = held.positions(np.array([20, 10, 15, 99, 20]), np.array([1, 2, 0, 0, 0]))
    assert positions.tolist() == [4, 3]
    assert at_hand.tolist() == [True, False, False, False, True]
    held.remove(20)
    positions, at_hand = held.positions(np.array([20]), np.array([0]))
    assert (positions.tolist(), at_hand.tolist()) == ([], [False])


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_its_chunk_does_not_have_is_an_error(row: int) -> None:
    with pytest.raises(DataError, match="a row was named that its chunk does not have"):
        arrivals(3, 2, 4).positions(np.array([10, 20]), np.array([0, row]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 11), st.integers(0, 11))
def test_a_mark_is_found_again_by_who_has_only_the_newer_chunks(
    sizes: list[int], left: int, more: int
) -> None:
    left, more = min(left, len(sizes)), min(more, len(sizes))
    before, after = arrivals(*sizes), Arrivals()
    for k, rows in enumerate(sizes[left:], start=left + 1):
        after.add(10 * k, rows)
    gone = sum(sizes[:left])
    for position in range(before.first, before.end + 1):
        assert after.find(*before.mark(position)) == max(position - gone, 0)
    marks = [before.mark(position) for position in range(before.end + 1)]
    after.add(10 * len(sizes) + 10, more)
    assert [after.find(*mark) for mark in marks] == [max(k - gone, 0) for k in range(before.end + 1)]


def test_room_is_made_again_and_again_without_losing_a_row() -> None:
    held, sizes = Arrivals(), [k % 7 for k in range(2000)]
    for number, rows in enumerate(sizes):
        held.add(number, rows)
        if number % 3:  # of three that enter two leave, so that it grows and moves to the front in turn
            held.remove(int(held.chunk_ids[0]))
    assert held.num_rows == sum(sizes[held.chunk_ids[0] :])
    chunk_ids, rows = held.locate(np.arange(held.first, held.end))
    expected = [(k, row) for k in held.chunk_ids.tolist() for row in range(sizes[k])]
    assert list(zip(chunk_ids.tolist(), rows.tolist(), strict=True)) == expected
    assert held.check_valid() == []
