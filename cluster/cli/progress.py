"""How far a step is: a bar on a terminal, elsewhere a line now and then; with the rate and the time that is left."""

import time
from collections import deque
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from cluster.cli.terminal import UNKNOWN, duration, is_live, short, whole

RATE_SECONDS = 30.0
"""Over which a rate is taken: what was first loaded or compiled is soon forgotten."""


class StepDisplay:
    """Shows the progress of one step after the other.

    Use as a context manager; nothing is on the terminal before a step tells of its progress, nor when it has ended.

    Args:
        console: where to.
        plain: write lines on a terminal too.
        line_seconds: between two lines.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        plain: bool = False,
        line_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._live = is_live(console) and not plain
        self._line_seconds = line_seconds
        self._clock = clock
        self._name = ""
        self._unit = ""
        self._seen: deque[tuple[float, float]] = deque()
        self._next_line = float("inf")
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def begin(self, name: str) -> None:
        """Show from now on the step `name`."""
        self.end()
        self._name = name
        self._next_line = self._clock() + self._line_seconds

    def end(self) -> None:
        """Take what is shown off the terminal."""
        if self._bar is not None:
            self._bar[0].stop()
        self._bar, self._unit = None, ""
        self._seen.clear()

    def say(self, line: str) -> None:
        """Print a line, above what is shown."""
        if self._bar is not None:
            self._bar[0].console.print(Text(line), soft_wrap=True)
        else:
            self._console.print(Text(line), soft_wrap=True)

    def progress(self, done: float, total: float, unit: str) -> None:
        """Take how much of a step is done."""
        now = self._clock()
        if unit != self._unit or (self._seen and done < self._seen[-1][1]):  # a step may have parts
            self._seen.clear()
        self._unit = unit
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        words = self._words(done, total)
        if self._live:
            self._draw(done, total, words)
        elif now >= self._next_line:
            self._next_line = now + self._line_seconds
            self._console.print(Text(f"{self._name}: {words}"), soft_wrap=True)

    def _words(self, done: float, total: float) -> str:
        """Say how much is done, how fast of late, and how long the rest takes at that rate."""
        (began, before), (now, _) = self._seen[0], self._seen[-1]
        elapsed, since = now - began, done - before
        rate = since / elapsed if elapsed > 0 and since > 0 else None
        left = duration((total - done) / rate) if rate else UNKNOWN
        speed = UNKNOWN if rate is None else short(rate) if rate >= 10 else f"{rate:.2g}"
        return f"{whole(done)} of {whole(total)} {self._unit}, {speed}/s, {left} left"

    def _draw(self, done: float, total: float, words: str) -> None:
        if self._bar is None:
            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[words]}"),
                console=self._console,
                transient=True,
            )
            bar.start()
            self._bar = bar, bar.add_task(self._name, total=total, words=words)
        bar, task = self._bar
        bar.update(task, completed=done, total=total, words=words)
