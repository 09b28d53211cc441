"""What one game text says, whatever its form, and what may be wrong with it."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Literal, TypeAlias

from core.errors import DataError

Form: TypeAlias = Literal["trmph", "hexworld", "sgf"]

SHOWN_CHARACTERS = 80
_LARGEST_SIDE = 999
_TABLED_CELLS = 1024
_CELL = re.compile(r"([a-z]+)([1-9][0-9]*)")


class Word(IntEnum):
    """A move that is no cell. Blue joins top and bottom and moves first; red joins left and right."""

    SWAP_PIECES = -1
    """Red takes the first stone, which goes to the cell mirrored in the diagonal through a1."""
    SWAP_SIDES = -2
    """The players exchange colours; the stone stays, and red, who is now the other person, moves next."""
    PASS = -3
    BLUE_RESIGNS = -4
    RED_RESIGNS = -5
    BLUE_FORFEITS = -6
    RED_FORFEITS = -7


WON_BY = {
    Word.BLUE_RESIGNS: 1,
    Word.BLUE_FORFEITS: 1,
    Word.RED_RESIGNS: 0,
    Word.RED_FORFEITS: 0,
}
"""Who wins when a game ends by a word."""


class Reason(StrEnum):
    """Why a game text is set aside."""

    NOT_A_GAME = "not a game"
    NO_MOVES = "no moves"
    BOARD_SIZE = "board size not played"
    NOT_SQUARE = "board not square"
    UNKNOWN_WINNER = "unknown winner"
    OFF_THE_BOARD = "cell off the board"
    REPEATED_CELL = "repeated cell"
    AFTER_THE_END = "move after the end"
    MISPLACED_SWAP = "swap out of place"
    PASSED = "pass"
    WRONG_TURN = "wrong turn"
    WINNER_CONTRADICTED = "winner contradicted"


@dataclass(frozen=True, slots=True)
class GameText:
    """What one game text says; nothing of it is checked against the rules.

    Attributes:
        form: in which it was written.
        width, height: of the board.
        moves: cells, as row * width + column, and members of `Word` (below zero), in their order.
        winner: 0 blue, 1 red, as the winner's tag or a resignation says; None where nothing is said.
    """

    form: Form
    width: int
    height: int
    moves: tuple[int, ...]
    winner: int | None


class GameTextError(DataError):
    """A text that is no game, or a game that cannot be so.

    Args:
        reason: its kind, by which such texts are counted.
        detail: what exactly, and at which move.
        text: where it was found; shown shortened.
    """

    def __init__(self, reason: Reason, detail: str, text: str) -> None:
        super().__init__(
            f"{reason}: {shorten(text)!r}",
            why=detail,
            fix="mend the line, or leave it out; `tamen data check` lists all such lines",
        )
        self.reason = reason
        self.detail = detail
        self.text = text

    def __reduce__(self) -> tuple[object, tuple[type, str, str, str]]:
        return _rebuild, (type(self), self.reason, self.detail, self.text)


def _rebuild(kind: type[GameTextError], reason: str, detail: str, text: str) -> GameTextError:
    return kind(Reason(reason), detail, text)


def shorten(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Return `text` without its end where it is long, and with … in its place."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def column_letters(column: int) -> str:
    """Return a … z, then aa, ab, …: 0 -> "a", 26 -> "aa"."""
    letters = ""
    column += 1
    while column:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return letters


def column_number(letters: str) -> int:
    """Undo `column_letters`."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("a") + 1
    return number - 1


def cell_name(cell: int, width: int) -> str:
    """Return "c4" for the cell in column 2 and row 3."""
    row, column = divmod(cell, width)
    return f"{column_letters(column)}{row + 1}"


def parse_cell(name: str, width: int, height: int) -> int | None:
    """Return the number of a cell such as "c4"; None when it is not on the board."""
    match = _CELL.fullmatch(name)
    if match is None or len(match[1]) > 3 or len(match[2]) > 3:
        return None
    column, row = column_number(match[1]), int(match[2]) - 1
    return row * width + column if column < width and row < height else None


