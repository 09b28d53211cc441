"""From real games to a model that plays: the step `train` of a pipeline, and `selfplay` before it."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from cluster.run.models import find_model
from cluster.run.run_folder import RunFolder
from tests.cluster.commands import Said, assert_three_lines, run_here
from tests.pipeline.s3 import bucket, s3_server  # noqa: F401 - fixtures

SLICE = Path(__file__).parents[2] / "data" / "wolve_slice.trmph.gz"
SMALL = (
    "debug",
    "shuffle.buckets=2",
    "shuffle.validation_share=0.1",
    "fit.max_rows=1500",
    "fit.mini_epoch_rows=500",
    "network.blocks=1",
    "network.channels=8",
    "learner.batch_rows=100",
)

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one, `rows`, that has shuffled rows of some real games and no model."""
    folder = tmp_path_factory.mktemp("shuffled")
    with gzip.open(SLICE, "rt") as file:
        (folder / "games.trmph").write_text("".join(file.readlines()[:300]))
    return folder


@pytest.fixture
def runs(shuffled: Path, capsys: Capsys) -> Path:
    said = pipeline(
        capsys, shuffled, *SMALL, "--data", shuffled / "games.trmph", "--name", "rows", "--to", "shuffle"
    )
    assert said.code == 0, said
    return shuffled


def pipeline(capsys: Capsys, runs: Path, *words: object) -> Said:
    return run_here(capsys, "pipeline", *words, "--runs", runs)


def sources(runs: Path, *more: str) -> str:
    inside = ", ".join([f"path: {runs / 'rows' / 'pipeline' / 'shuffle'}", *more])
    return f"fit.sources=[{{{inside}}}]"


def test_a_model_comes_out_that_plays_and_is_told_of(runs: Path, capsys: Capsys) -> None:
    said = pipeline(capsys, runs, "--name", "rows", "--json")
    told = json.loads(said.out)
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert told["counts"]["train"]["rows"] == 1500
    assert told["counts"]["train"]["validation"]["positions"] > 300
    found = find_model("rows", runs=runs)
    assert (found.config.game, found.config.network.channels, found.weights.version) == ("hex10", 8, 1)
    assert "fitted to rows" in (runs / "rows" / "model" / "README.md").read_text()

    said = run_here(
        capsys,
        "match",
        "rows",
        "random",
        "--games",
        2,
        "--engine",
        "local",
        "--simulations",
        0,
        "--runs",
        runs,
        "--json",
    )
    assert json.loads(said.out.splitlines()[-1])["games"] == 2
    said = run_here(capsys, "evaluate", "rows", "--data", runs / "games.trmph", "--runs", runs, "--json")
    assert json.loads(said.out.splitlines()[-1])["positions"] > 5000
    (status,) = json.loads(run_here(capsys, "status", "rows", "--runs", runs, "--json").out.splitlines()[-1])
    assert (status["learner_steps"], status["version"]) == (15, 1)
    assert status["games"] > 200
    assert set(status["strength"]) == {"moves", "winners"}
    again = pipeline(capsys, runs, "--name", "rows")
    assert "train: finished before" in again.out
    assert "on games kept apart: move found " in again.out
    assert again.out.splitlines()[-1].startswith("next: tamen play rows   or   tamen evaluate rows --data ")


