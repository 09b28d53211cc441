from collections.abc import Callable, Iterator
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ReplayConfig
from core.errors import DataError
from core.seeds import derive_rng
from replay.samplers import (
    Draw,
    FifoSampler,
    PrioritisedSampler,
    Sampler,
    UniformSampler,
    make_sampler,
)

Row = tuple[int, int]
"""(chunk, row)"""

SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "uniform": UniformSampler,
    "fifo": lambda: FifoSampler(2),
    "prioritised": lambda: PrioritisedSampler(0.6, 0.4),
}

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove", "draw", "draw", "update", "reopen"]), st.integers(0, 9)
    ),
    min_size=8,
    max_size=40,
)
seeds = st.integers(0, 2**32)


def rows_of(drawn: Draw) -> list[Row]:
    return list(zip(drawn.chunk_ids.tolist(), drawn.rows.tolist(), strict=True))


def a_filled(sampler: Sampler, *sizes: int) -> Sampler:
    for number, rows in enumerate(sizes):
        sampler.add(number, rows)
    return sampler


class Shelf:
    """The chunks that a sampler should hold, and what should be known of each row; slow and plain.

    Attributes:
        chunks: (number, rows) of each, by arrival.
        known: by row: how often it was drawn, or what it weighs.
    """

    def __init__(self) -> None:
        self.chunks: list[tuple[int, int]] = []
        self.known: dict[Row, float] = {}
        self._next_number = 3

    def rows(self) -> list[Row]:
        return [(number, row) for number, rows in self.chunks for row in range(rows)]

    def add(self, sampler: Sampler, rows: int, known: float) -> None:
        number = self._next_number
        self._next_number += 1 + rows % 2  # numbers rise, not always by one
        self.chunks.append((number, rows))
        self.known |= {(number, row): known for row in range(rows)}
        sampler.add(number, rows)

    def remove(self, sampler: Sampler) -> None:
        if self.chunks:
            number, rows = self.chunks.pop(0)
            for row in range(rows):
                del self.known[number, row]
            sampler.remove(number)

    def reopened(self, sampler: Sampler, fresh: Sampler) -> Sampler:
        for number, rows in self.chunks:
            fresh.add(number, rows)
        fresh.restore(sampler.state())
        return fresh


@pytest.fixture(params=SAMPLERS)
def new_sampler(request: pytest.FixtureRequest) -> Callable[[], Sampler]:
    return SAMPLERS[request.param]


def test_an_empty_sampler_has_nothing_to_draw(new_sampler: Callable[[], Sampler]) -> None:
    sampler = new_sampler()
    assert not sampler.available(1)
    sampler.add(0, 0)
    assert not sampler.available(1)
    assert (sampler.num_rows, sampler.drawable_rows) == (0, 0)


def test_rows_are_told_by_chunk_and_row(new_sampler: Callable[[], Sampler]) -> None:
    sampler = a_filled(new_sampler(), 3, 0, 5)
    assert (sampler.num_rows, sampler.drawable_rows) == (8, 8)
    drawn = sampler.draw(8, derive_rng(0))
    assert drawn.chunk_ids.shape == drawn.rows.shape == (8,)
    assert (drawn.chunk_ids.dtype, drawn.rows.dtype) == (np.int64, np.int32)
    assert set(rows_of(drawn)) <= {(0, 0), (0, 1), (0, 2), *((2, row) for row in range(5))}


@given(steps, seeds)
def test_only_rows_at_hand_are_drawn_and_nothing_is_ever_inconsistent(
    history: list[tuple[str, int]], seed: int
) -> None:
    for make in SAMPLERS.values():
        sampler, shelf = make(), Shelf()
        for k, (step, amount) in enumerate(history):
            if step == "add":
                shelf.add(sampler, amount, 0)
            elif step == "remove":
                shelf.remove(sampler)
            elif step == "reopen":
                sampler = shelf.reopened(sampler, make())
            elif step == "draw" and amount and sampler.available(amount):
                drawn = sampler.draw(amount, derive_rng(seed, k))
                assert set(rows_of(drawn)) <= set(shelf.rows())
            assert sampler.num_rows == len(shelf.rows())
            assert sampler.drawable_rows <= sampler.num_rows
            assert sampler.check_valid() == []


def test_the_same_history_gives_the_same_draws(new_sampler: Callable[[], Sampler]) -> None:
    def history() -> Iterator[Draw]:
        sampler = a_filled(new_sampler(), 40, 60)
        yield sampler.draw(30, derive_rng(1))
        sampler.update(np.array([0, 1]), np.array([5, 7]), np.array([2.0, 30.0]))
        sampler.remove(0)
        sampler.add(2, 50)
        yield sampler.draw(30, derive_rng(2))

    for one, other in zip(history(), history(), strict=True):
        assert rows_of(one) == rows_of(other)


