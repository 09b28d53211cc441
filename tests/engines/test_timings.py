"""Durations are read with distrust, the example is what was published, and monitoring hears what was measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from core.prometheus import PrometheusMetrics
from engines.book import GameBook, Plan
from engines.tickets import Failed, Played
from engines.timings import LEAST_SECONDS, EngineRecorder, example_durations, read_durations

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str | bytes) -> Path:
        path = tmp_path / "durations"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return written


def test_the_example_is_what_was_published() -> None:
    example = example_durations()

    published = {0.0: 0.649, 0.5: 6.379, 0.9: 15.622, 0.95: 19.245, 0.99: 27.706, 1.0: 53.623}
    assert {share: example.quantile(share) for share in published} == pytest.approx(published, rel=0.002)
    assert example.mean == pytest.approx(7.838, rel=0.0005)
    assert example.seconds.std() == pytest.approx(5.809, rel=0.02)
    assert example.is_example
    with pytest.raises(ValueError, match="read-only"):
        example.seconds[0] = 1.0


@given(st.lists(st.floats(1e-6, 86_400), min_size=1, max_size=50))
def test_what_a_benchmark_prints_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float]
) -> None:
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    path.write_text(f"a line\n{json.dumps({'durations_s': seconds, 'other': None})}\n")
    lines = path.with_name("lines")
    lines.write_text("\n".join(map(repr, seconds)))

    for found in (read_durations(path), read_durations(lines)):
        assert found.seconds.tolist() == sorted(seconds)
        assert (found.startup_seconds, found.between_games, found.is_example) == (None, 0.0, False)


def test_json_over_several_lines_is_read_too(write: Write) -> None:
    path = write(json.dumps({"durations_s": [2, 1], "startup_s": 3}, indent=2))

    assert read_durations(path).seconds.tolist() == [1.0, 2.0]
    assert read_durations(path).startup_seconds == 3.0


@pytest.mark.parametrize(("rate", "between"), [(0.8, 0.5), (1.0, 0.0), (1.1, 0.0)])
def test_what_is_missing_of_the_capacity_went_by_between_games(
    write: Write, rate: float, between: float
) -> None:
    # Two daemons whose games take 2 s could play one a second.
    measured = {"durations_s": [1, 3], "games_per_s": rate, "capacity_games_per_s": 1.0}

    assert read_durations(write(json.dumps(measured))).between_games == pytest.approx(between)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        ("1.5\nfast\n", "number 2 is 'fast'"),
        ("nan", "'nan'"),
        ("1_000", "'1_000'"),
        ("-1", "'-1'"),
        ("0", "duration 1 is 0.0"),
        ("1\n1e9", "duration 2 is 1000000000.0"),
        (b"\xff1", "not UTF-8"),
        ("{", "cannot be read"),
        ("[" * 100_000, "no number of seconds"),
        ('{"durations_s":' + "[" * 100_000, "cannot be read"),
        ('{"games_per_s": 1}', "no list durations_s"),
        ('{"durations_s": 3}', "no list durations_s"),
        ('{"durations_s": []}', "0 durations"),
        ('{"durations_s": [1, true]}', "duration 2 is True"),
        ('{"durations_s": ["1"]}', "duration 1 is 1"),
        ('{"durations_s": [NaN]}', "duration 1 is nan"),
        ('{"durations_s": [1' + "0" * 400 + "]}", "duration 1 is 10000"),
        ('{"durations_s": [1], "startup_s": -1}', "startup_s is -1"),
        ('{"durations_s": [1], "games_per_s": 0, "capacity_games_per_s": 1}', "games_per_s is 0"),
    ],
)
def test_what_holds_no_durations_is_refused(write: Write, text: str | bytes, why: str) -> None:
    with pytest.raises(DataError, match="holds no durations of games") as refused:
        read_durations(write(text))
    assert why in refused.value.why


def test_a_file_that_does_not_end_is_not_read_whole(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    monkeypatch.setattr("engines.timings.MOST_BYTES", 1 << 20)
    with pytest.raises(DataError) as refused:
        read_durations(write("1\n" * (1 << 19) + "1"))
    assert "more than 1 MiB" in refused.value.why


def test_a_file_that_is_not_there_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no durations in") as missing:
        read_durations(tmp_path / "nowhere")
    assert "tamen engines bench --json" in missing.value.fix
    with pytest.raises(UsageError) as folder:
        read_durations(tmp_path)
    assert folder.value.why == "it is a folder without games.jsonl"


def test_the_games_of_a_folder_are_read_that_were_finished(tmp_path: Path) -> None:
    with GameBook(tmp_path, Plan(games=4, decks=("a",), tries=1)) as book:
        book.exchange("here", 1, [], want=4, hold_seconds=60)
        ends = [Played(0, 1, "first", 2.0), Played(1, 1, "draw", 0.0), Failed(2, 1, "died", "it did")]
        book.exchange("here", 2, ends, want=0, hold_seconds=60)
        found = read_durations(tmp_path)  # while it is written

    assert found.seconds.tolist() == [
        0.0005,
        2.0,
    ]  # what took less than a daemon's millisecond took something
    assert found.source == f"2 games in {tmp_path}"
    assert (found.startup_seconds, found.between_games, found.is_example) == (None, 0.0, False)


def test_a_folder_without_a_finished_game_is_told(tmp_path: Path) -> None:
    GameBook(tmp_path, Plan(games=4, decks=("a",))).close()
    with pytest.raises(DataError, match="holds no durations") as refused:
        read_durations(tmp_path)
    assert "0 durations" in refused.value.why


def test_of_very_many_games_as_many_are_reckoned_with_as_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.timings.MOST_GAMES", 100)
    with GameBook(tmp_path, Plan(games=1000, decks=("a",))) as book:
        book.exchange("here", 1, [], want=1000, hold_seconds=60)
        ends = [Played(number, 1, "draw", 1.0 + number / 1000) for number in range(1000)]
        book.exchange("here", 2, ends, want=0, hold_seconds=60)

    found = read_durations(tmp_path)
    assert len(found.seconds) == 100
    assert found.mean == pytest.approx(1.4995, abs=1e-4)


def values(metrics: PrometheusMetrics) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in metrics.text().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_games_are_counted_by_how_they_ended_and_timed() -> None:
    metrics = PrometheusMetrics()
    recorder = EngineRecorder(metrics)
    recorder.game_finished("first", 0.5)
    recorder.game_finished("first", 7.0)
    recorder.game_finished("draw", 500.0)
    recorder.game_tried_again("died")
    recorder.game_set_aside("timeout")

    told = values(metrics)
    assert told['tamen_engine_games_total{outcome="first"}'] == 2
    assert told['tamen_engine_games_total{outcome="draw"}'] == 1
    assert told["tamen_engine_game_duration_seconds_sum"] == 507.5
    assert told['tamen_engine_game_duration_seconds_bucket{le="1.0"}'] == 1
    assert told['tamen_engine_game_duration_seconds_bucket{le="10.0"}'] == 2
    assert told['tamen_engine_game_duration_seconds_bucket{le="120.0"}'] == 2
    assert told['tamen_engine_game_duration_seconds_bucket{le="+Inf"}'] == 3
    assert told['tamen_engine_retries_total{reason="died"}'] == 1
    assert told['tamen_engine_games_set_aside_total{reason="timeout"}'] == 1


def test_how_games_stand_is_told_as_far_as_it_is_known() -> None:
    metrics = PrometheusMetrics()
    EngineRecorder(metrics).games_stand(7, {0.5: 0.25, 0.99: None})

    assert values(metrics) == {
        "tamen_engine_games_left": 7,
        'tamen_engine_game_quantile_seconds{quantile="0.5"}': 0.25,
    }


def test_games_of_a_millisecond_and_of_a_minute_have_buckets_of_their_own() -> None:
    metrics = PrometheusMetrics()
    for seconds in (0.0008, 0.0015, 1.5, 45.0, 90.0):
        EngineRecorder(metrics).game_finished("draw", seconds)

    told = values(metrics)
    bounds = [
        float(name.split('"')[1])
        for name in told
        if name.startswith("tamen_engine_game_duration_seconds_bucket")
    ]
    published = [1, 2, 5, 10, 20, 30, 60, 120]
    assert set(published) < set(bounds)
    counts = [
        told[f'tamen_engine_game_duration_seconds_bucket{{le="{bound}"}}']
        for bound in (0.001, 0.002, 2.0, 60.0)
    ]
    assert counts == [1, 2, 3, 4]


def test_what_forge_sim_printed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sim.log"
    path.write_text(
        "Simulation mode\nAi(1)-Red vs Ai(2)-Blue - 3 games of Constructed\n"
        "Game Result: Game 1 ended in 8123 ms. Ai(1)-Red has won!\n\nStopping slow match as draw\n"
        "Game Result: Game 2 ended in a Draw! Took 120004 ms.\nGame Result: Game 3 ended in 0 ms. Ai(2)-Blue has won!\n"
    )
    found = read_durations(path)
    assert found.seconds.tolist() == [LEAST_SECONDS, 8.123, 120.004]
    assert found.source.startswith("3 games of forge sim in ")
    path.write_text("Simulation mode\nCould not load deck - red.dck, match cannot start\n")
    with pytest.raises(DataError, match="holds no durations") as caught:
        read_durations(path)
    assert "'red.dck'" in caught.value.why
