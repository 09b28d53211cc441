"""Which programs may be started as players: those listed here, and those whose command a person gives.

A player is written by name alone (`gtp:gnugo`, `uci:stockfish`), so that no text of a file, such as a run's settings,
can start anything else.
"""

import os
import shlex
import shutil
from collections.abc import Mapping
from typing import Literal, TypeAlias

from core.errors import UsageError
from core.names import checked_name

EngineProtocol: TypeAlias = Literal["gtp", "uci"]
Command: TypeAlias = tuple[str, ...]

DEFAULT_LEVEL = 1
MOST_LEVEL = 100
LEVEL = "{level}"
"""Stands in a command for the level of the player."""

KNOWN: Mapping[tuple[EngineProtocol, str], Command] = {
    # OpenSpiel counts every stone that stands at the end as alive, so dead ones have to be captured.
    ("gtp", "gnugo"): (
        "gnugo",
        "--mode",
        "gtp",
        "--chinese-rules",
        "--play-out-aftermath",
        "--capture-all-dead",
        "--level",
        LEVEL,
    ),
    ("uci", "stockfish"): ("stockfish",),
}
_PLAYS = {"gnugo": "open_spiel:go(board_size=9,komi=7.5)", "stockfish": "open_spiel:chess"}
"""An example of the game of each. GNU Go cannot be asked: of `boardsize 5 5` for Hex it reads the first 5."""
_DEBIAN_GAMES = "/usr/games"
"""Where Debian puts them; it is not on everybody's PATH."""


def known_command(protocol: EngineProtocol, name: str, *, game: str) -> Command:
    """Return the command of a program of the list, which is to play `game`.

    Raises:
        UsageError: when it is not on the list, plays another game, or is not installed.
    """
    command = KNOWN.get((protocol, name))
    if command is None:
        names = ", ".join(f"{protocol}:{known}" for protocol, known in KNOWN)
        raise UsageError(
            f"no engine {protocol}:{name} is known",
            why=f"those that are started by their names alone are {names}",
            fix=f"give its command: --engine-command '{name}=PROGRAM ARGUMENTS…'",
        )
    if game.partition("(")[0] != _PLAYS[name].partition("(")[0]:
        raise UsageError(
            f"{protocol}:{name} does not play {game}",
            why=f"it plays {_PLAYS[name].partition('(')[0]}",
            fix=f"add --game '{_PLAYS[name]}', or choose another player for {game}",
        )
    found = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:{_DEBIAN_GAMES}")
    if found is None:
        raise UsageError(
            f"{name} cannot be started",
            why=f"it is neither on the PATH nor in {_DEBIAN_GAMES}",
            fix=f"install it: apt-get install {name}",
        )
    return (found, *command[1:])


def at_level(command: Command, level: int) -> Command:
    """Return `command` with the level in its place, where it has one."""
    return tuple(word.replace(LEVEL, str(level)) for word in command)


def parse_command(text: str) -> tuple[str, Command]:
    """Return the name and the command in NAME=COMMAND, whose words are told apart as a shell does.

    Raises:
        UsageError: when it is written otherwise.
    """
    name, equals, command = text.partition("=")
    checked_name(name, what="engine")
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:  # a quotation mark without another
        raise _no_command(text, str(error)) from error
    if not equals or not words:
        raise _no_command(text, "it has no program after the equals sign")
    return name, words


def _no_command(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text!r} is no command of an engine", why=why, fix="write one such as 'mohex=mohex --use-logfile=0'"
    )
