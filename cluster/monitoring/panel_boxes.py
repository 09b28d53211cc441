"""How a run's panel looks: four boxes, what limits the run, the loss over time, and the last board."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

from rich.bar import Bar
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import duration, percent, real, reward, short, sparkline, whole
from cluster.monitoring.bottleneck import Bottleneck, bottleneck
from cluster.monitoring.snapshot import Event, Measured, RolloutPart, Snapshot

BOX_ROWS = 7
FOUR_COLUMNS = 76
"""Width from which the boxes stand side by side."""


@dataclass(frozen=True)
class RunPanel:
    """One moment of a run. It fits 80 columns and 24 lines: a board that is too high is left out."""

    snapshot: Snapshot
    losses: Sequence[float] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        limit = bottleneck(self.snapshot)
        top = Group(
            _header(self.snapshot),
            _boxes(self.snapshot, limit, columns=4 if options.max_width >= FOUR_COLUMNS else 2),
            Padding(
                Text.assemble(("limit ", "dim"), (limit.name, "bold yellow"), f" · {limit.advice}"), (0, 1)
            ),
            *_ends_line(self.snapshot),
            *_fault_line(self.snapshot),
            _loss_line(self.snapshot, self.losses, width=options.max_width),
        )
        yield top
        free_lines = options.size.height - len(console.render_lines(top, options)) - 2
        yield _bottom(self.snapshot, lines=free_lines)
        yield Text(" Ctrl-C saves and stops", style="dim")


def _header(snapshot: Snapshot) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    elapsed = duration(snapshot.elapsed_seconds)
    if snapshot.remaining_seconds is not None:
        elapsed += f" · {duration(snapshot.remaining_seconds)} left"
    until = f" until {snapshot.stop}" if snapshot.stop else ""
    line.add_row(
        Text.assemble(" ", (snapshot.run, "bold"), (f" · {snapshot.game}", "dim")),
        Text.assemble(elapsed, (until, "dim"), " "),
    )
    return line


def _boxes(snapshot: Snapshot, limit: Bottleneck, *, columns: int) -> RenderableType:
    boxes = [
        *_experience_boxes(snapshot),
        _box("time", _time_bars(snapshot, limit)),
        _box("learning", _pairs(_learning_rows(snapshot))),
    ]
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    for start in range(0, len(boxes), columns):
        grid.add_row(*boxes[start : start + columns])
    return grid


def _box(title: str, content: RenderableType) -> Panel:
    return Panel(
        content,
        title=Text(title, style="bold"),
        title_align="left",
        box=ROUNDED,
        border_style="bright_black",
        height=BOX_ROWS + 2,
    )


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for name, value in rows[:BOX_ROWS]:
        table.add_row(Text(name), Text(value))
    return table


def _experience_boxes(snapshot: Snapshot) -> list[Panel]:
    if snapshot.rollout is None:
        return [
            _box("games", _pairs(_games_rows(snapshot))),
            _box("strength", _pairs(_strength_rows(snapshot))),
        ]
    return [
        _box("episodes", _pairs(_episode_rows(snapshot, snapshot.rollout))),
        _box("return", _pairs(_return_rows(snapshot, snapshot.rollout))),
    ]


def _episode_rows(snapshot: Snapshot, rollout: RolloutPart) -> list[tuple[str, str]]:
    games, brain = snapshot.games, snapshot.inference
    return [
        ("ended", whole(games.played)),
        ("per hour", whole(games.per_hour)),
        ("length", real(games.mean_plies, 1)),
        ("steps/s", whole(rollout.steps_per_second)),
        ("evals/s", whole(brain.positions_per_second)),
        ("batch", whole(brain.mean_batch_rows)),
    ]


def _return_rows(snapshot: Snapshot, rollout: RolloutPart) -> list[tuple[str, str]]:
    """What the newest network earns without exploration, and what training earned last."""
    rows = [("evaluated", reward(rollout.evaluated_return))]
    if rollout.low is not None and rollout.high is not None:
        rows += [("  from", reward(rollout.low)), ("  to", reward(rollout.high))]
    rows += [
        ("training", reward(rollout.training_return)),
        ("version", whole(snapshot.learner.newest_version)),
    ]
    return rows


def _games_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    games, brain = snapshot.games, snapshot.inference
    return [
        ("played", whole(games.played)),
        ("per hour", whole(games.per_hour)),
        ("plies", real(games.mean_plies, 1)),
        ("evals/s", whole(brain.positions_per_second)),
        ("batch", whole(brain.mean_batch_rows)),
        ("cached", percent(brain.cache_hit_ratio)),
    ]


def _strength_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The strongest opponents that fit, the share of perfect moves where known, and whose strength it is."""
    last = [("version", whole(snapshot.learner.newest_version))]
    if snapshot.perfect_share is not None:
        last.insert(0, ("perfect", percent(snapshot.perfect_share, 1)))
    scores = [
        (opponent, f"{percent(score.score)} {f'±{100 * score.reach:.0f}':>3}")
        for opponent, score in (snapshot.strength or {}).items()
    ]
    return (scores or [("no match yet", "")])[-(BOX_ROWS - len(last)) :] + last


