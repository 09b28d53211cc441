"""`tamen bench curves`: what more actors and more games bring on this machine, measured and simulated.

Each point plays for a while, with one server; beside it stands what `cluster.plan.server_simulation` makes of the same
actors from times that were measured in the same run: of forwards, of searches that nobody else disturbs, and of what a
request costs beside them. The last is taken from the first point, so that one cannot surprise; the others can.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.bench.rig import Measuring, untrained_weights
from cluster.bench.selfplay import Played, measure_play
from cluster.cli.terminal import console, short
from cluster.plan.capacity import measure_service, measure_thinking
from cluster.plan.server_simulation import Load, Outcome, Service, simulate
from cluster.run.machine_file import batches_of
from cluster.run.program import Machine
from configs.loading import override
from configs.schema import RunConfig
from core.errors import UsageError
from inference_server.waits import quantile

MIB = 2**20
_STEPS_SIMULATED = 500
_BAR_WIDTH = 40


def parse_counts(text: str, *, what: str) -> tuple[int, ...]:
    """Return the numbers of "1,2,4". Raises UsageError when one is no whole number above 0."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(
            f"{text!r} are no numbers of {what}",
            why="each is a whole number above 0",
            fix=f"write them as in --{what} 1,2,4",
        )
    return tuple(int(word) for word in words)


def points_of(config: RunConfig, *, actors: Sequence[int], games: Sequence[int]) -> list[RunConfig]:
    """Return `config` with one server, for every number of actors and of games that each of them plays.

    Raises:
        UsageError: when games cannot be shared out over the groups of an actor.
    """
    groups = config.actors.groups_per_actor
    uneven = [number for number in games if number % groups]
    if uneven:
        raise UsageError(
            f"{uneven[0]} games of an actor are not possible here",
            why=f"they are shared out over {groups} groups",
            fix=f"take multiples of {groups} for --games, or another --groups",
        )
    return [
        override(
            config,
            [
                "inference.servers=1",
                f"actors.count={count}",
                f"actors.games_per_group={number // groups}",
                f"inference.max_batch_rows={batches_of(config).rows}",
            ],
        )
        for count in actors
        for number in games
    ]


def bench_curves(
    config: RunConfig, measuring: Measuring, *, actors: Sequence[int], games: Sequence[int], message_ms: float
) -> dict[str, Any]:
    """Play with every number of actors and games, and simulate the same.

    Args:
        measuring: its rounds are not used: the curve itself shows how much measurements scatter.
        actors: how many, one point each.
        games: of each actor.
        message_ms: taken for a message's way, one way.

    Returns:
        points: see `compared`; in the order of actors, then games.
        service_fixed_ms, service_row_us, think_ms, call_ms: what the simulation was given; `think_ms` by games of a
            group, `call_ms` is what a request costs in processor time beside search and forward.
    """
    points = points_of(config, actors=actors, games=games)
    service = measure_service(config.game, config.network, max_batch_rows=batches_of(config).rows)
    group_rows = sorted({point.actors.games_per_group for point in points})
    thinking = {rows: measure_thinking(config.game, config.search, rows=rows) for rows in group_rows}
    weights = untrained_weights(config)
    call_seconds, results = None, []
    for point in points:
        played = measure_play(point, weights, measuring.seconds)
        call_seconds = played.call_seconds() if call_seconds is None else call_seconds
        outcome = simulated(
            point,
            service,
            busy_seconds=thinking[point.actors.games_per_group] + call_seconds,
            message_seconds=message_ms / 1000,
        )
        results.append(compared(point, measured(played), outcome))
        measuring.say(in_words(results[-1]))
    return {
        "points": results,
        "service_fixed_ms": 1000 * service.fixed_seconds,
        "service_row_us": 1e6 * service.row_seconds,
        "think_ms": {rows: 1000 * seconds for rows, seconds in thinking.items()},
        "call_ms": 1000 * (call_seconds or 0.0),
        "message_ms": message_ms,
        "config": config.model_dump(mode="json"),
    }


def measured(played: Played) -> dict[str, float]:
    """Return the figures of a point; waits are those of requests until their batch began.

    Raises:
        UsageError: when nothing was evaluated meanwhile.
    """
    waits = played.histogram("inference", "waits")
    if not sum(waits):
        raise UsageError(
            f"nothing was evaluated in {played.seconds:.0f} s",
            why="a figure needs some batches",
            fix="measure longer with --seconds, or with fewer --games",
        )
    return played.rates() | {
        "wait_ms": 1000 * played.growth("inference", "wait_seconds") / max(1, sum(waits)),
        "wait_p50_ms": 1000 * quantile(waits, 0.5),
        "wait_p99_ms": 1000 * quantile(waits, 0.99),
        "pss_mib": played.pss_bytes / MIB,
        "uss_mib": played.uss_bytes / MIB,
    }


