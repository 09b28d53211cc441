"""The benchmark of searches counts what it does."""

import pytest

from cluster.bench.rig import Measuring
from cluster.bench.search import bench_search
from configs.schema import SearchConfig


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_every_simulation_of_every_game_counts(algorithm) -> None:
    settings = SearchConfig(algorithm=algorithm, simulations=8, cheap_simulations=1)
    measuring = Measuring(seconds=0.05, rounds=3, quiet=True)

    result = bench_search("tic_tac_toe", settings, games=4, measuring=measuring)

    assert len(result["simulations_per_s_rounds"]) == 3
    assert result["simulations_per_s"] == sorted(result["simulations_per_s_rounds"])[1]
    # Of the simulations some meet the end of a game and need no evaluation; a root needs one besides.
    assert 0 < result["evaluations_per_s"] < result["simulations_per_s"] * 9 / 8
    assert 0 < result["evaluator_share"] < 1
