import json
from pathlib import Path

import pytest

from core.errors import DataError, UsageError
from pipeline.contract import Stopped
from pipeline.fetching import fetch_data_set
from pipeline.shuffle import ShuffleStep, Shuffling
from tests.pipeline.running_here import Here, Killed, context
from tests.pipeline.test_shuffle import files_in, write_positions

FILES = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four shards; that it lies on this machine changes nothing for who copies it."""
    folder = tmp_path_factory.mktemp("made")
    positions = write_positions(tmp_path_factory.mktemp("positions"))
    ShuffleStep(Shuffling(buckets=3, validation_share=0.3)).run({"positions": positions}, folder, context())
    return folder


def without_plan(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "plan.json"}


def test_the_copy_is_the_data_set(made: Path, tmp_path: Path) -> None:
    assert fetch_data_set(str(made), tmp_path / "copy", context()) == tmp_path / "copy"
    assert files_in(tmp_path / "copy") == without_plan(files_in(made))


def test_a_killed_copy_goes_on_and_is_no_data_set_before_its_end(made: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fetch_data_set(str(made), tmp_path / "copy", context(Here(lives=1)))
    assert not (tmp_path / "copy" / "manifest.json").exists()
    with pytest.raises(Stopped):
        fetch_data_set(str(made), tmp_path / "copy", context(should_stop=lambda: True))
    executor = Here()
    fetch_data_set(str(made), tmp_path / "copy", context(executor))
    assert len(executor.ran) == FILES - 1
    assert files_in(tmp_path / "copy") == without_plan(files_in(made))


def test_a_copy_of_another_data_set_is_replaced(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    positions = write_positions(tmp_path / "positions")
    other.mkdir()
    ShuffleStep(Shuffling(buckets=3, seed=1)).run({"positions": positions}, other, context())
    fetch_data_set(str(other), tmp_path / "copy", context())
    fetch_data_set(str(made), tmp_path / "copy", context())
    fetched = files_in(tmp_path / "copy")
    assert fetched.items() >= without_plan(files_in(made)).items()


def altered(made: Path, folder: Path, name: str, data: bytes) -> Path:
    for path, content in (files_in(made) | {name: data}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_damage_is_found_before_anything_is_learnt_from_it(made: Path, tmp_path: Path) -> None:
    name = "train/shuffled_0000.npz"
    data = bytearray((made / name).read_bytes())
    data[-40] ^= 1
    source = altered(made, tmp_path / "source", name, bytes(data))
    with pytest.raises(DataError, match=r"shuffled_0000.npz is damaged[\s\S]*its manifest says"):
        fetch_data_set(str(source), tmp_path / "copy", context())
    assert not list((tmp_path / "copy").rglob("shuffled_0000.npz"))


@pytest.mark.parametrize(
    "name", ["train/../../evil", "/etc/passwd", "train/..", "evil", "train/a/b", "", "other/a"]
)
def test_a_manifest_cannot_name_files_outside_of_its_folder(made: Path, tmp_path: Path, name: str) -> None:
    manifest = json.loads((made / "manifest.json").read_bytes())
    manifest["files"][0]["name"] = name
    source = altered(made, tmp_path / "source", "manifest.json", json.dumps(manifest).encode())
    with pytest.raises(UsageError, match="which is no file in train"):
        fetch_data_set(str(source), tmp_path / "copy", context())
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"files": [{"name": "train/a"}]}'])
def test_what_is_no_manifest_is_refused(made: Path, tmp_path: Path, text: bytes) -> None:
    source = altered(made, tmp_path / "source", "manifest.json", text)
    with pytest.raises(DataError, match="cannot be used"):
        fetch_data_set(str(source), tmp_path / "copy", context())


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of shuffled rows"):
        fetch_data_set(str(tmp_path), tmp_path / "copy", context())
