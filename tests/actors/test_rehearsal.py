"""After a rehearsal nothing is left to load."""

import subprocess
import sys

import pytest

from actors.rehearsal import rehearse
from configs.schema import SearchConfig
from games.catalog import make_game
from search import hash_evaluator

PLAYS_ON = """
import gc, sys
from numba.core.dispatcher import Dispatcher
from actors.rehearsal import rehearse
from actors.selfplay import GameGroup
from configs.schema import SearchConfig
from games.catalog import make_game
from search.factory import make_search
from search.hash_evaluator import HashEvaluator

def loaded():
    return {(d.py_func.__qualname__, s) for d in gc.get_objects() if isinstance(d, Dispatcher) for s in d.signatures}

game, settings = make_game("hex3"), SearchConfig(algorithm=sys.argv[1], simulations=32, cheap_simulations=4)
rehearse(game, settings)
before, finished = loaded(), []
group = GameGroup(game, make_search(settings, game, 3), settings, num_games=3, random_opening_plies=2, model="main",
                  seed=1, finish=finished.append)
evaluate, play = HashEvaluator(game.num_actions), group.play()
requests = next(play)
while len(finished) < 9:
    requests = play.send(tuple(evaluate(request) for request in requests))
print(len(before), sorted(loaded() - before))
"""


@pytest.mark.parametrize("algorithm", ["gumbel", "puct", "minimax"])
def test_games_after_a_rehearsal_load_no_kernel(algorithm: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAYS_ON, algorithm], capture_output=True, text=True, timeout=120, check=True
    )
    kernels, _, more = done.stdout.partition(" ")
    assert int(kernels) > 10
    assert more.strip() == "[]"


def test_a_long_game_is_not_rehearsed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    evaluate = hash_evaluator.HashEvaluator.__call__

    def counted(self: hash_evaluator.HashEvaluator, request: object) -> object:
        asked.append(1)
        return evaluate(self, request)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(hash_evaluator.HashEvaluator, "__call__", counted)
    rehearse(make_game("hex19"), SearchConfig(), steps=5)
    assert len(asked) == 5
