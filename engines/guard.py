"""A small program that stands between one engine and whoever wants it, so that neither is left without the other.

`engines.process` starts it as `python -I -S guard.py ORDER`; it needs nothing but the standard library. It

- starts the command in its own process group, and ends the whole group when the command ends, when it is asked to
  (SIGTERM), or when nobody wants the engine any more: its parent is gone, or a file has not been touched for long;
- keeps what the engine writes in a file of bounded size, and the file before that;
- leaves a record of how the engine ended, which outlives everybody.

The engine dies with its guard, also when that is killed. Who kills the guard's process group kills all of it.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

LOOK_SECONDS = 0.5
"""Between two looks at whether anybody wants the engine."""
_END_LOOK_SECONDS = 0.05
_READ_BYTES = 1 << 16
_DRAIN_READS = 64
_PR_SET_PDEATHSIG = 1


class Log:
    """Keeps the last `most_bytes` to twice as much of what is written, in `path` and `path`.1."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._file = path.open("ab", buffering=0)
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        try:
            if not self._file.closed and self._file.tell() + len(data) > self._most:
                self._file.close()
                self._path.replace(f"{self._path}.1")
            if self._file.closed:  # also when there was no room to open it the last time
                self._file = self._path.open("ab", buffering=0)
            self._file.write(data)
        except OSError:  # a full disk is no reason to end an engine
            self.lost_bytes += len(data)


class Guard:
    """See the module. `order` is what `engines.process` has written, with what it says there."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._log = Log(Path(order["log"]), order["log_bytes"])
        self._asked = ""
        self._beat: tuple[int, float] = (0, time.monotonic())
        self._output, self._engines_output = os.pipe()
        self._wake, woken = os.pipe()
        for end in (self._output, self._wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Start the engine and stay until it has ended; with the last line this process ends too."""
        try:
            engine = self._start()
        except OSError as error:
            self._record(code=None, problem=f"it could not be started: {error}")
            return
        code = self._watch(engine)
        for _ in range(_DRAIN_READS):
            if not self._keep_output():
                break
        self._record(code=code, problem="")
        os.killpg(0, signal.SIGKILL)

    def _start(self) -> "subprocess.Popen[bytes]":
        pipes = self._order["pipes"]
        engine = subprocess.Popen(
            self._order["command"],
            stdin=None if pipes else subprocess.DEVNULL,
            stdout=None if pipes else self._engines_output,
            stderr=self._engines_output,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        os.close(self._engines_output)
        nothing = os.open(os.devnull, os.O_RDWR)
        for ours in (0, 1):  # the engine's alone, so that the other side sees where they end
            os.dup2(nothing, ours)
        return engine

    def _watch(self, engine: "subprocess.Popen[bytes]") -> int:
        """Wait until the engine has ended, by itself or asked to, and return its exit code."""
        deadline = None
        while True:
            code = engine.poll()
            if code is not None and (deadline is None or not _others_in_group()):
                return code
            if deadline is None and (self._asked or self._unwanted()):
                deadline = time.monotonic() + self._order["grace_seconds"]
                os.killpg(0, signal.SIGTERM)
            if deadline is not None and time.monotonic() >= deadline:
                engine.kill()
                return engine.wait()
            self._wait(LOOK_SECONDS if deadline is None else _END_LOOK_SECONDS)

    def _wait(self, seconds: float) -> None:
        ready, _, _ = select.select([self._output, self._wake], [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, _READ_BYTES)
        if self._output in ready and not self._keep_output():
            time.sleep(_END_LOOK_SECONDS)  # the engine has closed it, and may go on

    def _keep_output(self) -> bool:
        """Take what the engine has written; False when there is nothing."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._output, _READ_BYTES)
            if data:
                self._log.write(data)
            return bool(data)
        return False

    def _unwanted(self) -> bool:
        parent, beat = self._order["parent"], self._order["beat"]
        if parent is not None and os.getppid() != parent:
            self._asked = "the process that had started it was gone"
        if beat is not None and self._silent_seconds(Path(beat)) > self._order["orphan_seconds"]:
            self._asked = f"no supervisor was there for {self._order['orphan_seconds']:g} s"
        return bool(self._asked)

    def _silent_seconds(self, beat: Path) -> float:
        """Return for how long, by this process's own clock, the file has not been touched."""
        try:
            touched = beat.stat().st_mtime_ns
        except OSError:
            touched = 0
        if touched != self._beat[0]:
            self._beat = touched, time.monotonic()
        return time.monotonic() - self._beat[1]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = self._asked or "it was asked to"

    def _record(self, *, code: int | None, problem: str) -> None:
        told = {
            "code": code,
            "asked": self._asked,
            "problem": problem,
            "lost_bytes": self._log.lost_bytes,
        }
        path = Path(self._order["record"])
        with contextlib.suppress(OSError):
            beside = path.with_suffix(".tmp")
            beside.write_text(json.dumps(told))
            beside.replace(path)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _others_in_group() -> bool:
    """Whether a process besides this one, and those that have ended, is in this process's group."""
    group = os.getpgrp()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state, _, found = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(found) == group and state not in "ZX":
                return True
    return False


def detach() -> None:
    """Leave the process that has started this one, which is told this one's number on its standard output."""
    if (pid := os.fork()) != 0:
        os.write(1, f"{pid}\n".encode())
        os._exit(0)
    os.setsid()


def main() -> None:
    """Guard the engine of the order on the command line."""
    order = json.loads(sys.argv[1])
    if order["parent"] is None:
        detach()
    Guard(order).run()


if __name__ == "__main__":
    main()
