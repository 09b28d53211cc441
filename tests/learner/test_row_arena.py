"""The arena of rows: what was put in comes out, in whatever order chunks come and go, and memory stays in bounds."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError, TamenError
from learner import row_arena
from learner.row_arena import RowArena

ROW_BYTES = 40


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of four rows of 40 bytes, and a review after every eight chunks, so that little is enough to need many."""
    monkeypatch.setattr(row_arena, "_PAGE_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(row_arena, "_LEAST_PAGES", 2)
    monkeypatch.setattr(row_arena, "_REVIEW_CHUNKS", 8)


def columns_of(number: int, rows: int) -> dict[str, np.ndarray]:
    """Return rows of `ROW_BYTES`, with the room that their alignment leaves, that no other chunk has."""
    rng = np.random.default_rng(number)
    return {
        "cells": rng.integers(-1, 2, (rows, 9)).astype(np.int8),
        "policy": rng.random((rows, 2, 3)).astype(np.float16),
        "done": rng.random(rows) < 0.5,
        "seq": number * 1000 + np.arange(rows, dtype=np.int64),
        "value": rng.random(rows).astype(np.float32),
    }


def rows_of(arena: RowArena, pairs: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
    """Take rows out by (chunk, row)."""
    places = arena.find(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.int32))
    assert places is not None
    return arena.take(places)


def holds(arena: RowArena, chunks: dict[int, int]) -> None:
    """Assert that the arena has these chunks, by number and rows, and every row of them unchanged."""
    assert arena.check_valid() == []
    assert arena.chunks == list(chunks)
    assert arena.num_rows == sum(chunks.values())
    pairs = [(number, row) for number, rows in chunks.items() for row in range(rows)]
    if not pairs:
        return
    got = rows_of(arena, pairs[::-1])
    for name in ("cells", "policy", "done", "seq", "value"):
        expected = np.concatenate([columns_of(number, rows)[name] for number, rows in chunks.items()])[::-1]
        assert np.array_equal(got[name], expected)
        assert got[name].dtype == expected.dtype


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 13), st.integers(0, 6), st.integers(1, 3)), max_size=40))
def test_whatever_comes_and_leaves_each_row_is_where_it_is_looked_for(
    steps: list[tuple[int, int, int]],
) -> None:
    arena, model, number = RowArena(), {}, 0
    for rows, leaving, gap in steps:
        arena.drop_before((list(model) + [number + 1] * 7)[leaving])
        model = {chunk: size for chunk, size in model.items() if chunk in list(model)[leaving:]}
        number += gap
        arena.add(number, columns_of(number, rows))
        model[number] = rows
        holds(arena, model)
        assert arena.newest == number


def test_what_is_not_here_is_not_found() -> None:
    arena = RowArena()

    def find(chunk: int, row: int) -> np.ndarray | None:
        return arena.find(np.array([3, chunk]), np.array([0, row], np.int32))

    assert find(3, 0) is None
    for number in (2, 3, 5):
        arena.add(number, columns_of(number, 4))
    arena.drop_before(3)
    assert find(5, 3) is not None
    for chunk, row in ((2, 0), (4, 0), (6, 0), (-1, 0), (5, 4), (5, -1)):
        assert find(chunk, row) is None, (chunk, row)


def test_what_was_taken_is_not_changed_by_what_comes_later() -> None:
    arena = RowArena()
    arena.add(1, columns_of(1, 8))
    taken = rows_of(arena, [(1, row) for row in range(8)])
    for number in range(2, 20):
        arena.drop_before(number)
        arena.add(number, columns_of(number, 8))
        rows_of(arena, [(number, row) for row in range(8)])
    assert all(np.array_equal(taken[name], column) for name, column in columns_of(1, 8).items())


def test_memory_is_that_of_the_window_however_much_passes_through() -> None:
    arena, window = RowArena(), 10
    for number in range(500):
        arena.drop_before(number - window + 1)
        arena.add(number, columns_of(number, 7))
        # Full pages, one at either end, and the quarter by which it grows.
        assert arena.memory_bytes <= ((window + 2) * 7 * 5 / 4 + 2 * 4) * ROW_BYTES
    holds(arena, dict.fromkeys(range(490, 500), 7))


def test_memory_is_given_back_when_the_window_stays_small() -> None:
    arena = RowArena()
    for number in range(100):
        arena.add(number, columns_of(number, 7))
    most = arena.memory_bytes
    for number in range(100, 120):
        arena.drop_before(number - 3)
        arena.add(number, columns_of(number, 7))
        holds(arena, dict.fromkeys(range(number - 3, number + 1), 7))
    assert arena.memory_bytes < most / 8
    holds(arena, dict.fromkeys(range(116, 120), 7))


def test_a_window_that_empties_between_two_chunks_keeps_its_memory() -> None:
    arena, sizes = RowArena(), set()
    for number in range(0, 60, 2):
        arena.add(number, columns_of(number, 40))
        arena.drop_before(number + 1)
        assert arena.num_rows == 0
        sizes.add(arena.memory_bytes)
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": np.zeros((4, 2), np.float32)}, r"value is float32\[2\], expected float32\[\]"),
        ({"value": np.zeros(4)}, r"value is float64\[\], expected float32\[\]"),
        ({"value": None}, "value is missing"),
        ({"more": np.zeros(4)}, r"more is float64\[\], expected none"),
    ],
)
def test_a_chunk_with_other_columns_is_refused_and_nothing_is_changed(
    change: dict[str, np.ndarray | None], why: str
) -> None:
    arena = RowArena()
    arena.add(1, columns_of(1, 4))
    changed = {name: column for name, column in (columns_of(2, 4) | change).items() if column is not None}
    with pytest.raises(DataError, match="chunk 2 does not fit") as refused:
        arena.add(2, changed)
    assert refused.match(why)
    holds(arena, {1: 4})
    arena.add(2, columns_of(2, 4))
    holds(arena, {1: 4, 2: 4})


def test_columns_may_come_in_any_order() -> None:
    arena = RowArena()
    arena.add(1, columns_of(1, 4))
    arena.add(2, dict(reversed(columns_of(2, 4).items())))
    holds(arena, {1: 4, 2: 4})


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="seq 3"):
        RowArena().add(1, columns_of(1, 4) | {"seq": np.zeros(3, np.int64)})


def test_numbers_have_to_rise() -> None:
    arena = RowArena()
    arena.add(3, columns_of(3, 1))
    with pytest.raises(ValueError, match="chunk 3 came after chunk 3"):
        arena.add(3, columns_of(3, 1))


def test_where_there_is_no_memory_the_arena_stays_as_it_was() -> None:
    arena = RowArena()
    arena.add(1, columns_of(1, 4))
    assert arena._block is not None
    with pytest.raises(TamenError, match="no memory for"):
        arena._block.resize(1 << 50)
    holds(arena, {1: 4})
    arena.add(2, columns_of(2, 40))
    holds(arena, {1: 4, 2: 40})


def test_rows_too_large_for_a_page_have_pages_of_their_own() -> None:
    arena = RowArena()
    frames = np.arange(5 * 200, dtype=np.uint8).reshape(5, 200)
    arena.add(0, {"observation": frames})
    places = arena.find(np.zeros(3, np.int64), np.array([4, 0, 4], np.int32))
    assert places is not None
    assert np.array_equal(arena.take(places)["observation"], frames[[4, 0, 4]])
    assert arena.check_valid() == []