def _time_bars(snapshot: Snapshot, limit: Bottleneck) -> Table:
    actors = snapshot.actors
    waits = snapshot.learner.data_wait_ratio
    rows: list[tuple[str, Measured, str]] = [
        ("search", actors.search_share, "cyan"),
        ("wait", actors.wait_share, "cyan"),
        ("deliver", actors.deliver_share, "cyan"),
        ("held", actors.held_back_share, "cyan"),
        ("", None, ""),
        ("brain", snapshot.inference.busy_ratio, "green"),
        ("learner", None if waits is None else 1 - waits, "green"),
    ]
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for name, share, colour in rows:
        bar = "" if share is None else Bar(1.0, 0.0, share, color=colour)
        style = "bold yellow" if name == limit.name else "dim"
        table.add_row(Text(name, style=style), bar, percent(share) if name else "")
    return table


def _learning_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    learner, replay = snapshot.learner, snapshot.replay
    return [
        ("steps", whole(learner.steps)),
        ("steps/s", real(learner.steps_per_second, 1)),
        ("policy", real(learner.policy_loss, 3)),
        ("value", real(learner.value_loss, 3)),
        ("lag", real(learner.lag_versions, 1)),
        ("reuse", real(replay.samples_per_insert, 1)),
        ("replay", f"{short(replay.rows)}/{short(replay.capacity_rows)}"),
    ]


def _ends_line(snapshot: Snapshot) -> list[Text]:
    """How episodes ended; no line where that is not known."""
    if not snapshot.ends:
        return []
    told = " · ".join(f"{whole(count)} {how}" for how, count in snapshot.ends.items())
    return [Text.assemble((" ends ", "dim"), told, no_wrap=True, overflow="ellipsis")]


def _fault_line(snapshot: Snapshot) -> list[Text]:
    """What went wrong since the driver began; no line when nothing did."""
    counts = snapshot.faults
    named = (
        (counts.games_set_aside, "games set aside"),
        (counts.failed_requests, "requests failed"),
        (counts.resent_requests, "sent again"),
        (counts.refused_chunks, "chunks refused"),
    )
    told = [f"{whole(count)} {words}" for count, words in named if count]
    if not told:
        return []
    line = Text.assemble((" faults ", "dim"), (" · ".join(told), "yellow"))
    line.no_wrap, line.overflow = True, "ellipsis"
    return [line]


def _loss_line(snapshot: Snapshot, losses: Sequence[float], *, width: int) -> Text:
    number = real(snapshot.loss, 3)
    line = sparkline(losses, width - len(f" loss {number}  "))
    return Text.assemble((" loss ", "dim"), f"{number} ", (line, "cyan"))


def _bottom(snapshot: Snapshot, *, lines: int) -> RenderableType:
    """The last board beside the newest events, each only if it fits into `lines`."""
    board = indent((snapshot.games.last_board or "").rstrip("\n"), " ")
    height = board.count("\n") + 2
    events = snapshot.events[-max(lines, 1) :] if lines > 0 else ()
    grid = Table.grid(expand=True, padding=(0, 3, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    shown = Group(Text(" last game", style="dim"), Text(board)) if board and height <= lines else ""
    grid.add_row(shown, Group(*(_event_line(event) for event in events)))
    return grid


def _event_line(event: Event) -> Text:
    line = Text.assemble((f"{duration(event.at_seconds)} ", "dim"), event.text)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
