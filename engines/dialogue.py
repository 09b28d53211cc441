"""An engine at the other end of two pipes: lines out and lines in, each with a deadline."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from engines.errors import EngineFault, shown
from engines.lines import LineReader, LineWriter
from engines.process import Beside, start_beside

_DEATH_SECONDS = 2.0
"""For how long an engine that has closed its pipe is given to be dead."""
_LAST_WORDS_BYTES = 400


class Dialogue:
    """A program of one's own to talk to; use as a context manager, or `close` it. It ends with this process, too.

    Args:
        command: the program and its arguments; no shell reads them.
        engine: its name in errors.
        folder: in which it works; None: this process's.

    Raises:
        UsageError: when there is no such program or folder.
    """

    def __init__(self, command: Sequence[str], *, engine: str, folder: Path | None = None) -> None:
        self.engine = engine
        self._program: Beside = start_beside(command, engine=engine, folder=folder, grace_seconds=1.0)
        self._reader = LineReader(self._program.stdout.fileno(), engine)
        self._writer = LineWriter(self._program.stdin.fileno(), engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def send(self, lines: list[str], *, seconds: float) -> None:
        """Send lines. Raises EngineFault: `timeout` when they are not read, `died`; UsageError for no single line."""
        try:
            self._writer.write_lines(lines, time.monotonic() + seconds)
        except EngineFault as fault:
            raise self._told(fault) from fault

    def read_line(self, deadline: float, *, expected: str) -> str:
        """Return the next line that comes before `deadline`, a point of `time.monotonic()`.

        Raises:
            EngineFault: `timeout`, `garbled`, `too long`, or `died` with its last words; `expected` says in them
                what it should have sent.
        """
        try:
            line = self._reader.read_line(deadline)
        except EngineFault as fault:
            raise self._told(fault) from fault
        if line is None:
            raise self._told(
                EngineFault("closed", self.engine, why=f"it ended where {expected} was expected")
            )
        return line

    def close(self) -> None:
        """End the program and all that it has started; may be called twice."""
        self._program.close()

    def _told(self, fault: EngineFault) -> EngineFault:
        """Return `fault` as what it is: who closes the pipe has died, and what was said before tells of what."""
        if fault.kind != "closed":
            return fault
        ending = self._program.wait(_DEATH_SECONDS)
        if ending is None:
            return fault
        words = self._program.last_words(_LAST_WORDS_BYTES).strip()
        said = f"; its last words: {shown(words)}" if words else "; it said nothing on stderr"
        return EngineFault("died", self.engine, why=f"{fault.why}: {ending.in_words(words)}{said}")
