"""A run that begins with weights acts as they do from the start, and remembers them whatever becomes of their run."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.external.imitate import GAME
from cluster.run.first_weights import choose_first_weights, first_weights, keep_first_weights
from cluster.run.run_folder import RunFolder
from cluster.run.workloads import MODEL, workload_of
from cluster.training.local_engine import LocalEngine
from configs.loading import load
from configs.schema import NetworkConfig, RunConfig
from core.messages import Request
from engines.observation import NUM_FEATURES, OBSERVATION_SCHEMA
from engines.questions import NUM_SLOTS
from inference_server.weights_store import WeightsStore
from learner.imitation import environment_of
from networks.actor_critic import ActorCritic
from networks.build import new_net, to_weights
from networks.weights import Weights
from replay.decision_shards import DecisionAbout
from tests.cluster.commands import Said, assert_three_lines, run_here
from tests.cluster.tiny import checkpoints, newest_digest, tiny_config, tiny_overrides, tiny_run

ABOUT = DecisionAbout("cards", OBSERVATION_SCHEMA, NUM_FEATURES, NUM_SLOTS)
WAYS = {
    "vtrace": (),
    "ppo": ("policy_gradient.algorithm=ppo", "replay.sampler=fifo", "replay.samples_per_insert=1"),
}
Capsys = pytest.CaptureFixture[str]


def some_run(runs: Path, name: str, *, seed: int) -> RunFolder:
    """Return a run of tic-tac-toe with weights of which nobody else knows."""
    config = tiny_config(seed=seed)
    run = tiny_run(runs / name, config)
    net = new_net(workload_of(config).spec, config.network, seed=seed)
    WeightsStore(run.models).publish(to_weights(net, model=MODEL, version=5, game=config.game))
    return run


def train(capsys: Capsys, runs: Path, *words: object, steps: int = 2) -> Said:
    given = ("tic_tac_toe", *tiny_overrides(), "--steps", steps, "--engine", "local", "--plain")
    return run_here(capsys, "train", *given, *words, "--runs", runs)


def version_0(run: RunFolder) -> Weights:
    return WeightsStore(run.models).get(MODEL, 0)


def test_self_play_begins_with_the_weights_of_another_run_and_goes_on(tmp_path: Path, capsys: Capsys) -> None:
    given, run = some_run(tmp_path, "given", seed=77), RunFolder(tmp_path / "run")
    said = train(capsys, tmp_path, "--name", "run", "--weights", "given")
    assert said.code == 0, said
    assert "begins with given version 5" in said.out
    assert version_0(run).digest == newest_digest(given)
    assert "| began with | given version 5" in (run.root / "model" / "README.md").read_text()
    later = newest_digest(run)
    assert later != newest_digest(given)

    shutil.rmtree(given.root)
    assert "resumes" in train(capsys, tmp_path, "--name", "run", steps=4).out
    assert newest_digest(run) != later
    for text in ("given", "given@5"):
        assert "resumes" in train(capsys, tmp_path, "--name", "run", "--weights", text, steps=4).out
    for text in ("given@4", "other"):
        said = train(capsys, tmp_path, "--name", "run", "--weights", text, steps=4)
        assert_three_lines(said, code=2, mentions=["no run"])
    kept = first_weights(run)
    assert kept is not None
    assert (kept.model, kept.version, kept.digest) == ("given", 5, version_0(run).digest)


def test_the_same_command_goes_on_and_one_with_other_weights_does_not(tmp_path: Path, capsys: Capsys) -> None:
    for name, seed in (("given", 77), ("other", 78)):
        some_run(tmp_path, name, seed=seed)
    train(capsys, tmp_path, "--name", "run", "--weights", "given")
    assert "resumes" in train(capsys, tmp_path, "--name", "run", "--weights", "given@5", steps=3).out
    said = train(capsys, tmp_path, "--name", "run", "--weights", "other", steps=4)
    assert_three_lines(said, code=2, mentions=["it began with given version 5", "leave --weights out"])
    train(capsys, tmp_path, "--name", "plain")
    said = train(capsys, tmp_path, "--name", "plain", "--weights", "given", steps=4)
    assert_three_lines(said, code=2, mentions=["it began with untrained weights"])


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_with_them_again(tmp_path: Path) -> None:
    given, config = some_run(tmp_path, "given", seed=77), tiny_config(learner__checkpoint_every_seconds=1e6)
    run = RunFolder(tmp_path / "run")
    keep_first_weights(run, choose_first_weights("given", config, run, runs=tmp_path))
    tiny_run(run.root, config)
    engine = LocalEngine(config, run)
    engine.start()
    while engine.stats()["learner"]["version"] == 0:
        engine.turn()
    digest = newest_digest(given)
    shutil.rmtree(given.root)
    assert (checkpoints(run), newest_digest(run) == digest) == ([], False)
    LocalEngine(config, run).start()
    assert newest_digest(run) == digest


def test_what_does_not_fit_is_told_before_a_folder_is_made(tmp_path: Path, capsys: Capsys) -> None:
    given = some_run(tmp_path, "given", seed=77)
    file = given.models / MODEL / "00000005.safetensors"
    for words, code, mentions in (
        (("--weights", "nobody"), 2, ["no run 'nobody'", "given"]),
        (("--weights", "given@4"), 2, ["version 4"]),
        (("--weights", tmp_path / "no.safetensors"), 2, ["cannot read"]),
        (
            ("network.channels=16", "--weights", "given"),
            2,
            ["channels 8 instead of 16", "network.channels=8"],
        ),
        (("network.soft_policy=true", "--weights", file), 2, ["soft_policy"]),
        (("game=hex4", "--weights", "given"), 2, ["they are of tic_tac_toe, the run is of hex4"]),
    ):
        assert_three_lines(train(capsys, tmp_path, "--name", "run", *words), code=code, mentions=mentions)
    file.write_bytes(file.read_bytes()[:-1])
    assert_three_lines(
        train(capsys, tmp_path, "--name", "run", "--weights", file), code=1, mentions=["cannot be used"]
    )
    for words in (("--auto", "tic_tac_toe_2p"), ("river_values",)):
        said = run_here(capsys, "train", *words, "--weights", "given", "--runs", tmp_path)
        assert_three_lines(said, code=2, mentions=["--weights says nothing"])
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_a_file_is_enough_and_a_dry_run_says_what_it_would_begin_with(tmp_path: Path, capsys: Capsys) -> None:
    file = tmp_path / "kept.safetensors"
    given = some_run(tmp_path / "elsewhere", "given", seed=77)
    shutil.copy(given.models / MODEL / "00000005.safetensors", file)
    said = train(capsys, tmp_path / "runs", "--name", "run", "--weights", file, "--dry-run")
    assert "# begins with kept.safetensors version 5" in said.out
    assert not (tmp_path / "runs").exists()


def forge(*settings: str) -> RunConfig:
    small = (
        "network.layers=[16]",
        "network.precision=fp32",
        "rollout.vectorization=sync",
        "evaluation.episodes=0",
    )
    return load("forge", [*small, "rollout.envs_per_group=1", *settings])


def imitated() -> ActorCritic:
    """Return a net that has scales."""
    net = ActorCritic(environment_of(ABOUT), NetworkConfig(layers=(16,)), seed=3)
    rng, shape = np.random.default_rng(0), (NUM_FEATURES + NUM_SLOTS,)
    net.set_observation_moments(rng.normal(2, 3, shape), rng.uniform(0.5, 4, shape))
    return net


def some_requests(rows: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    seen, mask = rng.integers(0, 20, (rows, NUM_FEATURES)), rng.random((rows, NUM_SLOTS)) < 0.5
    return np.concatenate([seen, mask], axis=1).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_rollouts_of_forge_begin_with_what_was_imitated(way: str, tmp_path: Path) -> None:
    net, config, run = imitated(), forge(*WAYS[way]), RunFolder(tmp_path / "run")
    file = tmp_path / "cards.safetensors"
    file.write_bytes(to_weights(net, model=MODEL, version=3, game=GAME).to_bytes())
    keep_first_weights(run, choose_first_weights(str(file), config, run, runs=tmp_path))
    tiny_run(run.root, config)
    engine = LocalEngine(config, run)
    engine.start()

    observation = some_requests(50)
    with torch.inference_mode():
        wanted = net({"observation": torch.from_numpy(observation)})
    reply = engine._host.evaluate(MODEL, Request(MODEL, {"observation": observation}).arrays)
    for name in ("policy", "value"):
        np.testing.assert_allclose(reply.arrays[name], wanted[name].numpy(), rtol=1e-5, atol=1e-6)
    untrained = new_net(workload_of(config).spec, config.network, seed=0)
    with torch.inference_mode():
        other = untrained({"observation": torch.from_numpy(observation)})["policy"]
    assert (other - wanted["policy"]).abs().max() > 1e-3


def test_the_network_that_imitates_is_the_one_of_the_preset() -> None:
    assert workload_of(forge()).spec == environment_of(ABOUT)


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (("forge", "network.layers=[8]"), "network.layers=[16]"),
        (("cartpole",), "the run is of gym:CartPole-v1"),
    ],
)
def test_rollouts_do_not_begin_with_weights_of_another_network(
    words: Sequence[str], mentions: str, tmp_path: Path, capsys: Capsys
) -> None:
    file = tmp_path / "cards.safetensors"
    file.write_bytes(to_weights(imitated(), model=MODEL, version=3, game=GAME).to_bytes())
    said = run_here(capsys, "train", *words, "--weights", file, "--runs", tmp_path / "runs")
    assert_three_lines(said, code=2, mentions=[mentions])
    assert not (tmp_path / "runs").exists()
