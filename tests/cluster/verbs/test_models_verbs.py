"""`tamen models`: what is registered is told in tables, trees and JSON, and errors in three lines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.verbs.models import models
from control.keys import Key
from control.lineage import hash_source
from control.model_cards import Elo, Match
from control.registry import FILE_NAME, ModelRegistry
from control.sequential import PairCounts
from tests.cluster.commands import Said, assert_three_lines

KEY, CONDITIONS = Key("hex5"), "simulations=16 opening_plies=2"
PROGRAM = "from cluster.verbs.models import models; import sys; models(prog_name='tamen models'{})"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    with pytest.raises(SystemExit) as ended:
        models([*map(str, arguments)], prog_name="tamen models")
    written = capsys.readouterr()
    return Said(int(ended.value.code or 0), written.out, written.err)


def last_json(said: Said) -> Any:
    return json.loads(said.out.splitlines()[-1])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three models, each made of the one before, of which the second is champion; and one of another key."""
    registry = ModelRegistry(tmp_path / "runs")
    (tmp_path / "games.trmph").write_text("#3,a1 b\n")
    parent = None
    for number in (1, 2, 3):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(b"%d" % number)
        parent = registry.register(
            KEY,
            file,
            config={"lr": 0.1},
            metrics={"loss": 1 / number},
            sources=[hash_source(tmp_path / "games.trmph")],
            parent=parent,
            games=1000 * number,
            elo=Elo(100.0 * number, 100.0 * number - 30, 100.0 * number + 30, 400),
            who="a test",
        )
    registry.promote("hex5_2p-v1", expected=None, who="a test", why="first")
    counts = PairCounts((1, 0, 4, 0, 15))
    registry.record(Match("hex5_2p-v2", "hex5_2p-v1", counts, 2, CONDITIONS, 7, 0, 1.7e9))
    registry.promote("hex5_2p-v2", expected="hex5_2p-v1", who="a test", why="85 % of 40 games")
    registry.register(Key("hex3"), tmp_path / "1.safetensors", config={}, metrics={}, who="a test")
    registry.close()
    return tmp_path / "runs"


