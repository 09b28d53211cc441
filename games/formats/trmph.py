"""Lines of .trmph: `#13,a1b2m13 b`, with or without the address of trmph.com before and the winner behind.

The format has no word for a swap; ours, which other programs do not know, is `swap` among the moves.
"""

import re

from core.errors import DataError
from games.formats.record import (
    GameText,
    GameTextError,
    Reason,
    Word,
    read_cells,
    read_side,
    read_winner,
    split_moves,
    tagged,
    write_moves,
)

ADDRESS = "http://www.trmph.com/hex/board"
_LINE = re.compile(r"(?:https?://(?:www\.)?trmph\.com/hex/board)?#([0-9]+),([^\s,]*)(?:\s+(\S+))?")
# At most three letters: with any number, a line of letters alone would take time that grows with its square.
_MOVE = re.compile(r"swap(?![0-9])|[a-z]{1,3}[1-9][0-9]*")
_WORDS = {"swap": Word.SWAP_PIECES}


def read_trmph(text: str) -> GameText:
    """Return what a line says; comments and blanks around it are gone already.

    Raises:
        GameTextError: when it is none, or names a cell that the board does not have.
    """
    match = _LINE.fullmatch(text)
    if match is None:
        raise GameTextError(
            Reason.NOT_A_GAME, "it is not of the form #SIZE,MOVES WINNER, such as #5,c3b2a4 b", text
        )
    side = read_side(match[1], text=text)
    tokens = split_moves(match[2], _MOVE, text=text)
    moves = read_cells(tokens, _WORDS, width=side, height=side, text=text)
    return GameText("trmph", side, side, moves, read_winner(match[3], text=text))


def write_trmph(game: GameText, *, address: bool = False) -> str:
    """Return `game` as a line, with the address of trmph.com where asked.

    Raises:
        DataError: when the board is not square, or a move has no word in this form.
    """
    if game.width != game.height:
        raise DataError(
            f"a board of {game.width}×{game.height} cells cannot be written as .trmph",
            why="the format knows square boards only",
            fix="write it as hexworld or sgf",
        )
    moves = write_moves(game, {Word.SWAP_PIECES: "swap"}.get)
    return tagged(f"{ADDRESS if address else ''}#{game.width},{moves}", game.winner)
