"""What a look saw can be read until it is uploaded, whatever the run deletes meanwhile; nothing of that stays."""

import os
import shutil
from pathlib import Path

import pytest

from cluster.mirror.snapshot import LINKS
from cluster.mirror.thread import mirrored
from cluster.run.run_folder import RunFolder
from configs.schema import MirrorConfig
from replay.buffer import ReplayBuffer
from tests.cluster.mirroring import (
    GAMES_A_CHUNK,
    SMALL_WINDOW,
    FaultyPlace,
    a_run,
    assert_whole,
    checkpoint,
    deliver,
    mirror_of,
    restored,
)
from tests.cluster.tiny import checkpoints
from tests.replay.experience import open_buffer

CHUNKS_IN_WINDOW = 10


class Run:
    """A run whose window and checkpoints are all others after each `turn_over`."""

    def __init__(self, folder: Path) -> None:
        self.run: RunFolder = a_run(folder)
        self.replay: ReplayBuffer = open_buffer(self.run.root, SMALL_WINDOW)
        self.chunks = self.turns = 0
        self.turn_over()

    def turn_over(self) -> None:
        for _ in range(2 * CHUNKS_IN_WINDOW):
            deliver(self.replay, self.chunks)
            self.chunks += 1
        old, self.turns = self.turns, self.turns + 1
        checkpoint(self.run, self.turns)
        remove_checkpoint(self.run, old)

    @property
    def games(self) -> int:
        return GAMES_A_CHUNK * self.chunks


def remove_checkpoint(run: RunFolder, number: int) -> None:
    """Delete a checkpoint, if it is there, as the learner does."""
    path = run.checkpoints / f"{number:010d}"
    if path.exists():
        shutil.rmtree(path.rename(run.checkpoints / f".unfinished-{number}"))


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every place be one that may fail."""
    monkeypatch.setattr("cluster.mirror.thread.Place", FaultyPlace)
    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(lambda operation, name: None))


def turn_over_with_uploads(monkeypatch: pytest.MonkeyPatch, played: Run, *, uploads: int) -> None:
    """Let the window turn over during each of the next uploads of a piece."""
    left = [uploads]

    def meanwhile(operation: str, name: str) -> None:
        if operation == "write" and name.startswith("objects/") and left[0]:
            left[0] -= 1
            played.turn_over()

    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(meanwhile))


def test_a_window_that_turns_over_during_each_upload_is_mirrored_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Run(tmp_path / "test")
    mirror = mirror_of(played.run, tmp_path / "mirror", max_uploads=1)
    turn_over_with_uploads(monkeypatch, played, uploads=1000)
    for number in range(2):
        games, turns = played.games, played.turns
        mirror.save()
        assert played.turns > turns + CHUNKS_IN_WINDOW
        there = restored(tmp_path / "mirror", tmp_path / f"there-{number}")
        assert assert_whole(there, acknowledged=games) == games
        assert checkpoints(there) == [turns]
        assert not (played.run.root / LINKS).exists()


def test_where_no_links_can_be_made_a_look_is_taken_again_and_at_last_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Run(tmp_path / "test")
    (played.run.root / LINKS).write_text("in the way, as a full disk would be")
    mirror = mirror_of(played.run, tmp_path / "mirror", max_uploads=1)
    turn_over_with_uploads(monkeypatch, played, uploads=3)
    mirror.save()
    assert assert_whole(restored(tmp_path / "mirror", tmp_path / "there"), acknowledged=played.games) > 0

    played.turn_over()
    turn_over_with_uploads(monkeypatch, played, uploads=1000)
    with pytest.raises(OSError, match=r"was deleted before it was read.* without hard links, or full\?"):
        mirror.save()


def test_when_the_disk_fills_amid_a_round_what_is_held_is_let_go_and_the_rest_read_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played, held = Run(tmp_path / "test"), []
    mirror = mirror_of(played.run, tmp_path / "mirror", max_uploads=1)

    def fill(operation: str, name: str) -> None:
        if operation == "write" and name.startswith("objects/"):
            held.append((played.run.root / LINKS).exists())
            if len(held) == 3:
                monkeypatch.setattr("cluster.mirror.snapshot.SPARE_BYTES", 1 << 60)

    monkeypatch.setattr(FaultyPlace, "fault", staticmethod(fill))
    for _ in range(2):  # amid a round, and from its beginning
        mirror.save()
        there = restored(tmp_path / "mirror", tmp_path / f"there-{len(held)}")
        assert assert_whole(there, acknowledged=played.games) == played.games
        played.turn_over()
    assert held[:3] == [True] * 3
    assert not any(held[3:])


def test_a_checkpoint_that_is_deleted_amid_a_look_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "test")
    for number in (1, 2):
        checkpoint(run, number)
    mirror, link = mirror_of(run, tmp_path / "mirror"), os.link

    def then_delete(path: Path, target: Path) -> None:
        link(path, target)
        remove_checkpoint(run, 1)

    monkeypatch.setattr("cluster.mirror.snapshot.os.link", then_delete)
    manifest = mirror.save()
    assert {path for path in manifest.files if path.startswith("checkpoints")} == {
        "checkpoints/0000000002/state.json",
        "checkpoints/0000000002/trainer.pt",
    }


def test_thousands_of_files_need_few_descriptors_and_once_known_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened, linked, link = a_run(tmp_path / "test"), [], [], os.link
    for number in range(3000):
        (run.root / f"{number}.txt").write_bytes(b"equal")
    mirror = mirror_of(run, tmp_path / "mirror")
    before = len(os.listdir("/proc/self/fd"))

    def count(path: Path, target: Path) -> None:
        link(path, target)
        linked.append(target.parent.name)
        opened.append(len(os.listdir("/proc/self/fd")) - before)

    monkeypatch.setattr("cluster.mirror.snapshot.os.link", count)
    mirror.save()
    assert linked.count(LINKS) == 3000
    assert max(opened) < 50
    linked.clear()
    mirror.save()
    assert LINKS not in linked


@pytest.mark.parametrize("goes_on", ["mirrored", "without a mirror"])
def test_what_a_killed_process_left_goes_with_the_next_life_and_is_never_mirrored(
    tmp_path: Path, goes_on: str
) -> None:
    run = a_run(tmp_path / "test")
    (run.root / LINKS).mkdir()
    (run.root / LINKS / "17").write_text("of a chunk that is deleted")
    url = str(tmp_path / "mirror") if goes_on == "mirrored" else None
    with mirrored(MirrorConfig(url=url), run, report=lambda text: None) as mirror:
        assert not (run.root / LINKS).exists()
        if mirror is not None:
            (run.root / LINKS).mkdir()
            mirror.claim()
            assert not any(LINKS in path for path in mirror.save().files)
            assert not (run.root / LINKS).exists()
