"""Logs of heads-up no-limit hold'em, as programs of the Annual Computer Poker Competition write them, line by line.

Two forms of a line are read, with cards and chips of both players:

    4:BR,Player:0r100c/cr200c/cc/cc:5dAs,2dJd|/JcQhQc/Kh/Qs:-400,400(70.623594)
    STATE:4:r200c/cr400c/cc/cc:5dAs|2dJd/JcQhQc/Kh/Qs:-400|400:BR|Player

The 0 before the betting belongs to the form; what is in brackets is an estimate with less luck in it and is not kept.
The first player has posted the big blind and begins on the later streets; the other begins before the flop.

What r200 says differs from program to program, see `Raises`; neither that nor the blinds are on a line. `find_terms`
finds both from the chips: the result of each hand is computed anew, at a showdown from the cards, and compared with
what the line says. A hand whose result comes out otherwise is set aside like one that breaks the rules.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import BinaryIO, cast

from core.errors import DataError, UsageError
from poker.cards import parse_cards
from poker.holdem import strength_of

STREETS = ("preflop", "flop", "turn", "river")
LONGEST_LINE_BYTES = 1 << 16
DETECTION_HANDS = 1000
"""By which `find_terms` judges a log."""

ENOUGH = 0.75
"""The share of hands that must come out; about half of most logs do by any reading, for nobody called a raise."""

_GZIP = b"\x1f\x8b"
_SHOWN_CHARACTERS = 100
_CHIPS = "-?[0-9]{1,12}"
_HAND = re.compile(
    r"([0-9]{1,12}):([^:,|]+),([^:,|]+):0([^:]*):([^:,|]+),([^:,|]+)\|([^:|]*)"
    rf":({_CHIPS}),({_CHIPS})(?:\(-?[0-9.]+\))?"
)
_STATE = re.compile(
    rf"STATE:([0-9]{{1,12}}):([^:]*):([^:|/]+)\|([^:|/]+)([^:|]*):({_CHIPS})\|({_CHIPS}):([^:|]+)\|([^:|]+)"
)
_HEADER = re.compile(r"#|In config file: |Loading player: |Player args: |Using seed ")
_STATISTICS = re.compile(r"(?:RAW )?\S+ STATS: |RESULTS$|SCORE:|[0-9]+\)[^:]+: -?[0-9]+$")
_TOKEN = re.compile(r"[fc]|r[0-9]{1,12}")
# Whatever r says, no more than the big blind is lost.
_UNRAISED = re.compile(r"[c/]*(?:r[0-9]+f)?")
_BOARD_CARDS = (0, 3, 1, 1)


class Raises(StrEnum):
    """What the number behind an r is, in chips.

    Of 53,000 published hands of two programs all come out with `BY`, about half or fewer with either of the others.
    `TOTAL` is what the competition's own server writes.
    """

    BY = "by"
    """How much is put in on top of a call."""
    ROUND = "round"
    """What the player has put in then in this round of betting, blinds not counted."""
    TOTAL = "total"
    """What the player has put in then since the beginning of the hand."""


class Move(StrEnum):
    """What a player does. A check is a call of nothing, a bet a raise over nothing."""

    FOLD = "f"
    CALL = "c"
    RAISE = "r"


class Reason(StrEnum):
    """Why a line, or what is left of a file, is set aside."""

    NOT_A_HAND = "not a hand"
    BAD_CARDS = "cards that cannot be"
    BAD_BETTING = "betting against the rules"
    WRONG_RESULT = "result contradicted"
    TOO_LONG = "line too long"
    NOT_TEXT = "not text"
    EMPTY = "empty file"
    UNREADABLE = "file cannot be read"
    CUT_SHORT = "file cut short"


class HandError(Exception):
    """A line that is no hand; `detail` says what exactly is wrong."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Terms:
    """What the lines of a log leave unsaid: what a raise's number is, and the blinds in chips."""

    raises: Raises
    small_blind: int
    big_blind: int


@dataclass(frozen=True, slots=True)
class Action:
    """One move.

    Attributes:
        player: 0 or 1, as in `Hand.names`.
        total: what the player has put in after it since the beginning of the hand, in chips.
    """

    player: int
    move: Move
    total: int


