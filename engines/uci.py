"""A client of the Universal Chess Interface: plays against any engine that speaks it over pipes.

    with Dialogue(["stockfish"], engine="stockfish") as dialogue:
        engine = UciEngine(dialogue)
        engine.new_game()
        best = engine.go("startpos moves e2e4", Limit(depth=4))

Source: Meyer-Kahlen and Huber, *Description of the Universal Chess Interface*, April 2006. An engine may say `info`
whenever it likes; what is known of it is read, the rest passed over, as the description has it.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from core.errors import UsageError
from engines.dialogue import Dialogue
from engines.errors import EngineFault, shown, unexpected

HANDSHAKE_SECONDS = 30.0
SEARCH_SECONDS = 120.0
STOP_SECONDS = 5.0
_MOST_LINES = 100_000
"""That an engine may say before an answer."""
_MOVE = re.compile(r"[a-h][1-8][a-h][1-8][qrbn]?")
_NO_MOVE = ("(none)", "0000")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_COUNTS = (
    "depth",
    "seldepth",
    "multipv",
    "nodes",
    "time",
    "nps",
    "hashfull",
    "tbhits",
    "currmovenumber",
    "cpuload",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limit:
    """When a search ends: exactly one of the three.

    Attributes:
        depth: in plies.
        nodes: positions.
        movetime_ms: milliseconds.
    """

    depth: int | None = None
    nodes: int | None = None
    movetime_ms: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.depth, self.nodes, self.movetime_ms) if value is not None]
        if len(given) != 1 or given[0] < 1:
            raise UsageError(
                f"{self} is no limit of a search",
                why="a search ends after a depth, a number of nodes or a time, of at least 1",
                fix="give one of them, such as depth=4",
            )

    def __str__(self) -> str:
        if self.depth is not None:
            return f"depth {self.depth}"
        return f"nodes {self.nodes}" if self.nodes is not None else f"movetime {self.movetime_ms}"


@dataclass(frozen=True, slots=True)
class Info:
    """What an engine says of its search; what it left out is None or empty.

    Attributes:
        depth: in plies.
        nodes: positions.
        time_ms: since the search began.
        centipawns: the value for the player to move.
        mate: moves to mate; negative when it is the player to move who is mated.
        bound: "lower" or "upper" when the value is a bound, else "".
        line: the moves that it expects.
    """

    depth: int | None = None
    nodes: int | None = None
    time_ms: int | None = None
    centipawns: int | None = None
    mate: int | None = None
    bound: str = ""
    line: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Best:
    """What came of a search.

    Attributes:
        move: in long algebraic form ("e2e4", "a7a8q"); None when there is none to play.
        ponder: the answer that it expects, None when it says none.
        info: the last that it said with a value, or nothing.
    """

    move: str | None
    ponder: str | None
    info: Info


def parse_info(line: str) -> Info | None:
    """Return what an `info` line says; None when it is none, or one of text alone.

    Words that are not known, and numbers that are none, are passed over.
    """
    words = line.split()
    if words[:1] != ["info"] or "string" in words[1:2]:
        return None
    counts: dict[str, int] = {}
    score: dict[str, int] = {}
    bound, variation = "", ()
    place = 1
    while place < len(words):
        word, value = words[place], words[place + 1 : place + 2]
        place += 1
        if word in ("string", "refutation", "currline"):
            break  # to the end of the line
        if word in _COUNTS and value and _NUMBER.fullmatch(value[0]):
            counts[word] = int(value[0])
            place += 1
        elif word in ("cp", "mate") and value and _NUMBER.fullmatch(value[0]):
            score[word] = int(value[0])
            place += 1
        elif word in ("lowerbound", "upperbound"):
            bound = word.removesuffix("bound")
        elif word == "pv":
            variation = _leading_moves(words[place:])
            place += len(variation)
    return Info(
        depth=counts.get("depth"),
        nodes=counts.get("nodes"),
        time_ms=counts.get("time"),
        centipawns=score.get("cp"),
        mate=score.get("mate"),
        bound=bound,
        line=variation,
    )


def parse_best_move(line: str) -> tuple[str | None, str | None] | None:
    """Return the move and the expected answer of a `bestmove` line; None when it is none, or says no move."""
    words = line.split()
    if words[:1] != ["bestmove"] or len(words) < 2:
        return None
    move = words[1].lower()
    ponder = words[3].lower() if words[2:3] == ["ponder"] and len(words) > 3 else None
    if move in _NO_MOVE:
        return None, None
    if _MOVE.fullmatch(move) is None:
        return None
    return move, ponder if ponder is not None and _MOVE.fullmatch(ponder) else None


def _leading_moves(words: list[str]) -> tuple[str, ...]:
    ends = next(
        (place for place, word in enumerate(words) if _MOVE.fullmatch(word.lower()) is None), len(words)
    )
    return tuple(word.lower() for word in words[:ends])


class UciEngine:
    """An engine that has shaken hands.

    A fault leaves it in a state that nobody knows: close its dialogue, and start another.

    Args:
        dialogue: with the program; who made it closes it.

    Attributes:
        name, author: as it says.
        options: the names of those that can be set.

    Raises:
        EngineFault: when it is none that plays by this protocol.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self.name = self.author = ""
        self.options: frozenset[str] = frozenset()
        self._send("uci")
        self._await("uciok", self._introduced, seconds=HANDSHAKE_SECONDS)
        self._wait_ready()

    def set_option(self, name: str, value: str) -> None:
        """Set an option. Raises UsageError when the engine has none of that name."""
        if name not in self.options:
            raise UsageError(
                f"{self._dialogue.engine} has no option {name!r}",
                why=f"it has {', '.join(sorted(self.options)) or 'none'}",
                fix="choose one of them",
            )
        self._send(f"setoption name {name} value {value}")
        self._wait_ready()

    def new_game(self) -> None:
        """Let it forget what it knows of the game before."""
        self._send("ucinewgame")
        self._wait_ready()

    def go(self, position: str, limit: Limit, *, seconds: float = SEARCH_SECONDS) -> Best:
        """Search `position`, as UCI writes it ("startpos moves e2e4", "fen …"), and return the best move.

        A search that takes longer than `seconds` is told to stop.

        Raises:
            EngineFault: `timeout` when it does not stop either, or another when it breaks the protocol or dies.
        """
        self._send(f"position {position}")
        self._send(f"go {limit}")
        told: list[Info] = []
        try:
            move, ponder = self._await("bestmove", lambda line: _best(line, told), seconds=seconds)
        except EngineFault as fault:
            if fault.kind != "timeout":
                raise
            self._send("stop")
            move, ponder = self._await("bestmove", lambda line: _best(line, told), seconds=STOP_SECONDS)
        return Best(move, ponder, told[-1] if told else Info())

    def quit(self) -> None:
        """Tell it to end; its dialogue is still to be closed."""
        self._send("quit")

    def _introduced(self, line: str) -> bool | None:
        kind, _, rest = line.strip().partition(" ")
        if kind == "id":
            field, _, value = rest.partition(" ")
            if field == "name":
                self.name = value
            elif field == "author":
                self.author = value
        elif kind == "option":
            found = re.match(r"name (.+?) type ", rest + " ")
            if found is not None:
                self.options |= {found[1]}
        return True if kind == "uciok" else None

    def _wait_ready(self) -> None:
        self._send("isready")
        ready = lambda line: True if line.strip() == "readyok" else None  # noqa: E731
        self._await("readyok", ready, seconds=HANDSHAKE_SECONDS)

    def _send(self, line: str) -> None:
        self._dialogue.send([line], seconds=HANDSHAKE_SECONDS)

    def _await(self, awaited: str, read: Callable[[str], T | None], *, seconds: float) -> T:
        """Return what `read` makes of the first line of which it makes something; other lines are passed over."""
        deadline = time.monotonic() + seconds
        for _ in range(_MOST_LINES):
            line = self._dialogue.read_line(deadline, expected=awaited)
            if (found := read(line)) is not None:
                return found
            if line.split()[:1] == ["bestmove"]:
                raise unexpected(self._dialogue.engine, line, expected=awaited)
        raise EngineFault(
            "too long",
            self._dialogue.engine,
            why=f"{_MOST_LINES} lines came where {shown(awaited)} was expected",
        )


def _best(line: str, told: list[Info]) -> tuple[str | None, str | None] | None:
    info = parse_info(line)
    if info is not None and (info.centipawns is not None or info.mate is not None):
        told[:] = [info]
    return parse_best_move(line)
