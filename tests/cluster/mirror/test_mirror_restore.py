"""A run is brought back whole, from the newest manifest that is sound, and over nothing that is here."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.mirror.manifests import file_of, object_of, read_manifest
from cluster.mirror.place import Place
from cluster.mirror.plan import Manifest, Piece
from cluster.mirror.record import Record
from cluster.mirror.restore import Restoring
from cluster.mirror.thread import Mirror, TakenOverError
from cluster.run.run_folder import RunFolder
from configs.schema import MirrorConfig
from core.errors import ClusterError, DataError, UsageError
from tests.cluster.mirroring import a_run, checkpoint, deliver, files_below, mirror_of, restored
from tests.cluster.tiny import tiny_config, tiny_run
from tests.replay.experience import open_buffer


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a run is mirrored in two manifests, of which the second has the checkpoint 2 and ten games more."""
    run, url = a_run(tmp_path / "test"), f"{tmp_path}/mirror"
    replay, mirror = open_buffer(run.root), mirror_of(run, url)
    for number in (1, 2):
        for chunk in range(5 * number):
            deliver(replay, chunk)
        checkpoint(run, number)
        mirror.save()
    return url


def games_of(run: RunFolder) -> int:
    return int(open_buffer(run.root).stats()["games"])


def newest_checkpoint(run: RunFolder) -> int:
    return max(int(path.name) for path in run.checkpoints.iterdir())


