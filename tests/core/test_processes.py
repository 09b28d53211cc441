"""A process is known for what it is, and its end is seen."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.processes import LEAST_PRESSING, Process, give_way, is_gone, this_process

PATIENCE_SECONDS = 60


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def identity_of(process: subprocess.Popen[bytes]) -> Process:
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return replace(this_process(), pid=process.pid, started=int(stat[19]))


def test_a_process_is_known_by_more_than_its_number(sleeper: subprocess.Popen[bytes]) -> None:
    here, there = this_process(), identity_of(sleeper)
    assert not is_gone(here, here)
    assert not is_gone(there, here)
    assert is_gone(replace(there, started=there.started + 1), here)  # its number was given again
    assert is_gone(replace(there, boot="before"), here)  # the machine was started anew
    sleeper.kill()
    sleeper.wait(PATIENCE_SECONDS)
    assert is_gone(there, here)
    assert not is_gone(replace(there, host="elsewhere"), here)
    assert not is_gone(replace(there, namespace="of a container"), here)


def test_who_is_held_up_is_there_and_who_has_ended_is_not(sleeper: subprocess.Popen[bytes]) -> None:
    there = identity_of(sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert not is_gone(there, this_process())
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # nobody has looked at its end yet
    assert is_gone(there, this_process())


def test_a_process_says_of_itself_what_others_see() -> None:
    code = "from core.processes import this_process; print(this_process(), flush=True); input()"
    program = [sys.executable, "-c", code]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.readline().strip()
        assert told == repr(identity_of(process))  # pyright: ignore[reportArgumentType]
        process.communicate("\n", timeout=PATIENCE_SECONDS)


def test_a_thread_gives_way_with_those_that_it_starts_and_others_do_not() -> None:
    found: dict[str, int] = {}

    def note(name: str) -> None:
        found[name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def compute() -> None:
        give_way()
        give_way()
        note("it")
        child = threading.Thread(target=note, args=("child",))
        child.start()
        child.join(10)

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    computing = threading.Thread(target=compute)
    computing.start()
    computing.join(10)
    note("here")

    assert found == {"it": LEAST_PRESSING, "child": LEAST_PRESSING, "here": here}
