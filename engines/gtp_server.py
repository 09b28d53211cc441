"""A GTP and HTP program around a `GameTable`: what HexGui, GoGui and other programs ask of an engine.

`GtpServer` answers one command at a time and knows no pipe; `serve` reads commands from a file descriptor and writes
the responses to another. Whatever comes in is answered: what is no command, no UTF-8 or too long with an error. Lines
are read while the mind thinks, so that a comment `# interrupt` can hurry it.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from core.errors import TamenError, UsageError
from engines.errors import shown
from engines.gtp_table import GameTable, Thought
from engines.gtp_text import COLOURS, INTERRUPTS, Player, cleaned, parse_colour, parse_command, response
from engines.lines import MAX_LINE_BYTES

_READ_BYTES = 1 << 16
_WAITING_LINES = 1024
_ANALYSES = (
    "pspairs/Policy/policy",
    "string/Value/value",
    "gfx/Search/search",
    "plist/Legal Moves/all_legal_moves",
)
_LARGEST_SHARE = 1e-3
"""Moves less likely than this are left out of `policy`: they fill a board with zeros."""


class GtpServer:
    """Answers commands about one table.

    Args:
        table: the board and who thinks about it.
        version: of the program, for `version`.
    """

    def __init__(self, table: GameTable, *, version: str) -> None:
        self._table = table
        self._answered = 0
        self._hurried = 0
        self.finished = False
        self._commands: dict[str, Callable[[tuple[str, ...]], str]] = {
            "protocol_version": lambda words: "2",
            "name": lambda words: table.name,
            "version": lambda words: version,
            "known_command": lambda words: str(_word(words, 0, "a command") in self._commands).lower(),
            "list_commands": lambda words: "\n".join(self._commands),
            "quit": self._quit,
            "boardsize": self._board_size,
            "clear_board": self._clear,
            "komi": self._komi,
            "play": self._play,
            "gogui-play_sequence": self._play_sequence,
            "genmove": lambda words: self._generate(words, play=True),
            "reg_genmove": lambda words: self._generate(words, play=False),
            "undo": self._undo,
            "showboard": lambda words: "\n" + table.render(),
            "final_score": lambda words: table.score(),
            "all_legal_moves": lambda words: " ".join(table.legal()),
            "time_settings": _nothing,
            "time_left": _nothing,
            "param_game": self._parameters,
            "policy": lambda words: self._policy(),
            "value": lambda words: self._value(),
            "search": lambda words: self._search(),
            "hexgui-analyze_commands": lambda words: "\n".join(_ANALYSES),
            "gogui-analyze_commands": lambda words: "\n".join(_ANALYSES),
            "gogui-interrupt": _nothing,
        }

    def hurry(self, lines: int) -> None:
        """Ask that the first `lines` lines be answered soon, those of them that are not yet; from any thread."""
        self._hurried = lines

    def answer(self, line: str | UsageError) -> str:
        """Return the response to `line`, with its empty line; "" where nothing is to be answered.

        An error stands for a line that could not be read.
        """
        try:
            if isinstance(line, UsageError):
                return response("", accepted=False, text=line.what)
            return self._answer(line)
        finally:
            self._answered += 1

    def _answer(self, line: str) -> str:
        command = parse_command(line)
        if command is None:
            return ""
        work = self._commands.get(command.name)
        if work is None:
            return response(command.id, accepted=False, text="unknown command")
        try:
            return response(command.id, accepted=True, text=work(command.arguments))
        except TamenError as error:
            return response(command.id, accepted=False, text=f"{error.what}: {error.why}")
        except Exception:  # a mistake in one command must not end a game that a person plays
            logging.getLogger(__name__).exception("the command %s failed", shown(line))
            return response(command.id, accepted=False, text="it failed; see what was logged")

    def _is_hurried(self) -> bool:
        return self._answered < self._hurried

    def _quit(self, words: tuple[str, ...]) -> str:
        self.finished = True
        return ""

    def _board_size(self, words: tuple[str, ...]) -> str:
        width = _number(words, 0, "a size")
        height = _number(words, 1, "a height") if len(words) > 1 else width
        vertices = self._table.vertices
        if (width, height) != (vertices.width, vertices.height):
            raise UsageError(
                "unacceptable size",
                why=f"the board has {vertices.width}×{vertices.height} points",
                fix=f"send boardsize {vertices.board_size}",
            )
        return self._clear(words)

    def _clear(self, words: tuple[str, ...]) -> str:
        self._table.clear()
        return ""

    def _komi(self, words: tuple[str, ...]) -> str:
        """Take the komi that the rules of Go have; elsewhere it means nothing, and any is taken."""
        try:
            komi = float(_word(words, 0, "a komi"))
        except ValueError:
            raise _syntax("a komi", words[0]) from None
        if self._table.vertices.komi not in (None, komi):
            raise UsageError(
                "unacceptable komi",
                why=f"the game is played with {self._table.vertices.komi:g}",
                fix="start the program with another game",
            )
        return ""

    def _play(self, words: tuple[str, ...]) -> str:
        self._table.play(parse_colour(_word(words, 0, "a colour")), _word(words, 1, "a move"))
        return ""

    def _play_sequence(self, words: tuple[str, ...]) -> str:
        moves: list[tuple[Player, str]] = [
            (parse_colour(words[place]), _word(words, place + 1, "a move"))
            for place in range(0, len(words), 2)
        ]
        self._table.play_all(moves)
        return ""

    def _generate(self, words: tuple[str, ...], *, play: bool) -> str:
        player = parse_colour(_word(words, 0, "a colour"))
        return self._table.generate(player, play=play, hurried=self._is_hurried)

    def _undo(self, words: tuple[str, ...]) -> str:
        self._table.undo()
        return ""

    def _parameters(self, words: tuple[str, ...]) -> str:
        """Show or take the one parameter of Hex: it is of the game, and cannot be changed."""
        swaps = "swap-pieces" in self._table.vertices.names
        if not words:
            return f"[bool] allow_swap {int(swaps)}"
        if words != ("allow_swap", str(int(swaps))):
            raise UsageError(
                "unacceptable parameter",
                why=f"allow_swap is {int(swaps)} in this game, and there is no other",
                fix="start the program with another game",
            )
        return ""

    def _policy(self) -> str:
        shares = self._think(search=False).policy
        shown_shares = self._table.by_vertex(np.where(shares < _LARGEST_SHARE, 0, shares))
        return " ".join(f"{point} {share:.3f}" for point, share in shown_shares)

    def _value(self) -> str:
        return self._told_value(self._think(search=False))

    def _search(self) -> str:
        """Say what a search finds, as lines that GoGui and HexGui draw: visits as numbers and as shades.

        HexGui takes all between INFLUENCE and TEXT for shades, so nothing else may stand there.
        """
        thought = self._think(search=True)
        visits = self._table.by_vertex(thought.visits)
        most = max((count for _, count in visits), default=1.0)
        lines = [
            "LABEL " + " ".join(f"{point} {count:.0f}" for point, count in visits),
            "INFLUENCE " + " ".join(f"{point} {count / most:.3f}" for point, count in visits),
        ]
        best = f"best {self._table.name_of(thought.action)}"
        text = f"TEXT {best}, {self._told_value(thought)}, {int(thought.visits.sum())} simulations"
        return "\n".join([*(lines if visits else []), text])

    def _think(self, *, search: bool) -> Thought:
        return self._table.think(search=search, hurried=self._is_hurried)

    def _told_value(self, thought: Thought) -> str:
        if thought.value is None:
            return "no opinion of its value"
        return f"value {thought.value:+.3f} for {COLOURS[self._table.to_play]}"


def serve(server: GtpServer, source: int, sink: int) -> None:
    """Answer the commands from the descriptor `source` on the descriptor `sink`, until `quit` or the end.

    Raises:
        BrokenPipeError: when nobody reads the responses.
    """
    lines: queue.Queue[str | UsageError | None] = queue.Queue(_WAITING_LINES)
    threading.Thread(target=_read, args=(server, source, lines), name="gtp-reader", daemon=True).start()
    while not server.finished:
        line = lines.get()  # as long as the person at the other end thinks
        if line is None:
            return
        _write(sink, server.answer(line).encode())


def _read(server: GtpServer, source: int, lines: "queue.Queue[str | UsageError | None]") -> None:
    """Put what comes into `lines`, interrupts excepted, and None at the end; errors stand for what cannot be read."""
    count = 0
    for line in _lines_of(source):
        if isinstance(line, str) and cleaned(line).lower() in INTERRUPTS:
            server.hurry(count)
        else:
            lines.put(line)
            count += 1
    lines.put(None)


def _lines_of(source: int) -> Iterator[str | UsageError]:
    splitter = LineSplitter()
    with contextlib.suppress(OSError):  # of a terminal that is gone: the end as well
        while data := os.read(source, _READ_BYTES):
            yield from splitter.feed(data)
    yield from splitter.end()


class LineSplitter:
    """Cuts what comes into lines. One that is too long or not UTF-8 becomes an error in its place."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[str | UsageError]:
        """Return the lines that `data` completes, without their ends; of a long one the rest is passed over."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            line = bytes(self._begun + part)
            self._begun.clear()
            if self._skipping:
                self._skipping = False
            elif len(line) > MAX_LINE_BYTES:
                yield _TOO_LONG
            else:
                yield _decoded(line)
        if self._skipping:
            return
        self._begun += rest
        if len(self._begun) > MAX_LINE_BYTES:
            self._begun.clear()
            self._skipping = True
            yield _TOO_LONG

    def end(self) -> Iterator[str | UsageError]:
        """Return the last line where its end is missing, as `printf` and `echo -n` leave it."""
        if self._begun:
            yield _decoded(bytes(self._begun))
            self._begun.clear()


_TOO_LONG = UsageError(
    "line too long", why=f"a line has at most {MAX_LINE_BYTES} bytes", fix="send commands line by line"
)


def _decoded(line: bytes) -> str | UsageError:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return UsageError("not UTF-8", why=f"{shown(line)} is no text", fix="send text as UTF-8")


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def _nothing(words: tuple[str, ...]) -> str:
    """Take a command that changes nothing here: simulations, not clocks, bound the search."""
    return ""


def _word(words: tuple[str, ...], place: int, what: str) -> str:
    if len(words) <= place:
        raise _syntax(what, None)
    return words[place]


def _number(words: tuple[str, ...], place: int, what: str) -> int:
    word = _word(words, place, what)
    if not word.isascii() or not word.isdecimal() or len(word) > 4:
        raise _syntax(what, word)
    return int(word)


def _syntax(what: str, got: str | None) -> UsageError:
    came = "nothing" if got is None else shown(got)
    return UsageError("syntax error", why=f"{what} was expected, {came} came", fix="see the protocol")
