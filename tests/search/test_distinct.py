"""Rows that are the same are found, and no others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search.distinct import distinct_rows


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_each_row_is_sent_to_the_first_that_is_the_same(rows: list[tuple[int, int, int]]) -> None:
    owners, first, second = np.array(rows, np.int32).T
    arrays = {"a": first.astype(np.int8), "b": np.stack([second, second], axis=1).astype(np.float32)}
    firsts, places = distinct_rows(arrays, owners)
    expected = sorted({row: rows.index(row) for row in rows}.values())
    assert firsts.tolist() == expected
    assert [rows[firsts[place]] for place in places] == rows


def test_thousands_of_rows_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    cells = rng.integers(-1, 2, (5000, 7)).astype(np.int8)
    firsts, places = distinct_rows({"cells": cells}, np.zeros(5000, np.int32))
    assert len(firsts) == len(np.unique(cells, axis=0)) < 2187
    np.testing.assert_array_equal(cells[firsts[places]], cells)