def test_the_list_tells_the_same_in_a_table_and_in_json(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = run(capsys, "list", "hex5_2p", "--runs", runs)
    assert shown.code == 0
    rows = [line.split() for line in shown.out.splitlines()[1:]]
    assert [row[:-3] + row[-1:] for row in rows] == [  # without the age, which is a number and its unit
        ["hex5_2p-v1", "archived", "–", "1,000", "+100", "(+70…+130)", "ok"],
        ["hex5_2p-v2", "production", "@champion", "v1", "2,000", "+200", "(+170…+230)", "ok"],
        ["hex5_2p-v3", "development", "@latest", "v2", "3,000", "+300", "(+270…+330)", "ok"],
    ]
    told = last_json(run(capsys, "list", "hex5_2p", "--runs", runs, "--json"))
    assert [each["id"] for each in told] == ["hex5_2p-v1", "hex5_2p-v2", "hex5_2p-v3"]
    assert told[1]["elo"] == {"rating": 200.0, "low": 170.0, "high": 230.0, "games": 400}
    assert (told[1]["stage"], told[1]["aliases"], told[1]["file_state"]) == ("production", ["champion"], "ok")
    assert len(last_json(run(capsys, "list", "--runs", runs, "--json"))) == 4
    only = run(capsys, "list", "--stage", "archived", "--runs", runs, "--json")
    assert [each["id"] for each in last_json(only)] == ["hex5_2p-v1"]


def test_a_file_that_is_gone_or_altered_is_marked_and_ends_in_1(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "models" / "hex5_2p" / "hex5_2p-v1.safetensors").unlink()
    (runs / "models" / "hex5_2p" / "hex5_2p-v2.safetensors").write_bytes(b"other")
    listed = run(capsys, "list", "--runs", runs)
    assert listed.code == 1
    marks = {line.split()[0]: line.split()[-1] for line in listed.out.splitlines() if "-v" in line}
    assert marks == {"hex5_2p-v1": "gone", "hex5_2p-v2": "altered", "hex5_2p-v3": "ok", "hex3_2p-v1": "ok"}
    assert run(capsys, "list", "hex3_2p", "--runs", runs).code == 0
    shown = run(capsys, "show", "hex5_2p-v1", "--runs", runs)
    assert shown.code == 1
    assert "GONE" in shown.out
    refused = run(capsys, "rollback", "hex5_2p", "--runs", runs)
    assert_three_lines(refused, code=1, mentions=["the file of hex5_2p-v1 is gone", "is not there"])
    assert last_json(run(capsys, "list", "--runs", runs, "--json"))[2]["aliases"] == ["champion"]


def test_a_card_tells_games_and_history(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "show", "hex5_2p@champion", "--runs", runs)
    wanted = [
        "# hex5_2p-v2",
        "made of: hex5_2p-v1",
        "led to: hex5_2p-v3",
        "| hex5_2p-v1 | 33 | 2 | 5 | 85.0%",
    ]
    assert shown.code == 0
    assert [
        each for each in [*wanted, "85 % of 40 games", "games.trmph", CONDITIONS] if each not in shown.out
    ] == []
    told = last_json(run(capsys, "show", "hex5_2p@champion", "--runs", runs, "--json"))
    assert (told["ancestors"], told["descendants"]) == (["hex5_2p-v1"], ["hex5_2p-v3"])
    assert told["matches"][0]["pairs"] == [1, 0, 4, 0, 15]
    assert told["matches"][0]["conditions"] == CONDITIONS
    assert told["history"][-1]["why"] == "85 % of 40 games"


def test_promotion_by_hand_is_written_down_and_can_be_taken_back(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(capsys, "promote", "hex5_2p-v3", "--why", "looks better", "--runs", runs)
    assert said.code == 0
    assert "hex5_2p@champion is hex5_2p-v3, before it was hex5_2p-v2" in said.out
    history = last_json(run(capsys, "show", "hex5_2p-v3", "--runs", runs, "--json"))["history"]
    assert (history[-1]["why"], "@" in history[-1]["who"]) == ("looks better", True)
    back = run(capsys, "rollback", "hex5_2p", "--runs", runs, "--json")
    assert last_json(back) == {"key": "hex5_2p", "champion": "hex5_2p-v2", "before": "hex5_2p-v3"}
    again = run(capsys, "rollback", "hex5_2p", "--runs", runs)
    assert "hex5_2p@champion is hex5_2p-v1 again, before it was hex5_2p-v2" in again.out
    last = run(capsys, "rollback", "hex5_2p", "--runs", runs)
    assert_three_lines(last, code=2, mentions=["cannot be rolled back", "there was none before"])


def test_promotion_waits_for_whom_it_expects(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = run(capsys, "promote", "hex5_2p-v3", "--expected", "hex5_2p-v1", "--runs", runs)
    assert_three_lines(stale, code=1, mentions=["left as it is", "it is hex5_2p-v2"])
    nobody = run(capsys, "promote", "hex5_2p-v3", "--expected", "none", "--runs", runs)
    assert_three_lines(nobody, code=1, mentions=["where nobody was expected"])
    sure = run(capsys, "promote", "hex5_2p-v3", "--expected", "hex5_2p-v2", "--runs", runs, "--json")
    assert last_json(sure)["aliases"] == ["champion", "latest"]


def test_models_are_put_aside_and_taken_back(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to, mark in (("candidate", "staging"), ("rejected", "rejected"), ("development", "development")):
        said = run(capsys, "promote", "hex5_2p-v3", "--to", to, "--runs", runs, "--json")
        assert last_json(said)["stage"] == mark
    run(capsys, "promote", "hex5_2p-v3", "--to", "rejected", "--runs", runs)
    refused = run(capsys, "promote", "hex5_2p-v3", "--runs", runs)
    assert_three_lines(refused, code=2, mentions=["it is in rejected", "--to development"])
    champion = run(capsys, "promote", "hex5_2p-v2", "--to", "archived", "--runs", runs)
    assert_three_lines(champion, code=2, mentions=["it is champion"])


def test_the_lineage_is_a_tree_and_a_model_shows_its_own(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = ModelRegistry(runs)
    fork = runs.parent / "fork.safetensors"
    fork.write_bytes(b"fork")
    registry.register(KEY, fork, config={}, metrics={}, who="a test", parent="hex5_2p-v1")
    shown = run(capsys, "lineage", "hex5_2p", "--runs", runs).out.splitlines()
    assert [line.partition("  Elo")[0].rstrip() for line in shown] == [
        "● hex5_2p-v1  archived",
        "  └ hex5_2p-v2  production @champion",
        "  └ hex5_2p-v3  development",
        "  └ hex5_2p-v4  development @latest",
    ]
    told = last_json(run(capsys, "lineage", "hex5_2p@champion", "--runs", runs, "--json"))
    assert [each["id"] for each in told] == ["hex5_2p-v1", "hex5_2p-v2", "hex5_2p-v3"]
    assert [each["parent"] for each in told] == [None, "hex5_2p-v1", "hex5_2p-v2"]


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("list", "../hex5_2p"), ["is not allowed"]),
        (("list", "hex5"), ["is no key"]),
        (("show", "hex5_2p-v9"), ["there is no model 'hex5_2p-v9'"]),
        (("show", "hex5_2p"), ["there is no model 'hex5_2p'", "hex5_2p@champion"]),
        (("promote", "hex5_2p-v3", "--why", " "), ["why '' is refused"]),
        (("rollback", "hex7_2p"), ["its champion is nobody"]),
        (("lineage", "hex5_2p-v9"), ["there is no model"]),
    ],
)
def test_a_wrong_name_is_told_in_three_lines(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], mentions: list[str]
) -> None:
    assert_three_lines(run(capsys, *arguments, "--runs", runs), code=2, mentions=mentions)


def test_nothing_is_made_where_nothing_is_registered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert last_json(run(capsys, "list", "--runs", tmp_path, "--json")) == []
    assert "has no models" in run(capsys, "list", "--runs", tmp_path).out
    for verb in ("show", "promote", "lineage"):
        refused = run(capsys, verb, "hex5_2p-v1", "--runs", tmp_path)
        assert_three_lines(refused, code=2, mentions=["no models are registered"])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_registry_is_told_in_three_lines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = runs / FILE_NAME
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * 20_000)
    assert_three_lines(run(capsys, "list", "--runs", runs), code=1, mentions=["is damaged", "move it away"])


def test_it_answers_without_torch_ray_or_numba(runs: Path) -> None:
    code = (
        PROGRAM.format(", standalone_mode=False")
        + "\nprint(*sorted({'torch', 'ray', 'numba', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "list", "--runs", str(runs)]
    said = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True, timeout=60
    )
    assert "hex5_2p-v2" in said.stdout
    assert said.stdout.splitlines()[-1] == ""
