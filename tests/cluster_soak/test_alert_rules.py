"""The rules, given made-up numbers: Prometheus' own tool says which of them would wake somebody, and when."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.dashboard import ALERTS_FILE, Watched, write_dashboard

pytestmark = pytest.mark.soak

ALIVE = {"ray_tamen_replay_rows{run='a'}": "5x60"}
LOOKING = {"up{job='ray', instance='head'}": "1x60"}
"""That Prometheus has read a machine since the first minute."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rules")
    write_dashboard(out, Watched(Path("/tmp/ray"), 9464), provision=False, quiet=True)
    return out


def raised(folder: Path, alert: str, series: dict[str, str], *, minute: int) -> bool:
    """Whether `alert` is raised at that minute, with `series` by name, a value a minute in Prometheus' notation."""
    series = LOOKING | series

    def agrees(expected: list[dict[str, Any]]) -> bool:
        test = {
            "rule_files": [ALERTS_FILE],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "alert_rule_test": [
                        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}
                    ],
                }
            ],
        }
        file = folder / "test.yaml"
        file.write_text(yaml.safe_dump(test))
        command = ["promtool", "test", "rules", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "got:" in done.stdout + done.stderr or done.returncode == 0, done.stdout + done.stderr
        return done.returncode == 0

    return not agrees([])


def test_the_tool_takes_them(folder: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(folder / ALERTS_FILE)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_run_that_finishes_no_games_is_told_and_one_that_has_ended_is_not(folder: Path) -> None:
    stuck = ALIVE | {"ray_tamen_games_total{run='a'}": "0+9x20 180x40"}
    over = {"ray_tamen_replay_rows{run='a'}": "5x20 stale", "ray_tamen_games_total{run='a'}": "0+9x20 180x40"}

    assert not raised(folder, "TamenNoGames", stuck, minute=20)
    assert raised(folder, "TamenNoGames", stuck, minute=40)
    assert not raised(folder, "TamenNoGames", over, minute=40)


def test_a_run_that_never_finished_a_game_is_told(folder: Path) -> None:
    assert not raised(folder, "TamenNoGames", ALIVE, minute=14)
    assert raised(folder, "TamenNoGames", ALIVE, minute=16)


def test_a_learner_that_never_began_is_told(folder: Path) -> None:
    assert not raised(folder, "TamenLearnerStandsStill", ALIVE, minute=18)
    assert raised(folder, "TamenLearnerStandsStill", ALIVE, minute=22)
    learns = ALIVE | {"ray_tamen_learner_steps_total{run='a'}": "_x5 0+9x55"}
    assert not raised(folder, "TamenLearnerStandsStill", learns, minute=40)


def test_what_happened_before_prometheus_looked_is_not_told(folder: Path) -> None:
    late = {
        "up{job='ray', instance='head'}": "_x20 1x40",
        "ray_tamen_requests_failed_total{run='a'}": "_x20 7x40",
        "ray_tamen_restarts_total{run='a', role='actor'}": "_x20 9x40",
    }
    assert not raised(folder, "TamenRequestsFail", late, minute=22)
    assert not raised(folder, "TamenPartsRestart", late, minute=22)
    soon = late | {"ray_tamen_requests_failed_total{run='a'}": "_x23 7x37"}
    assert raised(folder, "TamenRequestsFail", soon, minute=25)


@pytest.mark.parametrize("front", ["ray_", ""])
@pytest.mark.parametrize(
    ("behind", "told"),
    [
        pytest.param("0x60", False, id="never behind, however old it is"),
        pytest.param("0x20 1x1 0x40", False, id="a round that was late"),
        pytest.param("0x20 1x40", True, id="no round ends any more"),
        pytest.param("0x20 1x2 stale", False, id="a run that has ended"),
    ],
)
def test_a_mirror_that_calls_itself_behind_for_minutes_is_told(
    folder: Path, front: str, behind: str, told: bool
) -> None:
    of_run = f"{front}tamen_mirror_"
    series = {f"{of_run}lag_seconds{{run='a'}}": "9000+60x60", f"{of_run}behind{{run='a'}}": behind}
    assert any(raised(folder, "TamenMirrorBehind", series, minute=at) for at in range(1, 40, 3)) is told


def test_a_run_that_is_served_by_itself_is_told_likewise(folder: Path) -> None:
    alive = {"tamen_replay_rows{run='a'}": "5x60"}
    assert raised(folder, "TamenNoGames", alive, minute=20)
    assert not raised(folder, "TamenNoGames", alive | {"tamen_games_total{run='a'}": "0+9x60"}, minute=40)


@pytest.mark.parametrize("name", ["tamen_requests_failed_total", "ray_tamen_requests_failed_total"])
def test_a_first_mishap_is_told_though_its_counter_is_new_and_forgotten_after_ten_minutes(
    folder: Path, name: str
) -> None:
    first = {f"{name}{{run='a'}}": "_x20 1x40"}
    assert not raised(folder, "TamenRequestsFail", first, minute=19)
    assert raised(folder, "TamenRequestsFail", first, minute=22)
    assert not raised(folder, "TamenRequestsFail", first, minute=35)


def test_a_mishap_of_a_driver_that_was_started_again_is_told(folder: Path) -> None:
    again = {
        "ray_tamen_requests_failed_total{run='a', WorkerId='1'}": "3x60",
        "ray_tamen_requests_failed_total{run='a', WorkerId='2'}": "_x30 1x30",
    }
    assert not raised(folder, "TamenRequestsFail", again, minute=25)
    assert raised(folder, "TamenRequestsFail", again, minute=32)


def test_a_few_restarts_are_told_only_when_they_are_many(folder: Path) -> None:
    def deaths(number: int) -> dict[str, str]:
        return {"ray_tamen_restarts_total{run='a', role='actor'}": f"_x20 {number}x40"}

    assert not raised(folder, "TamenPartsRestart", deaths(3), minute=22)
    assert raised(folder, "TamenPartsRestart", deaths(4), minute=22)


def test_a_machine_that_left_is_told_for_a_quarter_of_an_hour(folder: Path) -> None:
    left = {
        "ray_node_cpu_count{SessionName='s', instance='a'}": "4x60",
        "ray_node_cpu_count{SessionName='s', instance='b'}": "4x20 stale",
    }
    assert not raised(folder, "TamenMachineLost", left, minute=19)
    assert raised(folder, "TamenMachineLost", left, minute=25)
    assert not raised(folder, "TamenMachineLost", left, minute=45)


@pytest.mark.parametrize(("percent", "told"), [(89, False), (91, True)])
def test_a_disk_is_told_of_before_it_is_full(folder: Path, percent: int, told: bool) -> None:
    disk = {"ray_node_disk_utilization_percentage{instance='a'}": f"{percent}x30"}
    assert raised(folder, "TamenDiskNearlyFull", disk, minute=20) is told


@pytest.mark.parametrize(("quick", "told"), [(100, False), (10, True)])
def test_weights_that_take_long_are_told(folder: Path, quick: int, told: bool) -> None:
    name = "ray_tamen_weights_sync_seconds_bucket"
    shares = {"0.1": quick, "0.5": quick, "1.0": 100, "+Inf": 100}
    series = {f"{name}{{run='a', le='{le}'}}": f"0+{share}x60" for le, share in shares.items()}
    assert raised(folder, "TamenWeightsSyncSlow", series, minute=40) is told


def test_weights_that_reach_no_server_are_told(folder: Path) -> None:
    published = {"ray_tamen_weights_version{run='a'}": "0+1x60"}
    taken = {"ray_tamen_weights_sync_seconds_count{run='a'}": "0+2x60"}
    assert raised(folder, "TamenWeightsDoNotArrive", published, minute=30)
    assert not raised(folder, "TamenWeightsDoNotArrive", published | taken, minute=30)
