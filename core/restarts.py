"""When something that failed is started again, and when that is given up."""

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
