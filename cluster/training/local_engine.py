"""The whole circle in one process and one thread, deterministic: the debugger's friend and the tests' oracle.

The same plain parts as on Ray, joined by function calls. Nothing depends on a clock: two runs with one seed make
the same games and the same weights, bit for bit.
"""

import time
from typing import Any

import numpy as np

from cluster.run import parts
from cluster.run.parts import MODEL
from cluster.run.run_folder import RunFolder
from cluster.training.fit_step import StorePublisher
from configs.schema import RunConfig
from core.metrics import NoMetrics
from inference_server.client import InlineClient
from learner.objective import StepReport
from replay.buffer import LocalObjects, ReplayBuffer
from replay.drawing import Drawn, draw
from replay.records import Ack

STEPS_OF_A_TICK = 8
"""A turn of the circle counts as a second on the parts' clocks, and plays this many steps of the actor."""


class LocalEngine:
    """Runs a configuration in this process; see `cluster.training.train.Engine`.

    Args:
        learn: False plays only, with the weights that are in the folder.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, *, learn: bool = True) -> None:
        self._config = config
        self._ticks = 0
        self._started = False
        self._store = parts.make_store(folder)
        clock = {"clock": lambda: float(self._ticks), "sleep": lambda seconds: None}
        self._replay = parts.make_replay(config, folder, LocalObjects(), limited=learn, clock=clock["clock"])
        source, publisher = _LocalSource(self._replay), StorePublisher(self._store)
        self._learner = (
            parts.make_learner(config, folder, source, publisher, prefetch=0, **clock) if learn else None
        )
        self._host = parts.make_host(config, fetch=self._store.get)
        self._player = parts.make_player(
            config,
            run=folder.name,
            actor=0,
            epoch=self._replay.open_epoch(0),
            client=InlineClient(lambda request: self._host.evaluate(request.model, request.arrays)),
            delivery=_LocalDelivery(self._replay),
            metrics=NoMetrics(),
            **clock,
        )

    def start(self) -> None:
        if self._learner is not None:
            self._learner.resume()
        self._host.load(self._store.get(MODEL))
        self._started = True

    def advance(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._finished():
            self.turn()

    def turn(self) -> None:
        """Play a little, learn as much as the rate limiter allows, and play on with what was learnt."""
        self._ticks += 1
        for _ in range(STEPS_OF_A_TICK):
            self._player.worker.step(timeout_seconds=0.0)
        learnt = True
        while self._learner is not None and learnt and not self._finished():
            learnt = isinstance(self._learner.step_once(), StepReport)
            if self._store.newest_version(MODEL) != self._host.version(MODEL):
                self._host.load(self._store.get(MODEL))

    def stats(self) -> dict[str, dict[str, Any]]:
        return {
            "store": {"damaged": "; ".join(self._store.skipped[-1:])},
            "replay": parts.replay_stats(self._replay),
            "learner": self._learner.stats() if self._learner is not None else {},
            # Without the seconds of each activity: here they are turns of the circle, and would be read as time.
            "actor-0": {name: v for name, v in self._player.stats().items() if not name.endswith("_seconds")},
            "inference-0": {
                "rows": self._host.forward_rows + self._host.cached_rows,
                "cached_rows": self._host.cached_rows,
            },
        }

    def metrics(self) -> NoMetrics:
        return NoMetrics()

    def stop(self) -> None:
        try:
            if self._started:  # what could not be resumed must not be saved over
                self._save()
        finally:
            self._player.close(over=True)
            self._replay.close()

    def _save(self) -> None:
        try:
            self._player.worker.flush(timeout_seconds=10.0)
        finally:
            if self._learner is not None:
                self._learner.finish()

    def _finished(self) -> bool:
        stop, replay = self._config.stop, self._replay.stats()
        learner = self._learner.stats() if self._learner is not None else {}
        steps, games = learner.get("learner_steps", 0), replay["games"]
        return (stop.learner_steps is not None and int(steps) >= stop.learner_steps) or (
            stop.games is not None and games >= stop.games
        )


class _LocalDelivery:
    """Hands chunks to the replay by a call; the acknowledgement is there at once."""

    def __init__(self, replay: ReplayBuffer) -> None:
        self._replay = replay
        self._acknowledged: Ack | None = None

    @property
    def busy(self) -> bool:
        return self._acknowledged is not None

    def send(self, chunk: bytes | None) -> None:
        self._acknowledged = self._replay.admission() if chunk is None else self._replay.add(chunk)

    def poll(self, timeout_seconds: float) -> Ack | None:
        acknowledged, self._acknowledged = self._acknowledged, None
        return acknowledged


class _LocalSource:
    """The replay as the learner sees it: the handles of `LocalObjects` are the chunks, so nothing is left to fetch."""

    def __init__(self, replay: ReplayBuffer) -> None:
        self._replay = replay

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        return draw(self._replay, num_rows, most=most, newest_held=newest_held)

    def update_priorities(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        self._replay.update_priorities(chunk_ids, rows, priorities)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        self._replay.restore_counters(draws, sampled_rows)
