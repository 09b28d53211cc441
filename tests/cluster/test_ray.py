"""The circle on Ray: it turns, and goes on turning whichever of its parts is killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.match import play_match
from cluster.observer import Observer
from cluster.program import Machine, plan
from cluster.ray_client import RayClient
from cluster.ray_program import RayProgram
from cluster.run_folder import RunFolder
from core.errors import EvaluationError
from core.messages import Request
from tests.cluster.tiny import checkpoints, game_lines, games_on_disk, tiny_config, tiny_run

pytestmark = pytest.mark.usefixtures("local_ray")

PATIENCE_SECONDS = 90.0
"""Of every wait; reached only when something is broken."""
CONFIG = tiny_config(
    actors__flush_seconds=0.3,
    evaluation__games=2,
    evaluation__simulations=2,
    evaluation__every_seconds=1,
    evaluation__opponents="[random]",
)
Stats = dict[str, dict[str, Any]]


class Circle:
    """A program as its driver sees it.

    Attributes:
        stats: the newest of all parts.
        said: what the driver was told.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.stats: Stats = {}
        self.said: list[str] = []
        self._observer = Observer(folder.name, CONFIG)
        self._observer.log_to(self.said.append)
        machine = Machine(cpus=2, gpus=0)
        self.program = RayProgram(CONFIG, folder, plan(CONFIG, machine), report=self._observer.note)

    @property
    def games(self) -> int:
        return self.stats.get("replay", {}).get("games", 0)

    @property
    def steps(self) -> int:
        return self.stats.get("learner", {}).get("learner_steps", 0)

    @property
    def version(self) -> int:
        """The newest weights that anybody plays with."""
        return self.stats.get("inference", {}).get("version") or 0

    def look(self) -> None:
        self.program.supervise()
        self.stats = self.program.collect_stats(timeout_seconds=1.0)
        self._observer.take(self.stats, elapsed_seconds=0.0)

    def until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert time.monotonic() < deadline, f"{what} did not come to pass: {self.stats} {self.said}"
            version = self.version
            self.look()
            assert self.version >= version or self.version == 0, "older weights play again"
            time.sleep(0.05)

    def turn(self, games: int = 40) -> None:
        """Wait until `games` more games are acknowledged, and new weights play."""
        until_games, before = self.games + games, self.version
        self.until(lambda: self.games >= until_games and self.version > before, f"{games} more games")

    def kill(self, part: str) -> None:
        """Kill a part as the kernel does when memory is short, and wait until another process answers for it."""
        pid = self.stats[part]["pid"]
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.stats[part].get("pid") not in (pid, None), f"{part}'s return")


@pytest.fixture
def start() -> Iterator[Callable[[Path], Circle]]:
    """Start a program in a folder; it is stopped at the end."""
    started: list[Circle] = []

    def begin(folder: Path) -> Circle:
        circle = Circle(tiny_run(folder, CONFIG))
        started.append(circle)
        circle.program.start()
        return circle

    yield begin
    for circle in started:
        circle.program.stop()


def assert_everything_came_once(circle: Circle) -> None:
    games = games_on_disk(circle.folder)
    assert len(games) == len(set(games)) == game_lines(circle.folder)
    assert len(games) >= circle.games


def ask(circle: Circle, request: Request) -> Any:
    client = RayClient(circle.program.handles("inference"))
    handle = client.submit((request,))
    answer = client.wait_any([handle], timeout_seconds=PATIENCE_SECONDS)
    assert answer is not None
    return answer[1]


def test_the_circle_turns_and_stops_and_the_same_run_goes_on(
    start: Callable[[Path], Circle], tmp_path: Path
) -> None:
    circle = start(tmp_path / "run")
    circle.turn()
    circle.turn()
    circle.until(lambda: circle.stats["evaluator"].get("rounds", 0) >= 1, "a match")
    assert circle.stats["replay"]["rows"] > 64
    assert circle.steps >= 8
    assert (circle.folder.evaluations_file.read_text().count('"opponent": "random"')) >= 1

    board = np.zeros((3, 9), np.int8)
    for bad in (Request("nobody", {"cells": board}), Request("main", {"cells": board.astype(np.int64)})):
        assert isinstance(ask(circle, bad), EvaluationError)
    (reply,) = ask(circle, Request("main", {"cells": board}))
    assert reply.arrays["policy"].shape == (3, 9)

    circle.look()
    games, version = circle.games, circle.version
    circle.program.stop()
    assert circle.said == []
    assert_everything_came_once(circle)
    kept = checkpoints(circle.folder)
    newest = circle.folder.checkpoints / f"{kept[-1]:010d}" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])

    circle = start(tmp_path / "run")
    circle.turn()
    circle.turn()
    assert circle.games >= games
    assert circle.version > version
    assert [f"learner: checkpoint {kept[-1]} is damaged" in text for text in circle.said] == [True]
    circle.program.stop()
    assert checkpoints(circle.folder)[-1] > kept[-1]
    assert_everything_came_once(circle)


def test_a_part_that_is_killed_comes_back_and_nothing_acknowledged_is_lost(
    start: Callable[[Path], Circle], tmp_path: Path
) -> None:
    circle = start(tmp_path / "run")
    circle.turn()
    for part in ("actor", "inference", "learner", "replay", "store", "evaluator"):
        games = circle.games
        circle.kill(part)
        circle.turn()
        assert circle.games >= games
        assert circle.stats[part]["restarts"] >= 1
        assert any(text.startswith(f"{part} died") for text in circle.said)
    circle.program.stop()

    assert checkpoints(circle.folder)
    assert_everything_came_once(circle)
    assert {epoch for _, epoch, _ in games_on_disk(circle.folder)} >= {0, 1}


def test_a_disk_that_cannot_be_written_pauses_the_actors_and_costs_no_acknowledged_game(
    start: Callable[[Path], Circle], tmp_path: Path
) -> None:
    circle = start(tmp_path / "run")
    circle.turn()
    chunks, aside = circle.folder.root / "replay", circle.folder.root / "aside"
    chunks.rename(aside)
    chunks.write_text("a file where a folder should be")
    circle.until(lambda: "could not be" in circle.stats["actor"].get("trouble", ""), "the trouble")
    games = circle.games
    chunks.unlink()
    aside.rename(chunks)
    circle.turn()

    assert circle.games > games
    assert any("could not be" in text for text in circle.said)
    circle.program.stop()
    assert_everything_came_once(circle)


def test_a_match_on_ray_is_the_match_in_one_process(tmp_path: Path) -> None:
    def play(engine: Any) -> dict[str, Any]:
        return play_match(
            "mcts:8",
            "random",
            game="tic_tac_toe",
            games=12,
            simulations=4,
            opening_plies=1,
            seed=3,
            engine=engine,
            address=None,
            runs=tmp_path,
            quiet=True,
        )

    assert play("ray") | {"seconds": 0} == play("local") | {"seconds": 0}
