"""Compiles every kernel of games, searches, networks and players once, so that no run begins with a minute of silence.

`make setup` runs it as `python -m cluster.warm`; what it compiles stays in NUMBA_CACHE_DIR for all processes.
"""

import multiprocessing
import sys
from typing import Literal

from cluster import environment

GAMES = ("tic_tac_toe", "connect_four", "hex3", "hex3-swap")
"""One of each kind: the kernels of a game do not depend on the size of its board."""


def warm(name: str) -> None:
    """Let a game be played by everyone who can play it, against a model that costs nothing."""
    _self_play(name, "gumbel")
    _self_play(name, "puct")
    _self_play(name, "minimax")
    _match(name, "model:warm:2", "mcts:2")
    _match(name, "model:warm:policy", "random")


def _self_play(name: str, algorithm: Literal["gumbel", "puct", "minimax"]) -> None:
    from actors.rehearsal import rehearse
    from configs.schema import SearchConfig
    from games.catalog import make_game

    game = make_game(name)
    rehearse(game, SearchConfig(algorithm=algorithm), steps=100 * game.max_plies)


def _match(name: str, first: str, second: str) -> None:
    from actors.arena import match
    from actors.players import make_player, parse_player
    from configs.schema import SearchConfig
    from games.catalog import make_game
    from search.drive import run
    from search.hash_evaluator import HashEvaluator

    game = make_game(name)
    players = [
        make_player(parse_player(text), game, settings=SearchConfig(), games=2, served_as="warm")
        for text in (first, second)
    ]
    run(match(game, *players, openings=[()], seed=0), HashEvaluator(game.num_actions))


def _solve(name: str) -> None:
    import numpy as np

    from games.catalog import make_game
    from games.solver import labelled_positions

    labelled_positions(make_game(name), 1, np.random.default_rng(0))


def _remember() -> None:
    import numpy as np

    from inference_server.cache import EvaluationCache, distinct, hash_rows

    cache = EvaluationCache(16)
    hashes = hash_rows({"cells": np.zeros((2, 9), np.int8)})
    first, _ = distinct(hashes)
    cache.insert(hashes[first], {"value": np.zeros(1, np.float32)})
    cache.lookup(hashes)


def _draw_by_priority() -> None:
    import numpy as np

    from replay.samplers import PrioritisedSampler

    sampler = PrioritisedSampler(0.6, 0.4)
    sampler.add(0, 2)
    sampler.draw(2, np.random.default_rng(0))


def _judge_choices() -> None:
    import torch

    from configs.schema import PolicyGradientConfig
    from core.environments import ActionSpec
    from learner.ppo_kernel import fused_ppo_losses

    outputs = {"policy": torch.zeros(1, 2), "value": torch.zeros(1)}
    part = {name: torch.zeros(1) for name in ("log_prob", "advantage", "value_target", "value")}
    part["action"] = torch.zeros(1, 1, dtype=torch.int64)
    fused_ppo_losses(
        outputs,
        part,
        actions=ActionSpec("categorical", (2,)),
        config=PolicyGradientConfig(),
        reward_scale=1.0,
        batch_steps=1,
    )


def _think_and_learn() -> None:
    import torch

    from configs.schema import NetworkConfig
    from games.catalog import make_game
    from networks.build import new_net
    from networks.winograd import fastest_forward
    from networks.winograd_training import fastest_trainable

    cells = {"cells": torch.zeros(1, 9, dtype=torch.int8)}
    for channels in (8, 16):  # each has a kernel of its own
        board = make_game("tic_tac_toe").board
        net = new_net(board, NetworkConfig(blocks=2, channels=channels), seed=0)
        with torch.inference_mode():
            fastest_forward(net)(cells)
        outputs = fastest_trainable(net)(cells)
        (outputs["policy"].sum() + outputs["value"].sum()).backward()


def _solve_hands() -> None:
    import numpy as np

    from poker.sampling import draw_range
    from poker.schedules import DEFAULT_VARIANT, make_schedule
    from poker.solver import Solver
    from poker.toys import leduc

    tree, hands = leduc()
    draw_range(np.random.default_rng(0), np.arange(hands.number))
    for lanes in (True, False):
        solver = Solver(tree, hands, lanes=lanes)
        solver.begin(0, tree, np.ones((2, hands.number)))
        solver.iterate(make_schedule(DEFAULT_VARIANT), 2)
        solver.values()
        solver.exploitability()


def _warm_players() -> None:
    for name in GAMES:
        print(f"compiling {name}", flush=True)
        warm(name)
    _solve("hex3")
    _remember()
    _draw_by_priority()
    _judge_choices()


def _warm_poker_and_networks() -> None:
    print("compiling poker", flush=True)
    _solve_hands()
    print("compiling networks", flush=True)
    _think_and_learn()


def main() -> None:
    """Warm all in two processes of about the same length, naming each part, for they take most of a minute."""
    environment.prepare()
    other = multiprocessing.get_context("spawn").Process(target=_warm_poker_and_networks)
    other.start()
    _warm_players()
    other.join()
    sys.exit(other.exitcode)


if __name__ == "__main__":
    main()
