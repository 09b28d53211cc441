"""The command `tamen`, in this process or as a program of its own, and what it leaves behind."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from cluster.main import main

PATIENCE_SECONDS = 120.0
"""Of every wait; reached only when something is broken."""


class Said(NamedTuple):
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    """Run the command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tamen", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    written = capsys.readouterr()
    return Said(int(ended.value.code or 0), written.out, written.err)


def assert_three_lines(said: Said, *, code: int, mentions: Iterable[str]) -> None:
    """An error is what, why and what to do, and no traceback."""
    assert said.code == code, said
    lines = said.err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["error", "why", "do"], said
    for text in mentions:
        assert text in said.err


class Program:
    """The command as a program of its own, with its output in a file."""

    def __init__(self, output: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "cluster.main", *map(str, arguments)]
        self._output = output
        with output.open("w") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=output.parent
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert self._process.poll() is None, f"ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"{what} did not come to pass: {self.said}"
            time.sleep(0.2)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(PATIENCE_SECONDS)

    def family(self) -> list[psutil.Process]:
        """Return every process that it started, and that those started."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def end(self) -> None:
        """Make sure that it is gone, whatever a test came to."""
        if self._process.poll() is None:
            family = self.family()
            self._process.kill()
            self.wait()
            end_all(family)


def assert_all_end(processes: list[psutil.Process]) -> None:
    """Every one of `processes` ends by itself before long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := [process for process in processes if is_running(process)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.2)


def end_all(processes: list[psutil.Process]) -> None:
    """End exactly these processes."""
    for process in processes:
        if is_running(process):
            process.kill()


def is_running(process: psutil.Process) -> bool:
    """Whether it runs still; one that waits for its parent to look at its end does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
