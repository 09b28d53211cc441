"""The command as a person types it: what it says, how it ends, and what the same command finds again."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster.monitoring.sinks import newest_moment
from cluster.run.run_folder import RunFolder
from inference_server.weights_store import WeightsStore
from tests.cluster.commands import (
    PATIENCE_SECONDS,
    Program,
    assert_all_end,
    assert_three_lines,
    end_all,
    is_running,
    run_here,
)
from tests.cluster.tiny import (
    checkpoints,
    game_lines,
    games_on_disk,
    tiny_overrides,
)
from tests.core.faults import files_no_larger_than

Capsys = pytest.CaptureFixture[str]
Launch = Callable[..., Program]
SETTINGS = tiny_overrides(actors__flush_seconds=0.3)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start the command; whatever a test came to, it and its processes are gone afterwards."""
    started: list[Program] = []

    def begin(*arguments: object) -> Program:
        program = Program(tmp_path / f"output-{len(started)}", *arguments)
        started.append(program)
        return program

    yield begin
    for program in started:
        program.end()


def train(runs: Path, *more: object, name: str = "run") -> list[object]:
    return ["train", "tic_tac_toe", *SETTINGS, "--runs", runs, "--name", name, "--plain", *more]


def assert_every_game_came_once(run: RunFolder, *, at_least: int) -> None:
    games = games_on_disk(run)
    assert len(games) == len(set(games)) == game_lines(run) >= at_least


def newest_version(run: RunFolder) -> int:
    return WeightsStore(run.models).newest_version("main") or 0


def plays(run: RunFolder, *, games: int, version: int) -> bool:
    return (
        run.checkpoints.exists()
        and len(checkpoints(run)) > 0
        and game_lines(run) >= games
        and newest_version(run) >= version
    )


