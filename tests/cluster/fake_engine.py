"""An engine that carries a run without any part of it."""

from collections.abc import Callable
from typing import Any

from core.metrics import NoMetrics


class FakeEngine:
    """Plays ten games a second, of which nothing takes any time.

    Attributes:
        failing_start: raised when it is started.
        starting: called when it is started.
        meanwhile: called during each advance, with its number.
    """

    def __init__(self) -> None:
        self.failing_start: Exception | None = None
        self.starting: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[int], None] = lambda number: None
        self.advances = 0
        self.stopped = 0

    def start(self) -> None:
        if self.failing_start is not None:
            raise self.failing_start
        self.starting()

    def advance(self, seconds: float) -> None:
        self.advances += 1
        self.meanwhile(self.advances)

    def stats(self) -> dict[str, dict[str, Any]]:
        return {
            "replay": {"games": 10 * self.advances, "newest_actions": [4]},
            "learner": {"learner_steps": 2 * self.advances},
        }

    def metrics(self) -> NoMetrics:
        return NoMetrics()

    def stop(self) -> None:
        self.stopped += 1
