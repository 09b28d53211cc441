"""The reference daemon's games are learnt from: what its player chooses is foretold, and a random one is beaten."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.bench.rollout import rollout_config
from cluster.external.imitate import GAME
from cluster.run.first_weights import keep_first_weights
from cluster.run.run_folder import RunFolder
from cluster.training.local_engine import LocalEngine
from configs.imitation import ImitationFitSettings
from configs.schema import NetworkConfig, StepConfig
from engines.decision_records import rows_of
from engines.forge_client import Endpoint, ForgeClient
from engines.forge_protocol import GameRequest
from engines.observation import NUM_FEATURES, OBSERVATION_SCHEMA
from engines.questions import NUM_SLOTS
from learner.imitation import Imitation, environment_of, imitate
from learner.offline import Around
from networks.build import build_net
from networks.weights import Weights
from replay.decision_shards import DecisionAbout, DecisionWriter
from tests.cluster.tiny import tiny_run
from tests.engines.reference_daemon import reference_daemon

pytestmark = pytest.mark.soak

ABOUT = DecisionAbout("TamenCards", OBSERVATION_SCHEMA, NUM_FEATURES, NUM_SLOTS)
SMALL = (
    "rollout.envs_per_group=16",
    "rollout.vectorization=sync",
    "rollout.discount=0.995",
    "rollout.normalise_rewards=false",
    "rollout.unroll_steps=32",
    "actors.chunk_rows=16",
    "learner.batch_rows=32",
    "replay.samples_per_insert_slack_rows=32",
    "policy_gradient.epochs=6",
    "policy_gradient.entropy_weight=0.01",
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Endpoint]:
    # A thread for each game: those that a run leaves in play hold theirs until its environments are gone.
    with reference_daemon("--threads", "40", folder=tmp_path) as (endpoint, _):
        yield endpoint


class Publisher:
    def __init__(self) -> None:
        self.published: list[Weights] = []

    def publish(self, weights: Weights) -> None:
        self.published.append(weights)

    def newest_version(self) -> int | None:
        return None


def imitated(daemon: Endpoint, folder: Path) -> tuple[dict[str, Any], Weights]:
    """Return what came of watching 80 games, and the network."""
    writer, client = DecisionWriter(folder / "games", ABOUT), ForgeClient(daemon)
    for seed in [*range(80), 3]:
        rows = rows_of(client.play(GameRequest(("aggro", "control"), "observe", seed=seed)))
        writer.add(rows.game, rows.columns, rows.counts)
    writer.flush()
    assert (writer.games, writer.duplicates) == (80, 1)
    publisher = Publisher()
    imitation = Imitation(
        folder=folder / "games",
        game=GAME,
        network=NetworkConfig(layers=(64, 64), precision="fp32"),
        learner=StepConfig(batch_rows=256, microbatch_rows=256, learning_rate=2e-3, ema_decay=0.9),
        settings=ImitationFitSettings(epochs=4, validation_share=0.2),
    )
    around = Around(publisher, lambda *_: None, lambda: False, lambda _: None)
    result = imitate(imitation, folder / "fit", around)
    return result, publisher.published[0]


def test_what_the_daemons_player_chooses_is_foretold(daemon: Endpoint, tmp_path: Path) -> None:
    result, weights = imitated(daemon, tmp_path)
    report = result["best"]["validation"]
    assert report["accuracy"] > report["majority_accuracy"] + 0.1
    assert result["lost"] == {}
    assert build_net(weights).spec == environment_of(ABOUT)


def run(folder: Path, daemon: Endpoint, steps: int, first: Weights | None = None) -> dict[str, Any]:
    options = f"{{deck: aggro, opponent_deck: aggro, ports: {daemon.port}, opponent: random}}"
    settings = (f"rollout.env_options={options}", f"stop.learner_steps={steps}")
    config = rollout_config("engines.forge_environment:Forge-v0", [*SMALL, *settings], seed=0)
    keep_first_weights(RunFolder(folder), first)
    engine = LocalEngine(config, tiny_run(folder, config))
    engine.start()
    engine.advance(240.0)
    stats = engine.stats()
    engine.stop()
    return stats


def test_a_random_player_is_beaten(daemon: Endpoint, tmp_path: Path) -> None:
    """Of equal decks an untrained net, which chooses by chance too, wins one game in two: 0 on average.

    One that begins with what it has seen the daemon's player do wins from the start.
    """
    early = run(tmp_path / "early", daemon, 24)
    _, weights = imitated(daemon, tmp_path)
    begun = run(tmp_path / "begun", daemon, 24, weights)
    late = run(tmp_path / "late", daemon, 800)
    assert early["replay"]["mean_return"] < 0.25
    assert late["replay"]["mean_return"] > 0.25
    assert begun["replay"]["mean_return"] > 0.25
    assert late["replay"]["returns_counted"] == 100
    assert late["actor-0"]["set_aside"] == 0