@dataclass(frozen=True, slots=True)
class Hand:
    """A finished hand.

    Attributes:
        number: as the log counts it.
        names: of player 0, who posted the big blind and begins after the flop, and player 1.
        posted: the blinds of player 0 and 1, in chips.
        streets: the betting, preflop first; none of a street that was not reached.
        cards: two of each player.
        board: 0, 3, 4 or 5 cards.
        won: chips of player 0 and 1; what one wins the other loses.
    """

    number: int
    names: tuple[str, str]
    posted: tuple[int, int]
    streets: tuple[tuple[Action, ...], ...]
    cards: tuple[tuple[int, ...], tuple[int, ...]]
    board: tuple[int, ...]
    won: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SetAside:
    """What is not read, and why.

    Attributes:
        file: as it was named.
        line: its number, from 1; 0 where it is the file, or its rest, that cannot be read.
        detail: what exactly.
        text: of the line, shortened.
    """

    file: str
    line: int
    reason: Reason
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class _Fields:
    """What stands on the line of a hand, taken apart but not understood."""

    number: int
    names: tuple[str, str]
    betting: str
    cards: tuple[str, str]
    board: str
    won: tuple[int, int]


class LogReader:
    """Reads the hands of a log, plain or packed, in bounded memory.

    Attributes:
        lines_passed: of the file so far, also blank lines and what was set aside.
        header_lines, statistics_lines: those that speak about the match; they are passed over.
        bytes_passed: of the file as it lies on the disk.
    """

    def __init__(self, file: str, terms: Terms) -> None:
        self._file = file
        self._terms = terms
        self.lines_passed = 0
        self.header_lines = 0
        self.statistics_lines = 0
        self.bytes_passed = 0

    def __iter__(self) -> Iterator[Hand | SetAside]:
        """Yield hands, and what is set aside, in their order."""
        for found in self._lines():
            if isinstance(found, SetAside):
                yield found
            elif _HEADER.match(found):
                self.header_lines += 1
            elif _STATISTICS.match(found):
                self.statistics_lines += 1
            else:
                try:
                    yield read_hand(found, self._terms)
                except HandError as error:
                    yield self._set_aside(self.lines_passed, error.reason, error.detail, found)

    def _lines(self) -> Iterator[str | SetAside]:
        """Yield lines that are not blank."""
        try:
            with open(self._file, "rb") as raw:
                stream = _unpacked(raw)
                while data := stream.readline(LONGEST_LINE_BYTES):
                    self.lines_passed += 1
                    line = self._decode(data, stream)
                    self.bytes_passed = raw.tell()
                    if line:
                        yield line
            if self.lines_passed == 0:
                yield self._set_aside(0, Reason.EMPTY, "it holds nothing")
        except EOFError:
            detail = f"the packed file ends before its end, after line {self.lines_passed}"
            yield self._set_aside(0, Reason.CUT_SHORT, detail)
        except (OSError, zlib.error) as error:
            problem = getattr(error, "strerror", None) or str(error)
            after = f", after line {self.lines_passed}" if self.lines_passed else ""
            yield self._set_aside(0, Reason.UNREADABLE, f"{problem}{after}")

    def _decode(self, data: bytes, stream: BinaryIO) -> str | SetAside:
        number = self.lines_passed
        if len(data) == LONGEST_LINE_BYTES and not data.endswith(b"\n"):
            passed = len(data)
            while part := stream.readline(LONGEST_LINE_BYTES):
                passed += len(part)
                if part.endswith(b"\n"):
                    break
            detail = f"{passed:,} bytes; at most {LONGEST_LINE_BYTES:,} are read"
            return self._set_aside(number, Reason.TOO_LONG, detail, data.decode(errors="backslashreplace"))
        try:
            return data.decode().strip()
        except UnicodeDecodeError as error:
            text = data.decode(errors="backslashreplace")
            return self._set_aside(number, Reason.NOT_TEXT, f"byte {error.start + 1} is not UTF-8", text)

    def _set_aside(self, number: int, reason: Reason, detail: str, text: str = "") -> SetAside:
        text = text.strip()
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
        return SetAside(self._file, number, reason, detail, shown)


def read_hand(text: str, terms: Terms) -> Hand:
    """Return the hand on a line.

    Raises:
        HandError: when it is none, breaks the rules, or its result is not what betting and cards lead to.
    """
    return _understand(_take_apart(text), terms)


