"""`tamen bench search`: simulations a second of one core, when evaluations cost next to nothing."""

import statistics
import time
from typing import Any

import numpy as np

from cluster.bench.rig import Measuring
from configs.schema import SearchConfig
from core.messages import Reply, Request
from core.seeds import derive_rng
from games.catalog import make_game
from search.drive import run
from search.factory import make_search
from search.hash_evaluator import HashEvaluator

WARM_UP_MOVES = 3


def bench_search(
    game_name: str, settings: SearchConfig, *, games: int, measuring: Measuring
) -> dict[str, Any]:
    """Play `games` games side by side, every move with all simulations, against an evaluator of hashes.

    Returns:
        simulations_per_s: those that met the end of a game included; median of the rounds.
        simulations_per_cpu_s: the same by the processor time of this process: waiting for a core does not count.
        evaluations_per_s: positions that the evaluator was asked about.
        evaluator_share: of the time, included in the rate.
    """
    table = _Table(game_name, settings, games)
    for _ in range(WARM_UP_MOVES):
        table.move()
    rounds = []
    for number in range(measuring.rounds):
        rounds.append(table.measure(measuring.seconds))
        measuring.say(f"round {number + 1}: {rounds[-1]['simulations_per_s']:,.0f} simulations/s")
    result: dict[str, Any] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    rates = [one["simulations_per_s"] for one in rounds]
    measuring.say(
        f"{game_name}, {games} games, {settings.simulations} simulations: {result['simulations_per_s']:,.0f}/s,"
        f" of the time {result['evaluator_share']:.0%} in the evaluator"
    )
    return result | {"simulations_per_s_rounds": rates, "game": game_name, "games": games}


class _Table:
    """Games that begin anew when they end, and the evaluator that stands in for a network."""

    def __init__(self, game_name: str, settings: SearchConfig, games: int) -> None:
        self._game = make_game(game_name)
        self._search = make_search(settings, self._game, games)
        self._states = self._game.new_states(games * self._search.rows_per_game)
        self._roots = np.arange(games, dtype=np.int32) * self._search.rows_per_game
        self._game.new(self._states, self._roots)
        self._budgets = np.full(games, settings.simulations, np.int32)
        self._yes = np.ones(games, bool)
        self._evaluator = HashEvaluator(self._game.num_actions)
        self._rng = derive_rng(0, "bench search")
        self._evaluating = 0.0
        self._evaluations = 0

    def measure(self, seconds: float) -> dict[str, float]:
        self._evaluating, self._evaluations, simulations = 0.0, 0, 0
        began, cpu_began = time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - began) < seconds:
            self.move()
            simulations += int(self._budgets.sum())
        return {
            "simulations_per_s": simulations / elapsed,
            "simulations_per_cpu_s": simulations / (time.process_time() - cpu_began),
            "evaluations_per_s": self._evaluations / elapsed,
            "evaluator_share": self._evaluating / elapsed,
        }

    def move(self) -> None:
        """Search and play a move in every game."""
        steps = self._search.decide(
            self._game,
            self._states,
            self._roots,
            budgets=self._budgets,
            keys=self._rng.integers(2**64, size=len(self._roots), dtype=np.uint64),
            model="hash",
            noise=self._yes,
            sample=self._yes,
        )
        actions = run(steps, self._answer).actions
        self._game.play(self._states, self._roots, actions, self._roots)
        self._game.new(self._states, self._roots[self._game.outcome(self._states, self._roots)[0]])

    def _answer(self, request: Request) -> Reply:
        began = time.perf_counter()
        reply = self._evaluator(request)
        self._evaluating += time.perf_counter() - began
        self._evaluations += request.num_rows
        return reply
