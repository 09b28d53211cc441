"""Links of HexWorld: `https://hexworld.org/board/#11r10nc1,a3:sd4,e5`, of which the part before # may be missing.

Behind # stand the size (`14x10` is 14 columns and 10 rows), how the board is to be shown, the moves up to the cursor
and those after it. How it is shown is not kept: it does not change the game. A winner's letter may stand behind a
link, as behind a line of .trmph, for a link tells the winner only of a game that was given up.
"""

import re

from games.formats.record import (
    GameText,
    GameTextError,
    Reason,
    Word,
    agreed_winner,
    read_cells,
    read_side,
    read_winner,
    split_moves,
    tagged,
    write_moves,
)

ADDRESS = "https://hexworld.org/board/"
_LINK = re.compile(
    r"(?:(?:https?://)?(?:www\.)?hexworld\.org/board/?)?"
    r"#([0-9]+)(?:x([0-9]+))?(?:r[0-9]+|[mn]|c[0-9]+)*"
    r"(?:,([^\s,]*))?(?:,([^\s,]*))?(?:\s+(\S+))?"
)
# At most three letters: with any number, a line of letters alone would take time that grows with its square.
_MOVE = re.compile(r":[sSp]|:[rf][bw]|[a-z]{1,3}[1-9][0-9]*")
# HexWorld's black is our blue: who moves first and joins top and bottom.
_WORDS = {
    ":s": Word.SWAP_PIECES,
    ":S": Word.SWAP_SIDES,
    ":p": Word.PASS,
    ":rb": Word.BLUE_RESIGNS,
    ":rw": Word.RED_RESIGNS,
    ":fb": Word.BLUE_FORFEITS,
    ":fw": Word.RED_FORFEITS,
}
_NAMES = {word: name for name, word in _WORDS.items()}


def read_hexworld(text: str) -> GameText:
    """Return what a link says, the moves after the cursor included.

    Raises:
        GameTextError: when it is none, names a cell that the board does not have, or lets one win who gave up.
            HexWorld itself passes over what it does not know, and all that follows.
    """
    match = _LINK.fullmatch(text)
    if match is None:
        raise GameTextError(
            Reason.NOT_A_GAME,
            "it is not of the form #SIZE,MOVES, such as #11,a3:sd4 or #14x10c1,a3d4,e5",
            text,
        )
    columns, rows, before, after, word = match.groups()
    width = read_side(columns, text=text)
    height = read_side(rows, text=text) if rows else width
    tokens = split_moves((before or "") + (after or ""), _MOVE, text=text)
    moves = read_cells(tokens, _WORDS, width=width, height=height, text=text)
    winner = agreed_winner(read_winner(word, text=text), moves, text=text)
    return GameText("hexworld", width, height, moves, winner)


def write_hexworld(game: GameText) -> str:
    """Return `game` as a link, and behind it the winner's letter where the moves do not tell who gave up."""
    size = f"{game.width}" if game.width == game.height else f"{game.width}x{game.height}"
    link = f"{ADDRESS}#{size},{write_moves(game, _NAMES.get)}"
    told = agreed_winner(None, game.moves, text=link)
    return tagged(link, game.winner if told is None else None)
