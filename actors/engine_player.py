"""Somebody else's program as a player: a GTP engine (Go, Hex and other boards) or a UCI engine (chess).

One program plays all games of its player, in turn. It is started with the first move, and again when it fails; it ends
with its player. Who plays at which level is the program's affair, but the randomness of a game is its key's where the
program lets it be.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from actors.players import RESIGNED
from core.errors import EvaluationError
from core.messages import Steps
from engines.chess_moves import check_chess, moves_by_name, position_text
from engines.dialogue import Dialogue
from engines.errors import EngineFault, FaultKind, shown
from engines.gtp import GtpEngine, play_command
from engines.gtp_moves import RESIGN, Vertices, vertices_of
from engines.known import Command
from engines.uci import Limit, UciEngine
from games.game import Game, States

_TRIES = 2


class Seat(Protocol):
    """A running program, asked for one move at a time."""

    def move(self, game: Game, states: States, root: int, history: Sequence[int], key: int) -> int:
        """Return a legal move for the position in row `root`, or RESIGNED.

        Raises:
            EngineFault: the seat is of no use then.
        """
        ...

    def close(self) -> None:
        """End the program."""
        ...


class EnginePlayer:
    """See the module.

    Args:
        name: how results call it.
        open_seat: starts the program.

    Attributes:
        faults: how often the program failed, by kind; also where it did better when it was asked again.
    """

    rows_per_game = 1

    def __init__(self, name: str, open_seat: Callable[[], Seat]) -> None:
        self.name = name
        self.faults: Counter[FaultKind] = Counter()
        self._open_seat = open_seat
        self._seats: list[Seat] = []
        self.close = weakref.finalize(self, _close, self._seats)

    def start(self) -> None:
        """Start the program, if it is not running.

        Raises:
            UsageError, EngineFault: when it cannot be started, or does not play the game.
        """
        if not self._seats:
            self._seats.append(self._open_seat())

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        """See `Player`. Asks no model; raises EvaluationError when the program fails twice at one move."""
        yield from ()
        moves = [
            self._move(game, states, int(root), history, int(key))
            for root, history, key in zip(roots, histories, keys, strict=True)
        ]
        return np.array(moves, np.int16)

    def _move(self, game: Game, states: States, root: int, history: Sequence[int], key: int) -> int:
        faults: list[EngineFault] = []
        while len(faults) < _TRIES:
            try:
                self.start()
                return self._seats[0].move(game, states, root, history, key)
            except EngineFault as fault:
                self.faults[fault.kind] += 1
                faults.append(fault)
                _close(self._seats)
        last = faults[-1]
        raise EvaluationError(last.what, why=last.why, fix=last.fix) from last


class GtpSeat:
    """A GTP engine. Of two moves in one game only what lies between is told; another game is told from its start.

    Raises:
        EngineFault: `refused` when it does not play on the board of `vertices`.
    """

    def __init__(self, command: Command, *, engine: str, vertices: Vertices) -> None:
        self._dialogue = Dialogue(command, engine=engine)
        try:
            self._engine = GtpEngine(self._dialogue)
            _set_up(self._engine, vertices, engine)
        except BaseException:
            self._dialogue.close()
            raise
        self._vertices = vertices
        self._seeded = "set_random_seed" in self._engine.commands
        self._played: tuple[int, ...] | None = ()
        """The moves on its board, those that it made itself too; None when nobody knows them."""

    def move(self, game: Game, states: States, root: int, history: Sequence[int], key: int) -> int:
        """See `Seat`."""
        # Unknown until there is a move: who resigns need not play on from there, and what failed may have been obeyed.
        played, self._played = self._played, None
        self._tell(tuple(history), played, seed=key % 2**31)
        told = self._engine.generate(1 if len(history) % 2 else 0)
        if told == RESIGN:
            return RESIGNED
        action = self._vertices.action(told)
        if action is None or not game.legal(states, np.array([root], np.int32))[0, action]:
            raise _illegal(self._dialogue.engine, told, [self._vertices.names[move] for move in history])
        self._played = (*history, action)
        return action

    def close(self) -> None:
        """See `Seat`."""
        self._dialogue.close()

    def _tell(self, history: tuple[int, ...], played: tuple[int, ...] | None, *, seed: int) -> None:
        commands = []
        if played is None or history[: len(played)] != played:
            played = ()
            commands.append("clear_board")
        for ply in range(len(played), len(history)):
            commands.append(play_command(1 if ply % 2 else 0, self._vertices.names[history[ply]]))
        if self._seeded:
            commands.append(f"set_random_seed {seed}")
        self._engine.ask_all(commands)


class UciSeat:
    """A UCI engine that searches each move to a depth, as if it had never seen the game."""

    def __init__(self, command: Command, *, engine: str, depth: int) -> None:
        self._dialogue = Dialogue(command, engine=engine)
        try:
            self._engine = UciEngine(self._dialogue)
            if "Hash" in self._engine.options:
                self._engine.set_option("Hash", "1")  # it is emptied before each move
        except BaseException:
            self._dialogue.close()
            raise
        self._limit = Limit(depth=depth)

    def move(self, game: Game, states: Any, root: int, history: Sequence[int], key: int) -> int:
        """See `Seat`."""
        state = states[root]
        self._engine.new_game()
        position = position_text(state)
        best = self._engine.go(position, self._limit)
        if best.move is None:
            why = f"it said that there is no move to play after {position}"
            raise EngineFault("protocol", self._dialogue.engine, why=why)
        action = moves_by_name(state).get(best.move)
        if action is None:
            raise _illegal(self._dialogue.engine, best.move, [position])
        return action

    def close(self) -> None:
        """See `Seat`."""
        self._dialogue.close()


def gtp_player(name: str, game: Game, command: Command) -> EnginePlayer:
    """Return the player of a GTP engine. Raises UsageError when GTP has no words for the game."""
    vertices = vertices_of(game)
    return EnginePlayer(name, lambda: GtpSeat(command, engine=name, vertices=vertices))


def uci_player(name: str, game: Game, command: Command, *, depth: int) -> EnginePlayer:
    """Return the player of a UCI engine. Raises UsageError when the game is not chess."""
    check_chess(game)
    return EnginePlayer(name, lambda: UciSeat(command, engine=name, depth=depth))


def _set_up(engine: GtpEngine, vertices: Vertices, name: str) -> None:
    try:
        engine.set_up(vertices)
    except EngineFault as fault:
        if fault.kind != "refused":
            raise
        fix = "choose a game and a board that it plays: --game hex11, --game 'open_spiel:go(board_size=9,komi=7.5)'"
        raise EngineFault("refused", name, why=fault.why, fix=fix) from fault


def _close(seats: list[Seat]) -> None:
    while seats:
        seats.pop().close()


def _illegal(engine: str, move: str, position: list[str]) -> EngineFault:
    return EngineFault(
        "protocol",
        engine,
        why=f"it played {shown(move)}, which is not legal after {' '.join(position) or 'nothing'}",
    )
