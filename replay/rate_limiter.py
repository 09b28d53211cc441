"""How far the learner may run ahead of the actors, and they ahead of it.

Pure arithmetic over counts: whoever holds the counts asks before it samples and after it inserts.

Waiting is the caller's. The limiter holds nobody and remembers nobody: it says for how long it is worth waiting before
one asks again, and reserves nothing for who does. So a wait has the deadline of its caller, and may be given up at any
instant; who never comes back leaves nothing behind that others would wait for.
"""

import math
from collections import deque
from dataclasses import dataclass

from configs.schema import ReplayConfig
from core.errors import UsageError

LEAST_WAIT_SECONDS = 0.005
"""How long one waits at least before one asks again: a few times what the question costs."""
INSERT_PAUSE_SECONDS = 0.5
"""How long an actor waits at most: short against the seconds that most chunks take to make."""
SAMPLE_WAIT_SECONDS = 0.2
"""How long the learner waits at most."""

_STRIDES_KEPT = 16


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replay has seen of both sides, in rows.

    Attributes:
        inserted_rows: rows ever inserted.
        sampled_rows: rows ever drawn, each as often as it was drawn.
        live_rows: rows that can be drawn now.
        draws_left: how often rows that are there may still be drawn, all of them together; infinite if each may be
            drawn as often as one likes.
    """

    inserted_rows: int
    sampled_rows: int
    live_rows: int
    draws_left: float = math.inf


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one side goes on lately.

    Attributes:
        seconds: from one of its strides, a draw or an insert, to the next; infinite while nobody knows.
        rows: of a stride, more than 0.
        since: seconds since the last stride.
    """

    seconds: float = math.inf
    rows: float = 1.0
    since: float = 0.0

    def seconds_to_ask_again(self, rows: float, *, longest_seconds: float) -> float:
        """Return how long to wait for `rows` rows of this side.

        It is until they should be there; once they are overdue, a quarter of the time by which they are, so that who
        waits asks but a few times and is late by a fraction of what it waited. Never less than `LEAST_WAIT_SECONDS`.
        """
        early = max(1.0, rows / self.rows) * self.seconds - self.since
        wait = early if early > 0 else -early / 4
        return min(max(wait, LEAST_WAIT_SECONDS), longest_seconds)


UNKNOWN_PACE = Pace()


