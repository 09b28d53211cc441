"""A checkpoint is there whole or not at all, and a damaged one costs one interval."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import files
from core.errors import DataError, TamenError
from learner.checkpoint import STATE_FILE, TRAINER_FILE, WEIGHTS_FILE, CheckpointStore
from networks.weights import Weights

FILES = (WEIGHTS_FILE, TRAINER_FILE, STATE_FILE)


def make_weights(version: int, size: int = 5) -> Weights:
    tensors = {"w": np.full(size, version, np.float32)}
    return Weights.pack(tensors, model="main", version=version, game="toy", network={"kind": "none"})


def save(store: CheckpointStore, version: int, size: int = 5) -> int:
    state = {"version": version, "names": ["a", "é"], "ratio": 0.1}
    trainer_state = {"net": {"w": torch.full((size,), float(version))}, "steps": version}
    return store.save(weights=make_weights(version, size), trainer_state=trainer_state, state=state)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sound checkpoints, of versions 10, 20 and 30."""
    store = CheckpointStore(tmp_path / "checkpoints", keep=4)
    for version in (10, 20, 30):
        save(store, version)
    return tmp_path / "checkpoints"


def test_what_is_saved_is_loaded(folder: Path) -> None:
    found = CheckpointStore(folder, keep=4).load_newest()
    assert found is not None
    assert (found.number, found.skipped) == (3, ())
    assert found.weights.digest == make_weights(30).digest
    assert found.weights.version == 30
    assert found.state == {"version": 30, "names": ["a", "é"], "ratio": 0.1}
    assert found.trainer_state["steps"] == 30
    assert torch.equal(found.trainer_state["net"]["w"], torch.full((5,), 30.0))


def test_a_run_that_never_saved_has_nothing_to_load(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "new", keep=2).load_newest() is None


def test_the_newest_is_told_by_its_number_not_by_the_clock_or_the_alphabet(folder: Path) -> None:
    (folder / "0000000003").rename(folder / "99999999999")
    store = CheckpointStore(folder, keep=4)
    (folder / "0000000001").touch()
    found = store.load_newest()
    assert found is not None
    assert found.weights.version == 30
    assert save(store, 40) == 100_000_000_000


def test_only_the_newest_are_kept(folder: Path) -> None:
    store = CheckpointStore(folder, keep=2)
    save(store, 40)
    assert names(folder) == ["0000000003", "0000000004"]


def test_a_damaged_checkpoint_is_never_counted_among_those_kept(folder: Path) -> None:
    (folder / "0000000003" / WEIGHTS_FILE).write_bytes(b"")
    save(CheckpointStore(folder, keep=2), 40)
    assert names(folder) == ["0000000002", "0000000003", "0000000004"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_file_that_was_cut_anywhere_sends_us_to_the_one_before(
    name: str, share: float, folder: Path
) -> None:
    path = folder / "0000000003" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    found = CheckpointStore(folder, keep=4).load_newest()
    assert found is not None
    assert found.weights.version == 20
    assert len(found.skipped) == 1
    assert "checkpoint 3 is damaged" in found.skipped[0]
    assert name in found.skipped[0]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_sends_us_to_the_one_before(
    name: str, place: float, bit: int, folder: Path
) -> None:
    path = folder / "0000000003" / name
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[int(place * len(data))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = CheckpointStore(folder, keep=4).load_newest()
        assert found is not None
        assert found.weights.version == 20
        assert name in found.skipped[0]
    finally:
        path.write_bytes(data)


def test_no_part_of_the_state_file_can_be_altered_unnoticed(folder: Path) -> None:
    path = folder / "0000000003" / STATE_FILE
    data = path.read_bytes()
    for position in range(0, len(data), 5):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        found = CheckpointStore(folder, keep=4).load_newest()
        assert found is not None
        assert found.number == 2, f"byte {position} was altered unnoticed"


def test_a_file_that_is_missing_sends_us_to_the_one_before(folder: Path) -> None:
    (folder / "0000000003" / TRAINER_FILE).unlink()
    found = CheckpointStore(folder, keep=4).load_newest()
    assert found is not None
    assert found.number == 2


def test_files_of_two_checkpoints_do_not_mix(folder: Path) -> None:
    shutil.copy(folder / "0000000002" / WEIGHTS_FILE, folder / "0000000003" / WEIGHTS_FILE)
    found = CheckpointStore(folder, keep=4).load_newest()
    assert found is not None
    assert found.number == 2


def test_a_checkpoint_of_a_later_format_is_not_misread(folder: Path) -> None:
    path = folder / "0000000003" / STATE_FILE
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "format": 99}, sort_keys=True, indent=2) + "\n")
    found = CheckpointStore(folder, keep=4).load_newest()
    assert found is not None
    assert found.number == 2


def test_all_damaged_is_an_error_and_not_a_fresh_start(folder: Path) -> None:
    for checkpoint in folder.iterdir():
        (checkpoint / STATE_FILE).write_bytes(b"{}")
    with pytest.raises(DataError, match="none of the 3 checkpoints"):
        CheckpointStore(folder, keep=4).load_newest()


def test_after_a_damaged_newest_the_next_is_numbered_above_it(folder: Path) -> None:
    (folder / "0000000003" / STATE_FILE).write_bytes(b"")
    store = CheckpointStore(folder, keep=4)
    assert store.load_newest() is not None
    assert save(store, 40) == 4


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """What a full disk looks like to a process: a write beyond `limit` bytes of a file is an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 5_000])
def test_a_full_disk_leaves_the_older_ones_and_nothing_else(limit: int, folder: Path) -> None:
    store = CheckpointStore(folder, keep=2)
    with file_size_limit(limit), pytest.raises(TamenError, match="checkpoint 4 could not be written"):
        save(store, 40, size=10_000)
    assert names(folder) == ["0000000001", "0000000002", "0000000003"]
    assert save(store, 40) == 4


def fails_at(step: int, call: Callable[..., object], calls: list[str]) -> Callable[..., object]:
    def counted(*arguments: object, **options: object) -> object:
        calls.append(call.__name__)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        return call(*arguments, **options)

    return counted


def test_whichever_file_operation_fails_a_sound_checkpoint_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail the first operation, then the second, until none is left to fail."""
    for step in range(1, 100):
        store = CheckpointStore(folder, keep=4)
        calls: list[str] = []
        with monkeypatch.context() as patched:
            for operation in ("fsync", "replace", "rename"):
                patched.setattr(files.os, operation, fails_at(step, getattr(files.os, operation), calls))
            try:
                save(store, 40)
            except TamenError:
                done = False
            else:
                done = len(calls) < step
        found = CheckpointStore(folder, keep=4).load_newest()
        assert found is not None
        assert found.skipped == ()
        assert found.weights.version in (30, 40)
        if done:
            assert step > len(FILES) * 3
            return
    pytest.fail("the faults never ended")


def test_what_a_crash_left_unfinished_is_swept_away(folder: Path) -> None:
    unfinished = folder / ".unfinished-abc"
    unfinished.mkdir()
    (unfinished / WEIGHTS_FILE).write_bytes(b"half")
    store = CheckpointStore(folder, keep=4)
    assert not unfinished.exists()
    assert save(store, 40) == 4


def test_the_trainers_file_holds_no_code(folder: Path) -> None:
    torch.load(folder / "0000000003" / TRAINER_FILE, weights_only=True)
