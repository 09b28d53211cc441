"""A mirror holds the run whole at every moment, whatever fails on the way, and has one writer."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cluster.mirror.manifests import manifest_numbers
from cluster.mirror.place import Place
from cluster.mirror.plan import GROWING_PIECE_BYTES, MANIFESTS_KEPT
from cluster.mirror.thread import Mirror
from cluster.run.run_folder import RunFolder
from configs.schema import MirrorConfig
from core.errors import ClusterError, UsageError
from core.files import write_atomic
from tests.cluster.mirroring import (
    SMALL_WINDOW,
    FaultyPlace,
    a_run,
    assert_whole,
    checkpoint,
    deliver,
    files_below,
    mirror_of,
    playing,
    restored,
    until,
)
from tests.cluster.tiny import tiny_config, tiny_run
from tests.pipeline.s3 import bucket, s3_server  # noqa: F401 - fixtures
from tests.replay.experience import open_buffer


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every place be one that may fail, and nobody wait long for another attempt."""
    monkeypatch.setattr("cluster.mirror.thread.Place", FaultyPlace)
    monkeypatch.setattr("cluster.mirror.place.FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(lambda operation, name: None))


@pytest.fixture(params=["path", "file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    elif request.param == "s3":
        yield request.getfixturevalue("bucket") + "/runs/test"
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/mirror"


def test_a_run_is_mirrored_and_restored_byte_for_byte(tmp_path: Path, url: str) -> None:
    run = a_run(tmp_path / "test")
    replay = open_buffer(run.root)
    mirror = mirror_of(run, url)
    for number in range(3):
        deliver(replay, number)
        checkpoint(run, number)
        mirror.save()
    (run.root / "empty").touch()
    (run.root / ".lock").write_text("of this machine")
    mirror.save()
    there = restored(url, tmp_path / "elsewhere")

    before, after = files_below(run.root), files_below(there.root)
    assert before.keys() == after.keys()
    assert {path for path in before if before[path] != after[path]} == {"replay/ledger.sealed"}
    assert (there.name, there.typed) == ("test", "elsewhere")
    assert (
        open_buffer(there.root).open_epoch(0) >= 1_000_000
    )  # lives that came after the manifest are not known
    assert not (tmp_path / ".restoring").exists()


def test_only_what_is_new_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "test")
    (run.root / "games").mkdir()
    text = run.root / "games" / "0.txt"
    text.write_bytes(bytes(range(256)) * (3 * GROWING_PIECE_BYTES // 256))
    (run.root / "copy.txt").write_bytes(b"equal")
    (run.root / "copied.txt").write_bytes(b"equal")
    written: list[str] = []

    def record(operation: str, name: str) -> None:
        if operation == "write":
            written.append(name)

    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(record))
    mirror = mirror_of(run, tmp_path / "mirror")
    mirror.save()
    assert len(set(written)) == len(list((tmp_path / "mirror" / "objects").iterdir())) + 1  # and the probe

    written.clear()
    mirror.save()
    assert written == []
    with text.open("ab") as file:
        file.write(b"one more line\n")
    mirror.save()
    assert len(written) == 1
    written.clear()
    mirror_of(run, tmp_path / "mirror").save()  # a later life finds what is there
    assert [name for name in written if name.startswith("objects/")] == []


def test_a_run_that_goes_on_can_be_restored_from_every_round(tmp_path: Path) -> None:
    run, acknowledged = a_run(tmp_path / "test"), [0]
    mirror = mirror_of(run, tmp_path / "mirror")
    with playing(open_buffer(run.root, SMALL_WINDOW), run, acknowledged):
        for number in range(12):
            before = acknowledged[0]
            manifest = mirror.save()
            there = restored(tmp_path / "mirror", tmp_path / f"there-{number}")
            assert assert_whole(there, acknowledged=before) <= acknowledged[0] + 2
            assert {path.name for path in there.checkpoints.glob("*/*")} <= {"trainer.pt", "state.json"}
            assert {len(list(path.iterdir())) for path in there.checkpoints.glob("*")} <= {2}
            assert manifest_numbers(Place(f"{tmp_path}/mirror", timeout_seconds=1))[-1] == manifest.number


def test_a_window_that_turns_over_amid_a_look_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, turned = a_run(tmp_path / "test"), []
    replay = open_buffer(run.root, SMALL_WINDOW)
    for number in range(10):
        deliver(replay, number)
    scandir = os.scandir

    def meanwhile(folder: Path) -> Any:
        if folder != run.root / "replay" or len(turned) == 3:
            return scandir(folder)
        entries = list(scandir(folder))
        turned.append(folder)
        write_atomic(run.models / "main" / "given_out", f"{len(turned)}".encode())
        for number in range(10 * len(turned), 10 * len(turned) + 15):
            deliver(replay, number)
        return entries

    monkeypatch.setattr("cluster.mirror.snapshot.os.scandir", meanwhile)
    mirror = mirror_of(run, tmp_path / "mirror")
    mirror.save()
    there = restored(tmp_path / "mirror", tmp_path / "there")
    assert assert_whole(there, acknowledged=90) == 90
    assert (there.models / "main" / "given_out").read_bytes() == b"3"


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_a_machine_that_dies_amid_a_round_leaves_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    run = a_run(tmp_path / "test")
    replay = open_buffer(run.root, SMALL_WINDOW)
    mirror = mirror_of(run, tmp_path / "mirror", max_uploads=1)
    for number in range(12):
        deliver(replay, number)
    mirror.save()
    for number in range(12, 20):
        deliver(replay, number)
    left = [step]

    def die(operation: str, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PermissionError("dead")

    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(die))
    with contextlib.suppress(PermissionError):  # the last steps only delete, which may wait
        mirror.save()
    assert left[0] < 0 or step > 10
    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(lambda operation, name: None))
    games = assert_whole(restored(tmp_path / "mirror", tmp_path / "there"), acknowledged=24)
    assert games in (24, 40)

    mirror_of(run, tmp_path / "mirror").save()
    assert assert_whole(restored(tmp_path / "mirror", tmp_path / "after"), acknowledged=40) == 40


def test_what_the_run_deleted_is_deleted_and_old_manifests_with_it(tmp_path: Path) -> None:
    run = a_run(tmp_path / "test")
    replay = open_buffer(run.root, SMALL_WINDOW)
    mirror = mirror_of(run, tmp_path / "mirror")
    counts = []
    for number in range(40):
        deliver(replay, number)
        mirror.save()
        counts.append(len(list((tmp_path / "mirror" / "objects").iterdir())))
    (tmp_path / "mirror" / "objects" / "orphan").write_bytes(b"left by a life that died amid a round")
    mirror_of(run, tmp_path / "mirror").save()

    assert max(counts) < 25  # the window's ten chunks and what changed in the last rounds: it does not grow
    assert len(list((tmp_path / "mirror" / "manifests").iterdir())) == MANIFESTS_KEPT
    assert not (tmp_path / "mirror" / "objects" / "orphan").exists()


def test_pieces_whose_deletion_was_not_answered_are_not_taken_for_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "test")
    mirror = mirror_of(run, tmp_path / "mirror")
    (run.root / "file.txt").write_text("now here, now not")
    mirror.save()
    (run.root / "file.txt").unlink()
    delete = Place.delete

    def lose(self: Place, name: str) -> None:
        delete(self, name)
        if name.startswith("objects/"):
            raise PermissionError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "delete", lose)
        for _ in range(2 * MANIFESTS_KEPT):
            mirror.save()
    (run.root / "file.txt").write_text("now here, now not")
    mirror.save()
    said: list[str] = []
    assert (restored(tmp_path / "mirror", tmp_path / "there", said).root / "file.txt").exists()
    assert not any("not whole" in text for text in said)


