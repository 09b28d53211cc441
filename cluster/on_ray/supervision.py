"""Whether a process of a part stays up, and when the run gives up on it; restarts are in core.restarts."""

from dataclasses import dataclass

MOST_QUESTIONS = 1000
"""To parts how they are, in a second: each costs the driver 0.3 ms. Of more parts each is asked less often."""

LONGEST_STEP_SECONDS = 10.0
"""Between two looks of the driver. A longer one was its own pause (Ctrl-Z, a disk that stood still), and counts as
silence of nobody."""


@dataclass(slots=True)
class Attendance:
    """Whether a process of a part stays up; Ray starts one that died again at once, as often as it dies.

    Deaths that can be told apart are for `RestartPolicy` to count. A process that dies before it was ever heard of
    leaves only silence, which this bounds.

    Attributes:
        settled_seconds: a process that has answered for so long has come to stay.
        patience_seconds: how long to wait for one; less than callers of the part wait for an answer, so that
            the run ends with its name.
        pid: of the process that answered last.
    """

    settled_seconds: float = 5.0
    patience_seconds: float = 100.0
    pid: int | None = None
    _pid_since: float = 0.0
    _unsettled_since: float | None = None

    def missed(self, now: float) -> None:
        """Note at `now` (seconds) that nobody was there to answer."""
        if self._unsettled_since is None:
            self._unsettled_since = now

    def answered(self, pid: int, now: float) -> bool:
        """Note who answered; return whether it is another process than the one before."""
        replaced = self.pid not in (None, pid)
        if pid != self.pid:
            self.pid, self._pid_since = pid, now
        elif now - self._pid_since >= self.settled_seconds:
            self._unsettled_since = None
        if replaced:
            self.missed(now)
        return replaced

    def forgive(self, seconds: float) -> None:
        """Count so many seconds, in which nobody could listen, not as silence."""
        if self._unsettled_since is not None:
            self._unsettled_since += seconds

    def given_up(self, now: float) -> bool:
        """Whether no process has come to stay for too long."""
        return self._unsettled_since is not None and now - self._unsettled_since > self.patience_seconds
