"""A mirror has one writer, the one that came last, and what came late or got lost on its way is no other."""

import contextlib
import threading
from pathlib import Path

import pytest

from cluster.mirror.manifests import manifest_numbers, newest_manifests
from cluster.mirror.place import Place
from cluster.mirror.thread import Mirror, TakenOverError
from configs.schema import MirrorConfig
from core.errors import ClusterError, UsageError
from tests.cluster.mirroring import a_run, deliver, mirror_of, restored, until
from tests.cluster.tiny import tiny_config, tiny_run
from tests.replay.experience import open_buffer


def test_of_two_that_write_to_one_place_the_last_goes_on(tmp_path: Path) -> None:
    run = a_run(tmp_path / "test")
    deliver(open_buffer(run.root), 0)
    first = mirror_of(run, tmp_path / "mirror")
    first.save()
    there = restored(tmp_path / "mirror", tmp_path / "there")
    second = mirror_of(there, tmp_path / "mirror")
    with pytest.raises(TakenOverError, match="another driver"):
        first.save()
    second.save()
    with pytest.raises(UsageError, match="cannot be mirrored to"):  # a new life of the first
        mirror_of(run, tmp_path / "mirror")
    with pytest.raises(UsageError, match="--resume"):
        mirror_of(a_run(tmp_path / "another"), tmp_path / "mirror")
    mirror_of(there, tmp_path / "mirror").save()


def test_of_two_that_write_at_the_same_moment_one_does(tmp_path: Path) -> None:
    run = a_run(tmp_path / "test")
    mirror_of(run, tmp_path / "mirror").save()
    lives = [mirror_of(run, tmp_path / "mirror")]
    barrier, refused = threading.Barrier(2), []
    lives.append(Mirror(MirrorConfig(url=str(tmp_path / "mirror")), run, report=lambda text: None))
    lives[1].check()
    for _ in range(20):
        for life in lives:
            life._number = max(other._number for other in lives)

        def save(life: Mirror) -> None:
            barrier.wait(10)
            try:
                life.save()
            except TakenOverError:
                refused.append(life)

        threads = [threading.Thread(target=save, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    numbers = manifest_numbers(Place(str(tmp_path / "mirror"), timeout_seconds=1))
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert refused  # nobody wrote over another's manifest unseen


def test_an_acknowledgement_that_was_lost_is_no_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "test")
    mirror = mirror_of(run, tmp_path / "mirror")
    create = Place.create

    def lose(self: Place, name: str, data: bytes) -> None:
        create(self, name, data)
        raise TimeoutError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "create", lose)
        mirror.save()  # its second attempt finds the file, which is its own
    with monkeypatch.context() as patch:
        patch.setattr(Place, "create", lose)
        patch.setattr("cluster.mirror.place.FINAL", (TimeoutError,))
        with pytest.raises(TimeoutError):
            mirror.save()
    mirror.save()
    assert len(restored(tmp_path / "mirror", tmp_path / "there").config().model_dump()) > 5


@pytest.mark.parametrize("between", ["the rounds", "looking and writing"])
def test_a_manifest_that_was_given_up_and_comes_late_is_not_taken_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    run, place = a_run(tmp_path / "test"), Place(str(tmp_path / "mirror"), timeout_seconds=1)
    mirror, create, late = mirror_of(run, tmp_path / "mirror"), Place.create, []

    def give_up(self: Place, name: str, data: bytes) -> None:
        late.append((name, data))
        raise PermissionError("given up")

    def after_the_late_one(self: Place, name: str, data: bytes) -> None:
        while late:
            create(self, *late.pop())
        create(self, name, data)

    (run.root / "old.txt").write_text("only the late one has this")
    with monkeypatch.context() as patch:
        patch.setattr(Place, "create", give_up)
        with pytest.raises(PermissionError):
            mirror.save()
    if between == "the rounds":
        create(place, *late.pop())
    (run.root / "old.txt").unlink()
    (run.root / "new.txt").write_text("written since")
    with monkeypatch.context() as patch:
        patch.setattr(Place, "create", after_the_late_one)
        mirror.save()
    assert (restored(tmp_path / "mirror", tmp_path / "there").root / "new.txt").exists()
    objects = place.sizes("objects")
    for manifest in newest_manifests(place, manifest_numbers(place)):
        assert all(piece.digest in objects for piece in manifest.pieces())
    assert manifest_numbers(place) == [0, 1, 2]


def test_the_place_that_another_took_is_taken_back_when_that_is_said(tmp_path: Path) -> None:
    run = a_run(tmp_path / "test")
    first = mirror_of(run, tmp_path / "mirror")
    first.save()
    second = mirror_of(restored(tmp_path / "mirror", tmp_path / "there"), tmp_path / "mirror")
    second.save()
    with pytest.raises(UsageError) as caught:
        mirror_of(run, tmp_path / "mirror")
    assert "mirror.take=true" in caught.value.fix
    (run.root / "mine.txt").touch()
    mirror_of(run, tmp_path / "mirror", take=True).save()
    with pytest.raises(TakenOverError, match="another driver"):
        second.save()
    assert (restored(tmp_path / "mirror", tmp_path / "again").root / "mine.txt").exists()
    with pytest.raises(UsageError) as caught:  # a run of another name is nobody's to replace
        mirror_of(tiny_run(tmp_path / "other", tiny_config()), tmp_path / "mirror", take=True)
    assert "mirror.take" not in caught.value.fix


def test_a_run_whose_place_was_taken_says_what_to_do_and_ends(tmp_path: Path) -> None:
    run, told = a_run(tmp_path / "test"), []
    mirror = Mirror(MirrorConfig(url=str(tmp_path / "mirror"), every_seconds=0.05), run, report=told.append)
    mirror.claim()
    mirror.start()
    mirror.refuse_taken()
    mirror_of(run, tmp_path / "mirror", take=True)

    def taken() -> bool:
        with contextlib.suppress(ClusterError):
            return mirror.refuse_taken() is not None
        return True

    until(taken)
    with pytest.raises(ClusterError, match="run 'test' ends here") as caught:
        mirror.refuse_taken()
    assert "mirror.take=true" in caught.value.fix
    assert not mirror.finish()
