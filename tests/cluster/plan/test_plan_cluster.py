"""`tamen plan cluster`: files that benchmarks printed, what a setting moves, and what a person reads."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.main import app
from cluster.plan.cluster import costs_of, layout_of, parse_machines, plan_cluster, show_cluster
from cluster.plan.costs import MEASURED_BEFORE, Figure, read_costs
from cluster.plan.fleet import Spot
from cluster.plan.games import Prices, parse_fleets, plan_games
from configs.loading import load
from core.errors import DataError, UsageError
from engines.timings import example_durations

SPOT = Spot(interruptions_per_hour=0.05, notice_seconds=120.0, replacement_seconds=180.0)
PRICES = Prices(0.68 / 16, 0.27 / 16)


def planned(*settings: str, sizes: tuple[int, ...] = (1, 10, 1000), **changed: Any) -> dict[str, Any]:
    config = load("hex13", list(settings))
    layout = layout_of(
        config,
        **{
            "cores": 16,
            "learner_on_cores": False,
            "network_bytes_per_s": 1.25e9,
            "brain_evals_per_s": None,
            "tree": False,
            "startup_seconds": 15.0,
            "spot": SPOT,
        }
        | changed,
    )
    figures = MEASURED_BEFORE | {"learner_rows_per_s": Figure(1e6, "as given")}
    return plan_cluster(sizes, costs_of(config, figures), layout, games=10_000_000, prices=PRICES)


def written(folder: Path, name: str, result: Any) -> Path:
    file = folder / name
    file.write_text(f"some words before\n{json.dumps(result)}\n", encoding="utf-8")
    return file


def test_files_of_benchmarks_take_the_place_of_what_was_measured_before(tmp_path: Path) -> None:
    selfplay = {
        "evals_over_raw": 0.8,
        "evals_per_s": 8000.0,
        "raw_per_s": 10_000.0,
        "config": {
            "game": "hex7",
            "inference": {"servers": 2},
            "network": {"blocks": 5, "channels": 64},
        },
    }

    def replay(chunk_rows: int) -> dict[str, Any]:
        return {
            "inserts_per_s": chunk_rows / (0.02 + chunk_rows * 1e-5),
            "delivered_rows_per_s": 2e6,
            "row_bytes": 100,
            "config": {"game": "hex7", "actors": {"chunk_rows": chunk_rows}},
        }

    files = [written(tmp_path, f"{rows}.json", replay(rows)) for rows in (256, 1024, 4096)]

    figures = read_costs([written(tmp_path, "selfplay.json", selfplay), *files])

    assert figures["evals_per_core_s"] == Figure(4000.0, str(tmp_path / "selfplay.json"), "hex7", (5, 64))
    assert figures["server_evals_per_s"].value == 5000.0
    assert figures["chunk_seconds"].value == pytest.approx(0.02)
    assert figures["row_seconds"].value == pytest.approx(1e-5)
    assert (figures["row_bytes"].value, figures["row_bytes"].network) == (100, None)
    assert figures["learner_rows_per_s"] == MEASURED_BEFORE["learner_rows_per_s"]


def test_what_a_learner_was_measured_at_is_that_of_the_precision_that_a_run_takes(tmp_path: Path) -> None:
    learner = {
        "auto_precision": "fp32: the cpu has no fast bf16",
        "game": "hex7",
        "network": {"blocks": 20, "channels": 256},
        "rows_per_s": {"fp32": 7.0, "bf16": 70.0},
        "one_microbatch_megabytes": 1.0,
    }
    file = written(tmp_path, "learner.json", learner)

    figure = read_costs([file])["learner_rows_per_s"]

    assert figure == Figure(7.0, str(file), "hex7", (20, 256))


def told_of_networks(figures: dict[str, Figure], capsys: pytest.CaptureFixture[str]) -> str:
    show_cluster(planned(), figures, config=load("hex13", ["network.blocks=20", "network.channels=256"]))
    (told,) = re.findall(r"(?s)Assumed: .*? Gbit/s\.(.*?)measured", capsys.readouterr().out)
    return " ".join(told.split())


def test_figures_of_another_network_are_told_with_how_much_smaller_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = "evals_per_core_s, server_evals_per_s, learner_rows_per_s"
    assert f"{names}: of 3 x 32, and not of 20 x 256" in told_of_networks(dict(MEASURED_BEFORE), capsys)
    measured = {name: replace(figure, network=(20, 256)) for name, figure in MEASURED_BEFORE.items()}
    assert told_of_networks(measured, capsys) == ""


@pytest.mark.parametrize(
    "result",
    [
        [1],
        {},
        {"evals_over_raw": 1},
        {"ask_seconds": "x", "part_seconds": 1},
        {"inserts_per_s": float("nan")},
    ],
)
def test_a_file_that_tells_nothing_is_refused(tmp_path: Path, result: Any) -> None:
    with pytest.raises(DataError, match=r"file\.json tells nothing"):
        read_costs([written(tmp_path, "file.json", result)])


def test_every_figure_names_a_file_that_is_there() -> None:
    root = Path(__file__).parents[3] / "benchmarks" / "results"
    names = [file.name for file in root.glob("*.md")]

    for figure in MEASURED_BEFORE.values():
        stem = figure.source.split("), ")[-1].split(",")[0].split(" (")[0]
        assert any(name.startswith(stem) for name in names), figure.source


def test_the_knob_that_is_named_moves_the_part() -> None:
    def full(*settings: str, **changed: Any) -> dict[str, Any]:
        return planned(*settings, sizes=(10,), **changed)["full_at"]

    before = full()
    assert full("actors.chunk_rows=8192")["replay"] > before["replay"]
    assert full("learner.publish_every_steps=250")["store"] > before["store"]
    assert full("actors.count=4", "inference.servers=4")["driver"] > before["driver"]
    assert full("replay.samples_per_insert=1")["learner"] > before["learner"]
    assert full(tree=True)["store"] is None
    busier = planned("inference.servers=12", sizes=(10,))["points"][0]
    assert busier["rows"] > 1.2 * planned(sizes=(10,))["points"][0]["rows"]


def test_twice_the_machines_cost_the_same_until_a_part_is_full() -> None:
    one, two, many = planned(sizes=(10, 20, 1000))["points"]

    assert two["games"] == pytest.approx(2 * one["games"], rel=0.02)
    assert two["on_demand_cost"] == pytest.approx(one["on_demand_cost"], rel=0.02)
    assert two["cost"] < two["on_demand_cost"]
    assert many["limit"] == "replay"
    assert many["cost"] > 5 * two["cost"]


def test_the_published_table_is_that_of_plan_games() -> None:
    ours = planned(sizes=(1,))["published"]
    theirs = plan_games(10_000_000, parse_fleets("4x16"), example_durations(), prices=PRICES, spot=SPOT)

    for row, other in zip(ours, theirs["published"]["machines"], strict=True):
        assert row["machines"] == other["machines"]
        assert row["published_games_per_s"] == other["published_games_per_s"]
        assert row["games_per_s"] == pytest.approx(other["games_per_s"], rel=0.01)
        if "cost" in other:
            assert row["cost"] == pytest.approx(other["cost"], rel=0.01)
            assert row["spot_cost"] == pytest.approx(other["spot_cost"], rel=0.02)


def test_what_is_printed_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    config, result = load("hex13", []), planned()

    show_cluster(result, MEASURED_BEFORE, config=config)

    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert "actors.chunk_rows" in told
    assert "Ray is tested with" in " ".join(told.split())


@pytest.mark.parametrize("text", ["", "0", "1,x", "20001", ",".join(map(str, range(1, 20)))])
def test_wrong_numbers_of_machines_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_machines(text)


def test_an_environment_is_refused() -> None:
    with pytest.raises(UsageError, match="environment"):
        costs_of(load("cartpole", []), MEASURED_BEFORE)


def test_the_verb_prints_json_on_its_last_line() -> None:
    told = CliRunner().invoke(app, ["plan", "cluster", "hex13", "--machines", "1,1000", "--json"])

    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout.splitlines()[-1])
    assert [point["machines"] for point in result["points"]] == [1, 1000]
    assert result["points"][0]["limit"] == "learner"
    assert set(result["sources"]) == set(MEASURED_BEFORE)