def find_terms(file: str, *, raises: Raises | None = None, blinds: tuple[int, int] | None = None) -> Terms:
    """Return the terms of a log, judged by its first `DETECTION_HANDS`; what is given (small blind, big blind) is kept.

    The big blind is what most hands without a called raise are about, the small one what most lose who fold at once.
    Raises are read in the one way by which more hands come out as the log says than by any other: `ENOUGH` at least.

    Raises:
        UsageError: when that does not decide; the caller must say.
        DataError: when there is no hand, or too few come out whatever the reading.
    """
    hands, troubles = _first_hands(file)
    if not hands:
        raise DataError(
            f"there is not one hand in {file}",
            why=next(iter(troubles), "there are only headers and statistics"),
            fix="name logs of heads-up no-limit hold'em with the cards of both players",
        )
    small, big = blinds or _find_blinds(hands, file)
    fitting = {
        reading: sum(_fits(hand, Terms(reading, small, big)) for hand in hands)
        for reading in ([raises] if raises else Raises)
    }
    best = max(fitting, key=lambda reading: fitting[reading])
    counts = ", ".join(f"{reading}: {number}" for reading, number in fitting.items())
    if fitting[best] < ENOUGH * len(hands):
        raise DataError(
            f"the results in {file} cannot be followed with blinds of {small}/{big}",
            why=f"of {len(hands)} hands come out, by what a raise says: {counts}",
            fix="check that it is heads-up no-limit hold'em, and its blinds: --blinds SMALL/BIG",
        )
    if list(fitting.values()).count(fitting[best]) > 1:
        raise UsageError(
            f"it cannot be told what a raise in {file} says",
            why=f"of {len(hands)} hands come out, by what it says: {counts}",
            fix="say it, for example: --raises total",
        )
    return Terms(best, small, big)


def _take_apart(text: str) -> _Fields:
    if match := _HAND.fullmatch(text):
        number, name, other, betting, cards, others, board, won, lost = match.groups()
    elif match := _STATE.fullmatch(text):
        number, betting, cards, others, board, won, lost, name, other = match.groups()
    else:
        raise HandError(
            Reason.NOT_A_HAND,
            "it is neither NUMBER:NAMES:0BETTING:CARDS|BOARD:CHIPS nor STATE:NUMBER:BETTING:CARDS/BOARD:CHIPS:NAMES",
        )
    return _Fields(int(number), (name, other), betting, (cards, others), board, (int(won), int(lost)))


def _understand(fields: _Fields, terms: Terms) -> Hand:
    streets, put_in, folded = _read_betting(fields.betting, terms)
    cards, board = _read_cards(fields, len(streets))
    won = _result(put_in, folded, cards, board)
    if won != fields.won:
        raise HandError(
            Reason.WRONG_RESULT,
            f"betting and cards lead to {won[0]},{won[1]}, the line says {fields.won[0]},{fields.won[1]}",
        )
    posted = (terms.big_blind, terms.small_blind)
    return Hand(fields.number, fields.names, posted, streets, cards, board, won)


def _read_betting(text: str, terms: Terms) -> tuple[tuple[tuple[Action, ...], ...], list[int], int | None]:
    """Return the moves street by street, what each player has put in, and who has folded."""
    put_in = [terms.big_blind, terms.small_blind]
    streets: list[tuple[Action, ...]] = []
    folded: int | None = None
    called = False  # whether the street before ended in a call of a raise, after which both may be all-in
    for word in text.split("/"):
        if folded is not None or len(streets) == len(STREETS):
            raise HandError(Reason.BAD_BETTING, f"it goes on after its end, with {word!r}")
        if not word and called:
            streets.append(())
            continue
        if streets and not streets[-1]:
            raise HandError(Reason.BAD_BETTING, f"there is a bet after both were all-in: {word!r}")
        actions = _read_street(word, terms.raises, put_in, preflop=not streets)
        streets.append(actions)
        folded = actions[-1].player if actions[-1].move is Move.FOLD else None
        called = actions[-1].move is Move.CALL and actions[-2].move is Move.RAISE
    if folded is None and len(streets) < len(STREETS):
        raise HandError(Reason.BAD_BETTING, f"it ends on the {STREETS[len(streets) - 1]} without a fold")
    return tuple(streets), put_in, folded