class PaceMeter:
    """Measures the pace of one side over its last strides. The caller tells the time, in monotonic seconds."""

    def __init__(self) -> None:
        self._strides: deque[tuple[float, int]] = deque(maxlen=_STRIDES_KEPT)

    def note(self, rows: int, *, now_seconds: float) -> None:
        """Note a stride of `rows` rows, at least 1, that was made just now."""
        self._strides.append((now_seconds, rows))

    def pace(self, *, now_seconds: float) -> Pace:
        """Return the mean of the last strides."""
        if len(self._strides) < 2:
            return UNKNOWN_PACE
        (first, _), (last, _) = self._strides[0], self._strides[-1]
        return Pace(
            seconds=(last - first) / (len(self._strides) - 1),
            rows=sum(rows for _, rows in self._strides) / len(self._strides),
            since=now_seconds - last,
        )


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """Holds the draws per inserted row near `samples_per_insert`, give or take `slack_rows`.

    The learner has a *credit*, in rows it may still draw to be exactly on ratio:

        credit = samples_per_insert * (inserted_rows - min_rows) - sampled_rows

    but never more than `draws_left` gives, lest actors wait for draws of rows that were lost. Where draws use rows up,
    `min_rows` do not count in it: no window stands that would be drawn from for ever, and rows that wait grow old.

    1. Fewer than `min_rows` live rows: actors insert freely, nothing is drawn.
    2. From then on a draw of n rows is allowed while it leaves credit - n ≥ -slack_rows, and inserting while
       credit ≤ slack_rows. A learner that is too slow makes actors pause, one that is too fast waits.

    An insert is never refused, for the games are already played: an actor is told to pause after it, so that
    credit may exceed the slack by one chunk of each actor.

    Both sides stop for ever if credit > slack_rows and credit - n < -slack_rows hold at once. No credit does
    that while n ≤ 2 * slack_rows, so larger draws are a UsageError, not a run that stands still. A sampler
    that needs n different rows for a draw must have them whenever `min_rows` rows are live: then n ≤ min_rows.

    The arithmetic is that of Reverb's SampleToInsertRatio (Cassirer et al. 2021, arXiv 2102.04736), whose
    error buffer is the slack here. We differ in counting rows and not items, and in pausing after an insert
    instead of blocking before it.

    Attributes:
        min_rows: live rows before the first draw, at least 1.
        samples_per_insert: draws of each row on average, more than 0.
        slack_rows: how far `credit` may leave 0 on either side, in rows drawn; at least 1.
        uses_rows_up: whether a row cannot be drawn any more after so many times.
    """

    min_rows: int
    samples_per_insert: float
    slack_rows: int
    uses_rows_up: bool = False

    @staticmethod
    def of(config: ReplayConfig) -> "RateLimiter":
        """Return the limiter that a configuration describes."""
        return RateLimiter(
            min_rows=config.min_rows,
            samples_per_insert=config.samples_per_insert,
            slack_rows=config.samples_per_insert_slack_rows,
            uses_rows_up=config.sampler == "fifo",
        )

    @property
    def _standing_draws(self) -> float:
        """Draws of what was inserted that give no credit."""
        return 0.0 if self.uses_rows_up else self.samples_per_insert * self.min_rows

    def credit_rows(self, counts: Counts) -> float:
        """Return how many rows the learner may draw to be on ratio; negative when it is ahead."""
        earned = self.samples_per_insert * counts.inserted_rows - counts.sampled_rows
        return min(earned, counts.draws_left) - self._standing_draws

    def may_insert(self, counts: Counts) -> bool:
        """Return whether actors should go on."""
        return counts.live_rows < self.min_rows or self.credit_rows(counts) <= self.slack_rows

    def insert_pause_seconds(self, counts: Counts, draws: Pace = UNKNOWN_PACE) -> float:
        """Return how long an actor should wait before it asks again; 0 when it may go on.

        Args:
            counts: of now.
            draws: how fast the learner draws, for what it has to draw before actors may go on.
        """
        if self.may_insert(counts):
            return 0.0
        excess_rows = self.credit_rows(counts) - self.slack_rows
        return draws.seconds_to_ask_again(excess_rows, longest_seconds=INSERT_PAUSE_SECONDS)

    def may_sample(self, num_rows: int, counts: Counts) -> bool:
        """Return whether `num_rows` may be drawn now.

        Raises:
            UsageError: when they may never be, see `check_sample`.
        """
        self.check_sample(num_rows)
        return counts.live_rows >= self.min_rows and self.credit_rows(counts) - num_rows >= -self.slack_rows

    def sample_wait_seconds(self, num_rows: int, counts: Counts, inserts: Pace = UNKNOWN_PACE) -> float:
        """Return how long a learner that wants `num_rows` should wait before it asks again; 0 when it may draw.

        Args:
            num_rows: of the draw, as in `may_sample`.
            counts: of now.
            inserts: how fast rows come.
        """
        if self.may_sample(num_rows, counts):
            return 0.0
        debt_rows = num_rows - self.slack_rows - self.credit_rows(counts)
        missing_rows = max(self.min_rows - counts.live_rows, debt_rows / self.samples_per_insert)
        return inserts.seconds_to_ask_again(missing_rows, longest_seconds=SAMPLE_WAIT_SECONDS)

    def check_sample(self, num_rows: int) -> None:
        """Raise UsageError unless 1 ≤ num_rows ≤ 2 * slack_rows: beyond, both sides could wait for ever."""
        if not 1 <= num_rows <= 2 * self.slack_rows:
            raise UsageError(
                f"a batch of {num_rows} rows can never be drawn",
                why=f"1 to 2 * replay.samples_per_insert_slack_rows = {2 * self.slack_rows} rows are allowed:"
                " beyond that, actors and learner could wait for each other for ever",
                fix=f"set replay.samples_per_insert_slack_rows to at least {(num_rows + 1) // 2},"
                " or learner.batch_rows lower",
            )

    def clamped_samples(self, counts: Counts) -> int:
        """Return `sampled_rows`, lowered to what this replay can have allowed.

        A checkpoint may remember draws from a replay whose files are gone since; unclamped, the learner would
        wait until actors had played all of it again.
        """
        earned = self.samples_per_insert * counts.inserted_rows - self._standing_draws
        most = max(0.0, earned) + self.slack_rows
        return min(counts.sampled_rows, int(most))
