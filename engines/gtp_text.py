"""The words of the Go Text Protocol, and of HTP, its dialect for Hex: pure text, no pipes and no games.

Source: Farnebäck, *Specification of the Go Text Protocol*, version 2, draft 2. A command is a line `[id] name
arguments…`; comments begin with #. A response is `=[id] text` or `?[id] message`, perhaps on several lines, and ends
with an empty line.
"""

import re
from typing import Literal, NamedTuple, TypeAlias

from core.errors import UsageError

Player: TypeAlias = Literal[0, 1]
"""0 is black, who begins; 1 is white."""

COLOURS = ("black", "white")
INTERRUPTS = ("# interrupt", "# gogui-interrupt")
"""Comments by which HexGui and GoGui ask that a search be brought to its end."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND = re.compile(r"(?:([0-9]{1,18})(?:\s+|$))?(.*)", re.DOTALL)
_HEAD = re.compile(r"([=?])([0-9]{1,18})?(?:\s+(.*))?", re.DOTALL)


class Command(NamedTuple):
    """A command as it came; `id` is "" where none was given, `name` may be "" after an id alone."""

    id: str
    name: str
    arguments: tuple[str, ...]


class Head(NamedTuple):
    """The first line of a response."""

    accepted: bool
    id: str
    text: str


def cleaned(line: str) -> str:
    """Return `line` without control characters, a tab as a space, and without white space around it."""
    return _CONTROL.sub("", line).replace("\t", " ").strip()


def parse_command(line: str) -> Command | None:
    """Return the command in `line`; None when there is nothing in it but white space and a comment."""
    text = cleaned(line.partition("#")[0])
    if not text:
        return None
    found = _COMMAND.fullmatch(text)
    assert found is not None  # everything in it is optional
    words = found[2].split()
    return Command(found[1] or "", words[0] if words else "", tuple(words[1:]))


def response(command_id: str, *, accepted: bool, text: str) -> str:
    """Return a response with the empty line that ends it.

    Empty lines of `text` would end it before, and are left out; one at its beginning puts it below the head.
    """
    lines = [kept for line in text.splitlines() if (kept := _CONTROL.sub("", line).rstrip())]
    head = f"{'=' if accepted else '?'}{command_id}"
    if lines and not text.startswith("\n"):
        head = f"{head} {lines.pop(0)}"
    return "\n".join([head, *lines]) + "\n\n"


def parse_head(line: str) -> Head | None:
    """Return what the first line of a response says; None when it is none."""
    found = _HEAD.fullmatch(cleaned(line))
    return None if found is None else Head(found[1] == "=", found[2] or "", found[3] or "")


def parse_colour(word: str) -> Player:
    """Return the player that black, b, white or w is. Raises UsageError for another word."""
    word = word.lower()
    if word in ("b", "black"):
        return 0
    if word in ("w", "white"):
        return 1
    raise UsageError("invalid color", why=f"{word!r} is neither black nor white", fix="write black or white")