def test_keys_that_may_not_delete_are_refused_though_storage_answers_with_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "delete", lambda self, name: None)
    with pytest.raises(ClusterError, match=r"is still there after it was deleted"):
        mirror_of(a_run(tmp_path / "test"), tmp_path / "mirror")


@pytest.mark.parametrize("answer", ["success", "403"])
def test_what_is_not_deleted_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    run, told = a_run(tmp_path / "test"), []
    config = MirrorConfig(url=str(tmp_path / "mirror"))
    mirror = Mirror(config, run, report=told.append)
    mirror.claim()
    monkeypatch.setattr("cluster.mirror.thread.LISTING_SECONDS", 0.0)
    delete = Place.delete

    def stay(self: Place, name: str) -> None:
        if answer == "403":
            raise PermissionError("403 nobody may delete")

    for broken in (True, False):
        monkeypatch.setattr(Place, "delete", stay if broken else delete)
        for number in range(6):
            (run.root / "state.txt").write_text(f"{broken} {number}")
            mirror.save()
    mirror.stats()
    why = {"success": "it says that they were deleted", "403": "403 nobody may delete"}[answer]
    assert [text.rpartition(": ")[2] for text in told] == [why]
    assert len(list((tmp_path / "mirror" / "manifests").iterdir())) == MANIFESTS_KEPT


