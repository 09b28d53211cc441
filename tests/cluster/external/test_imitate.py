"""`tamen engines imitate`: watched games become rows once, whatever interrupts it, and a network foretells them."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.progress import StepDisplay
from cluster.external.watched_rows import find_watched
from cluster.monitoring.status import show_status
from cluster.run.run_folder import RunFolder
from engines.watched_games import counted_shards
from replay.decision_shards import decision_files, read_decisions
from tests.cluster.commands import Said, assert_three_lines, run_here
from tests.cluster.tiny import newest_digest, tiny_config, tiny_run
from tests.engines.watching import watch

SMALL = (
    "network.layers=[16]",
    "network.precision=fp32",
    "learner.batch_rows=32",
    "learner.learning_rate=0.01",
)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def games(tmp_path: Path) -> Path:
    watch(tmp_path / "games", range(40))
    return tmp_path / "games"


def imitate(capsys: Capsys, *words: object, name: str = "cards") -> Said:
    runs = next(word for word in words if isinstance(word, Path)).parent / "runs"
    return run_here(capsys, "engines", "imitate", *words, *SMALL, "--name", name, "--runs", runs)


def told(said: Said, code: int = 0) -> dict[str, Any]:
    assert said.code == code, said
    return json.loads(said.out)


def test_what_was_chosen_is_foretold_and_later_games_are_learnt_too(games: Path, capsys: Capsys) -> None:
    run = RunFolder(games.parent / "runs" / "cards")
    first = told(imitate(capsys, games, "fit.epochs=20", "--json"))
    assert (first["games"], first["new_games"], first["passed_over"], first["version"]) == (40, 40, 0, 1)
    assert first["validation"]["accuracy"] > 0.9 > first["validation"]["majority_accuracy"] + 0.1
    assert first["validation"]["kinds"].keys() == {"choose_action"}
    digest = newest_digest(run)

    again = told(imitate(capsys, games, "fit.epochs=20", "--json"))
    assert (again["new_games"], again["passed_over"], again["version"]) == (0, 40, 1)
    assert newest_digest(run) == digest

    watch(games, range(40, 44))
    watch(games.parent / "more", range(42, 50))  # two of them are copies
    more = told(imitate(capsys, games, games.parent / "more", "fit.epochs=20", "--json"))
    assert (more["games"], more["new_games"], more["passed_over"], more["version"]) == (50, 10, 42, 2)
    assert newest_digest(run) != digest
    (status,) = show_status(None, runs=games.parent / "runs", quiet=False)
    assert (status["games"], status["version"], status["learner_steps"]) == (50, 2, more["steps"])
    assert status["strength"] == {"choices": more["validation"]["accuracy"]}


def test_what_is_said_to_a_person(games: Path, capsys: Capsys) -> None:
    said = imitate(capsys, games)
    assert "40 games of cards.jar" in said.out
    assert "of its choices foretold, the usual one is right in" in said.out
    assert said.out.splitlines()[-1] == (
        f"next: tamen engines up {games / 'config.yaml'}   and   "
        "tamen train forge --weights cards --name cards-played 'network.layers=[16]'"
    )


def test_without_games_kept_apart_it_is_judged_by_nothing(games: Path, capsys: Capsys) -> None:
    said = imitate(capsys, games, "fit.validation_share=0", "fit.epochs=1")
    assert (said.code, "no games were kept apart" in said.out) == (0, True)
    assert (
        told(imitate(capsys, games, "fit.validation_share=0", "fit.epochs=1", "--json"))["validation"] is None
    )


def test_a_dry_run_changes_nothing(games: Path, capsys: Capsys) -> None:
    said = imitate(capsys, games, "fit.epochs=7", "--dry-run")
    assert (said.code, "epochs: 7" in said.out) == (0, True)
    assert "# 40 games of cards.jar" in said.out
    assert not (games.parent / "runs").exists()


@pytest.mark.parametrize(("unit", "after"), [("games", 3), ("games", 21), ("rows", 2), ("rows", 12)])
def test_stopped_anywhere_it_goes_on_to_the_same_network(
    games: Path, capsys: Capsys, unit: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imitate(capsys, games, name="straight").code == 0
    calls = 0

    def progress(self: StepDisplay, done: float, total: float, of: str) -> None:
        nonlocal calls
        calls += of == unit
        if calls == after and of == unit:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StepDisplay, "progress", progress)
        broken = imitate(capsys, games, "--json")
    assert not told(broken, code=130)["finished"]
    ended = told(imitate(capsys, games, "--json"))
    assert (ended["finished"], ended["games"]) == (True, 40)
    runs = games.parent / "runs"
    assert newest_digest(RunFolder(runs / "cards")) == newest_digest(RunFolder(runs / "straight"))


@pytest.mark.parametrize("gone", ["taken.json", "decisions_000000.npz*"])
def test_what_is_gone_of_the_rows_is_made_again(games: Path, capsys: Capsys, gone: str) -> None:
    imitate(capsys, games)
    rows = games.parent / "runs" / "cards" / "decisions"
    before = len(read_decisions(rows).columns["game"])
    for path in rows.glob(gone):
        path.unlink()
    assert told(imitate(capsys, games, "--json"))["games"] == 40
    assert len(read_decisions(rows).columns["game"]) == before


def test_files_that_cannot_be_read_are_told_and_the_others_are_learnt(games: Path, capsys: Capsys) -> None:
    shards = counted_shards(games)
    shards[1].path.write_bytes(shards[1].path.read_bytes()[:-5])
    shards[3].path.unlink()
    said = imitate(capsys, games, "--json")
    result = told(said, code=1)
    assert result["damaged"] == [str(shards[1].path), str(shards[3].path)]
    assert (result["finished"], result["games"]) == (True, 24)
    assert said.err.count("8 games are left out") == 2


def test_damaged_rows_are_told(games: Path, capsys: Capsys) -> None:
    imitate(capsys, games)
    (file,) = decision_files(games.parent / "runs" / "cards" / "decisions")
    file.write_bytes(file.read_bytes()[:-1])
    assert_three_lines(imitate(capsys, games), code=1, mentions=[file.name, "cannot be read"])


def test_what_cannot_be_learnt_from_is_told_before_a_folder_is_made(tmp_path: Path, capsys: Capsys) -> None:
    watch(tmp_path / "games", range(8))
    watch(tmp_path / "unwatched", range(8), mode="result")
    watch(tmp_path / "begun", range(0))
    watch(tmp_path / "other", range(8), jar="other.jar")
    for folders, mentions in (
        (["nothing"], ["no games.jsonl", "--observe"]),
        (["unwatched"], ["8 games were played without --observe"]),
        (["begun"], ["no game is finished there"]),
        (["games", "other"], ["cards.jar", "other.jar", "--name"]),
    ):
        said = imitate(capsys, *(tmp_path / folder for folder in folders))
        assert_three_lines(said, code=2, mentions=mentions)
    assert_three_lines(imitate(capsys, tmp_path / "games", "fit.epoch=3"), code=2, mentions=["fit.epochs"])
    assert not (tmp_path / "runs").exists()


def test_a_run_of_something_else_stays_what_it_is(games: Path, capsys: Capsys) -> None:
    runs = games.parent / "runs"
    tiny_run(runs / "toe", tiny_config())
    assert_three_lines(imitate(capsys, games, name="toe"), code=2, mentions=["another kind of run", "--name"])
    imitate(capsys, games)
    settings = [(runs / "cards" / name).read_bytes() for name in ("imitation.yaml", "config.yaml")]
    watch(games.parent / "other", range(60, 68), jar="other.jar")
    for words, mentions in (
        ([games, "fit.epochs=3"], ["fit.epochs: 10 -> 3"]),
        ([games, "learner.clip_norm=2"], ["learner.clip_norm"]),
        ([games, "network.layers=[8]"], ["network.layers"]),
        ([games.parent / "other"], ["cards.jar", "other.jar"]),
    ):
        folder, *changes = words
        said = run_here(
            capsys, "engines", "imitate", folder, *SMALL, *changes, "--name", "cards", "--runs", runs
        )
        assert (said.code, said.err.count("\n") >= 3) == (2, True), said
        for text in mentions:
            assert text in said.err
    assert [(runs / "cards" / name).read_bytes() for name in ("imitation.yaml", "config.yaml")] == settings
    for words in (("train", "forge", "--name", "cards", "--engine", "local"), ("match", "cards", "random")):
        assert_three_lines(run_here(capsys, *words, "--runs", runs), code=2, mentions=["cards"])


def test_a_folder_that_was_moved_is_known(games: Path, capsys: Capsys) -> None:
    imitate(capsys, games)
    moved = games.parent / "moved"
    shutil.move(games, moved)
    assert told(imitate(capsys, moved, "--json"))["passed_over"] == 40
    assert find_watched([moved, moved])[0].games == 40