@pytest.mark.parametrize("harm", ["torn manifest", "torn object", "altered object", "missing object"])
def test_a_broken_newest_manifest_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, url: str, harm: str
) -> None:
    place, said = Place(url, timeout_seconds=1), []
    assert place.folder is not None
    newest = read_manifest(place, 2)
    (piece,) = newest.files["checkpoints/0000000002/trainer.pt"]
    path = place.folder / (file_of(2) if harm == "torn manifest" else object_of(piece))
    data = path.read_bytes()
    if harm == "missing object":
        path.unlink()
    elif harm == "altered object":
        path.write_bytes(data[:-1] + b"?")
    else:
        path.write_bytes(data[: len(data) // 2])
    there = restored(url, tmp_path / "there", said)

    assert (games_of(there), newest_checkpoint(there)) == (10, 1)
    assert any("manifest 2 " in text and ("not whole" in text or "cannot be read" in text) for text in said)
    mirror_of(there, url).save()  # it goes on being mirrored where it was
    assert games_of(restored(url, tmp_path / "again")) == 10


def test_without_a_sound_manifest_nothing_is_left_and_all_reasons_are_told(tmp_path: Path, url: str) -> None:
    for path in (tmp_path / "mirror" / "objects").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"manifest 2: .*; manifest 1: "):
        restored(url, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_restore_that_was_broken_off_goes_on(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = Place.read, [0]

    def some(self: Place, name: str, most: int) -> bytes:
        count[0] += 1
        if count[0] > 9:
            raise PermissionError("the network is gone")
        return read(self, name, most)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "read", some)
        with pytest.raises(ClusterError, match="cannot be restored from"):
            restored(url, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    (tmp_path / ".restoring" / "there" / "foreign.txt").touch()
    there = restored(url, tmp_path / "there")

    assert (games_of(there), (there.root / "foreign.txt").exists()) == (20, False)
    assert not (tmp_path / ".restoring").exists()


def test_pieces_that_are_deleted_meanwhile_lead_to_the_newer_manifest(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "test")
    mirror, gone, one_at_a_time = mirror_of(run, url), [], threading.Lock()
    read = Place.read

    def go_on(self: Place, name: str, most: int) -> bytes:
        with one_at_a_time:
            if name.startswith("objects/") and not gone:
                gone.append(name)
                for number in range(3, 7):  # so many rounds that the manifest it reads by is no more
                    checkpoint(run, number)
                    (run.root / "config.yaml").write_bytes((run.root / "config.yaml").read_bytes() + b"\n")
                    mirror.save()
        return read(self, name, most)

    monkeypatch.setattr(Place, "read", go_on)
    there = restored(url, tmp_path / "there")
    assert newest_checkpoint(there) == 6
    assert files_below(there.root)["config.yaml"].endswith(b"\n\n\n\n")


@pytest.mark.parametrize(
    ("case", "why", "fix"),
    [
        ("foreign", "never mirrored", "move it away, or give another --name"),
        ("older", "went on elsewhere", "mirror.take=true instead of --resume"),
    ],
)
def test_nothing_that_is_here_is_overwritten(tmp_path: Path, url: str, case: str, why: str, fix: str) -> None:
    folder = tmp_path / "test"
    if case == "foreign":
        folder = tmp_path / "foreign"
        tiny_run(folder, tiny_config())
    if case == "older":
        mirror_of(restored(url, tmp_path / "there"), url).save()
    before = files_below(folder)
    with pytest.raises(UsageError) as caught:
        restored(url, folder)

    assert why in caught.value.why
    assert fix in caught.value.fix
    assert files_below(folder) == before


@pytest.mark.parametrize("machine", ["first", "second"])
def test_a_run_that_is_here_and_as_new_goes_on_without_being_brought(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    folder = tmp_path / "test" if machine == "first" else restored(url, tmp_path / "there").root
    before, said = files_below(folder), []
    monkeypatch.setattr("cluster.mirror.restore.Restoring._gather", None)
    restored(url, folder, said)
    assert files_below(folder) == before
    assert said == [f"{folder.name} is here already, as new as what is mirrored to {url}"]


@pytest.mark.parametrize("rounds", [1, 100])
def test_what_a_run_that_lives_writes_during_the_restore_is_brought_and_its_place_taken(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    run = RunFolder(tmp_path / "test")
    mirror, written, one_at_a_time = mirror_of(run, url), [], threading.Lock()
    mirror.save()
    bring = Restoring._bring

    def go_on(self: Restoring, manifest: Manifest, paths: list[str]) -> None:
        bring(self, manifest, paths)
        with one_at_a_time:
            if len(written) < rounds:  # more often than any restore looks
                checkpoint(run, 3 + len(written))
                written.append(mirror.save())

    monkeypatch.setattr(Restoring, "_bring", go_on)
    restoring = Restoring(url, RunFolder(tmp_path / "there"), config=MirrorConfig(), say=[].append)
    token = restoring.run(tiny_config())
    there = RunFolder(tmp_path / "there")
    assert newest_checkpoint(there) >= 2 + min(len(written), 2)
    if rounds == 1:
        assert Record.of(there.root).restored == (written[-1].number, token)

    mirror.save()  # and it still lives
    told: list[str] = []
    second = Mirror(MirrorConfig(url=url), there, report=told.append, successor_of=token)
    second.check()
    second.claim()
    assert "which ends when it sees that" in told[0]
    with pytest.raises(TakenOverError):
        mirror.save()
    second.save()


def test_a_damaged_or_hostile_place_leads_to_the_manifest_before(tmp_path: Path, url: str) -> None:
    place = Place(url, timeout_seconds=1)
    assert place.folder is not None
    newest = read_manifest(place, 2)
    endless = {"checkpoints/0000000009/trainer.pt": (Piece("ab", 10**15),)}
    for number, told in ((3, replace(newest, number=3, files=endless)), (4, newest)):
        (place.folder / file_of(number)).write_bytes(told.encode())
    (place.folder / "manifests" / f"{10**25}.manifest").write_bytes(newest.encode())
    (piece,) = newest.files["checkpoints/0000000002/trainer.pt"]
    with (place.folder / object_of(piece)).open("r+b") as file:
        file.truncate(1 << 40)  # what is read of it is bounded
    there = restored(url, tmp_path / "there")
    assert (games_of(there), newest_checkpoint(there)) == (10, 1)
    mirror_of(there, url).save()  # numbers go on from the last one that can be


def test_an_old_manifest_under_a_new_number_is_not_the_newest(tmp_path: Path, url: str) -> None:
    manifests = tmp_path / "mirror" / "manifests"
    (manifests / "0000000003.manifest").write_bytes((manifests / "0000000001.manifest").read_bytes())
    assert newest_checkpoint(restored(url, tmp_path / "there")) == 2


def test_a_run_of_another_game_is_refused_before_it_is_brought(tmp_path: Path, url: str) -> None:
    restoring = Restoring(url, RunFolder(tmp_path / "there"), config=MirrorConfig(), say=[].append)
    with pytest.raises(UsageError, match=r"cannot go on with network\.channels=16"):
        restoring.run(tiny_config(network__channels=16))
    assert not (tmp_path / "there").exists()
    assert len(files_below(tmp_path / ".restoring" / "there")) == 2


@pytest.mark.parametrize("what", ["nothing", "a claim alone"])
def test_where_no_run_is_mirrored_that_is_told(tmp_path: Path, what: str) -> None:
    if what == "a claim alone":
        mirror_of(a_run(tmp_path / "test"), tmp_path / "mirror")
    with pytest.raises(UsageError, match="no run is mirrored to"):
        restored(tmp_path / "mirror", tmp_path / "there")


def test_two_do_not_restore_one_run_at_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.mirror.restore.LOCK_SECONDS", 0.05)
    read, refused = Place.read, []

    def meanwhile(self: Place, name: str, most: int) -> Any:
        if name.startswith("objects/") and not refused:
            refused.append("")
            with pytest.raises(UsageError, match="is being restored by another process"):
                restored(url, tmp_path / "there")
        return read(self, name, most)

    monkeypatch.setattr(Place, "read", meanwhile)
    restored(url, tmp_path / "there")
    assert refused


def test_an_empty_folder_is_no_run(tmp_path: Path, url: str) -> None:
    (tmp_path / "there").mkdir()
    assert games_of(restored(url, tmp_path / "there")) == 20
    assert os.access(tmp_path / "there" / "mirror.json", os.R_OK)
