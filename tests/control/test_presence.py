"""Which autopilots there are: one that is dead, asked to stop, or ended is told from one that goes round."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from control.database import Database
from control.presence import ENDED_KEPT, SILENT_SECONDS, TABLES, Presence
from core.errors import DataError
from core.processes import this_process

NOW = 1_000.0


@pytest.fixture
def present(tmp_path: Path) -> Iterator[Presence]:
    database = Database(tmp_path / "control.sqlite", TABLES)
    yield Presence(database, wall_clock=lambda: NOW)
    database.close()


def test_it_is_known_by_what_it_was_asked_and_what_it_does(present: Presence) -> None:
    number = present.enter({"keys": ["hex5_2p"]})
    present.take_over(number)
    present.report(number, {"key": "hex5_2p", "stage": "fit"})
    (each,) = present.everybody()
    assert each == present.get(number)
    assert (each.asked, each.doing, each.restarts) == (
        {"keys": ["hex5_2p"]},
        {"key": "hex5_2p", "stage": "fit"},
        0,
    )
    assert (each.process.pid, each.state(this_process(), NOW)) == (os.getpid(), "running")


def test_another_process_that_goes_on_is_counted(present: Presence) -> None:
    number = present.enter({})
    for _ in range(3):
        present.take_over(number)
    assert present.get(number).restarts == 2


def test_who_is_asked_to_stop_is_told_so_and_ends_once(present: Presence) -> None:
    number, other = present.enter({}), present.enter({})
    present.ask_to_stop(number)
    assert present.is_asked_to_stop(number)
    assert not present.is_asked_to_stop(other)
    assert present.get(number).state(this_process(), NOW) == "stopping"
    present.leave(number, "stopped")
    present.leave(number, "again")
    assert (present.get(number).state(this_process(), NOW), present.get(number).message) == (
        "ended",
        "stopped",
    )


def test_one_whose_processes_are_dead_is_gone_and_ends_when_another_begins(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from control.database import Database;"
        "from control.presence import TABLES, Presence;"
        "present = Presence(Database(Path(sys.argv[1]), TABLES)); present.take_over(present.enter({}))"
    )
    file = tmp_path / "control.sqlite"
    subprocess.run([sys.executable, "-c", program, str(file)], check=True, timeout=60)
    with closing(Database(file, TABLES)) as database:
        present = Presence(database)
        (each,) = present.everybody()
        assert each.state(this_process(), each.seen) == "gone"
        present.enter({})
        assert present.get(each.number).message == "its processes died"


def test_one_whose_loop_is_dead_and_guard_is_not_runs(present: Presence) -> None:
    number = present.enter({})
    dead = dataclasses.replace(present.get(number), process=dataclasses.replace(this_process(), started=1))
    assert dead.state(this_process(), NOW) == "running"


@pytest.mark.parametrize("apart", [{"host": "another"}, {"namespace": "pid:[7]"}])
def test_one_that_cannot_be_looked_at_is_gone_when_it_is_silent(
    present: Presence, apart: dict[str, str]
) -> None:
    each = present.get(present.enter({}))
    here = dataclasses.replace(this_process(), **apart)
    assert each.state(here, NOW + SILENT_SECONDS) == "running"
    assert each.state(here, NOW + SILENT_SECONDS + 1) == "gone"


def test_those_that_have_ended_are_forgotten_in_the_end_and_no_others(present: Presence) -> None:
    first = present.enter({})
    for _ in range(ENDED_KEPT + 5):
        present.leave(present.enter({}), "stopped")
    last = present.enter({})
    numbers = [each.number for each in present.everybody()]
    assert numbers[0] == last
    assert numbers[-1] == first
    assert len(numbers) <= ENDED_KEPT + 3


def test_one_that_never_was_is_told_in_three_lines(present: Presence) -> None:
    with pytest.raises(DataError, match="there is no autopilot 7"):
        present.get(7)
