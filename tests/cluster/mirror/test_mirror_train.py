"""`tamen train` with a mirror: a machine that is lost costs at most what came after the last round."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from cluster.mirror.manifests import manifest_numbers, read_manifest
from cluster.mirror.place import Place
from cluster.mirror.thread import Mirror
from cluster.run.run_folder import RunFolder
from core.errors import ClusterError
from tests.cluster.commands import Program, assert_three_lines, run_here
from tests.cluster.fake_engine import FakeEngine
from tests.cluster.mirroring import checkpoint, mirror_of, restored
from tests.cluster.tiny import checkpoints, games_on_disk, tiny_config, tiny_overrides, tiny_run

MIRRORED = {"mirror__every_seconds": 1.0}


def command(tmp_path: Path, machine: str, *more: object) -> list[object]:
    settings = tiny_overrides(**MIRRORED)
    return ["train", "tic_tac_toe", *settings, *more, "--engine", "local", "--runs", tmp_path / machine]


@pytest.mark.system
def test_a_lost_machine_is_replaced_by_another(tmp_path: Path) -> None:
    url, first = f"{tmp_path}/mirror", RunFolder(tmp_path / "first" / "tic_tac_toe")
    place = Place(url, timeout_seconds=1)
    program = Program(tmp_path / "first.txt", *command(tmp_path, "first", f"mirror.url={url}"))
    try:
        program.until(lambda: len(manifest_numbers(place)) >= 3 and checkpoints(first) != [], "a mirror")
        known, saved = games_on_disk(first), checkpoints(first)[-1]  # acknowledged by now
        now = manifest_numbers(place)[-1]
        program.until(lambda: manifest_numbers(place)[-1] >= now + 2, "the next rounds")
        program.send(signal.SIGKILL)
        program.wait()
        played = games_on_disk(first)
    finally:
        program.end()
    shutil.rmtree(first.root.parent)

    newest = read_manifest(place, manifest_numbers(place)[-1])
    again = Program(
        tmp_path / "again.txt", *command(tmp_path, "second", "--resume", url, "--steps", "1000000")
    )
    second = RunFolder(tmp_path / "second" / "tic_tac_toe")
    try:
        again.until(lambda: manifest_numbers(place)[-1] >= newest.number + 3, "a mirror that goes on")
        again.send(signal.SIGINT)
        assert again.wait() == 0
    finally:
        again.end()
    restored = games_on_disk(second)
    assert set(known) <= set(restored)
    assert len(restored) == len(set(restored))
    lives = {epoch for _, epoch, _ in restored}
    assert lives == {0, 1_000_001}  # those of the first machine, and one that it never gave out
    assert {game for game in restored if game[1] == 0} <= set(played)
    numbers = {int(path.split("/")[1]) for path in newest.files if path.startswith("checkpoints/")}
    assert saved <= max(numbers)
    assert f"restored {len(newest.files)} files" in again.said
    assert f"mirrored to {url}" in again.said


def test_a_place_that_cannot_be_written_is_told_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = command(tmp_path, "runs", f"mirror.url={tmp_path}/file/mirror")
    for more in ([], ["--dry-run"]):
        said = run_here(capsys, *arguments, *more)
        assert_three_lines(said, code=1, mentions=["cannot be mirrored to", "mirror.url=null"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "mentions"),
    [
        (["--resume", "nowhere"], ["no run is mirrored to nowhere", "mirror.url"]),
        (["--resume", "gopher://a/b"], ["gopher://a/b", "not installed"]),
        (["mirror.every_seconds=0"], ["mirror.every_seconds = 0 is not allowed", "more than 0"]),
        (["mirror.uri=x"], ["there is no setting called 'mirror.uri'", "mirror.url"]),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    mentions: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_three_lines(run_here(capsys, *command(tmp_path, "runs", *more)), code=2, mentions=mentions)
    assert not (tmp_path / "runs").exists()


def test_other_trainings_are_not_restored(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["hex5_2p", "--auto"], ["river_values"]):
        said = run_here(capsys, "train", *arguments, "--resume", "nowhere")
        assert_three_lines(said, code=2, mentions=["--resume"])


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """What carries runs in this process, however they are begun."""
    engine = FakeEngine()
    monkeypatch.setattr("cluster.training.train.make_engine", lambda *args, **settings: engine)
    return engine


def lost_run(tmp_path: Path) -> tuple[RunFolder, Mirror]:
    """Return a run of this machine and its mirror, which are thought to be lost."""
    run = tiny_run(tmp_path / "first" / "tic_tac_toe", tiny_config())
    checkpoint(run, 1)
    mirror = mirror_of(run, tmp_path / "mirror")
    mirror.save()
    return run, mirror


def test_an_engine_that_cannot_start_leaves_the_mirror_to_who_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, mirror = lost_run(tmp_path)
    again = command(tmp_path, "second", "--resume", tmp_path / "mirror")
    engine.failing_start = ClusterError("Ray cannot be joined", why="nobody answers", fix="start it")
    said = run_here(capsys, *again)
    assert_three_lines(said, code=1, mentions=["Ray cannot be joined"])
    monkeypatch.setattr("cluster.mirror.restore.Restoring._gather", None)  # it is not brought a second time
    said = run_here(capsys, *again, "--dry-run")
    assert (said.code, "resumes in" in said.out) == (0, True)
    mirror.save()  # it is not taken from the run that lives
    said = run_here(capsys, *again)
    assert_three_lines(said, code=2, mentions=["went on elsewhere", "mirror.take=true"])
    mirror.save()
    assert checkpoints(run) == [1]


def test_a_restored_run_goes_on_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_run(tmp_path)
    again = command(tmp_path, "second", "--resume", tmp_path / "mirror", "stop.games=20")
    monkeypatch.setattr("cluster.training.train._publish_card", lambda *args: None)
    for words in ("restored", "is here already"):
        said = run_here(capsys, *again)
        assert (said.code, words in said.out, "the same command goes on" in said.out) == (0, True, True), said


def test_of_two_runs_the_one_whose_mirror_was_taken_saves_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_run(tmp_path)
    second = tmp_path / "second" / "tic_tac_toe"

    def take(number: int) -> None:
        if number == 1:
            mirror_of(restored(tmp_path / "mirror", second), tmp_path / "mirror", take=True)
        time.sleep(0.05)
        assert number < 200

    engine.meanwhile = take
    begin = command(tmp_path, "first", f"mirror.url={tmp_path}/mirror", "stop.games=1000000")
    said = run_here(capsys, *begin, "mirror.every_seconds=0.1")
    assert_three_lines(said, code=1, mentions=["run 'tic_tac_toe' ends here", "mirror.take=true"])
    assert engine.stopped == 1
    engine.meanwhile = lambda number: None
    said = run_here(capsys, *begin)
    assert_three_lines(said, code=2, mentions=["with files of its own", "mirror.take=true"])
    monkeypatch.setattr("cluster.training.train._publish_card", lambda *args: None)
    said = run_here(capsys, *begin, "mirror.take=true", "stop.games=20")
    assert said.code == 0, said


def test_another_place_that_cannot_be_written_is_told_before_all_is_brought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost_run(tmp_path)
    (tmp_path / "file").touch()
    words = ["--resume", tmp_path / "mirror", f"mirror.url={tmp_path}/file/mirror"]
    said = run_here(capsys, *command(tmp_path, "second", *words))
    assert_three_lines(said, code=1, mentions=["cannot be mirrored to"])
    assert not (tmp_path / "second").exists()
