"""`tamen datagen`: logs of hands are told in a table and in JSON, and bad lines and files end in an exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poker.analytics import newest_analytics, read_analytics
from tests.cluster.commands import Said, assert_three_lines, run_here

DATA = Path(__file__).resolve().parents[2] / "data"
DEEP, SHALLOW = DATA / "acpc_200bb_slice.log.gz", DATA / "acpc_100bb_slice.log.gz"
HANDS = [
    "1:a,b:0f:3c7d,2h8d|:50,-50",
    "2:b,a:0cr200f:3c7d,2h8d|:100,-100",
    "3:a,b:0r100c/r200f:3c7d,2h8d|/6s6dAh:200,-200",
    "4:a,b:0r100c/cc/r100c/r400f:3c7d,2h8d|/6s6dAh/As/Ac:300,-300",
]

Capsys = pytest.CaptureFixture[str]


def last_json(said: Said) -> Any:
    return json.loads(said.out.splitlines()[-1])


def analyze(capsys: Capsys, *arguments: object) -> Said:
    return run_here(capsys, "datagen", "analyze-hands", *arguments)


def test_logs_are_told_in_a_table_and_in_json(tmp_path: Path, capsys: Capsys) -> None:
    shown = analyze(capsys, DEEP, SHALLOW, "--out", tmp_path / "analytics")
    counts = last_json(analyze(capsys, DEEP, SHALLOW, "--json"))

    assert shown.code == 0, shown
    numbers = {"lines": 935, "hands": 900, "header_lines": 20, "statistics_lines": 15, "set_aside": 0}
    for name, number in numbers.items():
        assert counts[name] == number
        assert f"{name.replace('_', ' ')} " in shown.out
        assert f" {number}" in shown.out
    assert counts["terms"] == {
        str(DEEP): {"raises": "by", "blinds": [50, 100]},
        str(SHALLOW): {"raises": "by", "blinds": [1, 2]},
    }
    assert counts["out"] is None
    written = newest_analytics(tmp_path / "analytics")
    assert str(written) in shown.out.replace("\n", "")
    assert read_analytics(written).weights == tuple(counts["analytics"]["street_distribution"].values())


def test_lines_set_aside_are_told_with_their_number_and_the_rest_is_used(
    tmp_path: Path, capsys: Capsys
) -> None:
    log, out = tmp_path / "a.log", tmp_path / "b.json"
    log.write_text("\n".join([*HANDS, "5:a,b:0cr", HANDS[0].replace("50,-50", "60,-60")]))
    shown = analyze(capsys, log, "--out", out)
    told = analyze(capsys, log, "--json")

    assert (shown.code, told.code) == (1, 1)
    assert f"{log}:5: not a hand: " in shown.out
    assert f"{log}:6: result contradicted: betting and cards lead to 50,-50" in shown.out
    counts = last_json(told)
    assert counts["hands"] == 4
    assert counts["set_aside_reasons"] == {"not a hand": 1, "result contradicted": 1}
    assert [about["line"] for about in counts["set_aside_lines"]] == [5, 6]
    assert read_analytics(out).information["source"] == "a.log"


def test_a_file_cut_short_is_told_and_the_rest_is_used(tmp_path: Path, capsys: Capsys) -> None:
    cut, empty = tmp_path / "cut.log.gz", tmp_path / "empty.log"
    cut.write_bytes(DEEP.read_bytes()[:6000])
    empty.touch()
    told = analyze(capsys, cut, empty, "--json")

    assert told.code == 1
    assert last_json(told)["hands"] > 100
    troubles = [(about["file"], about["reason"]) for about in last_json(told)["files_set_aside"]]
    assert troubles == [(str(cut), "file cut short"), (str(empty), "no hands")]
    assert_three_lines(analyze(capsys, empty), code=1, mentions=["not one hand", "it holds nothing"])


def test_what_the_logs_leave_open_can_be_said(tmp_path: Path, capsys: Capsys) -> None:
    log = tmp_path / "a.log"
    log.write_text("\n".join(HANDS[:2]))
    asked = analyze(capsys, log)
    assert_three_lines(asked, code=2, mentions=["what a raise in", "--raises total"])
    said = analyze(capsys, log, "--raises", "total", "--blinds", "50/100", "--json")
    assert said.code == 0
    assert last_json(said)["hands"] == 2
    wrong = analyze(capsys, log, "--blinds", "100/50")
    assert_three_lines(wrong, code=2, mentions=["'100/50'", "the smaller first"])
    nothing = analyze(capsys, tmp_path / "none.log")
    assert_three_lines(nothing, code=2, mentions=["there is no file"])
    assert_three_lines(analyze(capsys, tmp_path), code=2, mentions=["it is a folder"])


def test_help_needs_neither_torch_nor_ray(capsys: Capsys) -> None:
    code = (
        "import sys\nfrom cluster.main import app\n"
        "try: app(['datagen', 'analyze-hands', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'numpy')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)

    assert ended.returncode == 0, ended
    assert "--blinds" in ended.stdout


QUICK = ("--samples", 20, "--validation-samples", 8, "--cfr-iters", 5, "group_samples=4", "shard_samples=8")


def generated(capsys: pytest.CaptureFixture[str], runs: Path, *words: object) -> Said:
    return run_here(capsys, "datagen", "generate", *words, "--runs", runs, "--yes", "--plain")


def test_samples_are_made_once_and_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = generated(capsys, tmp_path, *QUICK, "workers=1", "--name", "few", "--json")
    told = json.loads(said.out.splitlines()[-1])
    assert (said.code, told["river_train"]["samples"], told["river_validation"]["samples"]) == (0, 20, 8)
    assert len(list((tmp_path / "few" / "datagen" / "river_train").glob("*.npz"))) == 3
    said = generated(capsys, tmp_path, "--name", "few")
    assert "river_train: finished before" in said.out
    said = run_here(capsys, "datagen", "audit", "few", "--share", "0.5", "--runs", tmp_path, "--json")
    assert (said.code, json.loads(said.out)["differing"]) == (0, {})
    said = generated(capsys, tmp_path, "--name", "few", "--samples", 24)
    assert "river_train: finished (samples 24" in said.out
    said = generated(capsys, tmp_path, "--name", "few", "variant=linear")
    assert_three_lines(said, code=2, mentions=["made with other settings", "dcfr6", "--anew"])
    said = generated(capsys, tmp_path, "--name", "few")
    assert "river_train: finished before" in said.out
    (tmp_path / "few" / "datagen" / "river_train" / "samples_0001.npz").unlink()
    said = run_here(capsys, "datagen", "audit", "few", "--runs", tmp_path)
    assert_three_lines(said, code=1, mentions=["samples_0001.npz"])


def test_a_network_is_fitted_to_samples_that_are_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = (*QUICK, "workers=1", "--json")
    assert generated(capsys, tmp_path, *few, "--name", "few").code == 0
    small = ("network.layers=[8]", "learner.batch_rows=10", "learner.microbatch_rows=10", "fit.epochs=2")
    words = ("train", "river_values", "samples=[few]", *small, "--runs", tmp_path, "--plain")
    said = run_here(capsys, *words, "--dry-run")
    assert (said.code, "- few" in said.out) == (0, True)
    assert not (tmp_path / "river_values").exists()
    assert_three_lines(run_here(capsys, *words, "--minutes", 1), code=2, mentions=["fit.epochs"])
    said = run_here(capsys, *words)
    assert (said.code, "done in" in said.out) == (0, True), said
    assert list((tmp_path / "river_values" / "models").iterdir())
    said = run_here(capsys, *words, "seed=3")
    assert_three_lines(said, code=2, mentions=["seed: 0 -> 3"])
    assert "seed: 0" in (tmp_path / "river_values" / "values.yaml").read_text()
    assert generated(capsys, tmp_path, *few, "--name", "other").code == 0
    said = run_here(
        capsys, "train", "river_values", "samples=[few, other]", "--runs", tmp_path, "--name", "b"
    )
    assert_three_lines(said, code=2, mentions=["the same seed"])
    said = run_here(capsys, "train", "river_values", "samples=[none]", "--runs", tmp_path, "--name", "b")
    assert_three_lines(said, code=2, mentions=["no finished samples"])


def test_streets_are_made_one_after_the_other_by_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--name", "few", *QUICK, "workers=1", "--json")
    tiny = ("network.layers=[8]", "learner.batch_rows=10", "learner.microbatch_rows=10", "fit.epochs=1")
    networks: list[str] = []
    streets: list[str] = []
    for street, after in (("river", None), ("turn_end", "river"), ("turn", "turn_end")):
        streets.append(street)
        wanted = f"streets=[{','.join(streets)}]"
        if after is not None:
            said = generated(capsys, tmp_path, *few, wanted, f"networks=[{','.join(networks)}]")
            assert said.code == 2
            assert f"error: no samples of the {street}" in said.err
            assert f"tamen train {after}_values samples=[few]" in said.err
            fitted = ("train", f"{after}_values", "samples=[few]", "--name", f"net_{after}", *tiny)
            assert run_here(capsys, *fitted, "--runs", tmp_path, "--plain").code == 0
            networks.append(f"net_{after}")
        said = generated(capsys, tmp_path, *few, wanted, f"networks=[{','.join(networks)}]")
        told = last_json(said)
        assert (said.code, told["missing"], told[f"{street}_train"]["samples"]) == (0, None, 20), said
    said = run_here(capsys, "datagen", "audit", "few", "--runs", tmp_path, "--json")
    assert (said.code, last_json(said)["differing"]) == (0, {})
    twice = (*few, "streets=[turn_end]", "networks=[net_river, net_river]")
    assert_three_lines(generated(capsys, tmp_path, *twice), code=2, mentions=["both networks for the river"])
    said = generated(capsys, tmp_path, *few, "streets=[turn_end]", "networks=[few]")
    assert_three_lines(said, code=2, mentions=["no network"])


def test_analytics_say_how_many_samples_a_street_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analytics = DATA / "analytics_2025-10-18_10-38-23.json"
    words = ("--samples", 40, "--validation-samples", 0, "group_samples=4", "shard_samples=8", "workers=1")
    said = generated(
        capsys,
        tmp_path,
        *words,
        "--cfr-iters",
        2,
        "--config",
        analytics,
        "streets=[river,turn]",
        "--name",
        "played",
    )
    assert said.code == 2  # the turn waits for a network
    settings = (tmp_path / "played" / "datagen.yaml").read_text()
    assert "river: 0.717" in settings
    assert "river_train: finished (samples 29," in said.out


def test_bet_sizes_of_analytics_take_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analytics = DATA / "analytics_2025-10-18_10-38-23.json"
    words = (*QUICK, "workers=1", "--config", analytics, "--name", "played", "--json")
    said = generated(capsys, tmp_path, *words)
    assert said.code == 0, said
    (first, *_) = sorted((tmp_path / "played" / "datagen" / "river_train").glob("*.json"))
    assert json.loads(first.read_text())["bet_sizes"] == [0.55, 1.0, 1.33, 2.0]


def test_profiles_for_analytics_take_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "analytics").mkdir()
    text = (DATA / "analytics_2025-10-18_10-38-23.json").read_text()
    (tmp_path / "analytics" / "analytics_2025-10-18_10-38-23.json").write_text(text)
    newer = json.loads(text) | {"bet_sizing_override": {"3": [0.7]}}
    (tmp_path / "analytics" / "analytics_2025-11-02_08-00-00.json").write_text(json.dumps(newer))
    said = generated(capsys, tmp_path, "--profile", "quick_analytics", *QUICK, "workers=1")
    assert said.code == 0, said
    assert "analytics_2025-11-02_08-00-00.json says bets of 0.7 pots on the river" in said.err
    (first, *_) = sorted((tmp_path / "quick_analytics" / "datagen" / "river_train").glob("*.json"))
    assert json.loads(first.read_text())["bet_sizes"] == [0.7]


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (("--profile", "testin"), ["did you mean testing?"]),
        (("sample=3",), ["did you mean samples or"]),
        (("bet_sizes=[0.0]",), ["bet_sizes"]),
        (("bet_sizes=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]",), ["a list of at most 8"]),
        (("shard_samples=7",), ["no multiple of group_samples=32"]),
        (("--config", "nowhere.json"), ["there is no file nowhere.json"]),
        (("variant=best",), ["variant"]),
        (("stack=100",), ["stack"]),
        (("bet_sizes=[0.05, 0.1, 0.2]",), ["bet"]),
    ],
)
def test_nonsense_is_refused_before_samples_are_made(
    words: tuple[object, ...], mentions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_three_lines(generated(capsys, tmp_path, *words), code=2, mentions=mentions)
    assert not list(tmp_path.rglob("*.npz"))


def test_where_the_time_goes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = run_here(capsys, "datagen", "diagnose", "--samples", 2, "--cfr-iters", 2, "--json")
    report = json.loads(said.out.splitlines()[-1])
    assert (said.code, report["problems"]) == (0, [])
    assert set(report["seconds_per_sample"]) == {"draw", "strengths", "solve", "columns"}
    assert report["samples_per_s"]["1"] > 0
