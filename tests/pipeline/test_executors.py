"""The executors of this machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.executors import Inline, Processes
from tests.pipeline.executor_contract import AnyExecutor, WorkersBeside, works
from tests.pipeline.tasks import square

DRIVER = """
import os, sys
from pipeline.executors import Processes
from tests.pipeline.tasks import Work, square

if __name__ == "__main__":
    with Processes(1) as executor:
        list(executor.run(square, [Work(0, sys.argv[1])]))
        print(flush=True)
        sys.stdin.read()
"""


class TestInline(AnyExecutor):
    @pytest.fixture
    def executor(self) -> Inline:
        return Inline()


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Processes]:
    with Processes(2) as executor:
        yield executor


class TestProcesses(WorkersBeside):
    @pytest.fixture
    def executor(self, two_processes: Processes) -> Processes:
        return two_processes


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path / "done")]
    driver = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert driver.stdout is not None
        driver.stdout.readline()
        worker = psutil.Process(int((tmp_path / "done" / "0").read_text()))
        assert worker.is_running()
        driver.send_signal(signal.SIGKILL)
        assert worker.wait(30) is None or not worker.is_running()
    finally:
        driver.kill()
        driver.communicate()


def test_a_worker_that_died_idle_is_replaced(tmp_path: Path) -> None:
    with Processes(1) as executor:
        for number in range(2):
            assert list(executor.run(square, works(tmp_path, 1))) == [(0, 0)]
            if number == 0:
                worker = psutil.Process(int((tmp_path / "0").read_text()))
                worker.kill()
                worker.wait(30)
                time.sleep(0.2)  # until the pool has seen it
