"""How far the learner may run ahead of the actors, and they ahead of it.

Pure arithmetic over counts: whoever holds the counts asks before it samples and after it inserts.
"""

from dataclasses import dataclass

from configs.schema import ReplayConfig
from core.errors import UsageError

INSERT_PAUSE_SECONDS = 0.5
"""How long an actor waits before it asks again: short against the seconds that a chunk takes to play."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replay has seen of both sides, in rows.

    Attributes:
        inserted_rows: rows ever inserted.
        sampled_rows: rows ever drawn, each as often as it was drawn.
        live_rows: rows that can be drawn now.
    """

    inserted_rows: int
    sampled_rows: int
    live_rows: int


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """Holds the draws per inserted row near `samples_per_insert`, give or take `slack_rows`.

    The learner has a *credit*, in rows it may still draw to be exactly on ratio:

        credit = samples_per_insert * (inserted_rows - min_rows) - sampled_rows

    1. Fewer than `min_rows` live rows: actors insert freely, nothing is drawn.
    2. From then on a draw of n rows is allowed while it leaves credit - n ≥ -slack_rows, and inserting while
       credit ≤ slack_rows. A learner that is too slow makes actors pause, one that is too fast waits.

    An insert is never refused, for the games are already played: an actor is told to pause after it, so that
    credit may exceed the slack by one chunk of each actor.

    Both sides stop for ever if credit > slack_rows and credit - n < -slack_rows hold at once. No credit does
    that while n ≤ 2 * slack_rows, so larger draws are a UsageError, not a run that stands still.

    The arithmetic is that of Reverb's SampleToInsertRatio (Cassirer et al. 2021, arXiv 2102.04736), whose
    error buffer is the slack here. We differ in counting rows and not items, and in pausing after an insert
    instead of blocking before it.

    Attributes:
        min_rows: live rows before the first draw, at least 1.
        samples_per_insert: draws of each row on average, more than 0.
        slack_rows: how far `credit` may leave 0 on either side, in rows drawn; at least 1.
    """

    min_rows: int
    samples_per_insert: float
    slack_rows: int

    @staticmethod
    def of(config: ReplayConfig) -> "RateLimiter":
        """Return the limiter that a configuration describes."""
        return RateLimiter(
            min_rows=config.min_rows,
            samples_per_insert=config.samples_per_insert,
            slack_rows=config.samples_per_insert_slack_rows,
        )

    def credit_rows(self, counts: Counts) -> float:
        """Return how many rows the learner may draw to be on ratio; negative when it is ahead."""
        return self.samples_per_insert * (counts.inserted_rows - self.min_rows) - counts.sampled_rows

    def may_insert(self, counts: Counts) -> bool:
        """Return whether actors should go on."""
        return counts.live_rows < self.min_rows or self.credit_rows(counts) <= self.slack_rows

    def insert_pause_seconds(self, counts: Counts) -> float:
        """Return how long an actor should wait before it asks again; 0 when it may go on."""
        return 0.0 if self.may_insert(counts) else INSERT_PAUSE_SECONDS

    def may_sample(self, num_rows: int, counts: Counts) -> bool:
        """Return whether `num_rows` may be drawn now.

        Raises:
            UsageError: when they may never be, see `check_sample`.
        """
        self.check_sample(num_rows)
        return counts.live_rows >= self.min_rows and self.credit_rows(counts) - num_rows >= -self.slack_rows

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
        most = self.samples_per_insert * max(0, counts.inserted_rows - self.min_rows) + self.slack_rows
        return min(counts.sampled_rows, int(most))
