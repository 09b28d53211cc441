"""`tamen plan capacity`: how many actor machines one server can feed, from times measured here."""

from typing import Any

from rich.table import Table

from cluster.bench.raw_forward import measure_processes
from cluster.bench.rig import Measuring, best_rates
from cluster.bench.search import bench_search
from cluster.cli.terminal import console
from cluster.plan.server_simulation import Load, Outcome, Service, fit_service, simulate
from configs.schema import NetworkConfig, SearchConfig

ACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
NEARLY_ALL = 0.99
"""The server is saturated when it answers this share of what it does when every batch is full."""
_SECONDS = 10.0
_BATCHES_SIMULATED = 500


def measure_service(game: str, network: NetworkConfig, *, max_batch_rows: int) -> Service:
    """Measure what forwards of every batch size take on one thread, or on the GPU, and fit a line to it."""
    (measured,) = measure_processes(game, network, seconds=_SECONDS, processes=1)
    return fit_service(best_rates([measured["rates"]]), max_batch_rows=max_batch_rows)


def measure_thinking(game: str, settings: SearchConfig, *, rows: int) -> float:
    """Return the seconds that a group of `rows` games thinks between two requests."""
    measuring = Measuring(seconds=1.0, rounds=3, quiet=True)
    searched = bench_search(game, settings, games=rows, measuring=measuring)
    return rows * (1 - searched["evaluator_share"]) / searched["evaluations_per_s"]


def plan_capacity(
    service: Service,
    *,
    groups: int,
    rows: int,
    think_seconds: float,
    message_seconds: float,
    evals_per_move: int,
) -> dict[str, Any]:
    """Simulate 1 to 1000 actors at one server.

    Returns:
        service_fixed_ms, service_row_us, think_ms: what went in.
        points: for each number of actors the outcome, and moves a second.
        saturated_at: the fewest of these actors at which the server answers all it can; None if no number is enough.
    """
    seconds = _BATCHES_SIMULATED * (
        service.seconds(service.max_batch_rows) + think_seconds + 2 * message_seconds
    )
    outcomes = {
        actors: simulate(
            Load(
                actors=actors,
                groups=groups,
                rows=rows,
                think_seconds=think_seconds,
                message_seconds=message_seconds,
            ),
            service,
            seconds=seconds,
        )
        for actors in ACTORS
    }
    full_batch = service.max_batch_rows // rows * rows
    most = full_batch / service.seconds(full_batch)
    return {
        "service_fixed_ms": 1000 * service.fixed_seconds,
        "service_row_us": 1e6 * service.row_seconds,
        "think_ms": 1000 * think_seconds,
        "points": [_point(actors, outcome, evals_per_move) for actors, outcome in outcomes.items()],
        "saturated_at": next(
            (n for n, outcome in outcomes.items() if outcome.rows_per_second >= NEARLY_ALL * most), None
        ),
    }


def _point(actors: int, outcome: Outcome, evals_per_move: int) -> dict[str, float]:
    return {
        "actors": actors,
        "evals_per_s": outcome.rows_per_second,
        "moves_per_s": outcome.rows_per_second / evals_per_move,
        "mean_batch": outcome.mean_batch_rows,
        "wait_ms": 1000 * outcome.wait_seconds,
        "server_busy": outcome.server_busy,
        "actors_busy": outcome.actors_busy,
    }


def show_capacity(result: dict[str, Any]) -> None:
    """Print the points as a table, and where the server is saturated."""
    table = Table("actors", "evals/s", "moves/s", "batch", "wait ms", "server busy", "busy")
    for point in result["points"]:
        table.add_row(
            f"{point['actors']:,}",
            f"{point['evals_per_s']:,.0f}",
            f"{point['moves_per_s']:,.1f}",
            f"{point['mean_batch']:,.0f}",
            f"{point['wait_ms']:,.1f}",
            f"{point['server_busy']:.0%}",
            f"{point['actors_busy']:.1%}",
        )
    target = console()
    target.print(
        f"a forward takes {result['service_fixed_ms']:.2f} ms and {result['service_row_us']:.0f} µs a position;"
        f" a group of games thinks {result['think_ms']:.2f} ms"
    )
    target.print(table)
    saturated_at = result["saturated_at"]
    if saturated_at is None:
        target.print(f"{ACTORS[-1]:,} actors do not saturate one server")
    else:
        target.print(f"one server is saturated by {saturated_at:,} actors; more only wait longer")
