"""How the moves of a game are written in GTP, and back.

Go names columns without the letter i and counts rows from below; Hex counts them from above. A swap is "swap-pieces".
Names are read whatever their case, and written small, as Hex programs do; Go programs take both.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import UsageError
from games.game import Game
from games.hex import Hex

PASS, RESIGN, SWAP = "pass", "resign", "swap-pieces"

_GO = "open_spiel:go"
_GO_COLUMNS = "abcdefghjklmnopqrstuvwxyz"
_GO_USUAL_KOMI = 7.5
_ALIASES = {"swap": SWAP}


@dataclass(frozen=True, slots=True)
class Vertices:
    """The moves of one game as GTP writes them.

    Attributes:
        width, height: of the board.
        names: of the actions; those of points first.
        num_points: how many of them lie on the board. The rest are pass or swap.
        pass_action: which lets the other play on, None where none does.
        komi: of Go; None in other games.
        hexagonal: whether it is Hex, whose programs are told both sides of the board.
    """

    width: int
    height: int
    names: tuple[str, ...]
    num_points: int
    pass_action: int | None = None
    komi: float | None = None
    hexagonal: bool = False
    _actions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_actions", {name: action for action, name in enumerate(self.names)})

    def action(self, text: str) -> int | None:
        """Return the action that `text` names, None when it names none."""
        plain = text.lower()
        return self._actions.get(_ALIASES.get(plain, plain))

    @property
    def board_size(self) -> str:
        """What `boardsize` is told: one number, as the protocol has it; two in Hex and where they differ."""
        square = self.width == self.height and not self.hexagonal
        return str(self.width) if square else f"{self.width} {self.height}"


def vertices_of(game: Game) -> Vertices:
    """Return how GTP writes the moves of `game`.

    Raises:
        UsageError: for a game of OpenSpiel other than Go, whose moves have no names; for Go with a handicap.
    """
    if game.name.partition("(")[0] == _GO:
        return _go(game)
    if game.name.startswith("open_spiel:"):
        raise UsageError(
            f"GTP has no words for the moves of {game.name}",
            why="of OpenSpiel's games only Go's moves have names on a board",
            fix=f"choose {_GO}(board_size=9,komi=7.5), or a built-in game such as hex11",
        )
    board = game.board
    names = [game.action_name(action) for action in range(game.num_actions)]
    points = game.num_actions - board.extra_actions
    names[points:] = [_ALIASES.get(name, name) for name in names[points:]]
    return Vertices(board.width, board.height, tuple(names), points, hexagonal=isinstance(game, Hex))


def _go(game: Game) -> Vertices:
    points = game.num_actions - 1
    size = math.isqrt(points)
    if size > len(_GO_COLUMNS) or "handicap" in game.name:
        raise UsageError(
            f"GTP does not play {game.name} here",
            why=f"it is Go without handicap, on boards of up to {len(_GO_COLUMNS)} columns, as many as it has letters",
            fix=f"choose one such as {_GO}(board_size=9,komi=7.5)",
        )
    told = re.search(r"komi=(-?[0-9.]+)", game.name)
    names = [f"{column}{row + 1}" for row in range(size) for column in _GO_COLUMNS[:size]]
    return Vertices(
        width=size,
        height=size,
        names=(*names, PASS),
        num_points=points,
        pass_action=points,
        komi=float(told[1]) if told else _GO_USUAL_KOMI,
    )
