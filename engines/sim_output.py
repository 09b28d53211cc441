"""What `forge sim` prints: the games that a stock Forge plays by itself, without a daemon.

`java -jar forge.jar sim -d a.dck b.dck -n 10 -q` plays games in one process and prints, between log lines of its own,

    Ai(1)-A vs Ai(2)-B - 10 games of Constructed
    Game Result: Game 1 ended in 8123 ms. Ai(1)-A has won!
    Stopping slow match as draw
    Game Result: Game 2 ended in a Draw! Took 120004 ms.

It exits with 0 whatever happened, also when a deck was not found.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engines.errors import EngineFault, shown, unexpected
from engines.forge_decisions import Seat, seat_of

_BANNER = re.compile(r"(.+) vs (.+) - ([0-9]{1,9}) games? of (\S.*)")
_WON = re.compile(r"Game Result: Game ([0-9]{1,9}) ended in ([0-9]{1,10}) ms\. (.+) has won!")
_DRAW = re.compile(r"Game Result: Game ([0-9]{1,9}) ended in a Draw! Took ([0-9]{1,10}) ms\.")
_NO_DECK = re.compile(r"Could not load deck - (.+), match cannot start")
_SLOW = "Stopping slow match as draw"
_RESULT = "Game Result: "


@dataclass(frozen=True, slots=True)
class SimGame:
    """A game that was played.

    Attributes:
        number: from 1.
        winner: seat, or None for a draw.
        timed_out: whether it was broken off for its time.
    """

    number: int
    winner: Seat | None
    milliseconds: int
    timed_out: bool


def is_sim_output(lines: Iterable[str]) -> bool:
    """Whether these are lines that `forge sim` prints of games."""
    return any(line.strip().startswith((_RESULT, "Could not load deck - ")) for line in lines)


def sim_games(lines: Iterable[str], engine: str) -> Iterator[SimGame]:
    """Read what runs of two decks printed, one behind the other, and yield their games.

    A run that was ended early has fewer games than it says.

    Raises:
        EngineFault: `refused` when a deck was not there, `protocol` when a game is missing, comes twice, or was won by
            nobody who plays. Games before that have been yielded.
    """
    players: tuple[str, str] | None = None
    number, is_slow = 0, False
    for line in map(str.strip, lines):
        if (missing := _NO_DECK.fullmatch(line)) is not None:
            raise EngineFault("refused", engine, why=f"it could not load the deck {shown(missing[1])}")
        if (found := _players(line)) is not None:
            players, number, is_slow = found, 0, False
        elif line == _SLOW:
            is_slow = True
        elif line.startswith(_RESULT):
            number += 1
            yield _game(line, engine, number=number, players=players, timed_out=is_slow)
            is_slow = False


def _players(line: str) -> tuple[str, str] | None:
    """Return who plays, if this is the banner that says it. A deck's own name may hold " vs "."""
    if (banner := _BANNER.fullmatch(line)) is None:
        return None
    first, _, second = line.removesuffix(line[banner.end(2) :]).rpartition(" vs Ai(2)-")
    return (first, f"Ai(2)-{second}") if first.startswith("Ai(1)-") else None


def _game(
    line: str, engine: str, *, number: int, players: tuple[str, str] | None, timed_out: bool
) -> SimGame:
    if players is None:
        raise unexpected(engine, line, expected="a line that says which two decks play")
    won, drawn = _WON.fullmatch(line), _DRAW.fullmatch(line)
    expected = f"the result of game {number} of {players[0]} and {players[1]}"
    if won is not None and int(won[1]) == number and won[3] in players:
        return SimGame(number, seat_of(won[3]), int(won[2]), timed_out)
    if drawn is not None and int(drawn[1]) == number:
        return SimGame(number, None, int(drawn[2]), timed_out)
    raise unexpected(engine, line, expected=expected)
