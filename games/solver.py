"""Perfect play, as the yardstick of those who learn: exact values of positions and of each move in them."""

from typing import NamedTuple

import numpy as np

from core.errors import UsageError
from games.game import Game, States
from games.hex import Hex
from games.hex_solver import LARGEST_SOLVED, HexTable


class Solver:
    """Solves positions of one game exactly by negamax with memory; Hex up to 5×5 by `games.hex_solver`.

    What was found stays known, so that many positions of a small game cost little more than a few.

    Args:
        game: the rules.
        max_positions: how many new positions one call may visit, and how many are kept.
    """

    def __init__(self, game: Game, *, max_positions: int = 5_000_000) -> None:
        self._game = game
        self._max_positions = max_positions
        self._hex_table = (
            HexTable(game.size) if isinstance(game, Hex) and game.size <= LARGEST_SOLVED else None
        )
        self._line = game.new_states(game.max_plies + 1)
        self._known: dict[bytes, int] = {}
        self._visits_left = 0

    def solve(self, states: States, row: int) -> int:
        """Return the value of a position under perfect play: -1, 0 or 1 from the view of the player to move.

        Raises:
            UsageError: when more than `max_positions` would have to be visited.
        """
        self._begin(states, row)
        return self._value(0)

    def action_values(self, states: States, row: int) -> np.ndarray:
        """Return float64 [A]: the value of each move for the player to move, nan where illegal.

        Raises:
            UsageError: when more than `max_positions` would have to be visited.
        """
        self._begin(states, row)
        values = np.full(self._game.num_actions, np.nan)
        for action in np.flatnonzero(self._game.legal(self._line, _one(0))[0]):
            values[action] = self._value_of_move(0, action)
        return values

    def _begin(self, states: States, row: int) -> None:
        self._visits_left = self._max_positions
        self._game.restore(self._line, 0, self._game.snapshot(states, row))

    def _value(self, depth: int) -> int:
        """Return the value of the position at `depth` of the line being looked at."""
        terminal, values = self._game.outcome(self._line, _one(depth))
        if terminal[0]:
            return round(float(values[0]))
        if self._hex_table is not None and not self._swap_is_ahead(depth):
            return self._hex_value(self._hex_table, depth)
        key = self._game.snapshot(self._line, depth)
        if key not in self._known:
            self._visit()
            self._known[key] = self._best_value(depth)
        return self._known[key]

    def _best_value(self, depth: int) -> int:
        best = -1
        for action in np.flatnonzero(self._game.legal(self._line, _one(depth))[0]):
            best = max(best, self._value_of_move(depth, action))
            if best == 1:
                break
        return best

    def _value_of_move(self, depth: int, action: np.intp) -> int:
        """Return the value of a move for who makes it; it may be the same player's turn again."""
        self._game.play(self._line, _one(depth), np.array([action], np.int16), _one(depth + 1))
        before, after = (self._game.to_play(self._line, _one(row))[0] for row in (depth, depth + 1))
        value = self._value(depth + 1)
        return value if before == after else -value

    def _swap_is_ahead(self, depth: int) -> bool:
        return self._game.board.extra_actions > 0 and self._line.plies[depth] < 2

    def _hex_value(self, table: HexTable, depth: int) -> int:
        player = int(self._game.to_play(self._line, _one(depth))[0])
        cells = self._line.cells[depth]
        won = table.mover_wins(cells, player, max_positions=self._visits_left)
        if won is None:
            raise self._too_far()
        return 1 if won else -1

    def _visit(self) -> None:
        self._visits_left -= 1
        if self._visits_left < 0:
            raise self._too_far()
        if len(self._known) >= self._max_positions:
            self._known.clear()

    def _too_far(self) -> UsageError:
        return UsageError(
            f"this position of {self._game.name} was not solved",
            why=f"the end is too far away: it takes more than {self._max_positions:,} positions",
            fix="solve a later position or a smaller game, or raise max_positions",
        )


class LabelledPositions(NamedTuple):
    """Positions with the answer.

    Attributes:
        states: the pool that holds them.
        rows: int32 [B], where they are.
        perfect: bool [B, A], the moves that keep the value of the position; every other legal one is worse.
    """

    states: States
    rows: np.ndarray
    perfect: np.ndarray


def labelled_positions(game: Game, count: int, rng: np.random.Generator) -> LabelledPositions:
    """Return `count` distinct positions in which the choice of the move matters, with the perfect moves.

    A position is reached by uniformly random moves, their number drawn uniformly too, and counts when it has
    both a perfect move and a worse one.

    Raises:
        UsageError: when so many are not found, or the game is too large to be solved.
    """
    solver = Solver(game)
    states = game.new_states(count + 1)
    perfect = np.zeros((count, game.num_actions), np.bool_)
    seen: set[bytes] = set()
    found = 0
    for _ in range(100 * count + 1000):
        if found == count:
            break
        # The row after those found; a position that does not count is overwritten by the next.
        if not _play_randomly(game, states, found, rng) or game.snapshot(states, found) in seen:
            continue
        seen.add(game.snapshot(states, found))
        values = solver.action_values(states, found)
        perfect[found] = values == np.nanmax(values)
        found += bool(np.any(values < np.nanmax(values)))
    if found < count:
        raise UsageError(
            f"{count} positions of {game.name} in which the move matters were not found",
            why=f"random play came upon {found} different ones",
            fix=f"ask for at most {found}, or choose a larger game",
        )
    return LabelledPositions(states, np.arange(count, dtype=np.int32), perfect)


def _play_randomly(game: Game, states: States, row: int, rng: np.random.Generator) -> bool:
    """Put the position after a random number of random moves in `row`; return whether it is still in play."""
    game.new(states, _one(row))
    for _ in range(rng.integers(game.max_plies)):
        legal = np.flatnonzero(game.legal(states, _one(row))[0])
        if legal.size == 0:
            return False
        game.play(states, _one(row), legal[[rng.integers(legal.size)]].astype(np.int16), _one(row))
    return not game.outcome(states, _one(row))[0][0]


def _one(row: int) -> np.ndarray:
    return np.array([row], np.int32)
