"""`tamen scale`: what is asked of a run that goes on, and how its driver takes it."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.machines.scaling import ScaleWatch, scale_run
from cluster.monitoring.status import show_status
from cluster.run.machine_table import (
    OLD_SECONDS,
    WRITE_SECONDS,
    MachineStanding,
    Measured,
    StandingWriter,
    read_standing,
)
from cluster.run.run_folder import RunFolder, open_run
from configs.scale import Scale
from core.errors import ClusterError, DataError
from tests.cluster.commands import Said, assert_three_lines, run_here
from tests.cluster.tiny import tiny_config

HOME = MachineStanding(node="0a" * 28, host="head", state="home", cpus=8, gpus=0, actors=4, servers=4)
SPOT = MachineStanding(
    node="fa" * 28,
    host="worker",
    state="playing",
    labels={"ray.io/market-type": "spot", "ray.io/node-id": "fa" * 28},
    cpus=16,
    gpus=1,
    actors=12,
    servers=1,
    games_per_hour=1234.0,
    busy_share=0.5,
    heard_seconds=0.4,
)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunFolder]:
    """A run whose driver holds its lock."""
    folder = RunFolder(tmp_path / "runs" / "hex")
    lock = open_run(folder, tiny_config())
    yield folder
    lock.release()


class Driver:
    """What a driver does for those who look and ask, in a thread.

    Attributes:
        scale: by which it goes.
        said: what it was told.
    """

    def __init__(self, folder: RunFolder, *, takes: bool = True) -> None:
        self.scale = Scale()
        self.said: list[str] = []
        self._takes = takes
        self._folder = folder
        self._watch = ScaleWatch(folder, report=self.said.append)
        self._ended = threading.Event()
        self.write()
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def write(self) -> None:
        StandingWriter(self._folder).write(self.scale, 0, (HOME, SPOT))

    def _drive(self) -> None:
        while not self._ended.wait(0.02):
            if self._takes and (scale := self._watch.news()) is not None:
                self.scale = scale
                self.write()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def driver(running: RunFolder) -> Iterator[Driver]:
    driver = Driver(running)
    yield driver
    driver.stop()


def scaled(capsys: Capsys, folder: RunFolder, *settings: str, json: bool = False) -> Said:
    return run_here(
        capsys, "scale", folder.typed, *settings, "--runs", folder.root.parent, *(["--json"] if json else [])
    )


def test_a_driver_takes_what_is_asked_and_the_command_says_so(
    running: RunFolder, driver: Driver, capsys: Capsys
) -> None:
    said = scaled(capsys, running, "actors_per_machine=12")
    assert (said.code, driver.scale) == (0, Scale(actors_per_machine=12))
    assert "actors_per_machine: 12\nservers_per_machine: auto\n" in said.out

    said = scaled(
        capsys, running, "actors_per_machine={home: 1, spot: 3}", "servers_per_machine=2", json=True
    )
    assert json.loads(said.out.splitlines()[-1]) == {
        "actors_per_machine": {"home": 1, "spot": 3},
        "servers_per_machine": 2,
    }
    assert driver.scale == Scale(actors_per_machine={"home": 1, "spot": 3}, servers_per_machine=2)


def test_without_settings_it_only_looks(running: RunFolder, driver: Driver, capsys: Capsys) -> None:
    assert "actors_per_machine: auto" in scaled(capsys, running).out
    assert not (running.root / "scale.json").exists()


@pytest.mark.parametrize(
    ("setting", "mentions"),
    [
        ("actors_per_machine=many", ["actors_per_machine", "auto"]),
        ("actors_per_machin=3", ["did you mean actors_per_machine"]),
        ("actors_per_machine={sopt: 3}", ["'sopt'", "spot", "ray start --labels"]),
        ("actors_per_machine=0", ["at least 1"]),
    ],
)
def test_what_cannot_be_is_refused_and_not_left_behind(
    setting: str, mentions: list[str], running: RunFolder, driver: Driver, capsys: Capsys
) -> None:
    assert_three_lines(scaled(capsys, running, setting), code=2, mentions=mentions)
    assert not (running.root / "scale.json").exists()


def test_a_driver_that_does_not_take_it_is_told_and_nothing_is_left(
    running: RunFolder, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.machines.scaling.TAKEN_SECONDS", 0.3)
    driver = Driver(running, takes=False)
    said = scaled(capsys, running, "actors_per_machine=3")
    driver.stop()

    assert_three_lines(said, code=1, mentions=["has not taken", "log.txt"])
    assert not (running.root / "scale.json").exists()


def test_a_run_that_does_not_go_on_takes_no_scale(tmp_path: Path, running: RunFolder, capsys: Capsys) -> None:
    assert_three_lines(scaled(capsys, running, "actors_per_machine=3"), code=2, mentions=["--engine local"])
    stopped = RunFolder(tmp_path / "runs" / "stopped")
    open_run(stopped, tiny_config()).release()
    assert_three_lines(scaled(capsys, stopped, "actors_per_machine=3"), code=2, mentions=["actors.count=4"])
    nobody = RunFolder(tmp_path / "runs" / "nobody")
    assert_three_lines(scaled(capsys, nobody, "actors_per_machine=3"), code=2, mentions=["there is no run"])


def test_what_an_earlier_life_was_asked_counts_no_more(running: RunFolder) -> None:
    (running.root / "scale.json").write_text('{"actors_per_machine": 3}')
    assert ScaleWatch(running, report=print).news() is None
    (running.root / "scale.json").write_text('{"actors_per_machine": 3}')
    ScaleWatch(running, report=print).close()
    assert not (running.root / "scale.json").exists()


def test_a_file_that_somebody_has_spoilt_is_told_once(running: RunFolder) -> None:
    said: list[str] = []
    watch = ScaleWatch(running, report=said.append)
    (running.root / "scale.json").write_text('{"actors_per_machine": "3"')
    assert [watch.news(), watch.news()] == [None, None]
    assert len(said) == 1
    assert "is not taken" in said[0]


def test_status_of_a_run_that_goes_on_has_a_line_for_each_machine(
    running: RunFolder, driver: Driver, capsys: Capsys
) -> None:
    said = run_here(capsys, "status", running.typed, "--runs", running.root.parent)

    words = ["16+1", "GPU", "12", "1", "1,234", "50%", "0", "s"]
    (line,) = [line for line in said.out.splitlines() if "worker fafafa" in line]
    assert line.split() == ["worker", "fafafa", "playing", "spot", *words]
    (status,) = show_status(running.typed, runs=running.root.parent, quiet=True)
    assert [machine["host"] for machine in status["machines"]] == ["head", "worker"]


def test_status_tells_nothing_of_machines_that_nobody_has_heard_of_for_long(running: RunFolder) -> None:
    long_ago = time.time() - OLD_SECONDS - 1
    StandingWriter(running, wall_clock=lambda: long_ago).write(Scale(), 0, (HOME,))
    assert show_status(running.typed, runs=running.root.parent, quiet=True)[0]["machines"] == []


def test_a_driver_that_has_written_nothing_for_long_is_told_as_that(
    running: RunFolder, capsys: Capsys
) -> None:
    long_ago = time.time() - OLD_SECONDS - 1
    StandingWriter(running, wall_clock=lambda: long_ago).write(Scale(), 0, (HOME,))
    with pytest.raises(ClusterError, match=r"has not written machines\.json for 61 s: the disk is full"):
        scale_run(running.typed, [], runs=running.root.parent, quiet=True)


def test_a_clock_that_is_set_back_holds_no_line_up(running: RunFolder) -> None:
    wall, now = [7200.0], [0.0]
    writer = StandingWriter(running, clock=lambda: now[0], wall_clock=lambda: wall[0])
    writer.write(Scale(), 0, (HOME,))
    wall[0] -= 3600.0
    now[0] += WRITE_SECONDS
    writer.write(Scale(), 5, (HOME,))

    standing = read_standing(running)
    assert standing is not None
    assert (standing.games_lost, standing.time) == (5, 3600.0)


def test_a_disk_without_room_costs_the_lines_alone(running: RunFolder) -> None:
    (running.root / "machines.json").mkdir()
    StandingWriter(running).write(Scale(), 0, (HOME,))


def test_a_file_of_machines_that_is_damaged_is_told(running: RunFolder) -> None:
    (running.root / "machines.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_standing(running)


def test_a_rate_is_what_parts_did_since_they_were_heard_of_within_the_last_seconds() -> None:
    measured = Measured()
    measured.take({"a": {"games": 1}, "b": {"games": 100}}, 0.0)
    assert measured.rate(["a"], "games") is None
    measured.take({"a": {"games": 11}, "b": {"games": 2}, "c": {"games": 50}}, 5.0)
    assert measured.rate(["c"], "games") is None
    measured.take({"a": {"games": 21}, "b": {"games": 3}, "c": {"games": 65}}, 10.0)

    assert measured.rate(["a"], "games") == 2.0
    assert measured.rate(["b"], "games") == 0.0
    assert measured.rate(["a", "b", "c", "nobody"], "games") == 2.0 + 3.0
    assert measured.rate(["a"], "moves") is None
    measured.take({"a": {"games": 22}}, 16.0)
    assert measured.rate(["a"], "games") == 1.0
