"""How strong is it? Matches against a fixed ladder, and the share of solved positions it plays perfectly."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.arena import MatchResult, match
from actors.openings import random_openings
from actors.players import SOLVED_GAMES, make_player, parse_player
from configs.schema import EvaluationConfig, SearchConfig
from core.errors import EvaluationError
from core.messages import Request, Steps
from core.seeds import derive_rng, derive_seed
from games.game import Game
from games.solver import LabelledPositions, labelled_positions
from inference_server.client import Client, drive
from search.contract import ask

OPENING_PLIES = 2
SOLVED_POSITIONS = 256
POLL_SECONDS = 0.5


def perfect_share(game: Game, positions: LabelledPositions, model: str) -> Steps[float]:
    """Return the share of solved positions where the model's likeliest legal move, without search, is perfect."""
    rows = positions.rows
    arrays, views = game.encode(positions.states, rows, np.zeros(len(rows), np.int8))
    (reply,) = yield from ask((Request(model, arrays),))
    logits = np.take_along_axis(
        reply.arrays["policy"].astype(np.float32), game.views[views].astype(np.int64), axis=1
    )
    chosen = np.where(game.legal(positions.states, rows), logits, -np.inf).argmax(axis=1)
    return float(positions.perfect[np.arange(len(rows)), chosen].mean())


class Evaluator:
    """Plays the newest weights against the ladder, again and again while a run goes on.

    Args:
        game: the rules.
        config: opponents, games and how often.
        search: how the model's moves are found; without noise.
        client: the way to the brain.
        newest_version: version of the weights that are newest now.
        model: name that the brain knows them by; a version is asked for as "name@version".
        results_file: where results are appended, a JSON object a line: scores are the model's, with 95 % intervals.
        seed: of openings and opponents; every round meets the same openings, so that rounds compare.

    Attributes:
        rounds: that were finished.
        last_trouble: why the last round was broken off; "" once one was not.
    """

    def __init__(
        self,
        game: Game,
        config: EvaluationConfig,
        search: SearchConfig,
        *,
        client: Client,
        newest_version: Callable[[], int | None],
        model: str,
        results_file: Path,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._game = game
        self._config = config
        self._search = search
        self._client = client
        self._newest_version = newest_version
        self._model = model
        self._results_file = results_file
        self._seed = seed
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._solved: LabelledPositions | None = None
        self._evaluated = -1
        self.rounds = 0
        self.last_trouble = ""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Evaluate whenever it is due and there are new weights, until told to stop."""
        due = self._clock()
        while not should_stop():
            version = self._newest_version()
            if version is None or version == self._evaluated or self._clock() < due:
                self._sleep(POLL_SECONDS)
                continue
            due = self._clock() + self._config.every_seconds
            try:
                self.evaluate(version, should_stop)
                self.last_trouble = ""
            except EvaluationError as error:  # the brain is away; the next round asks again
                self.last_trouble = f"{error.what}: {error.why}"

    def evaluate(self, version: int, should_stop: Callable[[], bool]) -> None:
        """Measure one version against every opponent, and on solved positions where the game has a solver."""
        model = f"{self._model}@{version}"
        if self._game.name in SOLVED_GAMES:
            self._solved = self._solved or labelled_positions(
                self._game, SOLVED_POSITIONS, derive_rng(self._seed, "solved positions")
            )
            share = drive(
                perfect_share(self._game, self._solved, model), self._client, should_stop=should_stop
            )
            if share is not None:
                self._append({"version": version, "seconds": self._seconds(), "perfect_share": share})
        for opponent in self._config.opponents:
            result = self._meet(opponent, model, should_stop)
            if result is None:
                return
            self._append(_line(result, opponent, version, self._seconds()))
        self._evaluated = version
        self.rounds += 1

    def stats(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "evaluated_version": self._evaluated, "trouble": self.last_trouble}

    def _meet(self, opponent: str, model: str, should_stop: Callable[[], bool]) -> MatchResult | None:
        games = self._config.games
        settings = self._search.model_copy(
            update={
                "simulations": self._config.simulations,
                "cheap_simulations": min(8, self._config.simulations),
            }
        )
        first = make_player(
            parse_player("model:main"), self._game, settings=settings, games=games, served_as=model
        )
        second = make_player(parse_player(opponent), self._game, settings=settings, games=games)
        openings = random_openings(self._game, pairs=games // 2, plies=OPENING_PLIES, seed=self._seed)
        seed = derive_seed(self._seed, "match", opponent)
        steps = match(self._game, first, second, openings=openings, seed=seed)
        return drive(steps, self._client, should_stop=should_stop)

    def _seconds(self) -> float:
        return round(self._clock() - self._began, 1)

    def _append(self, line: dict[str, Any]) -> None:
        with self._results_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _line(result: MatchResult, opponent: str, version: int, seconds: float) -> dict[str, Any]:
    return {
        "version": version,
        "seconds": seconds,
        "opponent": opponent,
        "games": len(result.games),
        "score": result.score,
        "low": result.interval.low,
        "high": result.interval.high,
        "elo": result.elo if math.isfinite(result.elo) else None,
    }
