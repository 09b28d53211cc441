"""A solution on the terminal: what it is worth, what is done first, and with which hands; and how far a solve is."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from rich.color import Color
from rich.console import Console
from rich.status import Status
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import UNKNOWN, console, is_live, real, short, whole
from poker.cards import NUM_HANDS, RANKS
from poker.lines import Reached
from poker.ranges import SIDE, to_grid

PLAYERS = ("oop", "ip")
"""Out of position, who acts first, and in position."""
_QUIET_SECONDS = 2.0
_LINE_SECONDS = 10.0
_CELL_WIDTH = 5
_COLD, _HOT = np.array([38, 50, 70]), np.array([190, 50, 40])
_UNMET = "·"


class SolveDisplay:
    """Shows how far a solve is, once it takes longer than two seconds: in place on a terminal, elsewhere in lines.

    Use as a context manager; nothing stays on a terminal.

    Args:
        target: console where to.
        share: the exploitability that is aimed at, in parts of the pot, if any.
        clock: monotonic seconds.
    """

    def __init__(
        self, target: Console, share: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = target
        self._target = share
        self._clock = clock
        self._began = clock()
        self._next_line = self._began + _QUIET_SECONDS
        self._share: float | None = None
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, done: int, most: int, share: float | None) -> None:
        """Take how many iterations of at most how many are done, and the exploitability where it was measured."""
        self._share = share if share is not None else self._share
        now = self._clock()
        if now < self._next_line:
            return
        rate = done / (now - self._began)
        of = f" of {whole(most)}" if self._target is None else ""
        words = f"solving: {whole(done)}{of} iterations, {short(rate) if rate >= 10 else f'{rate:.2g}'}/s"
        if self._target is not None:
            reached = UNKNOWN if self._share is None else _percent(self._share)
            words += f", exploitability {reached}, aim {_percent(self._target)}"
        if not is_live(self._console):
            self._next_line = now + _LINE_SECONDS
            self._console.print(Text(words), soft_wrap=True)
        elif self._status is None:
            self._status = self._console.status(Text(words))
            self._status.start()
        else:
            self._status.update(Text(words))


def show_solution(solution: Mapping[str, Any], first: Reached, numbers: np.ndarray) -> None:
    """Print a solution.

    Args:
        solution: its figures.
        first: its first decision.
        numbers: int64 [H], of the hands in `poker.cards.HANDS`.
    """
    target = console()
    target.print(_figures(solution))
    target.print(Text(f"\n{PLAYERS[first.player]} begins"))
    actions = Table(box=None, pad_edge=False, show_header=False)
    actions.add_column()
    actions.add_column(justify="right")
    assert first.frequencies is not None
    for word, share in zip(first.actions, first.frequencies, strict=True):
        actions.add_row(word, f"{100 * share:.1f} %")
    target.print(actions)
    target.print(Text("\nhands that bet, in percent (pairs on the diagonal, suited above it)"))
    target.print(_picture(first, numbers))


def _figures(solution: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    aim = solution["target_pct"]
    ended = {
        True: f"of the pot, aim {_percent((aim or 0) / 100)}",
        False: f"of the pot, NOT the aim of {_percent((aim or 0) / 100)}",
        None: "of the pot",
    }[solution["target_reached"]]
    for name, figure, remark in (
        (
            "board",
            solution["board"],
            f"pot {2 * solution['pot_half']:,.12g}, stacks {solution['stack']:,.12g}",
        ),
        ("oop wins", real(solution["ev_oop"], 3), "chips on average, since the hand began"),
        ("ip wins", real(solution["ev_ip"], 3), "likewise"),
        ("exploitability", _percent(solution["exploitability_pct"] / 100), ended),
        ("iterations", whole(solution["iterations"]), f"of {solution['variant']}"),
        ("seconds", real(solution["seconds"], 2), "stopped before the end" if solution["stopped"] else ""),
    ):
        table.add_row(name, figure, remark)
    return table


def _picture(first: Reached, numbers: np.ndarray) -> Text:
    """Return the grid of classes, each with how often it does not check."""

    def grid(weights: np.ndarray) -> list[list[float]]:
        return to_grid(np.bincount(numbers, weights, NUM_HANDS)).tolist()

    met, bet = grid(first.weights), grid(first.weights * (1 - first.strategy[0]))
    ranks = RANKS[::-1]
    picture = Text(" " + "".join(rank.rjust(_CELL_WIDTH) for rank in ranks), style="bold")
    for row in range(SIDE):
        picture.append(f"\n{ranks[row]}")
        for column in range(SIDE):
            if met[row][column] > 0:
                share = bet[row][column] / met[row][column]
                picture.append(f"{100 * share:.0f}".rjust(_CELL_WIDTH), style=_shade(share))
            else:
                picture.append(_UNMET.rjust(_CELL_WIDTH), style="not bold dim")
    return picture


def _shade(share: float) -> Style:
    red, green, blue = (_COLD + (_HOT - _COLD) * min(1.0, share)).astype(int).tolist()
    return Style(color="white", bold=False, bgcolor=Color.from_rgb(red, green, blue))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
