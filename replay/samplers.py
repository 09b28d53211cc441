"""Which rows of a replay are drawn.

A sampler knows of rows only where they are, and in what order they came; what they hold is the buffer's affair. It
is told of each chunk that enters the window and of each that leaves, so that a draw costs nothing for chunks that it
does not touch.

Shapes: `n` rows of a draw, `C` chunks at hand.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

from configs.schema import ReplayConfig
from core.errors import DataError
from replay.sampling import Arrivals
from replay.sum_tree import SumTree

_MOST_WEIGHT = 2.0**900
"""Of a row: the sum of 2^100 such weights is still finite."""


class Draw(NamedTuple):
    """Rows that were drawn.

    Attributes:
        chunk_ids: int64 [n], number of the chunk of each row.
        rows: int32 [n], its row in that chunk's columns.
        importance: float32 [n], by what the loss of each row is to be multiplied; None: all count alike.
    """

    chunk_ids: np.ndarray
    rows: np.ndarray
    importance: np.ndarray | None = None


class Sampler(Protocol):
    """A way to draw rows. Calls come one at a time, in an order that whoever keeps the chunks decides.

    A replay that is opened again adds the chunks that it finds, in their order, and then gives `restore` what `state`
    returned. From there on a sampler depends on these calls and the generators it is given, and on nothing else.
    """

    @property
    def num_rows(self) -> int:
        """Rows that have entered and not left."""
        ...

    @property
    def drawable_rows(self) -> int:
        """Those of them that may still be drawn; they are the limiter's `Counts.live_rows`."""
        ...

    @property
    def draws_left(self) -> float:
        """How often rows may still be drawn, all of them together: the limiter's `Counts.draws_left`."""
        ...

    @property
    def draws_are_final(self) -> bool:
        """Whether no draw is made again, not even for a learner that goes back to a checkpoint from before it.

        Where it is False, the counters of the replay go back with the learner's.
        """
        ...

    def add(self, number: int, rows: int, priorities: np.ndarray | None = None) -> None:
        """Let a chunk enter. Its number is above all before it.

        Args:
            number: of the chunk.
            rows: how many it has, 0 or more.
            priorities: float [rows], see `update`; None where nobody has said any.

        Raises:
            DataError: for wrong priorities. The chunk has not entered then.
        """
        ...

    def remove(self, number: int) -> None:
        """Let the oldest chunk leave; its rows are not drawn any more."""
        ...

    def available(self, num_rows: int) -> bool:
        """Return whether `draw` may be called for so many rows."""
        ...

    def draw(self, num_rows: int, rng: np.random.Generator) -> Draw:
        """Draw rows, in no order that matters. Call it when they are `available`."""
        ...

    def exhausted(self) -> list[int]:
        """Return the chunks, the oldest of all, that will never be drawn from again; `remove` them when it suits."""
        ...

    def update(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Tell how much there is to learn from rows that were drawn; those that have left are passed over.

        Args:
            chunk_ids: integers [n], of rows, as they were drawn.
            rows: integers [n].
            priorities: float [n], finite and at least 0; of a row that comes twice, the last one counts.

        Raises:
            DataError: for priorities that are none, or rows that a chunk does not have. Nothing has changed then.
        """
        ...

    def state(self) -> np.ndarray:
        """Return int64 [k, 2]: what has to outlive the process, apart from the chunks."""
        ...

    def restore(self, state: np.ndarray) -> None:
        """Go on from a `state`, once the chunks that are left were added."""
        ...

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        ...


class UniformSampler:
    """Draws each row at hand with the same probability, with replacement.

    The same generator and the same chunks give the same rows, however the chunks came to be there.
    """

    draws_are_final = False

    def __init__(self) -> None:
        self._arrivals = Arrivals()

    @property
    def num_rows(self) -> int:
        return self._arrivals.num_rows

    @property
    def drawable_rows(self) -> int:
        return self._arrivals.num_rows

    @property
    def draws_left(self) -> float:
        return math.inf

    def add(self, number: int, rows: int, priorities: np.ndarray | None = None) -> None:
        self._arrivals.add(number, rows)

    def remove(self, number: int) -> None:
        self._arrivals.remove(number)

    def available(self, num_rows: int) -> bool:
        return self._arrivals.num_rows > 0

    def draw(self, num_rows: int, rng: np.random.Generator) -> Draw:
        return Draw(*self._arrivals.locate(_uniform_positions(num_rows, self._arrivals, rng)))

    def exhausted(self) -> list[int]:
        return []

    def update(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Pass over priorities: all rows are alike."""

    def state(self) -> np.ndarray:
        return _no_state()

    def restore(self, state: np.ndarray) -> None:
        """Need nothing but the chunks."""

    def check_valid(self) -> list[str]:
        return self._arrivals.check_valid()


class FifoSampler:
    """Draws rows in the order of arrival, each at most `max_uses` times: for experience of the current policy.

    Of all rows the least used come first, and of these the oldest; no row comes twice in one draw. So what was never
    read is read before anything is read again.

    A draw is final. A learner that dies before it has trained on its rows does not get them again, and goes on with
    the next ones: at most `max_uses` times is a promise, `max_uses` times is not. To keep it over a crash of the
    replay, `state` has to be durable before a draw leaves the replay, or the chunks must die with it.

    Args:
        max_uses: k, how often each row may be drawn, at least 1.
    """

    draws_are_final = True

    def __init__(self, max_uses: int) -> None:
        self._arrivals = Arrivals()
        # Rows before position marks[j] were drawn more than j times. Because the least used rows come first, and of
        # these the oldest, no newer row was ever drawn more often than an older one: k marks tell all uses.
        self._marks = np.zeros(max_uses, np.int64)

    @property
    def num_rows(self) -> int:
        return self._arrivals.num_rows

    @property
    def drawable_rows(self) -> int:
        return self._arrivals.end - int(self._marks[-1])

    @property
    def draws_left(self) -> float:
        return int((self._arrivals.end - self._marks).sum())

    def add(self, number: int, rows: int, priorities: np.ndarray | None = None) -> None:
        self._arrivals.add(number, rows)

    def remove(self, number: int) -> None:
        """Let the oldest chunk leave, whether its rows are used up or not."""
        self._arrivals.remove(number)
        self._marks = np.maximum(self._marks, self._arrivals.first)

    def available(self, num_rows: int) -> bool:
        return self.drawable_rows >= num_rows

    def draw(self, num_rows: int, rng: np.random.Generator) -> Draw:
        """Draw `num_rows` different rows; nothing is left to chance."""
        assert self.available(num_rows), f"{num_rows} of {self.drawable_rows} rows are to be drawn"
        ends = np.concatenate([[self._arrivals.end], self._marks[:-1]])
        up_to = np.minimum(np.cumsum(ends - self._marks), num_rows)
        taken = np.diff(up_to, prepend=0)
        positions = np.concatenate(
            [np.arange(self._marks[j], self._marks[j] + taken[j]) for j in np.flatnonzero(taken)]
        )
        self._marks += taken
        return Draw(*self._arrivals.locate(positions))

    def exhausted(self) -> list[int]:
        used_up = np.searchsorted(self._arrivals.ends, self._marks[-1], side="right")
        return self._arrivals.chunk_ids[:used_up].tolist()

    def update(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Pass over priorities: the order of arrival decides."""

    def state(self) -> np.ndarray:
        """Return int64 [k, 2]: entry j is the (chunk, row) of the oldest row that was drawn at most j times."""
        return np.array([self._arrivals.mark(int(mark)) for mark in self._marks], np.int64)

    def restore(self, state: np.ndarray) -> None:
        """Go on from a `state`, of another `max_uses` too."""
        marks = [self._arrivals.find(number, row) for number, row in state[: len(self._marks)].tolist()]
        self._marks[:] = self._arrivals.first
        self._marks[: len(marks)] = marks

    def check_valid(self) -> list[str]:
        problems = self._arrivals.check_valid()
        bounds = [self._arrivals.first, *self._marks[::-1].tolist(), self._arrivals.end]
        if bounds != sorted(bounds):
            problems.append(f"rows are drawn out of order: {bounds} should rise")
        return problems


class PrioritisedSampler:
    """Draws row i with probability P(i) = p_i^a / Σ p^a, p its priority: what the learner said it could learn from it.

    Each draw cuts the sum into n equal strata and takes one row from each. Its loss is to be multiplied by

        (N * P(i))^-b / max (N * P)^-b        the maximum over the draw, N the number of rows

    which undoes, for b = 1, that rows of high priority come more often. A row that nobody has spoken of has the
    largest priority ever seen, 1 at first, so that it is drawn soon. A row of priority 0 is not drawn (unless a = 0);
    while all rows have it, all are drawn alike, lest the learner wait for ever.

    This is proportional prioritisation of Schaul et al. 2016, arXiv 1511.05952. Priorities are not written to disk:
    a replay that is opened again takes all its rows for new, which the next updates mend.

    Args:
        exponent: a, at least 0; 0 draws all rows alike.
        importance_exponent: b, from 0 to 1.
    """

    draws_are_final = False

    def __init__(self, exponent: float, importance_exponent: float) -> None:
        self._exponent = exponent
        self._importance_exponent = importance_exponent
        self._arrivals = Arrivals()
        # Rows lie in a ring: the row at a position has slot position mod size. Slots of no row have no weight.
        self._tree = SumTree(np.zeros(1))
        self._new_weight = 1.0

    @property
    def num_rows(self) -> int:
        return self._arrivals.num_rows

    @property
    def drawable_rows(self) -> int:
        return self._arrivals.num_rows

    @property
    def draws_left(self) -> float:
        return math.inf

    def add(self, number: int, rows: int, priorities: np.ndarray | None = None) -> None:
        weights = np.full(rows, self._new_weight) if priorities is None else self._weights(priorities, rows)
        self._make_room(self._arrivals.num_rows + rows)
        start = self._arrivals.end
        self._arrivals.add(number, rows)
        self._set(np.arange(start, start + rows), weights)
        self._new_weight = max(self._new_weight, float(weights.max(initial=0.0)))

    def remove(self, number: int) -> None:
        start = self._arrivals.first
        self._arrivals.remove(number)
        leaving = np.arange(start, self._arrivals.first)
        self._set(leaving, np.zeros(len(leaving)))

    def available(self, num_rows: int) -> bool:
        return self._arrivals.num_rows > 0

    def draw(self, num_rows: int, rng: np.random.Generator) -> Draw:
        if self._tree.total == 0.0:
            positions = _uniform_positions(num_rows, self._arrivals, rng)
            importance = np.ones(num_rows, np.float32)
        else:
            strata = (np.arange(num_rows) + rng.random(num_rows)) / num_rows
            slots = self._tree.find(strata * self._tree.total)
            positions = self._positions(slots)
            weights = self._tree.get(slots)
            # N and the sum of all weights are the same for every row of the draw, so they cancel.
            importance = ((weights.min() / weights) ** self._importance_exponent).astype(np.float32)
        return Draw(*self._arrivals.locate(positions), importance)

    def exhausted(self) -> list[int]:
        return []

    def update(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        weights = self._weights(priorities, len(rows))
        positions, at_hand = self._arrivals.positions(chunk_ids, rows)
        self._new_weight = max(self._new_weight, float(weights.max(initial=0.0)))
        self._set(positions, weights[at_hand])

    def state(self) -> np.ndarray:
        return _no_state()

    def restore(self, state: np.ndarray) -> None:
        """Take all rows for new."""

    def check_valid(self) -> list[str]:
        problems = self._arrivals.check_valid() + self._tree.check_valid()
        weights = self._tree.get(np.arange(self._tree.size))
        taken = np.arange(self._arrivals.first, self._arrivals.end) % self._tree.size
        weights[taken] = 0.0
        if self._arrivals.num_rows > self._tree.size:
            problems.append(f"{self._arrivals.num_rows} rows are in {self._tree.size} slots")
        if weights.any():
            problems.append("a row that has left can be drawn")
        return problems

    def _weights(self, priorities: np.ndarray, rows: int) -> np.ndarray:
        """Return p^a, float64 [rows]. Raises DataError unless all are finite and at least 0."""
        priorities = np.asarray(priorities, np.float64)
        if priorities.shape != (rows,):
            raise _wrong_priorities(f"they are of shape {list(priorities.shape)}, there are {rows} rows")
        if not (np.isfinite(priorities) & (priorities >= 0)).all():
            raise _wrong_priorities("some are negative or not finite")
        with np.errstate(over="ignore"):
            weights = priorities**self._exponent
        if (weights > _MOST_WEIGHT).any():
            raise _wrong_priorities(f"{priorities.max():g}^{self._exponent:g} is too large to add up")
        return weights

    def _make_room(self, rows: int) -> None:
        """See to it that `rows` rows have a slot."""
        if rows <= self._tree.size:
            return
        positions = np.arange(self._arrivals.first, self._arrivals.end)
        size = 1 << (rows - 1).bit_length()
        weights = np.zeros(size)
        weights[positions % size] = self._tree.get(positions % self._tree.size)
        self._tree = SumTree(weights)

    def _set(self, positions: np.ndarray, weights: np.ndarray) -> None:
        self._tree.set(positions % self._tree.size, weights)

    def _positions(self, slots: np.ndarray) -> np.ndarray:
        """Return the positions int64 [n] of the rows in `slots`: of those at hand, the only ones with such slots."""
        first = self._arrivals.first
        return first + (slots - first) % self._tree.size


def make_sampler(config: ReplayConfig) -> Sampler:
    """Return the sampler that a configuration names."""
    match config.sampler:
        case "uniform":
            return UniformSampler()
        case "fifo":
            return FifoSampler(config.max_uses)
        case "prioritised":
            return PrioritisedSampler(config.priority_exponent, config.importance_exponent)


def _uniform_positions(num_rows: int, arrivals: Arrivals, rng: np.random.Generator) -> np.ndarray:
    return arrivals.first + rng.integers(arrivals.num_rows, size=num_rows)


def _no_state() -> np.ndarray:
    return np.empty((0, 2), np.int64)


def _wrong_priorities(why: str) -> DataError:
    return DataError(
        "priorities of rows cannot be used", why=why, fix="look at the losses that they were made from"
    )
