"""What of the making of samples is not as it should be: slow, idle, silent or growing; each told once."""

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Self

from pipeline.hand_samples import TASK_SECONDS, ShardMade

SLOW = 0.7
"""Of the rate of the first shards. The next ones may be of larger trees, hence so little."""
IDLE = 0.9
"""Share of the workers' time that should go into making samples."""
GROWN = 1.5
SILENT_SECONDS, SILENT_SHARDS = 3 * TASK_SECONDS, 5.0
"""Silence is worth a word after so long, and so many times as long as a shard takes: workers tell of whole tasks."""
_LOOKED_AT = 20
"""Newest shards, by which rates are told."""
_AT_FIRST = 8


class Health:
    """Looks at what workers tell of shards; use as a context manager, which watches for silence meanwhile.

    Args:
        workers: how many there are.
        say: takes a line for people; may be called from another thread.
        clock: monotonic seconds.
        look_seconds: between two looks for silence.
    """

    def __init__(
        self,
        workers: int,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        look_seconds: float = 1.0,
    ) -> None:
        self._workers = workers
        self._say = say
        self._clock = clock
        self._look_seconds = look_seconds
        self._begin("")
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_for_silence, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._watch.join()

    def begin(self, name: str) -> None:
        """Begin a step, whose samples may take another time."""
        self._begin(name)

    def told(self, made: ShardMade) -> None:
        """Take what a worker tells of a shard."""
        now = self._clock()
        self._heard, self._silent = now, False
        self._made.append(made)
        self._count += 1
        self._seconds += made.seconds
        self._cpu_seconds += made.cpu_seconds
        rates = [each.samples / max(each.seconds, 1e-9) for each in self._made]
        if self._count == _AT_FIRST:
            self._first_rate = median(rates)
        elif self._first_rate is not None and self._count % _LOOKED_AT == 0:
            self._look_at_rate(median(rates))
        self._look_at_memory(made)

    @property
    def utilisation(self) -> float | None:
        """Share of the workers' time since the step began that went into shards; None before the first."""
        passed = (self._clock() - self._began) * self._workers
        return min(1.0, self._seconds / passed) if self._count and passed > 0 else None

    def summary(self) -> str:
        """Return how a step went, in a line."""
        if not self._count:
            return ""
        busy = self.utilisation
        on_processor = self._cpu_seconds / max(self._seconds, 1e-9)
        return (
            f"{self._name}: workers were busy {100 * (busy or 0):.0f} % of the time,"
            f" {100 * on_processor:.0f} % of it on a processor; at most {self._memory_mb():.0f} MB each"
        )

    def _begin(self, name: str) -> None:
        self._name = name
        self._began = self._heard = self._clock()
        self._silent = True  # nothing is expected before the first shard
        self._made: deque[ShardMade] = deque(maxlen=_LOOKED_AT)
        self._count = 0
        self._seconds = self._cpu_seconds = 0.0
        self._first_rate: float | None = None
        self._slow = self._idle = False
        self._memory: dict[str, list[int]] = {}
        self._growing: set[str] = set()

    def _look_at_rate(self, rate: float) -> None:
        assert self._first_rate is not None
        if rate < SLOW * self._first_rate:
            if not self._slow:
                self._say(
                    f"{self._name}: {rate:.3g} samples/s a worker, at first it was {self._first_rate:.3g}:"
                    " do others use the processors?"
                )
            self._slow = True
        else:
            self._slow = False
        busy = self.utilisation
        if busy is not None and busy < IDLE and not self._idle:
            self._idle = True
            self._say(f"{self._name}: workers are busy only {100 * busy:.0f} % of the time")

    def _look_at_memory(self, made: ShardMade) -> None:
        seen = self._memory.setdefault(made.worker, [])
        seen.append(made.memory)
        # The first shards load and compile, and meet the largest trees only by and by.
        settled = seen[_AT_FIRST] if len(seen) > _AT_FIRST else None
        if settled and made.memory > GROWN * settled and made.worker not in self._growing:
            self._growing.add(made.worker)
            self._say(
                f"{self._name}: worker {made.worker} has grown from {settled / 1e6:.0f} to"
                f" {made.memory / 1e6:.0f} MB: does something leak?"
            )

    def _memory_mb(self) -> float:
        return max(seen[-1] for seen in self._memory.values()) / 1e6

    def _watch_for_silence(self) -> None:
        while not self._ended.wait(self._look_seconds):
            self.look()

    def look(self) -> None:
        """Say when nothing has been heard for too long."""
        made = list(self._made)  # another thread may tell of more, or begin anew
        if self._silent or not made:
            return
        usual = median([each.seconds for each in made])
        patience = max(SILENT_SECONDS, SILENT_SHARDS * usual)
        silence = self._clock() - self._heard
        if silence > patience:
            self._silent = True
            self._say(
                f"{self._name}: no shard for {silence:.0f} s, one takes {usual:.1f}: is a worker stuck?"
            )
