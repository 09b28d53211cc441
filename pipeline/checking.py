"""Games as texts told them, checked against the rules of hex on square boards of 3×3 to 19×19, many at a time.

A game that passes is of cells alone, the two players in turn. A swap is gone by mirroring: after "swap pieces" red has
the first stone, mirrored, and blue is to move. Seen from the other side of the mirror, with the colours exchanged, blue
has the first stone where it was laid and red is to move: the same game without a swap, in which every player to move
sees what he saw, and the winner has the other colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from games.formats.record import WON_BY, GameText, Reason, Word, cell_name
from games.hex import LARGEST, SMALLEST, Hex

RepeatedCell: TypeAlias = Literal["reject", "swap"]

_COLOURS = ("blue", "red")
_FULL, _TAKEN, _OVER = range(3)


class Fault(NamedTuple):
    """Why a game is none: the kind, and what exactly."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class CheckedGame:
    """A game that the rules allow.

    Attributes:
        size: of the board, N.
        moves: cells, 0 … N²-1, of blue and red in turn, blue first.
        winner: 0 blue, 1 red: who joined his sides, or who is told to have won a game that was broken off; else None.
        finished: whether there is a winning chain.
        swapped: whether a swap was mirrored away.
    """

    size: int
    moves: tuple[int, ...]
    winner: int | None
    finished: bool
    swapped: bool

    def text(self) -> str:
        """Return size and moves, as in a line of .trmph: `#10,a1b2c3`."""
        names = _names(self.size)
        return f"#{self.size},{''.join([names[move] for move in self.moves])}"


class _Plain(NamedTuple):
    """A game without words; `removed` of its moves stood before the second."""

    size: int
    moves: tuple[int, ...]
    tag: int | None
    swapped: bool
    removed: int


def check_games(
    games: Sequence[GameText], *, repeated_cell: RepeatedCell = "reject"
) -> list[CheckedGame | Fault]:
    """Return for each of `games` the game, or why it is none.

    Args:
        games: as read.
        repeated_cell: what it means when the second move takes the cell of the first: nothing ("reject"), or a
            swap of pieces ("swap"), as sites without a word for it have it.
    """
    plain = [_without_words(game, repeated_cell) for game in games]
    checked: list[CheckedGame | Fault | None] = [game if isinstance(game, Fault) else None for game in plain]
    by_size: dict[int, list[int]] = {}
    for number, game in enumerate(plain):
        if isinstance(game, _Plain):
            by_size.setdefault(game.size, []).append(number)
    for size, numbers in by_size.items():
        ours = [game for number in numbers if isinstance(game := plain[number], _Plain)]
        played, stops, wins = _play_out(size, [game.moves for game in ours])
        ends = zip(numbers, ours, played.tolist(), stops.tolist(), wins.tolist(), strict=True)
        for number, game, plies, stop, won in ends:
            checked[number] = _judge(game, plies, stop, won=won)
    return [game for game in checked if game is not None]


def _without_words(game: GameText, repeated_cell: RepeatedCell) -> _Plain | Fault:
    """Return the cells of `game`, a swap mirrored away, or why there is no such game."""
    size, moves = game.width, game.moves
    if game.height != size:
        return Fault(Reason.NOT_SQUARE, f"{size}×{game.height}; only square boards are played here")
    if not SMALLEST <= size <= LARGEST:
        return Fault(Reason.BOARD_SIZE, f"{size}; boards of {SMALLEST} to {LARGEST} are played here")
    if repeated_cell == "swap" and len(moves) > 1 and moves[0] == moves[1]:
        moves = (moves[0], Word.SWAP_PIECES, *moves[2:])
    if moves and min(moves) >= 0:
        return _Plain(size, moves, game.winner, False, 0)
    cells = tuple(move for move in moves if move >= 0)
    misplaced = _misplaced_word(moves)
    if misplaced or not cells:
        return misplaced or Fault(Reason.NO_MOVES, "no stone was laid")
    if Word.SWAP_PIECES not in moves:
        return _Plain(size, cells, game.winner, False, int(Word.SWAP_SIDES in moves))
    cells = (cells[0], *(_mirrored(cell, size) for cell in cells[1:]))
    return _Plain(size, cells, None if game.winner is None else 1 - game.winner, True, 1)


