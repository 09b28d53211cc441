"""When a part that failed is started again, and when the run gives up on it."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class RestartPolicy:
    """Exponential back-off with a crash-loop breaker, for one part.

    Attributes:
        first_delay_seconds: before the first restart; doubles with each further failure within the window.
        max_delay_seconds: of one restart.
        window_seconds: failures older than this are forgotten.
        max_failures: more failures than this within the window open the breaker; by back-off alone a part that
            always fails at once reaches 12 after 82 seconds.
    """

    first_delay_seconds: float = 0.2
    max_delay_seconds: float = 10.0
    window_seconds: float = 300.0
    max_failures: int = 12
    _failures: deque[float] = field(default_factory=deque)

    def failed(self, now: float) -> float | None:
        """Note a failure at `now` (seconds); return the delay before the restart, None to give up."""
        self._failures.append(now)
        while self._failures[0] < now - self.window_seconds:
            self._failures.popleft()
        if len(self._failures) > self.max_failures:
            return None
        return min(self.first_delay_seconds * 2 ** (len(self._failures) - 1), self.max_delay_seconds)


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

    def given_up(self, now: float) -> bool:
        """Whether no process has come to stay for too long."""
        return self._unsettled_since is not None and now - self._unsettled_since > self.patience_seconds
