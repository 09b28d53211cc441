"""The circle on Ray: it turns, and goes on turning whichever of its parts is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError

from cluster.cli.stopping import stop_request
from cluster.matches.match import play_match
from cluster.on_ray.actors import ACTORS
from cluster.on_ray.client import RayClient, in_one_place
from cluster.on_ray.program import Part, RayProgram, dressed
from cluster.on_ray.spares import Spares
from cluster.on_ray.supervision import Attendance
from cluster.run.program import Machine, Program, Role
from cluster.run.run_folder import RunFolder
from cluster.training.ray_engine import RayEngine
from cluster.training.selfplay import play_games
from core.errors import ClusterError, EvaluationError
from core.messages import Request
from tests.cluster.circle import PATIENCE_SECONDS, Circle
from tests.cluster.tiny import checkpoints, game_lines, games_on_disk, tiny_config, tiny_run

pytestmark = pytest.mark.usefixtures("local_ray")

CONFIG = tiny_config(
    actors__flush_seconds=0.3,
    evaluation__games=2,
    evaluation__simulations=2,
    evaluation__every_seconds=1,
    evaluation__opponents="[random]",
)


@pytest.fixture(scope="module")
def circle(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circle]:
    """One program for all tests: whatever one did to it, it has to turn on for the next."""
    circle = Circle(tmp_path_factory.mktemp("runs") / "run", CONFIG)
    yield circle
    circle.program.stop()


def assert_everything_came_once(circle: Circle) -> None:
    games = games_on_disk(circle.folder)
    assert len(games) == len(set(games)) >= circle.games


def ask(circle: Circle, request: Request) -> Any:
    client = RayClient(in_one_place(circle.program.handles("inference")))
    handle = client.submit((request,))
    answer = client.wait_any([handle], timeout_seconds=PATIENCE_SECONDS)
    assert answer is not None
    return answer[1]


def test_the_store_answers_while_more_than_a_thousand_servers_wait_for_news(circle: Circle) -> None:
    (store,) = circle.program.handles("store")
    waiting = [store.wait_newer.remote("main", 10**9, "fp32", 20.0) for _ in range(1200)]

    stats: Any = ray.get(store.stats.remote(), timeout=15.0)
    assert stats["pid"] > 0
    assert ray.wait(waiting, num_returns=len(waiting), timeout=0.0)[0] == []


def test_games_steps_and_versions_grow_and_matches_are_played(circle: Circle) -> None:
    circle.turn()
    steps = circle.steps
    circle.turn()
    circle.until(lambda: circle.stats["evaluator"].get("rounds", 0) >= 1, "a match")

    assert circle.steps > steps > 0
    assert circle.stats["replay"]["rows"] > 64
    assert '"opponent": "random"' in circle.folder.evaluations_file.read_text()
    assert circle.said == []
    assert_everything_came_once(circle)


def test_a_bad_request_fails_alone(circle: Circle) -> None:
    board = np.zeros((3, 9), np.int8)
    wrong = Request("main", {"cells": board.astype(np.int64)})
    for bad, why in ((Request("nobody", {"cells": board}), "holds versions none"), (wrong, "expected int8")):
        error = ask(circle, bad)
        assert isinstance(error, EvaluationError)
        assert why in error.why

    (reply,) = ask(circle, Request("main", {"cells": board}))
    assert reply.arrays["policy"].shape == (3, 9)


class Leaver:
    """A client that dies with most of its requests on their way."""

    def ask_and_die(self, servers: list[Any], request: Request) -> None:
        client = RayClient(in_one_place(servers))
        handles = [client.submit((request,), stream=stream) for stream in range(20)]
        client.wait_any(handles, timeout_seconds=PATIENCE_SECONDS)  # one answer: all were sent
        os._exit(1)


def test_a_client_that_dies_with_requests_on_their_way_leaves_the_others_alone(circle: Circle) -> None:
    circle.turn()
    before = circle.stats["inference"]
    leaver = dressed(Leaver, num_cpus=0).remote()
    board = Request("main", {"cells": np.zeros((4096, 9), np.int8)})
    with pytest.raises(RayActorError):
        ray.get(
            leaver.ask_and_die.remote(circle.program.handles("inference"), board), timeout=PATIENCE_SECONDS
        )
    (reply,) = ask(circle, Request("main", {"cells": np.ones((3, 9), np.int8)}))
    circle.turn()
    after = circle.stats["inference"]

    assert reply.arrays["policy"].shape == (3, 9)
    assert after["pid"] == before["pid"]
    assert after["failed_requests"] == before["failed_requests"]


@pytest.mark.parametrize("part", ["actor", "inference", "learner", "replay", "store", "evaluator"])
def test_a_part_that_is_killed_comes_back_and_nothing_acknowledged_is_lost(part: str, circle: Circle) -> None:
    circle.turn()
    games, lives = circle.games, {(actor, epoch) for actor, epoch, _ in games_on_disk(circle.folder)}
    taken_over = circle.program.games_taken_over
    circle.kill(part)
    circle.turn()

    assert circle.games >= games + 40
    assert circle.stats[part]["restarts"] >= 1
    assert any(text.startswith(f"{part} died") for text in circle.said)
    assert_everything_came_once(circle)
    if part == "actor":
        assert {(actor, epoch) for actor, epoch, _ in games_on_disk(circle.folder)} > lives
        assert circle.program.games_taken_over > taken_over


def test_a_spare_plays_in_the_place_of_an_actor_that_was_killed(
    circle: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    spares = Spares(1, circle.program._spare, report=circle.said.append)
    monkeypatch.setattr("cluster.on_ray.spares.QUIET_SECONDS", 0.0)
    monkeypatch.setattr(circle.program, "_spares", spares)
    circle.until(lambda: circle.program.spares_ready() == 1, "a spare")
    actors, restarts = {each[0] for each in games_on_disk(circle.folder)}, circle.stats["actor"]["restarts"]
    taken_over = circle.program.games_taken_over
    circle.kill("actor")
    circle.turn()
    spares.end()

    assert circle.stats["actor"]["restarts"] == restarts + 1
    assert circle.program.games_taken_over > taken_over
    assert {each[0] for each in games_on_disk(circle.folder)} > actors
    assert_everything_came_once(circle)


def test_a_part_that_fails_unexpectedly_is_killed_and_replaced(circle: Circle) -> None:
    results = circle.folder.evaluations_file
    circle.until(lambda: circle.stats["evaluator"].get("rounds", 0) >= 1, "a match")
    pid, restarts = circle.stats["evaluator"]["pid"], circle.stats["evaluator"]["restarts"]
    aside = results.rename(results.with_suffix(".aside"))
    results.mkdir()
    circle.until(lambda: circle.stats["evaluator"]["restarts"] > restarts, "a failure")
    results.rmdir()
    aside.rename(results)
    circle.until(lambda: circle.stats["evaluator"].get("rounds", 0) >= 1, "a match")

    assert circle.stats["evaluator"]["pid"] != pid
    assert any(text.startswith("evaluator failed:") and "IsADirectoryError" in text for text in circle.said)


def test_a_disk_that_cannot_be_written_pauses_the_actors_and_costs_no_acknowledged_game(
    circle: Circle,
) -> None:
    circle.turn()
    chunks, aside = circle.folder.root / "replay", circle.folder.root / "aside"
    chunks.rename(aside)
    chunks.write_text("a file where a folder should be")
    circle.until(lambda: "could not be" in circle.stats["actor"].get("trouble", ""), "the trouble")
    chunks.unlink()
    aside.rename(chunks)
    circle.turn()

    assert any(text.startswith("actor: ") and "could not be" in text for text in circle.said)
    assert_everything_came_once(circle)


def test_a_stopped_run_has_saved_and_goes_on_even_if_its_newest_checkpoint_is_damaged(
    circle: Circle,
) -> None:
    circle.turn()
    before = checkpoints(circle.folder)
    circle.program.stop()
    kept = checkpoints(circle.folder)
    assert kept[-1] > before[-1]
    assert_everything_came_once(circle)
    newest = circle.folder.checkpoints / f"{kept[-1]:010d}" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])

    again = Circle(circle.folder.root, CONFIG)
    try:
        again.until(lambda: bool(again.said), "a word about the damage")
        again.until(lambda: again.version > circle.version and again.games > circle.games, "a turn")
    finally:
        again.program.stop()
    assert [f"learner: checkpoint {kept[-1]} is damaged" in text for text in again.said] == [True]
    assert_everything_came_once(again)
    assert game_lines(again.folder) == len(games_on_disk(again.folder))


@pytest.mark.system
def test_games_of_a_finished_run_are_played_into_a_folder_of_their_own(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.training.ray_engine.Machine.here", lambda: Machine(cpus=2, gpus=0))
    circle.program.stop()
    before = games_on_disk(circle.folder)
    play_games(
        circle.folder.name,
        tmp_path / "games",
        ["actors.flush_seconds=0.3"],
        games=40,
        address=None,
        runs=circle.folder.root.parent,
        plain=True,
        metrics_port=None,
    )
    played = games_on_disk(RunFolder(tmp_path / "games"))

    assert len(played) == len(set(played)) == game_lines(RunFolder(tmp_path / "games")) >= 40
    assert not (tmp_path / "games" / "checkpoints").exists()
    assert games_on_disk(circle.folder) == before


@pytest.mark.system
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


def a_program(folder: Path, *names: str, said: list[str] | None = None) -> RayProgram:
    """Return a program of some roles, each of which asks all that come before it."""
    roles = tuple(Role(name, 1, 0.0, 0.0, names[:k]) for k, name in enumerate(names))
    return RayProgram(CONFIG, tiny_run(folder, CONFIG), Program(roles), report=(said or []).append)


def until_it_fails(program: RayProgram) -> ClusterError:
    """Watch a program until it cannot go on, and return why."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        program.start()
        while time.monotonic() < deadline:
            program.supervise()
            program.collect_stats(timeout_seconds=0.2)
    except ClusterError as error:
        return error
    finally:
        program.stop()
    raise AssertionError("it goes on and on")


