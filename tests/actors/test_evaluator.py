"""How strength is measured: who plays perfectly has a share of one, and rounds are written down once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.evaluator import Evaluator, perfect_share
from configs.schema import EvaluationConfig, SearchConfig
from core.errors import EvaluationError
from core.messages import Reply, Request
from core.seeds import derive_rng
from games.catalog import make_game
from games.game import Game
from games.solver import LabelledPositions, labelled_positions
from inference_server.client import InlineClient
from search.drive import run
from search.hash_evaluator import HashEvaluator

CONFIG = EvaluationConfig(every_seconds=10, games=4, simulations=4, opponents=("random", "mcts:4"))


def labelled(game: Game, count: int = 60) -> LabelledPositions:
    return labelled_positions(game, count, derive_rng(0, "test"))


def opinion(game: Game, positions: LabelledPositions, wanted: np.ndarray) -> Callable[[Request], Reply]:
    """Return a model that likes the moves `wanted` bool [B, A], wherever its view of the board has them."""
    _, views = game.encode(positions.states, positions.rows, np.zeros(len(positions.rows), np.int8))
    policy = np.zeros(wanted.shape, np.float16)
    np.put_along_axis(policy, game.views[views].astype(np.int64), wanted.astype(np.float16), axis=1)
    value = np.zeros(len(wanted), np.float32)
    return lambda request: Reply({"policy": policy, "value": value}, weights_version=0)


@pytest.mark.parametrize("name", ["tic_tac_toe", "hex3", "hex3-swap"])
def test_who_likes_the_perfect_moves_has_a_share_of_one_and_who_likes_the_others_of_nothing(
    name: str,
) -> None:
    game = make_game(name)
    positions = labelled(game)
    legal = game.legal(positions.states, positions.rows)
    perfect = opinion(game, positions, positions.perfect)
    worst = opinion(game, positions, ~positions.perfect)

    assert (legal & ~positions.perfect).any(axis=1).all()
    assert run(perfect_share(game, positions, "main"), perfect) == 1.0
    assert run(perfect_share(game, positions, "main"), worst) == 0.0


def test_who_knows_nothing_has_about_the_share_of_a_random_move() -> None:
    game = make_game("tic_tac_toe")
    positions = labelled(game, 200)
    by_chance = (
        positions.perfect.sum(axis=1) / game.legal(positions.states, positions.rows).sum(axis=1)
    ).mean()
    share = run(perfect_share(game, positions, "main"), HashEvaluator(9))

    assert share == pytest.approx(by_chance, abs=0.15)
    assert share < 0.8


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def an_evaluator(
    folder: Path,
    clock: Clock,
    *,
    evaluate: Callable[[Request], Reply] | None = None,
    newest_version: Callable[[], int | None] = lambda: 0,
    game: str = "tic_tac_toe",
    seed: int = 0,
) -> Evaluator:
    made = make_game(game)
    return Evaluator(
        made,
        CONFIG,
        SearchConfig(simulations=8, cheap_simulations=4),
        client=InlineClient(evaluate or HashEvaluator(made.num_actions)),
        newest_version=newest_version,
        model="main",
        results_file=folder / "evaluations.jsonl",
        seed=seed,
        clock=clock,
        sleep=clock.sleep,
    )


def results(folder: Path) -> list[dict[str, Any]]:
    path = folder / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def never() -> bool:
    return False


def test_a_round_tells_the_share_of_perfect_moves_and_a_score_against_each_opponent(tmp_path: Path) -> None:
    an_evaluator(tmp_path, Clock()).evaluate(7, never)
    share, *scores = results(tmp_path)

    assert share.keys() == {"version", "seconds", "perfect_share"}
    assert 0 < share["perfect_share"] < 1
    assert [line["opponent"] for line in scores] == ["random", "mcts:4"]
    for line in scores:
        assert line["version"] == 7
        assert line["games"] == 4
        assert 0 <= line["low"] <= line["score"] <= line["high"] <= 1


def test_a_game_without_a_solver_is_judged_by_its_matches_alone(tmp_path: Path) -> None:
    an_evaluator(tmp_path, Clock(), game="connect_four").evaluate(7, never)

    assert [line.get("opponent") for line in results(tmp_path)] == ["random", "mcts:4"]


def test_the_version_that_is_judged_is_the_one_that_is_asked(tmp_path: Path) -> None:
    asked = set()

    def evaluate(request: Request) -> Reply:
        asked.add(request.model)
        return HashEvaluator(9)(request)

    an_evaluator(tmp_path, Clock(), evaluate=evaluate).evaluate(7, never)

    assert asked == {"main@7"}


def test_the_same_weights_and_seed_score_the_same(tmp_path: Path) -> None:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        an_evaluator(tmp_path / name, Clock(), seed=4).evaluate(7, never)

    assert results(tmp_path / "first") == results(tmp_path / "again")


def until(clock: Clock, seconds: float) -> Callable[[], bool]:
    return lambda: clock.now >= seconds


def test_new_weights_are_judged_when_a_round_is_due_and_old_ones_never_again(tmp_path: Path) -> None:
    clock, versions = Clock(), [0, 1]
    evaluator = an_evaluator(tmp_path, clock, newest_version=lambda: versions[clock.now >= 3])
    evaluator.run(until(clock, 45))

    began = [(line["version"], line["seconds"]) for line in results(tmp_path) if "perfect_share" in line]
    assert began == [(0, 0.0), (1, 10.0)]
    assert evaluator.stats() == {"rounds": 2, "evaluated_version": 1, "trouble": ""}


def test_nothing_is_judged_before_there_are_weights(tmp_path: Path) -> None:
    clock = Clock()
    an_evaluator(tmp_path, clock, newest_version=lambda: None).run(until(clock, 30))

    assert results(tmp_path) == []


def test_a_brain_that_is_away_spoils_a_round_and_no_more(tmp_path: Path) -> None:
    clock = Clock()

    def evaluate(request: Request) -> Reply:
        if clock.now < 15:
            raise EvaluationError("no answer", why="it is away", fix="wait")
        return HashEvaluator(9)(request)

    evaluator = an_evaluator(tmp_path, clock, evaluate=evaluate)
    told: list[str] = []

    def over() -> bool:
        told.append(evaluator.last_trouble)
        return clock.now >= 40

    evaluator.run(over)

    assert list(dict.fromkeys(told)) == ["", "no answer: it is away"]
    assert told[-1] == ""
    assert {line["seconds"] for line in results(tmp_path)} == {20.0}
    assert evaluator.rounds == 1


def test_a_round_that_is_stopped_writes_nothing_more_and_does_not_count(tmp_path: Path) -> None:
    class Silent(InlineClient):
        def wait_any(self, handles, *, timeout_seconds):
            return None

    evaluator = an_evaluator(tmp_path, Clock())
    evaluator._client = Silent(HashEvaluator(9))
    evaluator.evaluate(7, lambda: True)

    assert results(tmp_path) == []
    assert evaluator.rounds == 0
