"""The phases of `tamen bench phases` differ in what they ask at once, and in nothing that is played."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cluster.bench.phase import InPieces, Pieces
from cluster.bench.phases import parse_widths, phase_settings, phases_of
from cluster.bench.random_positions import play_at_random
from cluster.bench.rig import bench_config, untrained_weights, with_model
from core.errors import UsageError
from core.messages import Reply, Request
from games.catalog import make_game
from search.contract import Decisions
from search.drive import run
from search.factory import make_search
from search.hash_evaluator import HashEvaluator

WIDTHS = (5, 3)


class Asked:
    """An evaluator that remembers how many rows each request had."""

    def __init__(self, num_actions: int) -> None:
        self._evaluate = HashEvaluator(num_actions)
        self.rows: list[int] = []

    def __call__(self, request: Request) -> Reply:
        self.rows.append(request.num_rows)
        return self._evaluate(request)


def decide(pieces: Pieces, count: int = 12, *, first: int = 0) -> tuple[Decisions, list[int]]:
    """Decide `count` of 12 positions of hex7 from number `first` on, each with its own key."""
    game = make_game("hex7")
    config = bench_config(
        "hex7", blocks=1, channels=1, precision="fp32", settings=phase_settings(WIDTHS)
    ).search
    search = InPieces(make_search(config, game, 12), pieces)
    states = game.new_states(12 * search.rows_per_game)
    roots = np.arange(12, dtype=np.int32) * search.rows_per_game
    play_at_random(game, states, roots, seed=3)
    chosen, asked = slice(first, first + count), Asked(game.num_actions)
    steps = search.decide(
        game,
        states,
        roots[chosen],
        budgets=np.full(count, config.simulations, np.int32),
        keys=np.arange(100, 112, dtype=np.uint64)[chosen],
        model="m",
        noise=np.ones(count, bool),
        sample=np.ones(count, bool),
    )
    return run(steps, asked), asked.rows


def test_all_phases_play_the_same_moves() -> None:
    together, rows = decide("levels")
    alone = [decide(pieces, 1, first=k) for k in range(12) for pieces in ("positions", "seed", "levels")]

    assert len(rows) <= len(WIDTHS) + 1
    for k in range(12):
        for decided, _ in alone[3 * k : 3 * k + 3]:
            assert decided.actions[0] == together.actions[k]
            np.testing.assert_array_equal(decided.values[0], together.values[k])
            np.testing.assert_array_equal(decided.policies[0], together.policies[k])


def test_each_phase_asks_as_it_says() -> None:
    positions, seed, levels = (decide(pieces, 1)[1] for pieces in ("positions", "seed", "levels"))

    assert levels == [1, 5, 15]
    assert positions == [1] * 21
    assert seed == [1] + [1] * 5 + [1] * 5 + [15]


def test_phases_differ_in_games_in_flight() -> None:
    phases = phases_of(4, 16)

    assert phases["phase0_many"].groups * phases["phase0_many"].games_per_group == 64
    assert (phases["phase2"].groups, phases["phase2"].games_per_group) == (4, 16)
    assert all((phases[name].groups, phases[name].games_per_group) == (1, 1) for name in ("phase0", "phase1"))


@pytest.mark.parametrize("text", ["", "13,", "13;8", "0", "-3", "a,b"])
def test_widths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no widths"):
        parse_widths(text)


def test_widths_are_read() -> None:
    assert parse_widths("13, 8") == (13, 8)


def test_a_trained_model_is_measured_as_it_was_trained(tmp_path: Path) -> None:
    asked = bench_config("hex3", blocks=2, channels=8, precision="fp32", settings=[])
    trained = dataclasses.replace(untrained_weights(asked), version=7)
    path = tmp_path / "trained.safetensors"
    path.write_bytes(trained.to_bytes())

    other = bench_config("tic_tac_toe", blocks=1, channels=4, precision="fp32", settings=["seed=5"])
    config, weights = with_model(other, str(path), runs=tmp_path)

    assert (config.game, config.network, config.seed) == ("hex3", asked.network, 5)
    assert (weights.version, weights.digest) == (7, trained.digest)


def test_a_measurement_without_a_model_takes_an_untrained_one(tmp_path: Path) -> None:
    asked = bench_config("hex3", blocks=1, channels=4, precision="fp32", settings=[])
    config, weights = with_model(asked, None, runs=tmp_path)

    assert config == asked
    assert (weights.game, weights.version) == ("hex3", 0)
