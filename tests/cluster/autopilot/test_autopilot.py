"""The autopilot as a program: whichever of its processes is killed, it goes on with the same training, and it can be
stopped.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import psutil
import pytest

from cluster.autopilot.loop import Asked, Telling
from cluster.autopilot.stages import KeyFolder
from cluster.autopilot.status import show_autopilots, stop_autopilots
from control import presence
from control.database import Database
from control.keys import Key
from control.presence import Presence
from core.errors import ClusterError, UsageError
from tests.cluster.commands import (
    PATIENCE_SECONDS,
    Program,
    assert_all_end,
    assert_three_lines,
    run_here,
)

Capsys = pytest.CaptureFixture[str]
Found = TypeVar("Found")
KEY = "tic_tac_toe_2p"
TIER = "[{name: t, below_games: null, max_games: null, sample_every: 1, epochs: EPOCHS, batch_rows: 128}]"
SETTINGS = (
    "autopilot.engine=local",
    "autopilot.games_a_round=60",
    "triggers.min_interval_minutes=0",
    "triggers.freshness_games=1000000",
)
"""With which one training is called for, the first."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose autopilots are gone in the end, whatever a test came to."""
    yield tmp_path
    with contextlib.suppress(UsageError):
        stop_autopilots(tmp_path / "runs", quiet=True)


def begin(folder: Path, *, epochs: int) -> Program:
    tier = f"export.tiers={TIER.replace('EPOCHS', str(epochs))}"
    return Program(folder / "said.txt", "train", "--auto", KEY, "--runs", folder / "runs", *SETTINGS, tier)


def until(look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def known(folder: Path) -> dict[str, Any]:
    return show_autopilots(folder / "runs", quiet=True)


def fitting(folder: Path, *, restarts: int) -> Callable[[], dict[str, Any] | None]:
    """Look whether its loop, begun again so often, fits a network."""

    def look() -> dict[str, Any] | None:
        for each in known(folder)["autopilots"]:
            if each["restarts"] == restarts and (each["doing"] or {}).get("stage") == "fit":
                return each
        return None

    return look


@pytest.mark.system
def test_killed_anywhere_it_goes_on_with_the_same_training_until_it_is_stopped(folder: Path) -> None:
    program = begin(folder, epochs=100_000)
    loop = until(fitting(folder, restarts=0))["pid"]

    os.kill(loop, signal.SIGKILL)
    second = until(fitting(folder, restarts=1))["pid"]
    assert second != loop

    program.send(signal.SIGKILL)
    third = until(fitting(folder, restarts=2))["pid"]
    guard = psutil.Process(second)  # it was the loop
    assert third in [child.pid for child in guard.children()]
    everyone = [guard, *guard.children(recursive=True)]

    assert [each["training"] for each in known(folder)["trainings"]] == [1]
    assert stop_autopilots(folder / "runs", quiet=True) == [1]
    assert_all_end(everyone)
    (told,) = known(folder)["autopilots"]
    assert (told["state"], told["message"]) == ("ended", "stopped")


@pytest.mark.system
def test_to_stop_it_between_two_lives_of_its_loop_stops_it(folder: Path) -> None:
    program = begin(folder, epochs=100_000)
    os.kill(until(fitting(folder, restarts=0))["pid"], signal.SIGKILL)
    assert stop_autopilots(folder / "runs", quiet=True) == [1]
    assert program.wait() == 0


@pytest.mark.system
@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGKILL])
def test_who_is_in_a_hurry_to_end_it_ends_it(folder: Path, last: signal.Signals) -> None:
    program = begin(folder, epochs=100_000)
    until(fitting(folder, restarts=0))
    everyone = program.family()
    program.send(signal.SIGINT)
    time.sleep(0.3)  # sent at once they are one signal, or the last is the only one that is ever handled
    program.send(last)
    assert_all_end(everyone)
    assert known(folder)["autopilots"][0]["restarts"] == 0


@pytest.mark.system
def test_the_first_training_ends_with_a_champion_and_is_told(folder: Path, capsys: Capsys) -> None:
    program = begin(folder, epochs=2)
    (training,) = until(lambda: [each for each in known(folder)["trainings"] if each["ended"]])
    program.send(signal.SIGINT)
    assert program.wait() == 0

    assert training["success"], training["message"]
    assert training["model_id"] == f"{KEY}-v1"
    assert min(training[f"{stage}_seconds"] for stage in ("export", "training", "evaluation")) > 0
    listed = json.loads(run_here(capsys, "models", "list", "--runs", folder / "runs", "--json").out)
    assert [model["id"] for model in listed] == [f"{KEY}-v1"]
    assert "training 1, for there is no model" in program.said