def test_the_rows_at_hand_are_drawn_after_thousands_have_left(
    new_sampler: Callable[[], Sampler],
) -> None:
    sampler = new_sampler()
    for number in range(3000):
        sampler.add(number, 2)
        if number >= 5:
            sampler.remove(number - 5)
    assert sampler.num_rows == 10
    drawn = rows_of(sampler.draw(10, derive_rng(0)))
    assert set(drawn) <= {(number, row) for number in range(2995, 3000) for row in range(2)}
    assert sampler.check_valid() == []


def test_chunks_enter_in_rising_order_and_leave_from_the_oldest_on(
    new_sampler: Callable[[], Sampler],
) -> None:
    sampler = a_filled(new_sampler(), 2, 2)
    with pytest.raises(AssertionError, match="chunk 1 enters after 1"):
        sampler.add(1, 2)
    with pytest.raises(AssertionError, match="chunk 1 is to leave before 0"):
        sampler.remove(1)


def test_a_configuration_names_its_sampler() -> None:
    assert isinstance(make_sampler(ReplayConfig()), UniformSampler)
    fifo = a_filled(make_sampler(ReplayConfig(sampler="fifo", max_uses=3, samples_per_insert=3)), 2)
    assert fifo.draws_left == 6
    prioritised = make_sampler(
        ReplayConfig(sampler="prioritised", priority_exponent=1.0, importance_exponent=1.0)
    )
    a_filled(prioritised, 2).update(np.array([0, 0]), np.array([0, 1]), np.array([3.0, 1.0]))
    drawn = prioritised.draw(400, derive_rng(0))
    assert drawn.importance is not None
    assert set(zip(drawn.rows.tolist(), drawn.importance.tolist(), strict=True)) == {
        (0, float(np.float32(1 / 3))),
        (1, 1.0),
    }


