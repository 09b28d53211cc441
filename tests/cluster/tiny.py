"""Runs so small that the whole circle turns in a second, and what they leave on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.run.run_folder import RunFolder, open_run
from configs.loading import load
from configs.schema import RunConfig
from inference_server.weights_store import WeightsStore
from replay.archive import StoredChunk
from replay.records import Chunk

SETTINGS = {
    "network.blocks": 1,
    "network.channels": 8,
    "network.precision": "fp32",
    "search.simulations": 4,
    "search.cheap_simulations": 4,
    "search.gumbel_considered_actions": 4,
    "actors.games_per_group": 8,
    "actors.chunk_rows": 64,
    "actors.flush_seconds": 1.0,
    "inference.cache_positions": 1024,
    "replay.min_rows": 64,
    # Everything ever played stays on disk, so that it can be counted.
    "replay.capacity_rows": 10_000_000,
    "replay.window_exponent": 1.0,
    "replay.window_growth": 1.0,
    "replay.samples_per_insert_slack_rows": 256,
    "learner.batch_rows": 32,
    "learner.publish_every_steps": 4,
    "learner.checkpoint_every_seconds": 1.0,
    "evaluation.games": 0,
    "stop.minutes": "null",
}


def tiny_overrides(**changed: Any) -> list[str]:
    """Return the settings as they are typed; `changed` has "__" for the dot of a name."""
    settings: Mapping[str, Any] = SETTINGS | {
        name.replace("__", "."): value for name, value in changed.items()
    }
    return [f"{name}={value}" for name, value in settings.items()]


def tiny_config(**changed: Any) -> RunConfig:
    """Return a run of tic-tac-toe that turns its circle several times a second."""
    return load("tic_tac_toe", tiny_overrides(**changed))


def tiny_run(folder: Path, config: RunConfig) -> RunFolder:
    """Return the folder of a run, opened once so that it has its configuration."""
    run = RunFolder(folder)
    open_run(run, config).release()
    return run


def games_on_disk(folder: RunFolder) -> list[tuple[int, int, int]]:
    """Return (actor, epoch, seq) of every game in the chunk files, in the order of their arrival."""
    files = sorted((folder.root / "replay").glob("*.chunk"))
    stored = [StoredChunk.decode(path.read_bytes(), source=path.name) for path in files]
    chunks = [Chunk.decode(one.chunk) for one in stored]
    return [(chunk.actor, chunk.epoch, game.seq) for chunk in chunks for game in chunk.games]


def game_lines(folder: RunFolder) -> int:
    """Return how many games lie in the folder as text."""
    lines = [line for path in folder.games.glob("*.txt") for line in path.read_text().splitlines()]
    return sum(not line.startswith("#") for line in lines)


def checkpoints(folder: RunFolder) -> list[int]:
    """Return the numbers of the checkpoints."""
    return sorted(int(path.name) for path in folder.checkpoints.iterdir() if path.name.isdecimal())


def newest_digest(folder: RunFolder) -> str:
    """Return the digest of the weights published last."""
    return WeightsStore(folder.models).get("main").digest
