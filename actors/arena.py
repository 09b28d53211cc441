"""Matches: two players meet on the same openings from both sides, many games in lockstep.

Points are the first player's: win 1, draw ½, loss 0. Its *seat* is the player that it is in a game; seat 0
moves first. `G` games of a match: 2p and 2p+1 are the pair of opening p, the first player in seat 0 and 1.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from actors.openings import Opening
from actors.players import RESIGNED, Player
from core.errors import EvaluationError, UsageError
from core.messages import Steps
from core.ratings import Interval, elo_from_score, elo_interval, score_interval
from core.seeds import derive_seed, mix_keys
from games.game import Game
from search.together import together


class Tally(NamedTuple):
    """What the first player won, drew and lost."""

    wins: int
    draws: int
    losses: int


@dataclass(frozen=True, slots=True)
class MatchGame:
    """One game of a match.

    Attributes:
        pair: number of the opening, which two games share.
        seat: the first player's.
        actions: all moves, the opening's first.
        points: the first player's; None when the pair was set aside.
        line: the game as one line of text (`Game.game_line`), "" when it was not finished.
        reason: why the pair was set aside, else "".
    """

    pair: int
    seat: int
    actions: tuple[int, ...]
    points: float | None
    line: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MatchResult:
    """What came of a match, in the eyes of the first player.

    Only whole pairs count: when a game is set aside its twin is too, so that neither player has the better
    colour more often. Intervals are 95 % and treat a pair as the independent thing
    (`core.ratings.score_interval`).

    Attributes:
        first, second: names of the players.
        games: by pair and seat.
        faults: how often programs of others failed, by player and kind of fault; whoever has the players fills it in.
    """

    first: str
    second: str
    games: tuple[MatchGame, ...]
    faults: Mapping[str, int] = field(default_factory=dict)

    def tally(self, *, seat: int | None = None) -> Tally:
        """Count wins, draws and losses; of one seat or (None) of both."""
        points = [game.points for game in self.games if seat in (None, game.seat)]
        return Tally(points.count(1.0), points.count(0.5), points.count(0.0))

    @property
    def pair_scores(self) -> tuple[float, ...]:
        """Mean points of each whole pair: 0, ¼, ½, ¾ or 1."""
        points = [game.points for game in self.games if game.points is not None]
        return tuple((a + b) / 2 for a, b in zip(points[::2], points[1::2], strict=True))

    @property
    def score(self) -> float:
        """Points per game; nan when no pair was finished."""
        scores = self.pair_scores
        return sum(scores) / len(scores) if scores else math.nan

    @property
    def interval(self) -> Interval:
        return score_interval(self.pair_scores)

    @property
    def elo(self) -> float:
        """How many Elo the first player is stronger; infinite after a clean score."""
        return elo_from_score(self.score)

    @property
    def elo_interval(self) -> Interval:
        return elo_interval(self.pair_scores)

    @property
    def plies(self) -> int:
        """Moves of all games that count, openings included."""
        return sum(len(game.actions) for game in self.games if game.points is not None)

    @property
    def set_aside(self) -> tuple[MatchGame, ...]:
        return tuple(game for game in self.games if game.points is None)


@dataclass(slots=True)
class Progress:
    """How far a match is: the match writes, anybody may read."""

    games_finished: int = 0
    games_set_aside: int = 0
    plies: int = 0


def match(
    game: Game,
    first: Player,
    second: Player,
    *,
    openings: Sequence[Opening],
    seed: int,
    first_pair: int = 0,
    progress: Progress | None = None,
) -> Steps[MatchResult]:
    """Play every opening twice with the seats swapped, all games side by side; a step asks both models.

    Where a player's evaluation fails twice, the pairs in which it was to move are set aside. Others go on.

    Args:
        game: the rules.
        first: ready to choose in all 2 · len(openings) games at once.
        second: likewise, and another object than the first.
        openings: legal moves from the start that leave the game undecided.
        seed: from which the randomness of every move derives, with the numbers of its pair, seat and ply.
        first_pair: number of the first opening, for a match that is played in several parts.
        progress: is kept up to date.

    Raises:
        UsageError: when an opening is not playable.
    """
    group = _Group(
        game,
        openings,
        rows_per_game=max(first.rows_per_game, second.rows_per_game),
        seed=seed,
        first_pair=first_pair,
        progress=progress or Progress(),
    )
    while group.in_play.any():
        turns = [(player, group.to_move(player is second)) for player in (first, second)]
        turns = [(player, games) for player, games in turns if len(games)]
        choices = yield from together(*(group.choose(player, games) for player, games in turns))
        for (_, games), chosen in zip(turns, choices, strict=True):
            if isinstance(chosen, EvaluationError):
                group.set_aside(games, chosen)
            else:
                group.play(games, chosen)
    return MatchResult(first.name, second.name, group.results())


def joined(parts: Sequence[MatchResult]) -> MatchResult:
    """Return the result of one match that was played in parts; there is at least one."""
    games = sorted((game for part in parts for game in part.games), key=lambda game: (game.pair, game.seat))
    faults: Counter[str] = Counter()
    for part in parts:
        faults.update(part.faults)
    return MatchResult(parts[0].first, parts[0].second, tuple(games), faults)


class _Group:
    """The games of a match and their states; each game owns a block of rows, its board is the first."""

    def __init__(
        self,
        game: Game,
        openings: Sequence[Opening],
        *,
        rows_per_game: int,
        seed: int,
        first_pair: int,
        progress: Progress,
    ) -> None:
        num_games = 2 * len(openings)
        self._game = game
        self._progress = progress
        self._first_pair = first_pair
        self._states = game.new_states(num_games * rows_per_game)
        self._roots = np.arange(num_games, dtype=np.int32) * rows_per_game
        self._seats = np.arange(num_games) % 2
        self._actions: list[list[int]] = [[] for _ in range(num_games)]
        self._points = np.full(num_games, np.nan)
        self._reasons = [""] * num_games
        self._keys = np.array(
            [derive_seed(seed, "match", first_pair + g // 2, g % 2) for g in range(num_games)], np.uint64
        )
        self.in_play = np.ones(num_games, bool)
        game.new(self._states, self._roots)
        for g in range(num_games):
            self._open(g, openings[g // 2])

    def _open(self, g: int, opening: Opening) -> None:
        root = self._roots[g : g + 1]
        for action in opening:
            if not (0 <= action < self._game.num_actions and self._game.legal(self._states, root)[0, action]):
                raise UsageError(
                    f"opening {self._first_pair + g // 2} cannot be played: {list(opening)}",
                    why=f"move {len(self._actions[g]) + 1} is not legal in {self._game.name}",
                    fix="give openings of legal moves, such as random_openings returns",
                )
            self._advance(np.array([g]), np.array([action], np.int16))
        if not self.in_play[g]:
            raise UsageError(
                f"opening {self._first_pair + g // 2} leaves nothing to play: {list(opening)}",
                why=f"the game of {self._game.name} is over after it",
                fix="give shorter openings",
            )

    def to_move(self, second: bool) -> np.ndarray:
        """Return int [≤ G]: the games in which the first (or the second) player is to move."""
        movers = self._game.to_play(self._states, self._roots)
        return np.flatnonzero(self.in_play & ((movers == self._seats) != second))

    def choose(self, player: Player, games: np.ndarray) -> Steps[np.ndarray]:
        """Ask a player for its moves in `games`; its randomness is of the game and the ply alone."""
        histories = [tuple(self._actions[g]) for g in games]
        plies = np.array([len(history) for history in histories])
        return player.choose(
            self._game,
            self._states,
            self._roots[games],
            histories=histories,
            keys=mix_keys(self._keys[games], plies),
        )

    def play(self, games: np.ndarray, actions: np.ndarray) -> None:
        # A pair may have been set aside by the other player's failure in this very step.
        still = self.in_play[games]
        games, actions = games[still], actions[still]
        resigned = actions == RESIGNED
        self._give_up(games[resigned])
        games, actions = games[~resigned], actions[~resigned]
        legal = self._game.legal(self._states, self._roots[games])
        assert legal[np.arange(len(games)), actions].all(), "a player chose an illegal move"
        self._advance(games, actions)

    def _give_up(self, games: np.ndarray) -> None:
        """End games as lost for who is to move."""
        mine = self._game.to_play(self._states, self._roots[games]) == self._seats[games]
        self._points[games] = np.where(mine, 0.0, 1.0)
        self.in_play[games] = False
        self._progress.games_finished += len(games)

    def _advance(self, games: np.ndarray, actions: np.ndarray) -> None:
        roots = self._roots[games]
        self._game.play(self._states, roots, actions, roots)
        for g, action in zip(games, actions, strict=True):
            self._actions[g].append(int(action))
        terminal, values = self._game.outcome(self._states, roots)
        mine = self._game.to_play(self._states, roots) == self._seats[games]
        points = (1 + np.where(mine, values, -values)) / 2
        over = games[terminal]
        self._points[over] = points[terminal]
        self.in_play[over] = False
        self._progress.plies += len(games)
        self._progress.games_finished += len(over)

    def set_aside(self, games: np.ndarray, error: EvaluationError) -> None:
        """Take whole pairs out of the match, finished twins too."""
        pairs = np.unique(games // 2)
        for g in np.concatenate([2 * pairs, 2 * pairs + 1]):
            self._progress.games_finished -= int(not self.in_play[g] and not self._reasons[g])
            self._progress.games_set_aside += int(not self._reasons[g])
            self.in_play[g] = False
            self._reasons[g] = f"{error.what}: {error.why}"

    def results(self) -> tuple[MatchGame, ...]:
        return tuple(self._result(g) for g in range(len(self._roots)))

    def _result(self, g: int) -> MatchGame:
        finished = not math.isnan(self._points[g])
        counts = finished and not self._reasons[g]
        outcome = (2 * self._points[g] - 1) * (1 if self._seats[g] == 0 else -1)
        return MatchGame(
            pair=self._first_pair + g // 2,
            seat=int(self._seats[g]),
            actions=tuple(self._actions[g]),
            points=float(self._points[g]) if counts else None,
            line=self._game.game_line(self._actions[g], outcome) if finished else "",
            reason=self._reasons[g],
        )