def uniform_rows(
    num_rows: int, chunks: list[tuple[int, int]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What a uniform draw gives, in the plainest way; runs that are resumed rely on these very numbers."""
    sizes = np.array([rows for _, rows in chunks], np.int64)
    ends = np.cumsum(sizes)
    places = rng.integers(ends[-1], size=num_rows)
    found = np.searchsorted(ends, places, side="right")
    return np.array([number for number, _ in chunks])[found], places - (ends - sizes)[found]


@given(steps, seeds)
def test_uniform_draws_depend_on_the_generator_and_the_chunks_alone(
    history: list[tuple[str, int]], seed: int
) -> None:
    sampler, shelf = UniformSampler(), Shelf()
    for k, (step, amount) in enumerate(history):
        if step == "add":
            shelf.add(sampler, amount, 0)
        elif step == "remove":
            shelf.remove(sampler)
        elif step == "draw" and shelf.rows():
            chunk_ids, rows = uniform_rows(amount, shelf.chunks, derive_rng(seed, k))
            drawn = sampler.draw(amount, derive_rng(seed, k))
            assert drawn.chunk_ids.tolist() == chunk_ids.tolist()
            assert drawn.rows.tolist() == rows.tolist()
            assert drawn.importance is None


@pytest.mark.parametrize("name", ["uniform", "prioritised"])
def test_every_row_is_equally_likely_whatever_the_size_of_its_chunk(name: str) -> None:
    sampler = a_filled(SAMPLERS[name](), 7, 1, 90, 0, 2)
    rng = derive_rng(0)
    counts = np.zeros((5, 90))
    for _ in range(100):
        drawn = sampler.draw(1000, rng)
        np.add.at(counts, (drawn.chunk_ids, drawn.rows), 1)
    counts = counts[counts > 0]
    assert len(counts) == 100
    # Chi-square with 99 degrees of freedom: mean 99, variance 198; five standard deviations above.
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 5 * 198**0.5


def test_a_fifo_by_hand() -> None:
    sampler = a_filled(FifoSampler(2), 3, 3)
    rng = derive_rng(0)
    assert rows_of(sampler.draw(4, rng)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert rows_of(sampler.draw(4, rng)) == [(1, 1), (1, 2), (0, 0), (0, 1)]
    sampler.add(2, 1)
    assert (sampler.drawable_rows, sampler.draws_left) == (5, 6)
    assert rows_of(sampler.draw(2, rng)) == [(2, 0), (0, 2)]
    assert sampler.exhausted() == [0]
    assert sampler.available(4)
    assert not sampler.available(5)
    sampler.remove(0)
    assert rows_of(sampler.draw(4, rng)) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert sampler.exhausted() == [1, 2]
    assert not sampler.available(1)


@given(st.integers(1, 4), steps)
def test_a_fifo_draws_the_least_used_and_then_the_oldest_rows_and_none_too_often(
    max_uses: int, history: list[tuple[str, int]]
) -> None:
    sampler, shelf = FifoSampler(max_uses), Shelf()
    uses = shelf.known
    for step, amount in history:
        if step == "add":
            shelf.add(sampler, amount, 0)
        elif step == "remove":
            shelf.remove(sampler)
        elif step == "reopen":
            sampler = shelf.reopened(sampler, FifoSampler(max_uses))
        drawable = [row for row in shelf.rows() if uses[row] < max_uses]
        assert sampler.available(amount) == (len(drawable) >= amount)
        if step == "draw" and amount and sampler.available(amount):
            drawn = rows_of(sampler.draw(amount, derive_rng(0)))
            assert drawn == sorted(drawable, key=lambda row: (uses[row], row))[:amount]
            for row in drawn:
                uses[row] += 1
        assert max(uses.values(), default=0) <= max_uses
        assert sampler.draws_left == sum(max_uses - used for used in uses.values())
        assert sampler.exhausted() == [
            number
            for number, _ in takewhile(
                lambda chunk: all(uses[chunk[0], row] == max_uses for row in range(chunk[1])), shelf.chunks
            )
        ]


def test_uses_are_kept_when_fewer_or_more_are_allowed() -> None:
    before = a_filled(FifoSampler(2), 4)
    before.draw(4, derive_rng(0))
    before.draw(3, derive_rng(0))

    def restored(max_uses: int) -> Sampler:
        sampler = a_filled(FifoSampler(max_uses), 4)
        sampler.restore(before.state())
        return sampler

    assert restored(1).exhausted() == [0]
    assert rows_of(restored(3).draw(2, derive_rng(0))) == [(0, 3), (0, 0)]
    assert restored(3).draws_left == 5


def test_rows_that_came_while_nothing_was_held_are_unread_after_a_restart() -> None:
    before = a_filled(FifoSampler(1), 2)
    before.draw(2, derive_rng(0))
    before.remove(0)
    after = FifoSampler(1)
    after.add(1, 3)
    after.restore(before.state())
    assert after.drawable_rows == 3


@given(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.4, 1.0]), steps, seeds)
def test_each_row_has_the_weight_it_was_given_last(
    exponent: float, importance_exponent: float, history: list[tuple[str, int]], seed: int
) -> None:
    sampler, shelf = PrioritisedSampler(exponent, importance_exponent), Shelf()
    largest = 1.0
    for k, (step, amount) in enumerate(history):
        rng = derive_rng(seed, k)
        if step == "add":
            shelf.add(sampler, amount, largest**exponent)
        elif step == "remove":
            shelf.remove(sampler)
        elif step == "reopen":
            sampler, largest = shelf.reopened(sampler, PrioritisedSampler(exponent, importance_exponent)), 1.0
            shelf.known |= dict.fromkeys(shelf.known, 1.0)
        elif step == "update" and shelf.rows():
            rows = [shelf.rows()[i] for i in rng.integers(len(shelf.rows()), size=amount)] + [(0, 0), (99, 1)]
            priorities = rng.integers(0, 4, size=len(rows)).astype(np.float32)
            sampler.update(np.array([c for c, _ in rows]), np.array([r for _, r in rows]), priorities)
            largest = max(largest, float(priorities.max()))
            weights = priorities.astype(np.float64) ** exponent
            shelf.known |= {
                row: weight for row, weight in zip(rows, weights.tolist(), strict=True) if row in shelf.known
            }
        elif step == "draw" and amount and shelf.rows():
            check_draw(sampler.draw(amount, rng), shelf.known, importance_exponent)
        assert sampler.check_valid() == []


def check_draw(drawn: Draw, weights: dict[Row, float], importance_exponent: float) -> None:
    """Compare the importance of drawn rows with the formula, over their own probabilities."""
    assert drawn.importance is not None
    assert drawn.importance.dtype == np.float32
    total = sum(weights.values())
    if not total:
        assert (drawn.importance == 1).all()
        return
    probabilities = np.array([weights[row] / total for row in rows_of(drawn)])
    assert (probabilities > 0).all()
    expected = (len(weights) * probabilities) ** -importance_exponent
    np.testing.assert_allclose(drawn.importance, expected / expected.max(), rtol=1e-6)


def test_rows_are_drawn_in_proportion_to_their_priorities() -> None:
    sampler = a_filled(PrioritisedSampler(0.5, 0.4), 10, 40)
    for number, rows in ((0, 10), (1, 40)):
        places = np.arange(rows)
        sampler.update(np.full(rows, number), places, (places + 10.0 * number) ** 2)
    sampler.remove(0)
    sampler.add(2, 10)  # the largest priority so far: 49²
    weights = np.array([*range(10, 50), *[49] * 10], np.float64)
    rng, counts = derive_rng(3), np.zeros(50)
    for _ in range(1000):
        drawn = sampler.draw(100, rng)
        np.add.at(counts, (drawn.chunk_ids - 1) * 40 + drawn.rows, 1)
    expected = 100_000 * weights / weights.sum()
    # Chi-square with 49 degrees of freedom: mean 49, variance 98; five standard deviations above.
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 5 * 98**0.5


def test_priorities_stay_with_their_rows_when_the_window_grows_after_it_moved_on() -> None:
    sampler = a_filled(PrioritisedSampler(1.0, 1.0), 4)
    sampler.remove(0)
    sampler.add(1, 3)
    sampler.update(np.full(3, 1), np.arange(3), np.array([0.0, 2.0, 0.0]))
    sampler.add(2, 30, np.zeros(30))
    assert set(rows_of(sampler.draw(10, derive_rng(0)))) == {(1, 1)}
    assert sampler.check_valid() == []


def test_a_draw_takes_one_row_from_each_stratum() -> None:
    sampler = a_filled(PrioritisedSampler(1.0, 0.4), 8)
    for seed in range(20):
        assert sorted(rows_of(sampler.draw(8, derive_rng(seed)))) == [(0, row) for row in range(8)]


def test_a_row_without_priority_is_not_drawn_unless_no_row_has_any() -> None:
    sampler = a_filled(PrioritisedSampler(0.6, 0.4), 4)
    rows = np.arange(4)
    sampler.update(np.zeros(4, np.int64), rows, np.array([0.0, 0.0, 1e-30, 0.0]))
    assert set(rows_of(sampler.draw(50, derive_rng(0)))) == {(0, 2)}
    sampler.update(np.zeros(4, np.int64), rows, np.zeros(4))
    drawn = sampler.draw(200, derive_rng(0))
    assert set(rows_of(drawn)) == {(0, row) for row in range(4)}
    assert drawn.importance is not None
    assert (drawn.importance == 1).all()


@pytest.mark.parametrize(
    ("priorities", "why"),
    [
        ([1.0, np.nan], "some are negative or not finite"),
        ([1.0, np.inf], "some are negative or not finite"),
        ([-1e-9, 1.0], "some are negative or not finite"),
        ([1.0, 1e300], r"1e\+300\^2 is too large to add up"),
        ([1.0], r"they are of shape \[1\], there are 2 rows"),
    ],
)
def test_priorities_that_are_none_are_refused_and_change_nothing(priorities: list[float], why: str) -> None:
    sampler = a_filled(PrioritisedSampler(2.0, 1.0), 2)
    for tell in (
        lambda: sampler.update(np.zeros(2, np.int64), np.arange(2), np.array(priorities)),
        lambda: sampler.add(1, 2, np.array(priorities)),
    ):
        with pytest.raises(DataError, match=why):
            tell()
    assert sampler.num_rows == 2
    assert (sampler.draw(10, derive_rng(0)).importance == np.ones(10)).all()
    assert sampler.check_valid() == []


def test_a_row_that_a_chunk_does_not_have_is_refused() -> None:
    sampler = a_filled(PrioritisedSampler(1.0, 1.0), 2, 3)
    for row in (-1, 2):
        with pytest.raises(DataError, match="a row was named that its chunk does not have"):
            sampler.update(np.array([1, 0]), np.array([0, row]), np.array([5.0, 5.0]))
    assert (sampler.draw(10, derive_rng(0)).importance == np.ones(10)).all()


def test_a_chunk_may_enter_with_priorities() -> None:
    sampler = PrioritisedSampler(1.0, 1.0)
    sampler.add(0, 3, np.array([1.0, 0.0, 3.0]))
    sampler.add(1, 1)  # as large as the largest
    counts = np.bincount([2 * c + r for c, r in rows_of(sampler.draw(7000, derive_rng(0)))], minlength=3)
    assert counts.tolist() == pytest.approx([1000, 0, 6000], abs=1)


def test_inconsistent_samplers_are_found_out() -> None:
    uniform = UniformSampler()
    a_filled(uniform, 2, 2)
    uniform._arrivals._numbers[0] = 9
    assert uniform.check_valid() == ["the numbers of chunks do not rise: [9, 1]"]

    fifo = FifoSampler(2)
    a_filled(fifo, 4)
    fifo._marks[:] = [1, 3]
    assert fifo.check_valid() == ["rows are drawn out of order: [0, 3, 1, 4] should rise"]

    prioritised = PrioritisedSampler(1.0, 1.0)
    a_filled(prioritised, 4)
    prioritised._arrivals.remove(0)
    assert prioritised.check_valid() == ["a row that has left can be drawn"]
