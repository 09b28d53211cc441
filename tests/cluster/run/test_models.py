"""Where a model is found: a run, one of its versions, or a file."""

from pathlib import Path

import pytest

from cluster.run.models import find_model
from cluster.run.run_folder import RunFolder, open_run, run_folder
from core.errors import DataError, UsageError
from inference_server.weights_store import WeightsStore
from tests.cluster.tiny import tiny_config
from tests.inference_server.brains import some_weights


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run called "first" with three versions of its model."""
    folder = run_folder(tmp_path, "first")
    open_run(folder, tiny_config(search__simulations=9)).release()
    store = WeightsStore(folder.models)
    for version in range(3):
        store.publish(some_weights(version=version))
    return folder


def test_a_run_means_its_newest_weights_with_its_own_settings(run: RunFolder) -> None:
    found = find_model("first", runs=run.root.parent)

    assert found.label == "first@2"
    assert found.weights.digest == some_weights(version=2).digest
    assert found.config.search.simulations == 9


def test_a_version_is_found_by_its_number(run: RunFolder) -> None:
    found = find_model("first@1", runs=run.root.parent)

    assert (found.label, found.weights.version) == ("first@1", 1)


def test_a_file_needs_no_run(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    path.write_bytes((run.models / "main" / "00000001.safetensors").read_bytes())
    found = find_model(str(path), runs=tmp_path / "nowhere")

    assert found.label == "kept"
    assert found.weights.digest == some_weights(version=1).digest
    assert (found.config.game, found.config.network.channels) == ("tic_tac_toe", 8)


@pytest.mark.parametrize("text", ["second", "first@x", "first@²", "first@7", "first@-1"])
def test_what_is_not_there_is_a_usage_error(text: str, run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"no (run|model|weights)"):
        find_model(text, runs=run.root.parent)


@pytest.mark.parametrize("text", ["no/such/file", "nothing.safetensors", "/"])
def test_a_file_that_cannot_be_read_is_a_usage_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the model"):
        find_model(text, runs=tmp_path)


def test_a_damaged_file_is_a_data_error(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes((run.models / "main" / "00000001.safetensors").read_bytes()[:-1])
    with pytest.raises(DataError):
        find_model(str(path), runs=tmp_path)