def test_a_part_that_cannot_be_made_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    program = a_program(tmp_path / "run", "replay")
    (tmp_path / "run" / "replay").write_text("a file where a folder should be")
    error = until_it_fails(program)

    assert error.what == "the replay cannot be made"
    assert str(tmp_path / "run" / "replay") in error.why
    assert len(str(error).splitlines()) == 3


def test_a_part_that_dies_whenever_it_is_made_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def __init__(self, given: Any) -> None:
            os._exit(7)

        def stats(self) -> None: ...

    monkeypatch.setitem(ACTORS, "store", Dying)
    monkeypatch.setattr("cluster.on_ray.program.SILENT_SECONDS", 2.0)
    monkeypatch.setattr(
        "cluster.on_ray.program.Part",
        lambda *what: Part(*what, attendance=Attendance(patience_seconds=3.0)),
    )
    error = until_it_fails(a_program(tmp_path / "run", "store"))

    assert error.what == "store keeps dying"
    assert "restarting" in error.why


def test_ray_takes_no_signal_from_the_run() -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_start_that_is_interrupted_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self, given: Any) -> None:
            time.sleep(PATIENCE_SECONDS)

        def run(self) -> None: ...

        def stop(self) -> None: ...

        def stats(self) -> None: ...

    monkeypatch.setitem(ACTORS, "learner", Slow)
    monkeypatch.setattr("cluster.training.ray_engine.Machine.here", lambda: Machine(cpus=2, gpus=0))
    said: list[str] = []
    engine = RayEngine(CONFIG, tiny_run(tmp_path / "run", CONFIG), address=None, report=said.append)
    interrupt = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    interrupt.start()
    with stop_request() as stop, stop.at_once():
        engine.start()
        pytest.fail("it was not interrupted")
    engine.stop()

    assert stop.requested
    assert said == []