def test_other_hyper_parameters_are_refused_until_they_are_accepted(runs: Path, capsys: Capsys) -> None:
    words = (*SMALL, "--name", "changed", "--from", "train", sources(runs))
    assert pipeline(capsys, runs, *words).code == 0
    said = pipeline(capsys, runs, *words, "fit.epochs=2")
    assert_three_lines(said, code=2, mentions=["train: ", "fit.epochs: 1 -> 2", "fit.accept_changes=true"])
    again = pipeline(
        capsys, runs, "--name", "changed", "--from", "train"
    )  # what was refused has changed nothing
    assert (again.code, "train: finished before" in again.out) == (0, True)
    said = pipeline(capsys, runs, *words, "fit.epochs=2", "fit.accept_changes=true", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["counts"]["train"]["rows"] == 3000
    said = pipeline(
        capsys, runs, "--name", "changed", "--from", "train", "fit.epochs=3"
    )  # it was accepted that once
    assert_three_lines(said, code=2, mentions=["fit.epochs: 2 -> 3"])


def test_rows_that_were_shuffled_anew_are_not_taken_for_the_old(runs: Path, capsys: Capsys) -> None:
    source = runs / "again"
    shutil.copytree(runs / "rows" / "pipeline" / "shuffle", source)
    words = (*SMALL, "--name", "reader", "--from", "train", f"fit.sources=[{{path: {source}}}]")
    assert pipeline(capsys, runs, *words).code == 0
    manifest = json.loads((source / "manifest.json").read_text())
    del manifest["files"][0]
    (source / "manifest.json").write_text(json.dumps(manifest))
    said = pipeline(capsys, runs, *words)
    assert_three_lines(said, code=2, mentions=["data.0: "])


def test_without_self_play_a_pipeline_of_a_model_needs_files(runs: Path, capsys: Capsys) -> None:
    assert pipeline(capsys, runs, "--name", "rows").code == 0
    words = ("--name", "unplayed", "--model", "rows", "--skip", "selfplay", "--to", "preprocess", "--json")
    said = pipeline(capsys, runs, *SMALL, *words, "--data", runs / "games.trmph")
    assert said.code == 0, said
    assert set(json.loads(said.out)["counts"]) == {"preprocess"}
    assert_three_lines(pipeline(capsys, runs, *SMALL, *words, "--name", "none"), code=2, mentions=["--data"])


def test_rows_in_s3_are_fitted_to_from_there(
    runs: Path,
    capsys: Capsys,
    bucket: str,  # noqa: F811
) -> None:
    from pipeline.storage import read_bytes

    data = ("--data", runs / "games.trmph")
    said = pipeline(capsys, runs, *SMALL, *data, "--name", "far", f"shuffle.target={bucket}/rows", "--json")
    assert said.code == 0, said
    counts = json.loads(said.out)["counts"]
    assert counts["train"]["rows"] == 1500
    manifest = json.loads(read_bytes(f"{bucket}/rows/manifest.json"))
    assert manifest["rows"] == counts["shuffle"]["rows"]
    folder = runs / "far" / "pipeline"
    assert not list(folder.rglob("*.npz"))  # what was copied has served
    words = ("--name", "from_far", "--from", "train", f"fit.sources=[{{path: '{bucket}/rows'}}]", "--json")
    said = pipeline(capsys, runs, *SMALL, *words)
    assert said.code == 0, said
    # Rows of the same digests, and the same seed: the same network.
    told = json.loads(said.out)["counts"]["train"]
    assert told["validation"] == counts["train"]["validation"]


def test_old_rows_are_mixed_in_as_they_are(runs: Path, capsys: Capsys) -> None:
    data = ("--data", runs / "games.trmph")
    said = pipeline(
        capsys,
        runs,
        *SMALL,
        *data,
        "--name",
        "mixed",
        sources(runs, "weight: 0.5", "skip_files: 1"),
        "--json",
    )
    counts = json.loads(said.out)["counts"]
    assert set(counts) == {"preprocess", "positions", "shuffle", "train"}
    assert 0 < counts["train"]["rows"] <= 1500
    games = counts["shuffle"]["games"]
    assert 0 < counts["train"]["validation"]["games"] < games


def test_a_sweep_publishes_the_best_of_its_experiments(runs: Path, capsys: Capsys) -> None:
    words = (*SMALL, "--name", "swept", "--from", "train", sources(runs))
    sweep = "fit.sweep={learner.learning_rate: [0.00001, 0.003], network.channels: [8]}"
    said = pipeline(capsys, runs, *words, sweep, "--json")
    counts = json.loads(said.out)["counts"]["train"]
    folder = runs / "swept" / "pipeline" / "train"
    rows = json.loads((folder / "sweep.json").read_text())
    assert [row["name"] for row in rows] == [counts["best"], *[row["name"] for row in rows[1:]]]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {row["name"] for row in rows}
    assert (counts["experiments"], counts["version"]) == (2, 1)
    assert rows[0]["score"] > rows[1]["score"]
    assert RunFolder(runs / "swept").config().learner.learning_rate == rows[0]["learner.learning_rate"]
    said = pipeline(capsys, runs, *words, "fit.sweep={learner.learing_rate: [1]}")
    assert_three_lines(said, code=2, mentions=["learner.learing_rate"])


def test_a_model_plays_and_another_is_fitted_to_its_games(runs: Path, capsys: Capsys) -> None:
    assert pipeline(capsys, runs, "--name", "rows").code == 0
    words = (
        "--name",
        "played",
        "--model",
        "rows",
        "--engine",
        "local",
        "--json",
        "selfplay.minimax_widths=[2, 1]",
    )
    said = pipeline(capsys, runs, *SMALL, *words, "selfplay.games=4")
    counts = json.loads(said.out.splitlines()[-1])["counts"]
    assert counts["selfplay"]["games"] >= 4
    assert counts["preprocess"]["lines"] == counts["selfplay"]["games"]
    assert counts["train"]["rows"] > 0
    more = pipeline(capsys, runs, *SMALL, *words, "selfplay.games=16", "--to", "preprocess")
    told = json.loads(more.out.splitlines()[-1])["counts"]
    assert told["selfplay"]["games"] >= 16
    assert told["preprocess"]["games"] > counts["preprocess"]["games"]
    assert not (runs / "played" / "pipeline" / "selfplay.old").exists()