def _misplaced_word(moves: tuple[int, ...]) -> Fault | None:
    for place, move in enumerate(moves):
        if move == Word.PASS:
            return Fault(Reason.PASSED, f"move {place + 1}; in hex as it is played here nobody passes")
        if move in (Word.SWAP_PIECES, Word.SWAP_SIDES) and (place != 1 or moves[0] < 0):
            return Fault(Reason.MISPLACED_SWAP, f"move {place + 1}; only the first stone may be answered so")
        if move in WON_BY and place != len(moves) - 1:
            return Fault(Reason.AFTER_THE_END, f"move {place + 2}, after one gave up")
    return None


def _mirrored(cell: int, size: int) -> int:
    """Return where a cell goes in the mirror of the diagonal through a1."""
    row, column = divmod(cell, size)
    return column * size + row


def _play_out(size: int, games: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Play `games` side by side until each is over or has a move that cannot be made.

    Returns:
        Moves that could be made int [G]; why the next could not, _FULL where there was none, int8 [G]; whether the
        last that was made won, bool [G].
    """
    game = Hex(size)
    lengths = np.array([len(moves) for moves in games])
    rows = np.arange(len(games), dtype=np.int32)
    actions = np.zeros((len(games), lengths.max()), np.int16)
    actions[np.arange(lengths.max()) < lengths[:, None]] = np.fromiter(
        chain.from_iterable(games), np.int16, int(lengths.sum())
    )
    states = game.new_states(len(games))
    game.new(states, rows)
    played, stops = lengths.copy(), np.full(len(games), _FULL, np.int8)
    for ply in range(lengths.max()):
        rows = rows[lengths[rows] > ply]
        over = game.outcome(states, rows)[0]
        taken = states.cells[rows, actions[rows, ply]] != 0
        stopped = over | taken
        if stopped.any():
            played[rows[stopped]] = ply
            stops[rows[stopped]] = np.where(over, _OVER, _TAKEN)[stopped]
            rows = rows[~stopped]
        game.play(states, rows, actions[rows, ply], rows)
    return played, stops, game.outcome(states, np.arange(len(games), dtype=np.int32))[0]


def _judge(game: _Plain, plies: int, stop: int, *, won: bool) -> CheckedGame | Fault:
    """Return the game, or why it is none, now that it was played out."""
    number = plies + 1 + (game.removed if plies else 0)
    if stop != _FULL:
        name = _names(game.size)[_as_written(game, plies)]
        if stop == _OVER:
            joined = f"{_COLOURS[_as_told(game, plies - 1 & 1)]} had won with the move before"
            return Fault(Reason.AFTER_THE_END, f"move {number}, {name}: {joined}")
        first = game.moves.index(game.moves[plies])
        earlier = first + 1 + (game.removed if first else 0)
        return Fault(Reason.REPEATED_CELL, f"move {number}, {name}, was taken by move {earlier}")
    chain_of = plies - 1 & 1 if won else None
    if chain_of is not None and game.tag not in (None, chain_of):
        mover, other = _COLOURS[_as_told(game, chain_of)], _COLOURS[_as_told(game, 1 - chain_of)]
        return Fault(
            Reason.WINNER_CONTRADICTED,
            f"{other} is told to have won, but move {number - 1} joined {mover}'s sides",
        )
    return CheckedGame(game.size, game.moves, game.tag if chain_of is None else chain_of, won, game.swapped)


def _as_told(game: _Plain, player: int) -> int:
    """Return the colour that a player has in the text."""
    return 1 - player if game.swapped else player


def _as_written(game: _Plain, ply: int) -> int:
    """Return the cell of a move as it stands in the text."""
    cell = game.moves[ply]
    return _mirrored(cell, game.size) if game.swapped and ply else cell


@lru_cache(maxsize=LARGEST)
def _names(size: int) -> list[str]:
    return [cell_name(cell, size) for cell in range(size * size)]