@pytest.mark.system
def test_a_killed_driver_takes_its_ray_along_and_the_same_command_goes_on(
    launch: Launch, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    first = launch(*train(tmp_path))
    first.until(lambda: plays(run, games=100, version=3), "games and versions")
    first_family = first.family()
    assert any("raylet" in process.name() for process in first_family)
    games, version = game_lines(run), newest_version(run)
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert_every_game_came_once(run, at_least=games)
    kept = checkpoints(run)

    second = launch(*train(tmp_path))
    second.until(lambda: plays(run, games=games + 50, version=version + 2), "more of both")
    second_family = second.family()
    second.send(signal.SIGINT)
    assert second.wait() == 0
    # Two agents of the dead Ray try for a minute to tell it of its death, and end then.
    agents = [process for process in first_family if is_running(process) and "Agent" in process.name()]
    assert len(agents) <= 2
    end_all(agents)
    assert_all_end(first_family + second_family)

    assert "new run in" in first.said
    assert "resumes in" in second.said
    assert "the same command goes on from here" in second.said
    assert "Traceback" not in first.said + second.said
    assert checkpoints(run)[-1] > kept[-1]
    assert_every_game_came_once(run, at_least=newest_moment(run.root)["games/played"])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster that somebody else started with `ray start`, with a token of its own; its address."""
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="tamen-"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    port, client_port = free_ports(2)
    options = {
        "port": port,
        "ray-client-server-port": client_port,
        "temp-dir": folder / "ray",
        "num-cpus": 2,
        "object-store-memory": 100_000_000,
        "include-dashboard": "false",
    }
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    try:
        subprocess.run(command, check=True, timeout=PATIENCE_SECONDS, capture_output=True)
        yield f"127.0.0.1:{port}"
    finally:
        end_all(processes_of(folder))
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that were told of `folder`, and their children."""
    named = [process for process in psutil.process_iter() if told_of(process, folder)]
    children = [
        child for process in named if is_running(process) for child in process.children(recursive=True)
    ]
    return list(dict.fromkeys(named + children))


def told_of(process: psutil.Process, what: object) -> bool:
    try:
        return any(str(what) in argument for argument in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def parts_on(cluster: str) -> list[psutil.Process]:
    """Return the processes of a run's parts on a cluster of this machine."""
    port = cluster[cluster.index(":") :]  # it is known by another address there
    named = (one for one in psutil.process_iter() if told_of(one, port))
    (head,) = (one for one in named if one.name() == "raylet")
    return [child for child in head.children(recursive=True) if told_of(child, "Actor")]


@pytest.mark.system
def test_a_cluster_that_somebody_else_started_is_joined_and_left_as_it_was(
    cluster: str, launch: Launch, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    program = launch(*train(tmp_path, "--address", cluster))
    program.until(lambda: plays(run, games=100, version=3), "games and versions")
    kept = checkpoints(run)
    parts = parts_on(cluster)
    assert len(parts) >= 5
    program.send(signal.SIGTERM)
    assert program.wait() == 0

    assert_all_end(parts)
    assert "the same command goes on from here" in program.said
    assert checkpoints(run)[-1] > kept[-1]
    assert_every_game_came_once(run, at_least=100)
    host, port = cluster.split(":")
    socket.create_connection((host, int(port)), timeout=10).close()


MISTAKES = {
    "a preset": (["train", "hexx5"], 2, ["no preset called 'hexx5'", "hex5"]),
    "a section": (["train", "hex5", "lerner.batch_rows=1"], 2, ["'lerner'", "did you mean learner?"]),
    "a key": (["train", "hex5", "learner.batch_row=1"], 2, ["learner.batch_row", "learner.batch_rows"]),
    "a value": (["train", "hex5", "learner.batch_rows=many"], 2, ["learner.batch_rows", "whole number"]),
    "a bound": (["train", "hex5", "learner.batch_rows=0"], 2, ["learner.batch_rows", "at least 1"]),
    "no value": (["train", "hex5", "learner.batch_rows"], 2, ["not a setting"]),
    "a game": (["train", "hex5", "game=chess"], 2, ["chess"]),
    "a size": (["train", "hex5", "game=hex20"], 2, ["from 3 to 19"]),
    "a slash in a name": (["train", "hex5", "--name", "a/b"], 2, ["'a/b' is not allowed"]),
    "a way out of the folder": (["train", "hex5", "--name", ".."], 2, ["'..' is not allowed"]),
    "a closed port": (["train", "tic_tac_toe", "--address", "127.0.0.1:1"], 1, ["127.0.0.1:1", "refused"]),
    "a host": (["train", "tic_tac_toe", "--address", "no.such.host.invalid:6379"], 1, ["no.such.host"]),
    "no address": (["train", "tic_tac_toe", "--address", "nonsense"], 2, ["'nonsense'", "HOST:PORT"]),
    "no port": (["match", "random", "random", "--address", "host:abc"], 2, ["'host:abc'", "HOST:PORT"]),
    "a way in from outside": (
        ["train", "hex5", "--address", "ray://h:1"],
        2,
        ["ray://h:1", "--address auto"],
    ),
    "an abbreviation": (["train", "hex5", "learner.lr=1"], 2, ["did you mean learner.learning_rate?"]),
    "a batch too large": (["train", "hex5", "learner.batch_rows=99999"], 2, ["slack_rows to at least 50000"]),
    "a model": (["selfplay", "nobody", "out"], 2, ["nobody"]),
    "a file": (["selfplay", "no/such.safetensors", "out"], 2, ["no/such.safetensors"]),
    "a player": (
        ["match", "stockfish", "random", "--game", "hex5"],
        2,
        ["'stockfish'", "no runs in", "mcts:400"],
    ),
    "an opponent": (["play", "nobody"], 2, ["'nobody'", "no runs in", "mcts:400"]),
    "no game": (["match", "random", "mcts:4"], 2, ["which game?", "--game"]),
    "a player's size": (["match", "mcts:0", "random", "--game", "hex5"], 2, ["mcts:0"]),
    "an unsolved game": (["match", "solver", "random", "--game", "hex11", "--engine", "local"], 2, ["hex11"]),
    "a run": (["status", "nobody"], 2, ["there is no run 'nobody'"]),
}


@pytest.mark.parametrize(("arguments", "code", "mentions"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_three_lines(
    arguments: list[str], code: int, mentions: list[str], tmp_path: Path, capsys: Capsys
) -> None:
    began = time.monotonic()
    said = run_here(capsys, *arguments, "--runs", tmp_path)

    assert_three_lines(said, code=code, mentions=mentions)
    assert time.monotonic() - began < PATIENCE_SECONDS
    if code == 2:
        assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_too(tmp_path: Path, capsys: Capsys) -> None:
    said = run_here(capsys, "train", "hexx5", "--runs", tmp_path, "--debug")

    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-3].startswith("error: there is no preset")


def here(runs: Path, *more: object) -> list[object]:
    return train(runs, "--engine", "local", *more)


def test_a_run_in_one_process_says_where_it_is_and_goes_on(tmp_path: Path, capsys: Capsys) -> None:
    run = RunFolder(tmp_path / "run")
    first = run_here(capsys, *here(tmp_path, "--steps", 8))
    again = run_here(capsys, *here(tmp_path, "--steps", 12))

    assert (first.code, again.code) == (0, 0)
    assert f"run: new run in {run.root} (tic_tac_toe); stops at 8 steps, or at Ctrl-C" in first.out
    assert f"run: resumes in {run.root}" in again.out
    assert "games and 8 steps; stops at 12 steps" in again.out
    assert newest_moment(run.root)["learner/steps"] == 12
    assert_every_game_came_once(run, at_least=1)
    status = run_here(capsys, "status", "run", "--runs", tmp_path, "--json")
    assert '"learner_steps": 12' in status.out.splitlines()[-1]


def test_a_folder_of_another_game_or_network_is_refused_and_left_alone(
    tmp_path: Path, capsys: Capsys
) -> None:
    run_here(capsys, *here(tmp_path, "--steps", 1))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    arguments = ["train", "hex4", "--name", "run", "--runs", tmp_path]
    assert_three_lines(run_here(capsys, *arguments), code=2, mentions=["game=hex4", "game=tic_tac_toe"])
    wider = here(tmp_path, "network.channels=16")
    assert_three_lines(run_here(capsys, *wider), code=2, mentions=["network.channels=16"])

    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_a_run_that_was_moved_goes_on_under_its_new_name(tmp_path: Path, capsys: Capsys) -> None:
    run_here(capsys, *here(tmp_path, "--steps", 8))
    (tmp_path / "run").rename(tmp_path / "moved")
    said = run_here(capsys, *train(tmp_path, "--engine", "local", "--steps", 12, name="moved"))

    assert said.code == 0, said.err
    assert newest_moment(tmp_path / "moved")["learner/steps"] == 12
    assert "tamen play moved" in said.out
    assert_every_game_came_once(RunFolder(tmp_path / "moved"), at_least=1)


def test_a_dry_run_tells_what_would_happen_and_changes_nothing(tmp_path: Path, capsys: Capsys) -> None:
    dry = ["train", "hex5", "--dry-run", "--name", "run", "--runs"]
    begun = run_here(capsys, *dry, tmp_path)
    assert (begun.code, list(tmp_path.iterdir())) == (0, [])
    assert "# run: new run in" in begun.out

    run_here(capsys, *here(tmp_path, "--steps", 4))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    foreign = run_here(capsys, *dry, tmp_path)
    resumed = run_here(capsys, *here(tmp_path, "search.temperature=0.5", "--dry-run"))
    assert_three_lines(foreign, code=2, mentions=["cannot go on with game=hex5"])
    assert resumed.code == 0
    assert "games and 4 steps" in resumed.out
    assert "changed: search.temperature: 1.0 -> 0.5" in resumed.out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}

    (tmp_path / "file").write_text("no folder")
    assert_three_lines(run_here(capsys, *dry, tmp_path / "file"), code=1, mentions=["Not a directory"])


@pytest.mark.parametrize("damage", ["cut short", "a bit", "a file is missing"])
def test_a_damaged_newest_checkpoint_costs_an_interval_and_is_told(
    damage: str, tmp_path: Path, capsys: Capsys
) -> None:
    run = RunFolder(tmp_path / "run")
    run_here(capsys, *here(tmp_path, "--steps", 12))
    newest = checkpoints(run)[-1]
    path = run.checkpoints / f"{newest:010d}" / "trainer.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "a file is missing":
        path.write_bytes(data if damage == "a bit" else data[: len(data) // 2])
    said = run_here(capsys, *here(tmp_path, "--steps", 16))

    assert said.code == 0
    assert f"checkpoint {newest} is damaged" in said.out
    assert f"checkpoint {newest} is damaged" in run.log_file.read_text()
    assert newest_moment(run.root)["learner/steps"] == 16


def test_a_run_whose_checkpoints_are_all_damaged_waits_for_a_person(tmp_path: Path, capsys: Capsys) -> None:
    run = RunFolder(tmp_path / "run")
    run_here(capsys, *here(tmp_path, "--steps", 12))
    kept = checkpoints(run)
    for number in kept:
        (run.checkpoints / f"{number:010d}" / "state.json").write_text("{}")
    said = run_here(capsys, *here(tmp_path, "--steps", 16))

    assert_three_lines(said, code=1, mentions=[f"none of the {len(kept)} checkpoints"])
    assert checkpoints(run) == kept


@pytest.mark.parametrize(
    ("kilobytes", "file"), [(4, "00000000.safetensors"), (16, "checkpoint 1"), (64, "00000000.chunk")]
)
def test_a_disk_without_room_ends_in_three_lines_and_loses_nothing_acknowledged(
    kilobytes: int, file: str, tmp_path: Path, capsys: Capsys
) -> None:
    run = RunFolder(tmp_path / "run")
    large_chunks = tiny_overrides(
        actors__chunk_rows=4096,
        actors__flush_seconds=1e6,
        replay__min_rows=2048,
        replay__samples_per_insert=1,
    )
    with files_no_larger_than(kilobytes):
        said = run_here(capsys, *here(tmp_path, *large_chunks, "--steps", 40))

    assert_three_lines(said, code=1, mentions=[file, "File too large"])
    assert_every_game_came_once(run, at_least=newest_moment(run.root).get("games/played", 0))


def test_a_folder_that_cannot_be_made_is_told_in_three_lines(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "file").write_text("no folder")
    said = run_here(capsys, *here(tmp_path / "file"))

    assert_three_lines(said, code=1, mentions=[str(tmp_path / "file"), "Not a directory"])


@pytest.mark.system
def test_an_address_where_something_else_listens_is_given_up_on(tmp_path: Path, launch: Launch) -> None:
    with socket.create_server(("", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        program = launch("train", "tic_tac_toe", "--runs", tmp_path, "--address", address)
        assert program.wait() == 1

    assert "cannot reach a Ray cluster" in program.said
    assert os.path.isdir(tmp_path / "tic_tac_toe")