def simulated(config: RunConfig, service: Service, *, busy_seconds: float, message_seconds: float) -> Outcome:
    """Return what the simulation makes of a point whose parts share this machine's processors.

    Args:
        busy_seconds: that a processor is busy with a group from its replies to its next request.
        message_seconds: on the way beside that, there or back.
    """
    load = Load(
        actors=_actors(config),
        groups=config.actors.groups_per_actor,
        rows=config.actors.games_per_group,
        think_seconds=busy_seconds,
        message_seconds=message_seconds,
        processors=Machine.here().cpus,
    )
    # A request larger than a batch may be leaves alone, and the host cuts it into pieces of that size.
    service = Service(
        fixed_seconds=service.fixed_seconds,
        row_seconds=service.row_seconds,
        max_batch_rows=max(service.max_batch_rows, load.rows),
    )
    in_flight = load.actors * load.groups * load.rows
    step = service.seconds(min(service.max_batch_rows, in_flight))
    step += load.actors * busy_seconds + 2 * message_seconds
    return simulate(load, service, seconds=_STEPS_SIMULATED * step)


def compared(config: RunConfig, found: Mapping[str, float], outcome: Outcome) -> dict[str, float]:
    """Return a point: the measured figures, `predicted_…` of those that the simulation knows, and its relative error.

    `error` is of evaluations a second, predicted over measured less one: above 0 the simulation promises too much.
    """
    evals_per_move = config.search.simulations + 1
    return {
        "actors": _actors(config),
        "games": config.actors.groups_per_actor * config.actors.games_per_group,
        **found,
        "predicted_evals_per_s": outcome.rows_per_second,
        "predicted_moves_per_s": outcome.rows_per_second / evals_per_move,
        "predicted_mean_batch": outcome.mean_batch_rows,
        "predicted_wait_ms": 1000 * outcome.wait_seconds,
        "error": outcome.rows_per_second / found["evals_per_s"] - 1,
    }


def in_words(point: Mapping[str, float]) -> str:
    """Say in one line what a point came to."""
    return (
        f"{point['actors']:.0f} actors × {point['games']:.0f} games: {point['evals_per_s']:,.0f} evaluations/s,"
        f" predicted {point['predicted_evals_per_s']:,.0f} ({point['error']:+.0%})"
    )


def show_curves(result: Mapping[str, Any]) -> None:
    """Print the points as a table of at most 80 columns, and as bars with the predictions marked."""
    points, target = result["points"], console()
    target.print(curves_table(points))
    most = max(max(point["evals_per_s"], point["predicted_evals_per_s"]) for point in points)
    for point in points:
        label = f"{point['actors']:>3} × {point['games']:<5} "
        drawn = bar(point["evals_per_s"], point["predicted_evals_per_s"], most=most, width=_BAR_WIDTH)
        target.print(Text(f"{label}{drawn} {point['evals_per_s']:,.0f}/s"))
    target.print("evaluations a second; │ is where the simulation puts them", style="dim")


def curves_table(points: Sequence[Mapping[str, float]]) -> Table:
    """Return a table of the points: measured figures, then what the simulation expected and how far off it was."""
    table = Table(
        "actors",
        "games",
        "moves/s",
        "evals/s",
        "batch",
        "p50 ms",
        "p99 ms",
        "MiB",
        "sim/s",
        "error",
        box=None,
        padding=(0, 0, 0, 1),
    )
    for column in table.columns:
        column.justify = "right"
    for point in points:
        table.add_row(
            f"{point['actors']}",
            f"{point['games']}",
            f"{point['moves_per_s']:,.1f}",
            f"{point['evals_per_s']:,.0f}",
            f"{point['mean_batch']:,.0f}",
            f"{point['wait_p50_ms']:.1f}",
            f"{point['wait_p99_ms']:.1f}",
            f"{point['pss_mib']:,.0f}",
            short(point["predicted_evals_per_s"]),
            f"{point['error']:+.0%}",
        )
    return table


def bar(value: float, mark: float, *, most: float, width: int) -> str:
    """Draw `value` as a bar, and `mark` as a line across it or beyond it; `most` is `width` characters long."""
    filled, marked = (round(width * number / most) if most else 0 for number in (value, mark))
    cells = ["█" if cell < filled else " " for cell in range(width)]
    cells[min(max(marked - 1, 0), width - 1)] = "│"
    return "".join(cells)


def _actors(config: RunConfig) -> int:
    count = config.actors.count
    assert isinstance(count, int), "a point says how many actors it has"
    return count