@lru_cache(maxsize=64)
def cells_by_name(width: int, height: int) -> dict[str, int]:
    """Return the numbers of all cells of a board by their names; it is shared, so leave it as it is."""
    return {cell_name(cell, width): cell for cell in range(width * height)}


def read_cells(
    tokens: list[str], words: dict[str, Word], *, width: int, height: int, text: str
) -> tuple[int, ...]:
    """Return the moves that `tokens` name. Raises GameTextError with the place of the first that is off the board."""
    if width * height <= _TABLED_CELLS:
        cells = cells_by_name(width, height)
        with suppress(KeyError):  # a word, or what is told below with its place
            return tuple(map(cells.__getitem__, tokens))
    moves: list[int] = []
    for number, token in enumerate(tokens, start=1):
        move = words[token] if token in words else parse_cell(token, width, height)
        if move is None:
            raise GameTextError(
                Reason.OFF_THE_BOARD,
                f"move {number}, {shorten(token, 12)}, is not on a board of {width}×{height} cells",
                text,
            )
        moves.append(move)
    return tuple(moves)


def split_moves(moves: str, pattern: re.Pattern[str], *, text: str) -> list[str]:
    """Return the moves that stand without a break in `moves`. Raises GameTextError at the first that is none."""
    tokens = pattern.findall(moves)
    if "".join(tokens) == moves:
        return tokens
    place = 0
    for number, token in enumerate([*tokens, ""], start=1):
        if not token or not moves.startswith(token, place):
            raise GameTextError(
                Reason.NOT_A_GAME,
                f"move {number} begins with {shorten(moves[place:], 12)!r}, which is no cell such as c4",
                text,
            )
        place += len(token)
    raise AssertionError("the tokens are shorter than the text, so one is missing somewhere")


def read_side(digits: str, *, text: str) -> int:
    """Return a board's width or height. Raises GameTextError when no board has it."""
    side = int(digits) if len(digits) <= 3 else 0
    if not 1 <= side <= _LARGEST_SIDE:
        raise GameTextError(
            Reason.BOARD_SIZE, f"a side of {shorten(digits, 12)}; boards have 1 to {_LARGEST_SIDE}", text
        )
    return side


def read_winner(word: str | None, *, text: str) -> int | None:
    """Return who won by the last word of a line. Raises GameTextError when the word is not known."""
    if word is None:
        return None
    winner = {"b": 0, "1": 0, "r": 1, "2": 1}.get(word)
    if winner is None:
        raise GameTextError(
            Reason.UNKNOWN_WINNER, f"{shorten(word, 12)!r} where b, r, 1, 2 or nothing is known", text
        )
    return winner


def agreed_winner(tag: int | None, moves: tuple[int, ...], *, text: str) -> int | None:
    """Return who won by the tag and by a resignation. Raises GameTextError when the two differ."""
    if not moves or min(moves) >= 0:
        return tag
    for number, move in enumerate(moves, start=1):
        winner = WON_BY.get(move)  # pyright: ignore[reportArgumentType]  an int finds its Word
        if winner is None:
            continue
        if tag not in (None, winner):
            raise GameTextError(
                Reason.WINNER_CONTRADICTED,
                f"{'blue' if tag == 0 else 'red'} is told to have won and gave up at move {number}",
                text,
            )
        tag = winner
    return tag


def write_moves(game: GameText, name_of: Callable[[Word], str | None]) -> str:
    """Return the moves without a break. Raises DataError for a word that `name_of` has no name for."""
    names = []
    for move in game.moves:
        name = cell_name(move, game.width) if move >= 0 else name_of(Word(move))
        if name is None:
            raise DataError(
                f"a game with {Word(move).name.lower().replace('_', ' ')} cannot be written in this form",
                why="it has no word for it",
                fix="write it as hexworld or sgf",
            )
        names.append(name)
    return "".join(names)


WINNER_LETTERS = ("b", "r")


def tagged(text: str, winner: int | None) -> str:
    """Return `text` with the winner's letter behind it, where there is one."""
    return text if winner is None else f"{text} {WINNER_LETTERS[winner]}"
