"""The board games of OpenSpiel (Lanctot et al. 2019, arXiv 1908.09453) under this project's contract.

Rules and play only: they serve random play, rollouts, matches and cross-checks. What OpenSpiel shows of a
position differs from game to game, so that no network is fed from here.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import DataError, UsageError
from core.messages import Arrays, BoardSpec
from games import notation

_PREFIX = "open_spiel:"
_MOVES_PER_LINE = 8


class OpenSpielGame:
    """A two-player, zero-sum game of perfect information without chance, played by OpenSpiel.

    A pool is a list of `pyspiel.State`. OpenSpiel names moves by the position they are made in, so that here
    a move's text is its number; `render` shows the number and the name of each legal one. Player 0 is who
    moves first, whatever number OpenSpiel gives it.

    Args:
        short_name: as `pyspiel.load_game` takes it: "breakthrough" or "breakthrough(rows=6,columns=6)".

    Raises:
        UsageError: when OpenSpiel is not installed, has no such game, or the game is of another kind.
    """

    num_symmetries = 1

    def __init__(self, short_name: str) -> None:
        self.name = _PREFIX + short_name
        self._rules = _load_rules(short_name)
        self._first_player = self._rules.new_initial_state().current_player()
        self.num_actions = self._rules.num_distinct_actions()
        self.max_plies = self._rules.max_game_length()
        self.views = np.arange(self.num_actions, dtype=np.int16)[None]

    @property
    def board(self) -> BoardSpec:
        """Raises UsageError: these games have no view for a network."""
        raise self._no_view()

    def new_states(self, capacity: int) -> list[Any]:
        return [None] * capacity

    def new(self, states: list[Any], rows: np.ndarray) -> None:
        for row in rows:
            states[row] = self._rules.new_initial_state()

    def copy(self, states: list[Any], sources: np.ndarray, targets: np.ndarray) -> None:
        for source, target in zip(sources, targets, strict=True):
            states[target] = states[source].clone()

    def play(self, states: list[Any], parents: np.ndarray, actions: np.ndarray, children: np.ndarray) -> None:
        for parent, action, child in zip(parents, actions, children, strict=True):
            if child != parent:
                states[child] = states[parent].clone()
            states[child].apply_action(int(action))

    def legal(self, states: list[Any], rows: np.ndarray) -> np.ndarray:
        legal = np.zeros((len(rows), self.num_actions), np.bool_)
        for i, row in enumerate(rows):
            legal[i, states[row].legal_actions()] = True
        return legal

    def to_play(self, states: list[Any], rows: np.ndarray) -> np.ndarray:
        players = [_player_to_move(states[row]) ^ self._first_player for row in rows]
        return np.array(players, np.int8)

    def outcome(self, states: list[Any], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        terminal = np.array([states[row].is_terminal() for row in rows], np.bool_)
        values = np.zeros(len(rows), np.float32)
        for i in np.flatnonzero(terminal):
            state = states[rows[i]]
            values[i] = state.returns()[_player_to_move(state)] / self._rules.max_utility()
        return terminal, values

    def encode(
        self, states: list[Any], rows: np.ndarray, symmetries: np.ndarray
    ) -> tuple[Arrays, np.ndarray]:
        """Raises UsageError: these games have no view for a network."""
        raise self._no_view()

    def snapshot(self, states: list[Any], row: int) -> bytes:
        """Return the game's name, a zero, and its moves so far, 2 bytes each."""
        moves = np.array(states[row].history(), "<i2")
        return self.name.encode() + b"\0" + moves.tobytes()

    def restore(self, states: list[Any], row: int, data: bytes) -> None:
        prefix = self.name.encode() + b"\0"
        moves = data.removeprefix(prefix)
        if not data.startswith(prefix) or len(moves) % 2:
            raise self._foreign("its name or length is not that of this game")
        state = self._rules.new_initial_state()
        for action in np.frombuffer(moves, "<i2").tolist():
            if action not in state.legal_actions():
                raise self._foreign(f"move {action} in it is not legal")
            state.apply_action(action)
        states[row] = state

    def action_name(self, action: int) -> str:
        return str(action)

    def parse_action(self, text: str) -> int:
        return notation.parse_name(text, [str(a) for a in range(self.num_actions)], game=self.name)

    def render(self, states: list[Any], row: int) -> str:
        state = states[row]
        moves = [f"{action}={state.action_to_string(action)}" for action in state.legal_actions()]
        parts = [moves[start : start + _MOVES_PER_LINE] for start in range(0, len(moves), _MOVES_PER_LINE)]
        return "\n".join([str(state).rstrip(), *("  ".join(part) for part in parts)])

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return a line such as `open_spiel:nim,3 12 7 x`: the moves, then x (moved first), o or draw."""
        return notation.game_line(self.name, " ".join(map(str, actions)), outcome)

    def _no_view(self) -> UsageError:
        return UsageError(
            f"{self.name} cannot be shown to a network",
            why="games of OpenSpiel come with rules only; what they show of a position has no common form",
            fix="play it by rollouts (mcts:64) or random, or train a built-in game such as hex5",
        )

    def _foreign(self, problem: str) -> DataError:
        return DataError(
            f"this snapshot is not one of {self.name}",
            why=problem,
            fix="restore it with the game that made it",
        )


def _player_to_move(state: Any) -> int:
    """Return OpenSpiel's number of the player to move; at the end, of the one who did not move last."""
    return 1 - state.full_history()[-1].player if state.is_terminal() else state.current_player()


def _load_rules(short_name: str) -> Any:
    try:
        import pyspiel  # noqa: PLC0415 (an optional dependency)
    except ImportError:
        raise UsageError(
            f"the game {short_name!r} of OpenSpiel cannot be played",
            why="OpenSpiel is not installed",
            fix="pip install open_spiel",
        ) from None
    known = pyspiel.registered_names()
    plain_name = short_name.partition("(")[0]
    if plain_name not in known:
        near = difflib.get_close_matches(plain_name, known, n=3)
        raise UsageError(
            f"OpenSpiel has no game {plain_name!r}",
            why=f"it has {len(known)} others",
            fix=f"did you mean {' or '.join(near)}?"
            if near
            else "choose one such as breakthrough or othello",
        )
    try:
        rules = pyspiel.load_game(short_name)
        rules.new_initial_state()
    except (pyspiel.SpielError, ValueError, IndexError) as error:  # whatever its C++ throws
        raise UsageError(
            f"OpenSpiel does not make the game {short_name!r}",
            why=str(error).splitlines()[0],
            fix=f"try {_PREFIX}{plain_name}, or parameters that it knows",
        ) from error
    _check_kind(rules, pyspiel.GameType, short_name)
    return rules


def _check_kind(rules: Any, kinds: Any, short_name: str) -> None:
    """Raise UsageError unless the game is one that the contract can hold."""
    kind = rules.get_type()
    requirements = {
        "two players": rules.num_players() == 2,
        "moves in turn": kind.dynamics == kinds.Dynamics.SEQUENTIAL,
        "perfect information": kind.information == kinds.Information.PERFECT_INFORMATION,
        "no chance": kind.chance_mode == kinds.ChanceMode.DETERMINISTIC,
        "one's loss being the other's gain": kind.utility == kinds.Utility.ZERO_SUM,
    }
    missing = [requirement for requirement, met in requirements.items() if not met]
    if missing:
        raise UsageError(
            f"OpenSpiel's {short_name!r} is a game of another kind",
            why=f"this contract needs {', '.join(missing)}",
            fix="choose a board game such as open_spiel:breakthrough or open_spiel:othello",
        )
