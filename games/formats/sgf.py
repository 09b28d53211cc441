"""SGF of hex (GM[11], https://www.red-bean.com/sgf/hex.html), and what Little Golem writes under that name.

In both RE[B] lets the first player win, who joins top and bottom; but Little Golem calls that player's moves W. Its
cells are two letters, the second for the row ("mf" is m6), its `swap` swaps pieces, and it does not say GM.
"""

import re
from dataclasses import dataclass

from games.formats.record import (
    GameText,
    GameTextError,
    Reason,
    Word,
    agreed_winner,
    cell_name,
    column_number,
    parse_cell,
    read_side,
    shorten,
)

_TOKEN = re.compile(r"\s*(?:([();])|([A-Za-z]+)|\[((?:[^\]\\]|\\.)*)\])", re.DOTALL)
_ESCAPED = re.compile(r"\\(\r\n|.)", re.DOTALL)
_SIZE = re.compile(r"([0-9]+)(?::([0-9]+))?")
_RESULT = re.compile(r"([bw])(?:\+.*)?")
_DEFAULT_SIZE = "11"
_GAME_OF_HEX = "11"
_SETUP = ("AB", "AW", "AE")
_NO_RESULT = ("", "?", "void")
_SWAPS = {"swap": Word.SWAP_PIECES, "swap-pieces": Word.SWAP_PIECES, "swap-sides": Word.SWAP_SIDES}
_RESIGNS = (Word.BLUE_RESIGNS, Word.RED_RESIGNS)
_FORFEITS = (Word.BLUE_FORFEITS, Word.RED_FORFEITS)

_Node = dict[str, list[str]]


def read_sgf(text: str) -> GameText:
    """Return what the main line of one game says.

    Raises:
        GameTextError: when it is no game of hex from an empty board, or a move is not on the board or not of
            whose turn it is.
    """
    nodes = _main_line(text)
    root = nodes[0]
    game = root.get("GM", [_GAME_OF_HEX])[0].strip()
    setup = [name for node in nodes for name in _SETUP if name in node]
    if game != _GAME_OF_HEX or setup:
        problem = f"{setup[0]} sets stones up" if setup else f"GM[{shorten(game, 12)}] is not hex"
        raise GameTextError(Reason.NOT_A_GAME, problem, text)
    size = root.get("SZ", [_DEFAULT_SIZE])[0].strip()
    match = _SIZE.fullmatch(size)
    if match is None:
        raise GameTextError(
            Reason.BOARD_SIZE, f"SZ[{shorten(size, 12)}] is no size such as 11 or 14:10", text
        )
    width = read_side(match[1], text=text)
    height = read_side(match[2], text=text) if match[2] else width
    moves = _Moves(text, width, height).read(nodes)
    winner = agreed_winner(_result(root.get("RE", [""])[0], text=text), moves, text=text)
    return GameText("sgf", width, height, moves, winner)


def write_sgf(game: GameText) -> str:
    """Return `game` on one line; cells are written as the standard has them ("c4")."""
    size = f"{game.width}" if game.width == game.height else f"{game.width}:{game.height}"
    result = "" if game.winner is None else f"RE[{'BW'[game.winner]}+]"
    names = {
        Word.SWAP_PIECES: "swap-pieces",
        Word.SWAP_SIDES: "swap-sides",
        Word.PASS: "pass",
        **dict.fromkeys(_RESIGNS, "resign"),
        **dict.fromkeys(_FORFEITS, "forfeit"),
    }
    player, nodes = 0, []
    for move in game.moves:
        word = None if move >= 0 else Word(move)
        name = cell_name(move, game.width) if word is None else names[word]
        gives_up = next((given.index(word) for given in (_RESIGNS, _FORFEITS) if word in given), None)
        nodes.append(f";{'BW'[player if gives_up is None else gives_up]}[{name}]")
        if word != Word.SWAP_SIDES:
            player = 1 - player
    return f"(;FF[4]GM[11]SZ[{size}]{result}{''.join(nodes)})"


@dataclass(slots=True)
class _Moves:
    """Reads the moves of the nodes; who calls himself what is known from the first."""

    text: str
    width: int
    height: int

    def read(self, nodes: list[_Node]) -> tuple[int, ...]:
        moves: list[int] = []
        player, first = 0, ""
        for node in nodes:
            colours = [colour for colour in ("B", "W") if colour in node]
            if not colours:
                continue
            colour, value = colours[0], node[colours[0]][0].strip().lower()
            first = first or self._first_colour(colour, value)
            mover = 0 if colour == first else 1
            move = self._move(value, mover, number=len(moves) + 1)
            if len(colours) > 1 or (mover != player and move not in (*_RESIGNS, *_FORFEITS)):
                raise GameTextError(
                    Reason.WRONG_TURN,
                    f"move {len(moves) + 1}, {colour}[{shorten(value, 12)}], is the other's",
                    self.text,
                )
            moves.append(move)
            # After an exchange of colours red, now the other person, is to move.
            if move != Word.SWAP_SIDES:
                player = 1 - player
        return tuple(moves)

    def _first_colour(self, colour: str, value: str) -> str:
        """Return what the first player is called: B, but with Little Golem's cells whoever begins."""
        return colour if re.fullmatch("[a-z]{2}", value) else "B"

    def _move(self, value: str, mover: int, *, number: int) -> int:
        if value in _SWAPS:
            return _SWAPS[value]
        if value in ("", "pass"):
            return Word.PASS
        if value in ("resign", "forfeit"):
            return (_RESIGNS if value == "resign" else _FORFEITS)[mover]
        if re.fullmatch("[a-z]{2}", value):
            column, row = map(column_number, value)
            cell = row * self.width + column if column < self.width and row < self.height else None
        else:
            cell = parse_cell(value, self.width, self.height)
        if cell is None:
            shown = f"move {number}, {shorten(value, 12)!r}, is not on a board of {self.width}×{self.height} cells"
            raise GameTextError(Reason.OFF_THE_BOARD, shown, self.text)
        return cell


def _result(result: str, *, text: str) -> int | None:
    plain = result.strip().lower()
    if plain in _NO_RESULT:
        return None
    match = _RESULT.fullmatch(plain)
    if match is None:
        raise GameTextError(Reason.UNKNOWN_WINNER, f"RE[{shorten(result, 12)}] names neither B nor W", text)
    return "bw".index(match[1])


def _main_line(text: str) -> list[_Node]:
    """Return the nodes on the first branch everywhere. Raises GameTextError when brackets do not match."""
    nodes: list[_Node] = []
    values: list[str] = []
    depth = place = 0
    ended = False
    while place < len(text) and (match := _TOKEN.match(text, place)):
        sign, name, value = match.groups()
        if depth == 0 and (sign != "(" or ended):
            break
        place = match.end()
        if sign:
            depth += (sign == "(") - (sign == ")")
            ended |= sign == ")"
            values = []
            if sign == ";" and not ended:
                nodes.append({})
        elif name and nodes and not ended:
            # Before FF[4] small letters could be strewn into names.
            values = nodes[-1].setdefault("".join(filter(str.isupper, name)), [])
        elif value is not None and not ended:
            values.append(_ESCAPED.sub(_unescape, value))
    if depth or text[place:].strip() or not nodes:
        raise GameTextError(
            Reason.NOT_A_GAME,
            f"the brackets of SGF do not match at {shorten(text[place:].strip(), 12)!r}, character {place + 1}",
            text,
        )
    return nodes


def _unescape(match: re.Match[str]) -> str:
    return "" if match[1] in ("\n", "\r\n", "\r") else match[1]
