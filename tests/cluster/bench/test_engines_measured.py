"""`tamen engines play` while it is scraped, profiled and recorded, and how engines are benched."""

import json
import pstats
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.bench.daemons import median_interval
from cluster.bench.engines import bench_engines
from cluster.bench.rig import Measuring
from engines.ports import free_port
from engines.reference.compile import compiled
from tests.cluster.commands import assert_three_lines, run_here

Capture = pytest.CaptureFixture[str]


class Scraper:
    """Reads a port until it is told to stop, and keeps the last values that came."""

    def __init__(self, port: int) -> None:
        self.values: dict[str, float] = {}
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    lines = answer.read().decode().splitlines()
            except (urllib.error.URLError, OSError):
                continue
            pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            self.values.update({name: float(value) for name, value in pairs})


@pytest.mark.system
def test_games_are_scraped_profiled_and_recorded(tmp_path: Path, capsys: Capture) -> None:
    port, profile = free_port(25_800), tmp_path / "play.prof"
    with Scraper(port) as scraper:
        said = run_here(
            capsys,
            *("engines", "play", compiled(), "engine.base_port=25_850", "engine.count=1", "java.preset=none"),
            *("java.record=true", "upkeep.check_seconds=0.2", "games.extra=[-x,wait=60]"),
            *("games.connections=1", "--games", "800", "--decks", "aggro,control", "--engine", "local"),
            *("--out", tmp_path / "out", "--runs", tmp_path / "runs", "--json"),
            *("--metrics-port", port, "--profile", profile),
        )

    assert said.code == 0, said
    result = json.loads(said.out.splitlines()[-1])
    told = scraper.values
    games = sum(value for name, value in told.items() if name.startswith("tamen_engine_games_total"))
    assert 0 < games <= 800
    assert told["tamen_engine_game_duration_seconds_count"] <= 800
    assert told['tamen_engine_game_duration_seconds_bucket{le="0.05"}'] == 0  # each has waited for 60 ms
    assert told['tamen_engine_game_duration_seconds_bucket{le="+Inf"}'] > 0
    assert told['tamen_engine_game_quantile_seconds{quantile="0.5"}'] == pytest.approx(
        result["p50_s"], rel=0.5
    )
    assert told["tamen_engine_games_left"] < 800
    assert 0 < told['tamen_engine_busy_ratio{daemon="0"}'] <= 1
    assert told['tamen_engine_restarts_total{daemon="0"}'] == 0

    assert result["profiles"] == [str(profile)]
    known = pstats.Stats(str(profile)).stats  # pyright: ignore[reportAttributeAccessIssue]
    calls = {(Path(file).name, name): count for (file, _, name), (_, count, *_) in known.items()}
    assert calls["engine_games.py", "_put_down"] == 800  # by threads of players

    (recording,) = result["recordings"]
    summary = subprocess.run(
        ["jfr", "summary", recording], capture_output=True, text=True, timeout=120, check=True
    )
    assert "jdk.ExecutionSample" in summary.stdout


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("--profile", "nowhere/a.prof"), ("nowhere/a.prof", "--profile play.prof")),
        (("--profile", "."), ("it is a folder",)),
    ],
)
def test_where_nothing_can_be_measured_is_told(
    arguments: tuple[str, ...], mentions: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    play = ("engines", "play", "--games", "1", "--decks", "a", "--out", tmp_path / "out", *arguments)
    assert_three_lines(run_here(capsys, *play, "--", "sleep", "{port}"), code=2, mentions=mentions)
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        play = ("engines", "play", "--games", "1", "--decks", "a", "--out", tmp_path, "--metrics-port", port)
        said = run_here(capsys, *play, "--", "sleep", "{port}")
    assert_three_lines(said, code=2, mentions=(f"port {port}", "0 for a free one"))


@pytest.mark.parametrize(
    ("count", "first", "last"),
    [(1, 0, 0), (3, 0, 2), (6, 0, 5), (8, 0, 7), (9, 1, 7), (12, 2, 9), (20, 5, 14)],
)
def test_a_median_lies_between_readings_as_tables_have_it(count: int, first: int, last: int) -> None:
    assert median_interval([float(place) for place in range(count)]) == (first, last)


@pytest.mark.soak
def test_connections_and_flags_are_measured_beside_each_other() -> None:
    result = bench_engines(
        ("connections", "flags"), Measuring(seconds=1.0, rounds=1, quiet=True), fault_games=1
    )

    ten = result["connections"]["10 at once, wait 1 ms"]
    assert ten["times_one_worker"] > 1
    assert ten["kept_games_per_s"] <= 10_000
    for load in result["flags"].values():
        assert load["heap alone"]["times"] == 1
        for found in load.values():
            low, high = found["times_interval"]
            assert 0 < low <= found["times"] <= high
            assert found["resident_mb"] > 20
            assert found["start_s"] > 0
            assert found["cpu_ms"] > 0
