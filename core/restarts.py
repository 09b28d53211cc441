"""When something that failed is started again, and when that is given up."""

import math
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class RestartPolicy:
    """Exponential back-off with a crash-loop breaker, for one part.

    Attributes:
        first_delay_seconds: before the first restart; doubles with each further failure in a row within the window.
        max_delay_seconds: of one restart.
        window_seconds: failures older than this are forgotten.
        max_failures: more failures than this within the window open the breaker; by back-off alone a part that
            always fails at once reaches 12 after 82 seconds.
        steady_seconds: what held out for longer after its restart does not fail in a row; it counts towards
            max_failures all the same. Faults from outside, each minutes after the one before, cost no delay.
    """

    first_delay_seconds: float = 0.2
    max_delay_seconds: float = 10.0
    window_seconds: float = 300.0
    max_failures: int = 12
    steady_seconds: float = 20.0
    _failures: deque[float] = field(default_factory=deque)
    _in_a_row: int = 0
    _restarted_at: float = -math.inf

    def failed(self, now: float) -> float | None:
        """Note a failure at `now` (seconds); return the delay before the restart, None to give up."""
        self._failures.append(now)
        while self._failures[0] < now - self.window_seconds:
            self._failures.popleft()
        if len(self._failures) > self.max_failures:
            return None
        steady = now - self._restarted_at > self.steady_seconds
        self._in_a_row = 1 if steady else min(self._in_a_row + 1, len(self._failures))
        delay = min(self.first_delay_seconds * 2 ** (self._in_a_row - 1), self.max_delay_seconds)
        self._restarted_at = now + delay
        return delay