def _read_street(word: str, raises: Raises, put_in: list[int], *, preflop: bool) -> tuple[Action, ...]:
    """Return the moves of one street, and add to `put_in` what they put in."""
    tokens = _TOKEN.findall(word)
    if "".join(tokens) != word:
        raise HandError(Reason.BAD_BETTING, f"{word!r} is not made of f, c and r with chips")
    base = 0 if preflop else max(put_in)
    player = int(preflop)
    actions: list[Action] = []
    ended = False
    for token in tokens:
        highest = max(put_in)
        if ended:
            raise HandError(Reason.BAD_BETTING, f"{word!r} goes on after its end")
        move = Move(token[0])
        if move is Move.RAISE:
            start = {Raises.BY: highest, Raises.ROUND: base, Raises.TOTAL: 0}[raises]
            put_in[player] = start + int(token[1:])
            if put_in[player] <= highest:
                raise HandError(Reason.BAD_BETTING, f"{token} in {word!r} is no raise over {highest}")
        elif move is Move.CALL:
            put_in[player] = highest
            ended = bool(actions)
        elif put_in[player] == highest:
            raise HandError(Reason.BAD_BETTING, f"in {word!r} a player folds who has nothing to call")
        else:
            ended = True
        actions.append(Action(player, move, put_in[player]))
        player = 1 - player
    if not ended:
        raise HandError(Reason.BAD_BETTING, f"a player is still to move after {word!r}")
    return tuple(actions)


def _read_cards(
    fields: _Fields, streets: int
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]:
    """Return the cards of both players and those of the board, all different."""
    dealt = fields.board.split("/")
    try:
        cards = parse_cards("".join((*fields.cards, *dealt)))
    except UsageError as error:
        raise HandError(Reason.BAD_CARDS, error.what) from error
    if dealt[0] or [len(each) for each in dealt] != [2 * number for number in _BOARD_CARDS[:streets]]:
        raise HandError(Reason.BAD_CARDS, f"the board {fields.board!r} is not that of {streets} streets")
    if any(len(each) != 4 for each in fields.cards):
        raise HandError(Reason.BAD_CARDS, f"{fields.cards[0]} and {fields.cards[1]} are not two cards each")
    return (cards[:2], cards[2:4]), cards[4:]


def _result(
    put_in: Sequence[int], folded: int | None, cards: Sequence[Sequence[int]], board: Sequence[int]
) -> tuple[int, int]:
    """Return what players 0 and 1 win."""
    if folded is not None:
        return (-put_in[0], put_in[0]) if folded == 0 else (put_in[1], -put_in[1])
    mine, his = (strength_of((*hand, *board)) for hand in cards)
    won = put_in[0] * ((mine > his) - (mine < his))
    return won, -won


def _first_hands(file: str) -> tuple[list[_Fields], list[str]]:
    """Return the first hands of a log, and what was wrong before."""
    troubles: list[str] = []

    def hands() -> Iterator[_Fields]:
        for found in LogReader(file, Terms(Raises.BY, 1, 2))._lines():
            if isinstance(found, SetAside):
                troubles.append(found.detail)
            elif not _HEADER.match(found) and not _STATISTICS.match(found):
                try:
                    yield _take_apart(found)
                except HandError as error:
                    troubles.append(error.detail)

    return list(islice(hands(), DETECTION_HANDS)), troubles


def _find_blinds(hands: Sequence[_Fields], file: str) -> tuple[int, int]:
    stakes = [(hand.betting, abs(hand.won[0])) for hand in hands if hand.won[0]]
    small = Counter(stake for betting, stake in stakes if betting == "f")
    big = Counter(stake for betting, stake in stakes if _UNRAISED.fullmatch(betting))
    if not small or not big:
        missing = "a fold at once" if not small else "a fold to the first raise, or without one"
        raise UsageError(
            f"the blinds in {file} cannot be told",
            why=f"of its first {len(hands)} hands none ends with {missing}",
            fix="say them, for example: --blinds 50/100",
        )
    return small.most_common(1)[0][0], big.most_common(1)[0][0]


def _fits(hand: _Fields, terms: Terms) -> bool:
    try:
        _understand(hand, terms)
    except HandError:
        return False
    return True


def _unpacked(raw: BinaryIO) -> BinaryIO:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
