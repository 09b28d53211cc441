"""A decision is told with every number that makes it, on one screen, by whoever may read the file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.autopilot.why import CONTROL_FILE, explain
from control.curriculum import MatchResult
from control.database import Database
from control.journal import TABLES, Journal
from control.keys import Key
from core.errors import DataError, UsageError

NOW = 1_000_000.0
HEX, FOUR, OPEN = Key("hex5"), Key("connect_four"), Key("open", 3)
SCREEN_LINES, SCREEN_COLUMNS = 24, 80
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of runs with three keys: one to be trained, one that is, and one that is not."""
    database = Database(tmp_path / CONTROL_FILE, TABLES)
    journal = Journal(database)
    journal.record_data(HEX, 500)
    journal.record_models(HEX, 5)
    journal.start_training(HEX, owner="first", most=3, now=NOW - 12_000)
    journal.end_training(HEX, owner="first", success=True, now=NOW - 11_000)
    journal.record_data(HEX, 1_112, moves_per_game=14.2)
    journal.record_result(HEX, MatchResult(NOW - 3_600, wins=20, losses=20, elo=1480.0))
    journal.record_result(HEX, MatchResult(NOW, wins=10, draws=2, losses=8, elo=1487.0))
    journal.record_data(FOUR, 60)
    journal.start_training(FOUR, owner="second", most=3, now=NOW)
    journal.record_data(OPEN, 10)
    database.close()
    return tmp_path


def told(capsys: Capsys, runs: Path, key: str | None, *overrides: str, now: float = NOW) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(SCREEN_COLUMNS))
        explain(key, list(overrides), runs=runs, quiet=False, now=now)
    return capsys.readouterr().out


def one(runs: Path, key: str, *overrides: str, now: float = NOW) -> dict[str, Any]:
    found = explain(key, list(overrides), runs=runs, quiet=True, now=now)
    assert isinstance(found, dict)
    return json.loads(json.dumps(found))


def test_every_number_of_a_decision_is_on_one_screen(runs: Path, capsys: Capsys) -> None:
    screen = told(capsys, runs, "hex5_2p")

    assert len(screen.splitlines()) <= SCREEN_LINES
    assert max(map(len, screen.splitlines())) <= SCREEN_COLUMNS
    assert "…" not in screen
    for number in (
        *("train now", "data_freshness", "612 new of 1,112", "300 new"),
        *("trained 3.1 h ago", "0.51", "0.8", "6 h, 90 new"),
        *("52.5% won", "below 32.1%, 30 new"),
        *("20.0 min", "0 failures", "1 of 3 taken: connect_four_2p", "60 games, worth 40.0 of now"),
        *("+7.0, stable: 300 new games are enough of 500", "+0.40", "below 55%", "1.40"),
        *("tier small", "15,790 samples", "14.2 moves a game, counted", "100 epochs", "batch 128"),
    ):
        assert number in screen, number


def test_programs_are_told_the_same(runs: Path) -> None:
    found = one(runs, "hex5_2p")

    assert (found["key"], found["should_train"], found["rule"]) == ("hex5_2p", True, "data_freshness")
    assert found["signal_scores"]["data_freshness"] == 1.0
    assert found["limits"]["freshness_games"] == 300
    assert (found["facts"]["new_games"], found["facts"]["recent"]["games"]) == (612, 60)
    assert (found["weight"]["weight"], found["running"]) == (1.4, ["connect_four_2p"])
    assert found["weight"]["share"] == pytest.approx(1.4 / (1.4 + 1.5 + 1.5))
    assert found["export"]["estimated_samples"] == 15_790
    assert found["settings"]["triggers"]["freshness_games"] == 500


def test_without_a_key_all_are_told_the_most_urgent_first(runs: Path, capsys: Capsys) -> None:
    lines = told(capsys, runs, None).splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["hex5_2p", "yes", "freshness"],
        ["connect_four_2p", "no", "training"],
        ["open_3p", "no", "none"],
    ]
    assert lines[-1] == "next: tamen why hex5_2p"
    found = explain(None, [], runs=runs, quiet=True, now=NOW)
    assert [each["key"] for each in json.loads(json.dumps(found))] == [
        "connect_four_2p",
        "hex5_2p",
        "open_3p",
    ]


def test_settings_can_be_tried_and_those_in_use_count(runs: Path) -> None:
    assert one(runs, "hex5_2p", "triggers.freshness_games=5000")["should_train"] is False
    database = Database(runs / CONTROL_FILE, TABLES)
    Journal(database).save_settings({"triggers": {"max_concurrent": 1}})
    database.close()
    assert one(runs, "hex5_2p")["rule"] == "limit"
    assert one(runs, "hex5_2p", "triggers.max_concurrent=2")["rule"] == "data_freshness"
    with pytest.raises(UsageError, match="freshness_games"):
        one(runs, "hex5_2p", "triggers.freshnes_games=5")


def test_a_game_whose_length_nobody_knows_has_no_estimate(runs: Path, capsys: Capsys) -> None:
    assert one(runs, "open_3p")["export"] is None
    assert "nobody knows yet how long games of open are" in told(capsys, runs, "open_3p")


def test_records_from_the_future_are_said(runs: Path, capsys: Capsys) -> None:
    screen = told(capsys, runs, "hex5_2p", now=NOW - 20_000)
    assert "dated 2.5 h ahead; it counts as of now" in screen
    assert len(screen.splitlines()) <= SCREEN_LINES + 3  # a line for each oddity


def test_an_unknown_key_is_told_with_those_that_are_known(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing is known of hex6_2p[\s\S]*did you mean hex5_2p"):
        one(runs, "hex6_2p")
    with pytest.raises(UsageError, match="nothing was noted"):
        one(tmp_path / "none", "hex5_2p")
    for text in ("hex5", "../hex5_2p"):
        with pytest.raises(UsageError):
            one(runs, text)


def test_where_nothing_was_noted_nothing_is_told_and_no_file_is_made(tmp_path: Path, capsys: Capsys) -> None:
    assert explain(None, [], runs=tmp_path, quiet=True) == []
    assert "nothing was noted" in told(capsys, tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_of_ours_is_an_error(tmp_path: Path) -> None:
    (tmp_path / CONTROL_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="damaged"):
        one(tmp_path, "hex5_2p")


@pytest.mark.parametrize("settings", [{"no": 1}, {"triggers": {"max_concurrent": 0}}])
def test_settings_of_another_version_are_an_error(runs: Path, settings: dict[str, Any]) -> None:
    database = Database(runs / CONTROL_FILE, TABLES)
    Journal(database).save_settings(settings)
    database.close()
    with pytest.raises(DataError, match="none of this version"):
        one(runs, "hex5_2p")


def test_neither_torch_nor_ray_nor_numba_is_imported() -> None:
    code = (
        "import sys, cluster.autopilot.why; print(*(sys.modules.keys() & {'torch', 'ray', 'numba', 'numpy'}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert said.stdout.split() == []