def test_the_lag_begins_with_the_age_of_what_a_restore_would_bring(tmp_path: Path) -> None:
    run, told = a_run(tmp_path / "test"), []
    mirror = mirror_of(run, tmp_path / "mirror")
    assert mirror.stats()["lag_seconds"] < 60
    mirror._write(mirror._manifest(time.time() - 7200, mirror._kept[-1].files))
    later = Mirror(MirrorConfig(url=str(tmp_path / "mirror")), run, report=told.append)
    later.claim()
    assert 7200 <= later.stats()["lag_seconds"] < 7260
    assert not later.stats()["behind"]  # the first round is on its way
    assert told == []
    later.start()
    until(lambda: later.stats()["lag_seconds"] < 60)
    assert later.finish()


def test_a_place_that_fails_for_a_while_is_told_once_and_caught_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = a_run(tmp_path / "test"), []
    config = MirrorConfig(url=str(tmp_path / "mirror"), every_seconds=0.05, finish_seconds=20.0)
    mirror = Mirror(config, run, report=told.append)
    mirror.claim()

    def fail(operation: str, name: str) -> None:
        raise ConnectionError("503 slow down")

    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(fail))
    monkeypatch.setattr("cluster.mirror.thread.MOST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("cluster.mirror.thread.BEHIND_SECONDS", 0.2)
    mirror.start()
    until(lambda: mirror.stats()["failures"] >= 3)
    until(lambda: mirror.stats()["lag_seconds"] > 1.2)
    assert mirror.stats()["behind"]
    assert [text.split(",")[0] for text in told].count(f"the run is not mirrored to {config.url}") == 1
    assert any("503 slow down" in text for text in told)
    assert 2 <= sum("the mirror is behind" in text for text in told) <= 3  # again when it has doubled
    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(lambda operation, name: None))
    until(lambda: "seconds" in mirror.stats() and f"mirrored again to {config.url}" in told)
    until(lambda: not mirror.stats()["behind"])
    (run.root / "late.txt").write_text("written just before the end")
    assert mirror.finish()
    assert (restored(config.url, tmp_path / "there").root / "late.txt").exists()


@pytest.mark.parametrize(
    ("every_seconds", "lag_seconds", "behind"),
    [(1.0, 50.0, False), (1.0, 70.0, True), (600.0, 2300.0, False), (600.0, 2500.0, True)],
)
def test_how_late_a_mirror_may_be_follows_from_how_often_it_is_written(
    tmp_path: Path, every_seconds: float, lag_seconds: float, behind: bool
) -> None:
    mirror = mirror_of(a_run(tmp_path / "test"), tmp_path / "mirror", every_seconds=every_seconds)
    mirror._began = mirror._saved = time.monotonic() - lag_seconds
    assert mirror.stats()["behind"] is behind


def test_a_place_that_hangs_delays_nobody_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = mirror_of(a_run(tmp_path / "test"), tmp_path / "mirror", finish_seconds=0.2)
    released = threading.Event()
    monkeypatch.setattr(
        FaultyPlace, "fault", staticmethod(lambda operation, name: released.wait(60) and None)
    )
    mirror.start()
    assert not mirror.finish()
    released.set()


def test_a_new_checkpoint_is_mirrored_at_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "test")
    mirror = mirror_of(run, tmp_path / "mirror", every_seconds=1000.0)
    mirror.start()
    until(lambda: "seconds" in mirror.stats())
    checkpoint(run, 1)
    place = Place(str(tmp_path / "mirror"), timeout_seconds=1)
    until(lambda: manifest_numbers(place)[-1] >= 2)
    assert mirror.finish()


@pytest.mark.parametrize("where", ["here", "nobody"])
def test_what_cannot_be_a_mirror_is_refused_before_a_run_begins(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "test")
    if where == "here":
        with pytest.raises(UsageError, match="own folder"):
            mirror_of(run, run.root / "mirror")
    else:
        (tmp_path / "file").touch()
        with pytest.raises(ClusterError, match=r"cannot be mirrored to .*\n.*Not a directory") as caught:
            mirror_of(run, tmp_path / "file" / "mirror")
        assert "mirror.url=null" in caught.value.fix
    assert not run.root.exists()


def test_a_run_keeps_its_own_configuration(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_config(mirror__url="s3://bucket/runs/hex5"))
    assert run.config().mirror.url == "s3://bucket/runs/hex5"
