"""A run's numbers outlive crashes, and Ray exports them under the same names."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from cluster.monitoring.sinks import RunLog, read_run_log
from core.errors import DataError
from tests.core.faults import files_no_larger_than

EXPORTING = """
import sys, time, ray
from cluster.monitoring.sinks import RayMetrics

ray.init(num_cpus=1, include_dashboard=False, _metrics_export_port=int(sys.argv[1]), logging_level="ERROR")
metrics = RayMetrics({"role": "replay"})
metrics.count("tamen_games_total", 3)
metrics.count("tamen_games_total", 0)
while True:
    metrics.gauge("tamen_learner_loss", 1.5, part="policy")
    time.sleep(1)
"""


def log_of(folder: Path, *moments: dict[str, float | str | None], start: float = 1000.0) -> None:
    log = RunLog(folder, clock=lambda: start)
    for number, values in enumerate(moments):
        log.append(values, learner_steps=number)
    log.close()


def test_moments_come_back_in_order(tmp_path: Path) -> None:
    log_of(tmp_path, {"games/played": 3}, {"games/played": 5, "run/event": "replay restarted"})
    assert list(read_run_log(tmp_path)) == [
        {"time": 1000.0, "learner_steps": 0, "games/played": 3},
        {"time": 1000.0, "learner_steps": 1, "games/played": 5, "run/event": "replay restarted"},
    ]


def test_what_was_not_measured_is_not_written(tmp_path: Path) -> None:
    log_of(tmp_path, {"learner/loss": None, "learner/lag": float("nan"), "learner/rate": float("inf")})
    assert list(read_run_log(tmp_path)) == [{"time": 1000.0, "learner_steps": 0}]


def test_a_folder_without_a_log_has_no_moments(tmp_path: Path) -> None:
    assert list(read_run_log(tmp_path)) == []


def test_a_line_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.append({"games/played": 3}, learner_steps=0)
    assert len(list(read_run_log(tmp_path))) == 1
    log.close()


@pytest.mark.parametrize("torn", ['{"time": 1', '{"time": 1000.0, "learner_steps": 7}'])
def test_a_log_with_a_torn_last_line_is_read_and_continued(tmp_path: Path, torn: str) -> None:
    log_of(tmp_path, {"games/played": 3})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [line["games/played"] for line in read_run_log(tmp_path)] == [3]
    log_of(tmp_path, {"games/played": 5})
    assert [line["games/played"] for line in read_run_log(tmp_path)] == [3, 5]


def test_damage_elsewhere_is_told_with_its_line(tmp_path: Path) -> None:
    log_of(tmp_path, {"games/played": 3})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("\0\0\n")
    with pytest.raises(DataError, match="line 2 is damaged"):
        list(read_run_log(tmp_path))


def test_tensorboard_gets_the_numbers_and_a_second_life_adds_to_them(tmp_path: Path) -> None:
    log_of(tmp_path, {"strength/mcts:64": 0.5, "run/event": "words"})
    first = {path.name: path.read_bytes() for path in (tmp_path / "tb").iterdir()}
    assert b"strength/mcts" in b"".join(first.values())
    assert b"words" not in b"".join(first.values())
    log_of(tmp_path, {"strength/mcts:64": 0.75})
    assert first.items() <= {path.name: path.read_bytes() for path in (tmp_path / "tb").iterdir()}.items()


def test_a_full_disk_costs_lines_and_the_rest_of_tensorboard_and_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    log = RunLog(tmp_path, report=said.append)
    log.append({"games/played": 1}, learner_steps=0)
    with files_no_larger_than(1):
        for number in range(100):
            log.append({"games/played": 1, "games/number": number}, learner_steps=number)
    log.append({"games/played": 2}, learner_steps=100)
    log.close()

    moments = [line["learner_steps"] for line in read_run_log(tmp_path)]
    assert moments == [0, *range(len(moments) - 2), 100]
    assert 10 < len(moments) < 30
    assert sorted(text.split(":")[0] for text in said) == [
        "TensorBoard gets no more numbers until the run is resumed",
        "numbers are lost, as metrics.jsonl cannot be written",
    ]


def test_a_disk_that_fills_up_again_is_told_again(tmp_path: Path) -> None:
    said: list[str] = []
    log = RunLog(tmp_path, report=said.append)
    for _ in range(2):
        log.append({}, learner_steps=0)
        with files_no_larger_than(0):
            log.append({}, learner_steps=1)
    log.close()

    assert [text.startswith("numbers are lost") for text in said].count(True) == 2


def test_lines_are_strict_json(tmp_path: Path) -> None:
    log_of(tmp_path, {"games/name": "六", "learner/loss": 1.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["games/name"] == "六"


@pytest.mark.system
def test_ray_exports_the_same_names(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", EXPORTING, str(port)]
    exporter = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    try:
        lines = exported(f"http://127.0.0.1:{port}/metrics", timeout_seconds=120)
    finally:
        exporter.terminate()
        exporter.wait(timeout=60)
    values = {line.split("{")[0]: (line, float(line.split()[-1])) for line in lines}
    assert values["ray_tamen_games_total"][1] == 3
    assert values["ray_tamen_learner_loss"][1] == 1.5
    assert 'role="replay"' in values["ray_tamen_learner_loss"][0]
    assert 'part="policy"' in values["ray_tamen_learner_loss"][0]


def exported(address: str, *, timeout_seconds: float) -> list[str]:
    """Return the lines of our metrics once there are any; Ray's agent takes them every 10 s."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        time.sleep(1)
        try:
            with urllib.request.urlopen(address, timeout=10) as page:
                lines = [line for line in page.read().decode().splitlines() if line.startswith("ray_tamen")]
        except OSError:
            continue
        if {"ray_tamen_games_total", "ray_tamen_learner_loss"} <= {line.split("{")[0] for line in lines}:
            return lines
    raise TimeoutError(f"no metrics at {address}")
