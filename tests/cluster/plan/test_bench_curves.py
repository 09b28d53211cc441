"""What the curves count and how they are shown, without anything being played."""

from typing import Any

import pytest
from rich.console import Console

from cluster.bench.rig import Measuring, bench_config
from cluster.bench.selfplay import Played
from cluster.plan import curves as bench_curves
from cluster.plan.curves import (
    bar,
    compared,
    curves_table,
    measured,
    parse_counts,
    points_of,
    show_curves,
    simulated,
)
from cluster.plan.curves import bench_curves as measure_curves
from cluster.plan.server_simulation import Outcome, Service
from cluster.run.program import Machine
from configs.schema import RunConfig
from core.errors import UsageError
from inference_server.waits import NUM_BUCKETS, bucket
from networks.weights import Weights

SERVICE = Service(fixed_seconds=0.001, row_seconds=0.0001, max_batch_rows=64)


def config() -> RunConfig:
    settings = ["search.simulations=9", "actors.groups_per_actor=4"]
    return bench_config("tic_tac_toe", blocks=1, channels=4, precision="fp32", settings=settings)


def played(evals: int = 1000, *, waits: tuple[float, ...] = (0.001, 0.001, 0.004)) -> Played:
    """Return ten seconds of one actor and one server in which `evals` positions were evaluated."""
    histogram = [0] * NUM_BUCKETS
    for wait in waits:
        histogram[bucket(wait)] += 1
    names = {"actor": ("moves", "games", "process_seconds", "search_cpu_seconds")}
    names["inference"] = (
        *("rows", "forward_rows", "cached_rows", "batches", "requests", "wait_seconds"),
        *("process_seconds", "forward_cpu_seconds", "forward_seconds"),
    )
    before: dict[str, Any] = {role: dict.fromkeys(keys, 7.0) for role, keys in names.items()}
    after: dict[str, Any] = {role: dict(stats) for role, stats in before.items()}
    before["inference"]["waits"] = [5] * NUM_BUCKETS
    after["inference"]["waits"] = [5 + count for count in histogram]
    grown = {"rows": evals, "forward_rows": evals, "batches": 10, "requests": 100, "wait_seconds": sum(waits)}
    for name, by in (grown | {"process_seconds": 5.0, "forward_cpu_seconds": 4.5}).items():
        after["inference"][name] += by
    for name, by in {"moves": evals / 10, "process_seconds": 3.0, "search_cpu_seconds": 2.5}.items():
        after["actor"][name] += by
    return Played(
        before=before, after=after, seconds=10.0, cpu_seconds=9.0, pss_bytes=3 * 2**20, uss_bytes=2**20
    )


def outcome(rate: float) -> Outcome:
    return Outcome(rate, 32.0, 0.002, 0.5, 0.5)


def test_a_point_is_every_number_of_actors_with_every_number_of_games() -> None:
    points = points_of(config(), actors=(1, 2), games=(16, 64))

    counts = [(point.actors.count, point.actors.games_per_group) for point in points]
    assert counts == [(1, 4), (1, 16), (2, 4), (2, 16)]
    assert {point.inference.servers for point in points} == {1}


def test_games_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(UsageError, match="18 games"):
        points_of(config(), actors=(1,), games=(16, 18))


@pytest.mark.parametrize("text", ["", "1,", "1;2", "0", "-3", "a"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no numbers of actors"):
        parse_counts(text, what="actors")


def test_figures_are_growth_between_two_moments() -> None:
    found = measured(played())

    assert found["evals_per_s"] == 100
    assert found["moves_per_s"] == 10
    assert found["mean_batch"] == 100
    assert found["wait_ms"] == pytest.approx(2.0)
    assert found["wait_p50_ms"] == pytest.approx(1.0, rel=0.1)
    assert found["wait_p99_ms"] == pytest.approx(4.0, rel=0.1)
    assert (found["pss_mib"], found["uss_mib"]) == (3, 1)
    assert played().call_seconds() == pytest.approx(0.01), "a second in all, for a hundred requests"


def test_where_nothing_was_evaluated_there_is_no_figure() -> None:
    with pytest.raises(UsageError, match="nothing was evaluated in 10 s"):
        measured(played(0, waits=()))


def test_the_error_is_positive_where_the_simulation_promises_too_much() -> None:
    point = points_of(config(), actors=(2,), games=(16,))[0]

    over, under = (compared(point, measured(played()), outcome(rate)) for rate in (125.0, 50.0))
    assert (over["actors"], over["games"]) == (2, 16)
    assert over["error"] == pytest.approx(0.25)
    assert under["error"] == pytest.approx(-0.5)
    assert over["predicted_moves_per_s"] == 12.5, "ten evaluations a move"


def test_the_simulation_shares_the_processors_and_takes_requests_larger_than_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = points_of(config(), actors=(1, 8), games=(512,))
    rates = {}
    for cpus in (1, 16):
        monkeypatch.setattr(Machine, "here", staticmethod(lambda cpus=cpus: Machine(cpus=cpus, gpus=0)))
        rates[cpus] = [
            simulated(point, SERVICE, busy_seconds=0.02, message_seconds=0.0).rows_per_second
            for point in (few, many)
        ]

    assert rates[1][1] == pytest.approx(rates[1][0], rel=0.05), "one processor is busy with one actor"
    assert rates[1][0] == pytest.approx(128 / (0.02 + SERVICE.seconds(128)), rel=0.05)
    assert rates[16][1] > 1.3 * rates[16][0]


def test_points_are_played_in_turn_and_predicted_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunConfig] = []

    def play(point: RunConfig, weights: Weights, seconds: float) -> Played:
        seen.append(point)
        return played(1000 * len(seen))

    monkeypatch.setattr(bench_curves, "measure_play", play)
    monkeypatch.setattr(bench_curves, "measure_service", lambda *given, **named: SERVICE)
    monkeypatch.setattr(bench_curves, "measure_thinking", lambda *given, rows: rows / 1000)
    measuring = Measuring(seconds=1.0, rounds=1, quiet=True)

    result = measure_curves(config(), measuring, actors=(1, 2), games=(16, 64), message_ms=0.5)

    assert [point["evals_per_s"] for point in result["points"]] == [100, 200, 300, 400]
    assert len(seen) == 4
    assert result["think_ms"] == {4: 4.0, 16: 16.0}
    assert result["call_ms"] == pytest.approx(10.0)


def test_the_table_fits_a_terminal_and_shows_every_point() -> None:
    points = points_of(config(), actors=(1, 1000), games=(32_768,))
    rows = [compared(point, measured(played(10_000_000)), outcome(4e6)) for point in points]
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(curves_table(rows))

    lines = captured.get().splitlines()
    assert len(lines) == 3
    assert "…" not in captured.get()
    assert "+300%" in lines[1]
    assert "1,000,000" in lines[1]


def test_what_is_shown_has_a_bar_for_every_point(capsys: pytest.CaptureFixture[str]) -> None:
    points = points_of(config(), actors=(1, 2), games=(16,))
    show_curves({"points": [compared(point, measured(played()), outcome(50.0)) for point in points]})

    assert capsys.readouterr().out.count("█│█") == 2


@pytest.mark.parametrize(
    ("value", "mark", "drawn"),
    [(4, 2, "█│██"), (2, 4, "██ │"), (0, 0, "│   "), (4, 4, "███│"), (2, 2, "█│  ")],
)
def test_a_bar_ends_at_its_value_and_is_marked_at_the_prediction(value: int, mark: int, drawn: str) -> None:
    assert bar(value, mark, most=4, width=4) == drawn
