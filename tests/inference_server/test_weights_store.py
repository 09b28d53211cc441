"""Published weights: a version names one set of weights for ever, and damage is found and told."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError, TamenError, UsageError
from inference_server.weights_store import KEPT_IN_MEMORY, MARK_FILE, WeightsStore
from tests.core.faults import find_the_disk_full
from tests.inference_server.brains import some_weights


def publish(folder: Path, *versions: int, **limits: int) -> WeightsStore:
    store = WeightsStore(folder, **limits)
    for version in versions:
        store.publish(some_weights(version=version))
    return store


def versions_on_disk(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "main").iterdir())


def file_of(folder: Path, version: int) -> Path:
    return folder / "main" / f"{version:08d}.safetensors"


def flip_a_bit(path: Path, *, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_nothing_is_there_before_the_first_publication(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "models")

    assert store.newest_version("main") is None
    with pytest.raises(UsageError, match="no weights of model 'main'"):
        store.get("main")


def test_what_was_published_is_given_back_here_and_to_who_opens_the_folder_later(tmp_path: Path) -> None:
    for store in (publish(tmp_path, 0, 1), WeightsStore(tmp_path)):
        assert store.newest_version("main") == 1
        assert store.get("main").digest == some_weights(version=1).digest
        assert store.get("main", 0).digest == some_weights(version=0).digest


@pytest.mark.parametrize(("number", "seed"), [(0, 0), (2, 2), (3, 9)])
def test_a_version_that_is_not_above_the_newest_is_refused(tmp_path: Path, number: int, seed: int) -> None:
    store = publish(tmp_path, 0, 3)
    with pytest.raises(UsageError, match="publish it as version 4"):
        store.publish(replace(some_weights(version=seed), version=number))

    assert versions_on_disk(tmp_path) == [0, 3]
    assert store.get("main").version == 3


def test_who_did_not_hear_that_it_published_may_publish_the_same_again(tmp_path: Path) -> None:
    for store in (publish(tmp_path, 0, 3), WeightsStore(tmp_path)):
        store.publish(some_weights(version=3))

    assert versions_on_disk(tmp_path) == [0, 3]


def test_a_full_disk_leaves_the_newest_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = publish(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: find_the_disk_full())
        with pytest.raises(TamenError, match="No space left on device"):
            store.publish(some_weights(version=1))

    assert store.newest_version("main") == 0
    assert versions_on_disk(tmp_path) == [0]
    store.publish(some_weights(version=1))


def test_models_have_versions_of_their_own(tmp_path: Path) -> None:
    store = publish(tmp_path, 0, 1, 2)
    store.publish(some_weights("other", version=0))

    assert (store.newest_version("main"), store.newest_version("other")) == (2, 0)


@pytest.mark.parametrize("model", ["nobody", "main2"])
def test_a_model_that_was_never_published_is_a_usage_error(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match=f"no weights of model '{model}'"):
        publish(tmp_path, 0).get(model)


@pytest.mark.parametrize("model", ["../main", "/etc", "", "a/b", ".hidden"])
def test_a_name_that_could_leave_the_folder_is_a_usage_error(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        publish(tmp_path, 0).get(model)


def test_a_version_that_was_never_published_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"version 5[\s\S]*holds versions \[0, 1\]"):
        publish(tmp_path, 0, 1).get("main", 5)


@pytest.mark.parametrize("damage", ["a bit", "cut short", "empty"])
def test_a_damaged_newest_version_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, damage: str
) -> None:
    publish(tmp_path, 0, 1, 2)
    newest = file_of(tmp_path, 2)
    if damage == "a bit":
        flip_a_bit(newest)
    else:
        newest.write_bytes(newest.read_bytes()[: 100 if damage == "cut short" else 0])
    store = WeightsStore(tmp_path)

    assert store.get("main").version == 1
    assert str(newest) in store.skipped[0]


def test_a_damaged_version_asked_for_by_number_is_an_error(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    flip_a_bit(file_of(tmp_path, 1))
    with pytest.raises(DataError, match="cannot be used"):
        WeightsStore(tmp_path).get("main", 1)


def test_a_damaged_version_keeps_its_number(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    flip_a_bit(file_of(tmp_path, 1))
    store = WeightsStore(tmp_path)
    with pytest.raises(UsageError, match="publish it as version 2"):
        store.publish(some_weights(version=1))
    store.publish(some_weights(version=2))

    assert store.get("main").version == 2


def test_what_a_kill_left_half_written_is_no_version(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    (tmp_path / "main" / ".00000001.safetensors.abc.tmp").write_bytes(b"half")

    assert WeightsStore(tmp_path).newest_version("main") == 0


@settings(max_examples=8)
@given(st.sets(st.integers(1, 60), min_size=4, max_size=20))
def test_the_first_the_milestones_and_the_newest_stay_on_disk(
    tmp_path_factory: pytest.TempPathFactory, published: set[int]
) -> None:
    folder, versions = tmp_path_factory.mktemp("models"), [0, *sorted(published)]
    store = publish(folder, *versions, kept_files=3, milestone=10)

    assert versions_on_disk(folder) == [v for v in versions if v % 10 == 0 or v in versions[-3:]]
    assert store.get("main").version == versions[-1]


def test_a_version_dropped_from_memory_is_read_again(tmp_path: Path) -> None:
    count = 2 * KEPT_IN_MEMORY
    store = publish(tmp_path, *range(count))

    for version in range(count):
        assert store.get("main", version).digest == some_weights(version=version).digest


def test_numbers_that_may_have_been_given_out_are_passed_over(tmp_path: Path) -> None:
    store = publish(tmp_path, 0, 1)
    assert (store.mark("main"), store.highest_version("main")) == (0, 1)
    store.set_mark("main", 2)
    assert store.highest_version("main") == 1, "those below 2 are files"
    store.set_mark("main", 9)
    assert (WeightsStore(tmp_path).mark("main"), WeightsStore(tmp_path).highest_version("main")) == (9, 9)
    store.publish(some_weights(version=10))
    assert store.highest_version("main") == 10


def test_a_number_that_was_given_out_before_any_file_was_written_is_passed_over(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    assert store.highest_version("main") is None
    store.set_mark("main", 3)

    assert store.highest_version("main") == 3
    assert store.newest_version("main") is None


def test_a_damaged_mark_is_told(tmp_path: Path) -> None:
    store = publish(tmp_path, 0)
    store.set_mark("main", 9)
    flip_a_bit(tmp_path / "main" / MARK_FILE)
    with pytest.raises(DataError, match="given_out is damaged"):
        store.highest_version("main")
