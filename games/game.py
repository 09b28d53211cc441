"""The contract every board game fulfils.

Rules work on a *pool* of states addressed by row number, many rows a call, so that one search serves compiled
and plain Python games alike: it holds its trees in arrays and its states by row.

Shapes: `B` rows of one call, `A` actions of the game, `V` views. Players are 0 (moves first) and 1.
Values are from the view of the player to move, in [-1, 1]: 1 is a win.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from core.messages import Arrays, BoardSpec

States: TypeAlias = Any
"""A pool as the game keeps it: a NamedTuple of arrays for compiled games, a list of objects for others."""


class Game(Protocol):
    """Rules of one two-player, zero-sum game of perfect information without chance.

    Attributes:
        name: how presets, records and model cards call it ("hex5"); `games.catalog.make_game(name)` makes it.
        num_actions: A. Actions are 0 … A-1.
        max_plies: no game is longer.
        num_symmetries: symmetries that leave the side to move what it is; 0 is the identity.
        views: int16 [V, A]: the logit of action a stands at views[v, a] in the policy of a network that was
            shown view v. A view may turn the board so that the player to move always sees the same goal.
    """

    name: str
    num_actions: int
    max_plies: int
    num_symmetries: int
    views: np.ndarray

    @property
    def board(self) -> BoardSpec:
        """What a network needs to know. Raises UsageError in a game that cannot be shown to one."""
        ...

    def new_states(self, capacity: int) -> States:
        """Make a pool of `capacity` rows; what is in them is undefined until `new`."""
        ...

    def new(self, states: States, rows: np.ndarray) -> None:
        """Put the starting position in `rows` [B]."""
        ...

    def copy(self, states: States, sources: np.ndarray, targets: np.ndarray) -> None:
        """Copy row sources[i] to row targets[i]; [B] each."""
        ...

    def play(self, states: States, parents: np.ndarray, actions: np.ndarray, children: np.ndarray) -> None:
        """Make children[i] the position after actions[i] in parents[i]; [B] each.

        A child may be its own parent. Actions must be legal and parents not terminal; that is not checked.
        """
        ...

    def legal(self, states: States, rows: np.ndarray) -> np.ndarray:
        """Return bool [B, A]; all False in a terminal position."""
        ...

    def to_play(self, states: States, rows: np.ndarray) -> np.ndarray:
        """Return int8 [B]: the player to move (in a terminal position, who would be)."""
        ...

    def outcome(self, states: States, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (terminal bool [B], value float32 [B] for the player to move; 0 where not terminal)."""
        ...

    def encode(self, states: States, rows: np.ndarray, symmetries: np.ndarray) -> tuple[Arrays, np.ndarray]:
        """Return (the arrays of `board.inputs`, views int16 [B]) for rows under symmetries; int [B] each."""
        ...

    def snapshot(self, states: States, row: int) -> bytes:
        """Return the state in one row as bytes that `restore` accepts in any process."""
        ...

    def restore(self, states: States, row: int, data: bytes) -> None:
        """Put a snapshot into a row. Raises DataError when it is not one of this game."""
        ...

    def action_name(self, action: int) -> str:
        """Return the usual text of a move ("c4")."""
        ...

    def parse_action(self, text: str) -> int:
        """Return the action a person typed. Raises UsageError with an example when it is none."""
        ...

    def render(self, states: States, row: int) -> str:
        """Return the board as lines of text."""
        ...

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return one line of text for a finished game; `outcome` from the view of player 0."""
        ...
