"""The one place that turns a name into a game."""

import difflib
import re

from core.errors import UsageError
from games.connect_four import ConnectFour
from games.game import Game
from games.hex import Hex
from games.open_spiel import OpenSpielGame
from games.tic_tac_toe import TicTacToe

GAME_NAMES = (
    "tic_tac_toe, connect_four, connect_four_5x4 (columns x cells of each), hex3 … hex19, hex5-swap (any size),"
    " open_spiel:NAME"
)

_SUGGESTIONS = [
    "tic_tac_toe",
    "connect_four",
    "connect_four_5x4",
    "hex5",
    "hex13",
    "hex5-swap",
    "open_spiel:breakthrough",
]


def make_game(name: str) -> Game:
    """Return the rules of the game called `name`; `make_game(game.name)` is an equal game.

    Raises:
        UsageError: when there is no such game, or an OpenSpiel game is asked for that cannot be had.
    """
    if name == "tic_tac_toe":
        return TicTacToe()
    if name == "connect_four":
        return ConnectFour()
    if match := re.fullmatch(r"connect_four_([1-9][0-9]?)x([1-9][0-9]?)", name):
        return _with_its_own_name(ConnectFour(int(match[1]), int(match[2])), name)
    if match := re.fullmatch(r"hex([1-9][0-9]?)(-swap)?", name):
        return Hex(int(match[1]), swap=match[2] is not None)
    if name.startswith("open_spiel:"):
        return OpenSpielGame(name.removeprefix("open_spiel:"))
    near = difflib.get_close_matches(name.lower(), _SUGGESTIONS, n=2)
    raise UsageError(
        f"there is no game called {name!r}",
        why=f"the games are {GAME_NAMES}",
        fix=f"did you mean {' or '.join(near)}?" if near else "choose one of them",
    )


def _with_its_own_name(game: ConnectFour, name: str) -> ConnectFour:
    """Return the game. Raises UsageError when it is called otherwise: files and keys know one name a game."""
    if game.name != name:
        raise UsageError(
            f"there is no game called {name!r}", why=f"its name is {game.name}", fix=f"write {game.name}"
        )
    return game
