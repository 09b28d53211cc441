"""The face of a training run: a panel that redraws itself on a terminal, elsewhere a line now and then."""

import time
from collections import deque
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.cli.terminal import UNKNOWN, is_live
from cluster.monitoring.bottleneck import bottleneck
from cluster.monitoring.panel_boxes import RunPanel
from cluster.monitoring.snapshot import Event, Measured, Snapshot

LOSSES_KEPT = 2048


class RunDisplay:
    """Shows each snapshot it is given.

    Use as a context manager; on a terminal nobody else should move the cursor meanwhile.

    Args:
        console: where to.
        plain: write lines on a terminal too.
        line_seconds: between two lines.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        plain: bool = False,
        line_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._line_seconds = line_seconds
        self._clock = clock
        self._losses: deque[float] = deque(maxlen=LOSSES_KEPT)
        self._live = Live(console=console, auto_refresh=False) if is_live(console) and not plain else None
        self._next_line = float("-inf")
        self._told: tuple[Event, ...] = ()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.loss is not None:
            self._losses.append(snapshot.loss)
        if self._live is not None:
            self._live.update(RunPanel(snapshot, tuple(self._losses)), refresh=True)
        else:
            self._print_lines(snapshot)

    def _print_lines(self, snapshot: Snapshot) -> None:
        for event in snapshot.events:
            # Not by their times: what happens between two pictures has the time of the first.
            if not any(event is told for told in self._told):
                self._console.print(Text(f"t={event.at_seconds:.0f}s {event.text}"), soft_wrap=True)
        self._told = snapshot.events
        if self._clock() >= self._next_line:
            self._next_line = self._clock() + self._line_seconds
            self._console.print(Text(plain_line(snapshot)), soft_wrap=True)


def plain_line(snapshot: Snapshot) -> str:
    """Return the run in one line of key=value; what was not measured is left out, and faults that there were not."""
    games, brain, learner = snapshot.games, snapshot.inference, snapshot.learner
    entries: list[tuple[str, Measured, str]] = [
        ("t", snapshot.elapsed_seconds, "{:.0f}s"),
        ("games", games.played, "{}"),
        ("g/h", games.per_hour, "{:.0f}"),
        ("plies", games.mean_plies, "{:.1f}"),
        ("evals/s", brain.positions_per_second, "{:.0f}"),
        ("batch", brain.mean_batch_rows, "{:.0f}"),
        ("busy", brain.busy_ratio, "{:.2f}"),
        ("rows", snapshot.replay.rows, "{}"),
        ("steps", learner.steps, "{}"),
        ("loss", snapshot.loss, "{:.3f}"),
        ("lag", learner.lag_versions, "{:.1f}"),
    ]
    if (rollout := snapshot.rollout) is not None:
        entries += [
            ("steps/s", rollout.steps_per_second, "{:.0f}"),
            ("return", rollout.training_return, "{:.2f}"),
            ("evaluated", rollout.evaluated_return, "{:.2f}"),
        ]
    entries += [(how.replace(" ", "-"), count, "{}") for how, count in (snapshot.ends or {}).items()]
    entries += [(opponent, score.score, "{:.2f}") for opponent, score in (snapshot.strength or {}).items()]
    entries += [("perfect", snapshot.perfect_share, "{:.3f}")]
    entries += [
        ("aside", snapshot.faults.games_set_aside or None, "{}"),
        ("failed", snapshot.faults.failed_requests or None, "{}"),
        ("resent", snapshot.faults.resent_requests or None, "{}"),
        ("refused", snapshot.faults.refused_chunks or None, "{}"),
    ]
    known = [f"{name}={form.format(value)}" for name, value, form in entries if value is not None]
    limit = bottleneck(snapshot).name
    return " ".join(known if limit == UNKNOWN else [*known, f"limit={limit.replace(' ', '-')}"])
