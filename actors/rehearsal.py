"""Plays a little that does not count, so that whoever is to play has loaded every kernel that games need."""

from actors.selfplay import GameGroup
from configs.schema import SearchConfig
from games.game import Game
from search.factory import make_search
from search.hash_evaluator import HashEvaluator

STEPS = 64
"""Enough for some moves of either budget. Of a long game the end is not reached, of which little would be loaded."""


def rehearse(game: Game, settings: SearchConfig, *, steps: int = STEPS) -> None:
    """Play two games by `settings`, with few simulations, against a model that costs nothing.

    Args:
        steps: batches of positions after which they end, if none of them is over by then.
    """
    settings = settings.model_copy(
        update={"simulations": 4, "cheap_simulations": 2, "full_share": 0.5, "minimax_widths": (2, 1)}
    )
    finished: list[object] = []
    group = GameGroup(
        game,
        make_search(settings, game, 2),
        settings,
        num_games=2,
        random_opening_plies=1,
        model="rehearsal",
        seed=0,
        finish=finished.append,
    )
    evaluate, play = HashEvaluator(game.num_actions), group.play()
    requests = next(play)
    while not finished and steps > 0:
        requests = play.send(tuple(evaluate(request) for request in requests))
        steps -= 1
