"""The benchmarks on Ray: they measure what they say, with new weights coming in."""

import pytest

from cluster.bench import broadcast as bench_broadcast
from cluster.bench import inference as bench_inference
from cluster.bench import phases as bench_phases
from cluster.bench import rig as bench_rig
from cluster.bench import selfplay as bench_selfplay
from cluster.bench.broadcast import broadcast_settings
from cluster.bench.phases import phase_settings
from cluster.bench.rig import Measuring, bench_config
from cluster.plan.curves import bench_curves
from configs.schema import RunConfig
from core.errors import ClusterError

pytestmark = pytest.mark.system  # Ray is started for each, and the raw forward for some: a minute and more

SHORT = Measuring(seconds=1.5, rounds=1, quiet=True)
SMALL = ("actors.count=1", "actors.groups_per_actor=2", "actors.games_per_group=16")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bench_broadcast, bench_inference, bench_phases, bench_selfplay):
        monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(bench_rig, "PUBLISH_SECONDS", 0.5)


def config(game: str, *settings: str) -> RunConfig:
    return bench_config(game, blocks=1, channels=4, precision="fp32", settings=[*settings, *SMALL])


def test_what_clients_receive_is_counted_beside_the_raw_forward() -> None:
    result = bench_inference.bench_inference(config("tic_tac_toe"), SHORT)

    assert result["served_over_raw"] == result["served_over_raw_rounds"][0]
    assert 0 < result["served_per_s"] < result["raw_per_s"]
    assert 16 <= result["mean_batch"] <= 32, "one or both requests in flight"
    assert result["weights_swaps"] >= 1
    assert 0 < result["forward_share"] < 1
    assert result["forward_share"] <= result["busy_ratio"]


def test_the_time_of_self_play_is_accounted_for() -> None:
    settings = bench_selfplay.play_settings(4)
    asked = config("tic_tac_toe", *settings, "inference.servers=1")
    result = bench_selfplay.bench_selfplay(asked, bench_rig.untrained_weights(asked), SHORT)

    shares = [result[f"{name}_share"] for name in ("forward", "search", "transfer", "idle")]
    assert all(share >= 0 for share in shares)
    assert sum(shares) == pytest.approx(1.0, abs=0.1)
    assert result["moves_per_s"] > result["games_per_s"] > 0
    assert 0 < result["evals_over_raw"] < 1


def test_a_curve_is_measured_beside_its_simulation() -> None:
    settings = [*bench_selfplay.play_settings(4), "actors.groups_per_actor=2"]
    result = bench_curves(config("tic_tac_toe", *settings), SHORT, actors=(1,), games=(32,), message_ms=0.5)

    (point,) = result["points"]
    assert point["evals_per_s"] > 0
    assert 16 <= point["mean_batch"] <= 32, "one or both groups"
    assert 0 < point["wait_p50_ms"] <= point["wait_p99_ms"]
    assert 0 < point["uss_mib"] < point["pss_mib"]
    assert point["predicted_evals_per_s"] == pytest.approx(point["evals_per_s"] * (1 + point["error"]))
    assert result["call_ms"] > 0


def test_phases_are_played_in_turn_and_make_the_same_moves() -> None:
    settings = [*phase_settings((2, 2)), "inference.servers=1"]
    asked = config("hex3", *settings)
    result = bench_phases.bench_phases(asked, bench_rig.untrained_weights(asked), SHORT, identical_moves=10)

    assert result["calls_per_move_phase0"] > result["calls_per_move_phase1"]
    assert result["calls_per_move_phase2"] <= 3
    assert result["mean_batch_phase0"] == 1
    assert result["mean_batch_phase2"] > result["mean_batch_phase1"] > 1
    assert result["same_moves"] >= 0.9
    assert result["speedup_2_over_0"] > 0


def test_a_benchmark_that_does_not_begin_is_told_in_three_lines() -> None:
    with pytest.raises(ClusterError, match="did not begin"):
        bench_rig.wait_until(lambda: False, lambda: None, timeout_seconds=0.0)


def test_new_weights_are_followed_from_their_publication_to_every_server() -> None:
    asked = config("tic_tac_toe", *broadcast_settings(), "inference.servers=2")
    result = bench_broadcast.bench_broadcast(asked, SHORT, every_seconds=0.5)

    assert result["syncs"] >= 2 * 2, "two servers, each of them every version"
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["max_ms"]
    assert result["evals_per_s"] > 0
    assert result["selfplay_loss_ratio"] == result["selfplay_loss_rounds"][0] < 1
    assert 1 <= result["mean_batch"] <= 2 * 16