def test_what_it_would_do_is_told_and_nothing_begun(tmp_path: Path, capsys: Capsys) -> None:
    said = run_here(capsys, "train", "--auto", KEY, "hex5_2p", "--runs", tmp_path, "--dry-run", "--json")
    plan = json.loads(said.out)
    assert [(each["key"], each["train_now"]) for each in plan] == [(KEY, False), ("hex5_2p", False)]
    assert sum(each["games_a_round"] for each in plan) == 600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (["hex5_2p", "hex5_2p"], "a key is given twice"),
        (["--", "triggers.freshness_games=5"], "there is nothing to go round"),
        (["hex5_3p"], "hex5_3p cannot be played"),
        (["hex5_2p", "autopilot.locks=ray"], "Ray cannot keep the locks"),
        (["hex5_2p", "triggers.freshness_games=-1"], "freshness_games"),
        (["hex5_2p", "--games", "5"], "--games says nothing to the autopilot"),
        (["hex5/../x_2p"], "hex5/../x_2p"),
        (["hex5_2p", "promotion.tier=D8", "promotion.max_pairs=50"], "can never be played"),
        (["hex5_2p", "promotion.ladder=[rnadom]"], "rnadom"),
        (["hex5_2p", "promotion.ladder=['model:x:16']"], "plays the same for ever"),
        (["hex5_2p", "autopilot.locks=memcached"], "memcached"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_begun(
    words: list[str], mentions: str, tmp_path: Path, capsys: Capsys
) -> None:
    said = run_here(capsys, "train", "--auto", "--runs", tmp_path / "runs", *words)
    assert_three_lines(said, code=2, mentions=[mentions])
    assert not (tmp_path / "runs").exists()


def test_to_stop_what_does_not_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no autopilot goes round here"):
        stop_autopilots(tmp_path, quiet=True)
    assert show_autopilots(tmp_path, quiet=True) == {"autopilots": [], "trainings": []}


class Busy:
    """Presence of which nothing can be read or written, as when its file is busy."""

    def get(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(began=0.0)

    def report(self, number: int, doing: object) -> None:
        raise ClusterError("busy", why="a test has it so", fix="none")

    def is_asked_to_stop(self, number: int) -> bool:
        raise ClusterError("busy", why="a test has it so", fix="none")


def telling_of(present: Any, **asked: Any) -> Telling:
    given = {"keys": (KEY,), "settings": (), "ends": None, "address": None, "quiet": True, **asked}
    return Telling(present, 1, Asked(runs=Path("runs"), **given), lambda: False)


def test_what_is_only_told_does_not_end_the_work_where_the_file_is_busy() -> None:
    with telling_of(Busy()) as telling:
        telling.begin(Key("hex5"), "play")
        telling.progress(1, 2, "games")
        telling.end(finished=True)
        assert not telling.is_over()
        assert telling.stages == 1
    with telling_of(Busy(), ends=0.0) as telling:
        assert telling.is_over()


def test_a_stage_that_stands_still_is_told_so_and_one_that_moves_is_not() -> None:
    with telling_of(Busy()) as telling:
        telling.begin(Key("hex5"), "play")
        telling.progress(1, 2, "games")
        telling.check_moving(60.0)
        with pytest.raises(ClusterError, match="play stands still"):
            telling.check_moving(-1.0)


@pytest.mark.parametrize(
    ("doing", "left"),
    [
        ({"done": 300, "total": 600, "first": {"done": 0, "at": 940.0}}, 60.0),
        ({"done": 300, "total": 600, "first": {"done": 200, "at": 940.0}}, 180.0),
        ({"done": 700, "total": 600, "first": {"done": 0, "at": 940.0}}, 0.0),
        ({"done": 0, "total": 600, "first": {"done": 0, "at": 940.0}}, None),
        ({}, None),
    ],
)
def test_how_long_a_stage_will_take_goes_by_what_was_done_of_late(
    doing: dict[str, Any], left: float | None, tmp_path: Path
) -> None:
    with contextlib.closing(Database(tmp_path / "control.sqlite", presence.TABLES)) as database:
        present = Presence(database, wall_clock=lambda: 1_000.0)
        number = present.enter({"keys": [KEY], "settings": []})
        present.report(number, {"key": KEY, "stage": "fit", "since": 900.0, **doing})
    (told,) = show_autopilots(tmp_path, quiet=True, now=1_000.0)["autopilots"]
    assert told["doing"]["seconds_left"] == left


def test_what_trainings_leave_behind_is_removed_up_to_a_number(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    for number in (1, 2, 3):
        folder.training(number).mkdir(parents=True)
    assert sorted(path.name for path in folder.trainings(2)) == ["1", "2"]
