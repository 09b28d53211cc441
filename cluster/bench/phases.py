"""`tamen bench phases`: what batching is worth, by playing the same games with ever larger requests."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster import environment
from cluster.bench.phase import InPieces, Phase, Pieces
from cluster.bench.random_positions import play_at_random
from cluster.bench.rig import WARM_UP_SECONDS, Measuring, Republisher, folder_with_weights
from cluster.run.parts import make_local_evaluate
from cluster.run.program import Machine, plan, plan_serving
from configs.schema import RunConfig, minimax_positions
from core.errors import UsageError
from core.messages import Steps
from core.seeds import mix_keys
from games.catalog import make_game
from networks.weights import Weights
from search.contract import Decisions
from search.drive import run
from search.factory import make_search


def phases_of(groups: int, games_per_group: int) -> dict[str, Phase]:
    """Return the phases by name; the last plays `groups` times `games_per_group` games, as self-play does."""
    return {
        "phase0": Phase(1, 1, "positions"),
        "phase0_seed": Phase(1, 1, "seed"),
        "phase0_many": Phase(groups * games_per_group, 1, "positions"),
        "phase1": Phase(1, 1, "levels"),
        "phase2": Phase(groups, games_per_group, "levels"),
    }


def parse_widths(text: str) -> tuple[int, ...]:
    """Return the widths of "13,8". Raises UsageError when they are no whole numbers above 0."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(
            f"{text!r} are no widths",
            why="a width is a whole number above 0, one for each ply",
            fix="write them as in --widths 13,8",
        )
    return tuple(int(word) for word in words)


def phase_settings(widths: Sequence[int]) -> list[str]:
    """Return the settings of a run that searches these widths at every move."""
    positions = minimax_positions(widths)
    machine = Machine.here()
    return [
        "search.algorithm=minimax",
        f"search.minimax_widths={list(widths)}",
        f"search.simulations={positions}",
        f"search.cheap_simulations={positions}",
        "search.full_share=1.0",
        f"inference.servers={machine.gpus or machine.cpus}",
        "actors.groups_per_actor=4",
        "actors.games_per_group=16",
    ]


def bench_phases(
    config: RunConfig, weights: Weights, measuring: Measuring, *, identical_moves: int
) -> dict[str, Any]:
    """Play in all phases in turn, each by one actor, with the same network and servers.

    Returns:
        `<phase>_moves_per_s`, and of each phase `calls_per_move_<phase>`, requests that a game waits for in a move, and
        `mean_batch_<phase>`, rows of a forward; the speedups; `same_moves`, the share of `identical_moves` positions
        in which one request a position and one for all games lead to the same move.
    """
    phases = phases_of(config.actors.groups_per_actor, config.actors.games_per_group)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in phases}
    for number in range(measuring.rounds):
        for name, phase in phases.items():
            rounds[name].append(_play(config, weights, phase, measuring.seconds))
            measuring.say(f"round {number + 1}, {name}: {rounds[name][-1]['moves_per_s']:.2f} moves/s")

    def figure(phase: str, key: str) -> float:
        return statistics.median(one[key] for one in rounds[phase])

    def speedup(phase: str, over: str) -> float:
        pairs = zip(rounds[phase], rounds[over], strict=True)
        return statistics.median(fast["moves_per_s"] / slow["moves_per_s"] for fast, slow in pairs)

    result = {f"{name}_moves_per_s": figure(name, "moves_per_s") for name in phases}
    result |= {
        f"{key}_{name}": figure(name, key) for key in ("calls_per_move", "mean_batch") for name in phases
    }
    result |= {
        "speedup_1_over_0": speedup("phase1", "phase0"),
        "speedup_2_over_1": speedup("phase2", "phase1"),
        "speedup_2_over_0": speedup("phase2", "phase0"),
        "speedup_2_over_seed": speedup("phase2", "phase0_seed"),
        "speedup_2_over_many": speedup("phase2", "phase0_many"),
        "same_moves": same_moves(config, weights, identical_moves),
    }
    measuring.say(
        f"levels over positions {result['speedup_1_over_0']:.1f}, games over levels {result['speedup_2_over_1']:.1f},"
        f" in all {result['speedup_2_over_0']:.1f}; same moves {result['same_moves']:.2%}"
    )
    return result | {"config": config.model_dump(mode="json")}


def _play(config: RunConfig, weights: Weights, phase: Phase, seconds: float) -> dict[str, float]:
    """Let one actor play through servers on Ray for a while."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_with_weights(weights, Path(temporary))
        environment.prepare_ray(None)
        import ray

        from cluster.bench.phase_actor import PhaseActor
        from cluster.on_ray.address import connect
        from cluster.on_ray.client import call
        from cluster.on_ray.program import RayProgram, dressed

        connect(None, cpus=Machine.here().cpus)
        try:
            servers = plan(config, Machine.here(), learn=False).count("inference")
            program = RayProgram(
                config, folder, plan_serving(Machine.here(), servers=servers), report=lambda text: None
            )
            program.start()
            handles = program.handles("inference")
            actor = dressed(PhaseActor, num_cpus=0).remote(config, handles, phase, seed=config.seed)
            ray.get(actor.play.remote(WARM_UP_SECONDS), timeout=120.0)
            republisher = Republisher(folder, program.handles("store")[0])
            before = [call(server.stats) for server in handles]
            playing = actor.play.remote(seconds)
            republisher.pass_time(seconds, time.sleep)
            done: dict[str, float] = ray.get(playing, timeout=120.0)
            after = [call(server.stats) for server in handles]
        finally:
            ray.shutdown()
    if not done["moves"]:
        raise UsageError(
            f"no move was finished in {seconds:.0f} s",
            why="a position at a time is slow, and a figure needs some moves",
            fix="measure longer with --seconds, or with smaller --widths",
        )
    rows, batches = (
        sum(now[key] - then[key] for now, then in zip(after, before, strict=True))
        for key in ("rows", "batches")
    )
    return {
        "moves_per_s": done["moves"] / done["seconds"],
        "calls_per_move": done["requests"] * phase.games_per_group / done["moves"],
        "mean_batch": rows / max(1, batches),
    }


def same_moves(config: RunConfig, weights: Weights, count: int) -> float:
    """Return the share of `count` positions where requests of one position and of all lead to the same move.

    What a network says of a position depends, in the last bits, on how many others stand beside it.
    """
    evaluate = make_local_evaluate(config, weights)
    alone, beside = (
        run(_decide(config, weights.model, count, pieces), evaluate).actions
        for pieces in ("positions", "levels")
    )
    return float(np.mean(alone == beside))


def _decide(config: RunConfig, model: str, count: int, pieces: Pieces) -> Steps[Decisions]:
    """Search `count` positions of random play, each with a key of its own."""
    game = make_game(config.game)
    search = InPieces(make_search(config.search, game, count), pieces)
    states = game.new_states(count * search.rows_per_game)
    roots = np.arange(count, dtype=np.int32) * search.rows_per_game
    play_at_random(game, states, roots, seed=config.seed)
    yes = np.ones(count, bool)
    return search.decide(
        game,
        states,
        roots,
        budgets=np.full(count, config.search.simulations, np.int32),
        keys=mix_keys(np.arange(count, dtype=np.uint64), config.seed),
        model=model,
        noise=yes,
        sample=yes,
    )
