"""A stage in a process of its own: what it makes or raises comes back, and it ends when it is to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.autopilot.stage_process import ProcessDiedError, Tell, run_apart
from core.errors import ClusterError, UsageError
from pipeline.contract import Stopped

PATIENCE_SECONDS = 30.0


def double(number: int, tell: Tell) -> dict[str, Any]:
    return {"number": 2 * number, "process": os.getpid()}


def refuse(number: int, tell: Tell) -> dict[str, Any]:
    raise UsageError(f"{number} is refused", why="it is odd", fix="give another")


def fail(number: int, tell: Tell) -> dict[str, Any]:
    raise ZeroDivisionError(number)


def die(number: int, tell: Tell) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def wait_for_ever(marker: str, tell: Tell) -> dict[str, Any]:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(10 * PATIENCE_SECONDS)
    return {}


def count(number: int, tell: Tell) -> dict[str, Any]:
    for done in range(number + 1):
        tell(done, number, "sheep")
    return {"counted": number}


def leave_a_mark(marker: str) -> None:
    Path(f"{marker}.orphaned").write_text("")


def never() -> bool:
    return False


def test_what_it_makes_comes_from_another_process() -> None:
    made = run_apart(double, 21, should_stop=never)
    assert made["number"] == 42
    assert made["process"] != os.getpid()


def test_what_it_raises_comes_back_as_it_was() -> None:
    with pytest.raises(UsageError, match="3 is refused"):
        run_apart(refuse, 3, should_stop=never)


@pytest.mark.parametrize(("function", "kind"), [(fail, ClusterError), (die, ProcessDiedError)])
def test_a_stage_that_breaks_is_told_in_three_lines(function: Any, kind: type[ClusterError]) -> None:
    with pytest.raises(kind, match=f"{function.__name__} did not come to its end") as raised:
        run_apart(function, 1, should_stop=never)
    assert type(raised.value) is kind


def test_it_tells_how_far_it_is_now_and_then_and_at_the_end() -> None:
    told: list[tuple[float, float, str]] = []
    made = run_apart(
        count, 100_000, should_stop=never, tell=lambda done, total, unit: told.append((done, total, unit))
    )
    assert made == {"counted": 100_000}
    assert told[0] == (0, 100_000, "sheep")
    assert told[-1] == (100_000, 100_000, "sheep")
    assert len(told) < 1_000


def test_one_that_is_asked_to_stop_is_gone_then(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(Stopped):
        run_apart(wait_for_ever, str(marker), should_stop=marker.exists)
    assert_gone(int(marker.read_text()))


@pytest.mark.parametrize("orphaned", ["None", "leave_a_mark"])
def test_it_ends_with_who_began_it(tmp_path: Path, orphaned: str) -> None:
    marker = tmp_path / "marker"
    program = (
        "from cluster.autopilot.stage_process import run_apart\n"
        "from tests.cluster.autopilot.test_stage_process import *\n"
        f"run_apart(wait_for_ever, {str(marker)!r}, should_stop=never, orphaned={orphaned})"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    until(lambda: marker.exists() and marker.read_text())
    parent.kill()
    parent.wait(PATIENCE_SECONDS)
    assert_gone(int(marker.read_text()))
    assert Path(f"{marker}.orphaned").exists() == (orphaned == "leave_a_mark")


def assert_gone(process: int) -> None:
    def gone() -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"

    until(gone)


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
