import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.seeds import derive_rng
from replay.sampling import uniform_rows


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any),
    st.integers(1, 200),
    st.integers(0, 2**32),
)
def test_only_rows_that_exist_are_drawn(sizes: list[int], num_rows: int, seed: int) -> None:
    chunk_ids = np.arange(10, 10 + len(sizes))
    drawn_ids, rows = uniform_rows(num_rows, chunk_ids, np.array(sizes), rng=derive_rng(seed))
    assert drawn_ids.shape == rows.shape == (num_rows,)
    assert (drawn_ids.dtype, rows.dtype) == (np.int64, np.int32)
    assert (rows >= 0).all()
    assert (rows < np.array(sizes)[drawn_ids - 10]).all()


def test_every_row_is_equally_likely_whatever_the_size_of_its_chunk() -> None:
    sizes = np.array([1, 7, 0, 2])
    ids, rows = uniform_rows(100_000, np.array([4, 5, 6, 9]), sizes, rng=derive_rng(0))
    _, counts = np.unique(ids * 100 + rows, return_counts=True)
    assert len(counts) == 10
    # Binomial with n = 100,000 and p = 0.1: five standard deviations are 475.
    assert np.abs(counts - 10_000).max() < 475
    assert 6 not in ids


def test_the_same_generator_draws_the_same_rows() -> None:
    draws = [uniform_rows(50, np.arange(3), np.array([5, 5, 5]), rng=derive_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
