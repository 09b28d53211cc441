"""One board as a GTP program keeps it: moves of either colour as they are told, and a mind that thinks about it.

The rules of `games` alternate strictly; GTP does not. What was told is therefore kept as it came and laid out as a game
of alternating moves (`GameTable._laid_out`): in Go a pass stands for a missing move, in Hex a `SKIP`; in Hex white may
begin, on the board turned over, or have swapped. Other games cannot be told a colour twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.errors import UsageError
from engines.gtp_go import area_score, board_text, stones_of
from engines.gtp_moves import RESIGN, Vertices, vertices_of
from engines.gtp_text import COLOURS, Player
from games.game import Game, States
from games.hex import Hex

SKIP = -1
"""Stands in a history of Hex for a move that was not made: the other colour laid another stone."""
_OTHER: tuple[Player, Player] = (1, 0)
_TRANSPOSED = 2  # the view of Hex that exchanges the sides of both players


@dataclass(frozen=True, slots=True)
class Thought:
    """What a mind holds of a position, from the view of the player to move.

    Attributes:
        action: the move to play.
        value: in [-1, 1]; None when the mind has no opinion.
        policy: float [A], how good each move seems; sums to 1.
        visits: int [A], simulations that went through each move; all 0 without a search.
    """

    action: int
    value: float | None
    policy: np.ndarray
    visits: np.ndarray


class Mind(Protocol):
    """Whatever chooses moves behind the protocol.

    Attributes:
        name: how programs are told that they play against it.
        rows: state rows that it needs; the board is in row 0, the rest is its own.
    """

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> int: ...

    def think(
        self,
        game: Game,
        states: States,
        history: Sequence[int],
        *,
        search: bool,
        hurried: Callable[[], bool],
    ) -> Thought:
        """Think about the position in row 0, which is not terminal and came about by `history`.

        Args:
            game: the rules.
            states: the pool.
            history: the moves from the start; in Hex `SKIP` among them.
            search: whether to search, or to say what is seen at a glance.
            hurried: whether somebody waits for an answer now; asked often, and heeded soon.
        """
        ...


class GameTable:
    """A game under way and the mind that is asked about it.

    Args:
        game: the rules.
        mind: who thinks.

    Raises:
        UsageError: when GTP has no words for the moves of the game.
    """

    def __init__(self, game: Game, mind: Mind) -> None:
        self.vertices: Vertices = vertices_of(game)
        self._game = game
        self._hex = game if isinstance(game, Hex) else None
        self._mind = mind
        self._states = game.new_states(mind.rows)
        self._root = np.zeros(1, np.int32)
        self._told: list[tuple[Player, int]] = []
        self._turned = False
        self._history: list[int] = []
        self.clear()

    @property
    def name(self) -> str:
        return f"tamen {self._mind.name} at {self._game.name}"

    @property
    def terminal(self) -> bool:
        return bool(self._game.outcome(self._states, self._root)[0][0])

    @property
    def to_play(self) -> Player:
        """Whose turn it is; at the end, whose it would be."""
        seat = int(self._game.to_play(self._states, self._root)[0])
        return 1 if seat != self._turned else 0

    def clear(self) -> None:
        """Begin anew."""
        self._set([], turned=False)
        self._told = []

    def play(self, player: Player, text: str) -> None:
        """Play the move that `text` names for `player`.

        Raises:
            UsageError: when it is none, or cannot be played; nothing has changed then.
        """
        self._play((player, self._action(text)))

    def play_all(self, moves: Sequence[tuple[Player, str]]) -> None:
        """Play several moves as `play` does, all of them or, when one cannot be played, none."""
        told: list[tuple[Player, int]] = [(player, self._action(text)) for player, text in moves]
        self._play(*told)

    def undo(self) -> None:
        """Take the last move back. Raises UsageError when there is none."""
        if not self._told:
            raise UsageError("cannot undo", why="no move was played", fix="play one")
        told = self._told[:-1]
        self._lay_out(told)
        self._told = told

    def generate(self, player: Player, *, play: bool, hurried: Callable[[], bool]) -> str:
        """Return the mind's move for `player`, and play it where `play`.

        At the end of a game it is "pass" in Go, which is over by passes; elsewhere "resign" for who has lost.

        Raises:
            UsageError: when the game is over otherwise, or the rules of the game do not let the player move now.
        """
        try:
            self._give_turn(player)
            if self.terminal and self.vertices.pass_action is not None:
                action = self.vertices.pass_action
            elif self.terminal and self.winner() == _OTHER[player]:
                return RESIGN
            else:
                action = self._seen(self.think(search=True, hurried=hurried).action)
        finally:
            self._lay_out(self._told)
        if play:
            self._play((player, action))
        return self.vertices.names[action]

    def think(self, *, search: bool, hurried: Callable[[], bool]) -> Thought:
        """Return what the mind holds of the position, its moves as `policy` and `visits` of the game's own board.

        Raises:
            UsageError: when the game is over.
        """
        if self.terminal:
            raise UsageError(
                "the game is over", why="there is nothing to think about", fix="undo, or clear_board"
            )
        return self._mind.think(self._game, self._states, self._history, search=search, hurried=hurried)

    def by_vertex(self, numbers: np.ndarray) -> list[tuple[str, float]]:
        """Return (point, number) for each point whose number, one for each action of a thought, is above 0."""
        seen = [(self._seen(int(action)), float(numbers[action])) for action in np.flatnonzero(numbers > 0)]
        return [
            (self.vertices.names[action], number)
            for action, number in sorted(seen)
            if action < self.vertices.num_points
        ]

    def name_of(self, action: int) -> str:
        """Return how a move of a thought is written."""
        return self.vertices.names[self._seen(action)]

    def legal(self) -> list[str]:
        """Return the moves that can be played now; none at the end."""
        actions = np.flatnonzero(self._game.legal(self._states, self._root)[0])
        return [
            self.vertices.names[action] for action in sorted(self._seen(int(action)) for action in actions)
        ]

    def winner(self) -> Player | None:
        """Return who has won, None after a draw. Raises UsageError while the game goes on."""
        terminal, values = self._game.outcome(self._states, self._root)
        if not terminal[0]:
            raise UsageError("cannot score", why="the game is not over", fix="play it to its end")
        if values[0] == 0:
            return None
        return self.to_play if values[0] > 0 else _OTHER[self.to_play]

    def score(self) -> str:
        """Return how the game ended: "B+3.5" in Go, "W+" in other games, "0" for a draw.

        Raises:
            UsageError: when it is not over.
        """
        winner = self.winner()
        if winner is None:
            return "0"
        points = ""
        if self.vertices.komi is not None:
            points = f"{abs(area_score(self._stones(), self.vertices.komi)):g}"
        return f"{'BW'[winner]}+{points}"

    def render(self) -> str:
        """Return the board as lines of text, those of a board turned over with a word about it."""
        if self.vertices.komi is not None:
            names = self.vertices.names[: self.vertices.width]
            return board_text(self._stones(), [name[0].upper() for name in names])
        turned = "\n(white began: turned over, white's stones are shown as black's)" if self._turned else ""
        return self._game.render(self._states, 0) + turned

    def _stones(self) -> np.ndarray:
        return stones_of(self._states[0], self.vertices.width)

    def _action(self, text: str) -> int:
        action = self.vertices.action(text)
        if action is None:
            raise _illegal(text, f"the moves are {self.vertices.names[0]} to {self.vertices.names[-1]}")
        return action

    def _play(self, *moves: tuple[Player, int]) -> None:
        told = [*self._told, *moves]
        self._lay_out(told)
        self._told = told

    def _lay_out(self, told: list[tuple[Player, int]]) -> None:
        """Bring the board to where the moves in `told` lead.

        Raises:
            UsageError: when they cannot be played so; the board is as it was then.
        """
        before = self._history, self._turned
        actions, turned = self._laid_out(told)
        try:
            self._set(actions, turned=turned)
        except UsageError:
            self._set(before[0], turned=before[1])
            raise

    def _laid_out(self, told: list[tuple[Player, int]]) -> tuple[list[int], bool]:
        """Return the moves of a game that alternates, and whether it is played on the board turned over."""
        if not told or told[0][0] == 0 or self._hex is None:
            return self._alternating(told, first=0), False
        views = self._hex.views[_TRANSPOSED]
        if self._hex.board.extra_actions and told[0][1] < self.vertices.num_points:
            first = int(views[told[0][1]])
            return [first, self.vertices.num_points, *self._alternating(told[1:], first=0)], False
        actions = self._alternating(told, first=1)
        return [action if action == SKIP else int(views[action]) for action in actions], True

    def _alternating(self, told: list[tuple[Player, int]], *, first: Player) -> list[int]:
        actions: list[int] = []
        for player, action in told:
            if action != self.vertices.pass_action:
                self._turn_to(player, actions, first=first)
            elif player != (first + len(actions)) % 2:
                continue  # with the pass that is missing before it, it would end the game; so the other is to move
            actions.append(action)
        return actions

    def _turn_to(self, player: Player, actions: list[int], *, first: Player) -> None:
        """Let a move of `player`'s, no pass, be the next in `actions`. A game of Go goes on so after two passes.

        Raises:
            UsageError: when the rules of the game let the other one move.
        """
        passed = self.vertices.pass_action
        if player != (first + len(actions)) % 2:
            if passed is None and self._hex is None:
                why = f"it is the turn of {COLOURS[1 - player]}, and {self._game.name} knows no pass"
                raise _illegal(f"of {COLOURS[player]}", why)
            actions.append(SKIP if passed is None else passed)
        while passed is not None and actions[-2:] == [passed, passed]:
            del actions[-2:]

    def _set(self, actions: list[int], *, turned: bool) -> None:
        self._history, self._turned = actions, turned
        self._game.new(self._states, self._root)
        for action in actions:
            if action == SKIP:
                assert self._hex is not None
                self._hex.skip_turn(self._states, 0)
                continue
            if action == self.vertices.pass_action and self.terminal:
                return  # programs pass on when the game is over
            if not self._game.legal(self._states, self._root)[0, action]:
                raise _illegal(self.name_of(action), "it is taken, the game is over, or the rules forbid it")
            self._game.play(self._states, self._root, np.array([action], np.int16), self._root)

    def _give_turn(self, player: Player) -> None:
        """Make the board one on which it is the player's turn, as `_laid_out` does before a move of the player's."""
        if self.terminal:
            return
        if not self._told and self._hex is not None and not self._hex.board.extra_actions:
            self._set([], turned=player == 1)
        actions = list(self._history)
        self._turn_to(player, actions, first=1 if self._turned else 0)
        if actions != self._history:
            self._set(actions, turned=self._turned)

    def _seen(self, action: int) -> int:
        """Return the action of the board as told for one of the board as played, or the other way about."""
        return int(self._game.views[_TRANSPOSED, action]) if self._turned else action


def _illegal(move: str, why: str) -> UsageError:
    return UsageError(f"illegal move {move}", why=why, fix="see all_legal_moves")
