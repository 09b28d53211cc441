"""Self-play: groups of games, endless until wound up, one of which thinks while another waits.

All that a game needs to go on is its key, from which all its randomness derives, and its moves.

Shapes: `G` games of a group, `A` actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from actors.game_log import GameLog, Moves
from actors.harvest import FinishedGame, Row
from configs.schema import SearchConfig
from core.errors import EvaluationError
from core.messages import Steps
from core.seeds import derive_seed, mix_keys, unit_floats
from games.game import Game
from search.contract import Search

# Streams of randomness that all derive from a game's key; the ply is added to each.
_OPENING, _BUDGET, _SEARCH, _SYMMETRY = (stream << 32 for stream in range(1, 5))


@dataclass(slots=True)
class _Slot:
    """One game in play: what has happened since it began."""

    key: np.uint64
    began: float
    opening_plies: int
    actions: list[int]
    values: list[float]
    recorded: list[bool]
    versions: list[int]
    rows: list[Row]


class GameGroup:
    """G games of one kind in lockstep; a finished game goes to `finish` and its slot begins anew, until `wind_up`.

    Args:
        game: the rules.
        search: decides the moves; its trees have room for `num_games` games.
        settings: playout caps and temperature.
        model: name of the model that the search asks.
        seed: from which every game's key derives.
        finish: called with each finished game.

    Attributes:
        moves: played so far.
        set_aside: games that were given up because their evaluation failed twice, or was of no use.
        set_aside_cause: why, of the last of them.
        in_play: games of which moves have been played, and would be lost.
    """

    def __init__(
        self,
        game: Game,
        search: Search,
        settings: SearchConfig,
        *,
        num_games: int,
        random_opening_plies: int,
        model: str,
        seed: int,
        finish: Callable[[FinishedGame], None],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._game = game
        self._search = search
        self._settings = settings
        self._random_opening_plies = random_opening_plies
        self._model = model
        self._seed = seed
        self._finish = finish
        self._clock = clock
        self._states = game.new_states(num_games * search.rows_per_game)
        self._roots = (np.arange(num_games) * search.rows_per_game).astype(np.int32)
        self._games_begun = 0
        self._winding_up = False
        self._log: GameLog | None = None
        self._slots = [self._begin(slot, self._new_key()) for slot in range(num_games)]
        self.moves = 0
        self.set_aside = 0
        self.set_aside_cause = ""

    @property
    def in_play(self) -> int:
        return sum(len(slot.actions) > slot.opening_plies for slot in self._slots)

    def carry_on(self, log: GameLog) -> int:
        """From now on write down in `log` what is played, so that it outlives this process.

        Games found in it that are not over are gone on with, in the place of those that this group would begin: with
        the rows that they would have had, but with new `seconds`. To be called before `play`.

        Returns:
            how many those are.
        """
        self._log = log
        found, log.found = log.found, []
        if not found:
            return 0
        keys = found[-1].keys[: len(self._slots)]
        for g, key in enumerate(keys):
            self._slots[g] = self._begin(g, key)
        place = {int(key): g for g, key in enumerate(keys)}
        sound = np.ones(len(keys), bool)
        for step in found:
            moves = step.of(np.isin(step.keys, keys))
            games = np.array([place[int(key)] for key in moves.keys], np.int64)
            sound[games] &= self._could_follow(games, moves)
            going_on = sound[games]
            self._take_in(games[going_on], moves.of(going_on))
        over, _ = self._game.outcome(self._states, self._roots[: len(keys)])
        for g in np.flatnonzero(over | ~sound):
            self._slots[g] = self._begin(int(g), self._new_key())
        return int(np.count_nonzero(sound & ~over))

    def wind_up(self) -> None:
        """Begin no more games; `play` ends with the last of those in play. Any thread may call."""
        self._winding_up = True

    def play(self) -> Steps[None]:
        """Play until wound up: search every game's position, play the moves, hand over what is finished.

        A step without requests tells that the games were set aside; what is sent for it is ignored.
        """
        for slot in self._slots:
            slot.began = self._clock()  # whoever waited in reserve has not played meanwhile
        while self._slots:
            keys = np.array([slot.key for slot in self._slots], np.uint64)
            plies = np.array([len(slot.actions) for slot in self._slots])
            full = unit_floats(mix_keys(keys, _BUDGET + plies)) < self._settings.full_share
            try:
                decisions = yield from self._search.decide(
                    self._game,
                    self._states,
                    self._roots,
                    budgets=np.where(
                        full, self._settings.simulations, self._settings.cheap_simulations
                    ).astype(np.int32),
                    keys=mix_keys(keys, _SEARCH + plies),
                    model=self._model,
                    noise=full,
                    sample=plies < self._settings.temperature_plies,
                )
            except EvaluationError as error:
                self._set_all_aside(error)
                yield ()
                continue
            moves = Moves(
                keys,
                plies,
                decisions.actions,
                decisions.values,
                full,
                decisions.policies[full].astype(np.float16),
                decisions.weights_version,
            )
            if self._log is not None:
                self._log.append(moves)
            self._take_in(np.arange(len(self._slots)), moves)
            self.moves += len(self._slots)
            self._hand_over_finished()

    def _could_follow(self, games: np.ndarray, moves: Moves) -> np.ndarray:
        """Return bool [K]: which moves are the next of the games in slots `games` [K], and legal."""
        next_plies = np.array([len(self._slots[g].actions) for g in games], np.int64)
        inside = (moves.actions >= 0) & (moves.actions < self._game.num_actions)
        legal = self._game.legal(self._states, self._roots[games])
        return (moves.plies == next_plies) & inside & legal[np.arange(len(games)), moves.actions * inside]

    def _take_in(self, games: np.ndarray, moves: Moves) -> None:
        """Play a move in each of the games in slots `games` [K], and keep what is to be known of it."""
        rows = self._roots[games]
        keys = mix_keys(moves.keys, _SYMMETRY + moves.plies)
        symmetries = (keys % np.uint64(self._game.num_symmetries)).astype(np.int8)
        arrays, views = self._game.encode(self._states, rows, symmetries)
        movers = self._game.to_play(self._states, rows)
        policies = iter(moves.policies)
        for k, g in enumerate(games):
            slot = self._slots[g]
            if moves.full[k]:
                policy = np.empty(self._game.num_actions, np.float16)
                policy[self._game.views[views[k]]] = next(policies)
                inputs = {name: array[k].copy() for name, array in arrays.items()}
                slot.rows.append(Row(len(slot.actions), int(movers[k]), inputs, policy))
            slot.actions.append(int(moves.actions[k]))
            slot.values.append(float(moves.values[k]))
            slot.recorded.append(bool(moves.full[k]))
            slot.versions.append(moves.version)
        self._game.play(self._states, rows, moves.actions, rows)

    def _hand_over_finished(self) -> None:
        terminal, values = self._game.outcome(self._states, self._roots)
        movers = self._game.to_play(self._states, self._roots)
        over = np.flatnonzero(terminal)
        for g in over:
            slot = self._slots[g]
            outcome = float(values[g]) if movers[g] == 0 else -float(values[g])
            self._finish(
                FinishedGame(
                    actions=slot.actions,
                    outcome=outcome,
                    values=slot.values,
                    recorded=slot.recorded,
                    versions=slot.versions,
                    rows=slot.rows,
                    opening_plies=slot.opening_plies,
                    seconds=self._clock() - slot.began,
                )
            )
        self._begin_anew(over)

    def _begin_anew(self, over: np.ndarray) -> None:
        """Start games in slots [K] whose games are over, or close those slots for good."""
        if not self._winding_up:
            for g in over:
                self._slots[g] = self._begin(int(g), self._new_key())
        elif over.size:
            self._roots = np.delete(self._roots, over)
            closed = set(over.tolist())
            self._slots = [slot for g, slot in enumerate(self._slots) if g not in closed]

    def _new_key(self) -> np.uint64:
        self._games_begun += 1
        return np.uint64(derive_seed(self._seed, self._games_begun - 1))

    def _begin(self, slot: int, key: np.uint64) -> _Slot:
        """Start a game in a slot, after a random number of random moves that leave it undecided."""
        root = self._roots[slot : slot + 1]
        draws = np.random.default_rng(int(mix_keys(np.array([key]), _OPENING)[0]))
        self._game.new(self._states, root)
        opening: list[int] = []
        for _ in range(int(draws.integers(self._random_opening_plies + 1))):
            action = int(draws.choice(np.flatnonzero(self._game.legal(self._states, root)[0])))
            self._game.play(self._states, root, np.array([action], np.int16), root)
            opening.append(action)
            if self._game.outcome(self._states, root)[0][0]:
                self._game.new(self._states, root)
                opening = []
                break
        nothing = [0.0] * len(opening), [False] * len(opening), [-1] * len(opening)
        return _Slot(key, self._clock(), len(opening), opening, *nothing, [])

    def _set_all_aside(self, error: EvaluationError) -> None:
        """Give up this group's games: their searches are void."""
        self.set_aside += len(self._slots)
        self.set_aside_cause = error.why
        self._begin_anew(np.arange(len(self._slots)))
