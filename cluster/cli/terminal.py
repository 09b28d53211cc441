"""What all verbs share on the terminal: colour where it can be seen, numbers as people write them, errors."""

import traceback
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from rich.console import Console
from rich.text import Text

from core.errors import TamenError

UNKNOWN = "–"
"""Stands for what was not measured."""
_SPARKS = "▁▂▃▄▅▆▇█"


def console(*, stderr: bool = False) -> Console:
    """Return a console that writes plain text into pipes and files and under NO_COLOR."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def is_live(target: Console) -> bool:
    """Whether `target` can redraw what it has drawn: a real terminal."""
    return target.is_terminal and not target.is_dumb_terminal


def show_error(error: TamenError, *, debug: bool = False, target: Console | None = None) -> None:
    """Print what happened, why, and what to do, to stderr; the traceback before it only under `debug`."""
    target = target or console(stderr=True)
    if debug:
        target.print(Text("".join(traceback.format_exception(error))), style="dim", soft_wrap=True)
    target.print(Text.assemble(("error: ", "bold red"), (error.what, "bold")), soft_wrap=True)
    target.print(Text.assemble(("  why: ", "dim"), error.why), soft_wrap=True)
    target.print(Text.assemble(("  do:  ", "dim"), error.fix), soft_wrap=True)


def whole(number: float | None) -> str:
    """3412.4 -> "3,412"."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def real(number: float | None, digits: int) -> str:
    """1.416 -> "1.42" with two digits."""
    return UNKNOWN if number is None else f"{number:,.{digits}f}"


def reward(number: float | None) -> str:
    """0.4166 -> "0.42", 41.66 -> "41.7"."""
    return real(number, 2 if number is not None and abs(number) < 10 else 1)


def percent(share: float | None, digits: int = 0) -> str:
    """0.583 -> "58%"."""
    return UNKNOWN if share is None else f"{share:.{digits}%}"


def short(number: float | None) -> str:
    """61234 -> "61k", 1240000 -> "1.2M"."""
    if number is None:
        return UNKNOWN
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.1f}M"


def duration(seconds: float | None) -> str:
    """312 -> "5:12", 3905 -> "1:05:05"."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw `values` in at most `width` characters, each the mean of its stretch; "▁" is the lowest."""
    width = min(width, len(values))
    if width < 1:
        return ""
    edges = [round(k * len(values) / width) for k in range(width + 1)]
    means = [fmean(values[start:stop]) for start, stop in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    heights = [0 if span == 0 else round((mean - low) / span * (len(_SPARKS) - 1)) for mean in means]
    return "".join(_SPARKS[height] for height in heights)
