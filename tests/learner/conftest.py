"""A game so simple that a small net learns it in seconds, and the fakes around a learner.

The toy: on a 4×4 board the policy is uniform over the own stones, the outcome is who has more stones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from learner.objective import Columns
from networks.weights import Weights
from replay.drawing import Drawn
from replay.records import Chunk
from replay.sampling import Sample, Wait

torch.set_num_threads(1)

SIDE = 4


def toy_columns(rows: int, *, seed: int, version: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(-1, 2, (rows, SIDE * SIDE)).astype(np.int8)
    cells[:, 0] = 1
    own = (cells == 1).astype(np.float64)
    balance = cells.sum(axis=1)
    return {
        "cells": cells,
        "policy": (own / own.sum(axis=1, keepdims=True)).astype(np.float16),
        "policy_weight": np.ones(rows, np.float32),
        "outcome": np.sign(balance).astype(np.float32),
        "search_value": np.tanh(balance / 4).astype(np.float32),
        "seq": np.arange(rows, dtype=np.int64),
        "step": (np.arange(rows) % 16).astype(np.int32),
        "weights_version": np.full(rows, version, np.int32),
    }


def toy_chunk(rows: int, *, seed: int, version: int = 0) -> bytes:
    columns = toy_columns(rows, seed=seed, version=version)
    return Chunk(run="r", game="toy", actor=3, epoch=1, columns=columns).encode()


@dataclass
class FakeSource:
    """A replay in memory. Draw k depends on k alone, so that a resumed learner is given the same rows.

    Attributes:
        chunks: those in the window.
        wait, failure: what it answers instead of samples.
        fetched: numbers of the chunks that were handed out.
    """

    chunks: dict[int, bytes]
    rows_per_chunk: int
    wait: Wait | None = None
    failure: Exception | None = None
    draws: int = 0
    sampled_rows: int = 0
    fetched: list[int] = field(default_factory=list)

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        if self.failure is not None:
            raise self.failure
        missing = sorted(number for number in self.chunks if number > newest_held)
        self.fetched.extend(missing)
        samples = () if self.wait else tuple(self.sample(num_rows) for _ in range(most))
        return Drawn(samples, tuple((n, self.chunks[n]) for n in missing), min(self.chunks), self.wait)

    def sample(self, num_rows: int) -> Sample:
        rng = np.random.default_rng(self.draws)
        self.draws += 1
        self.sampled_rows += num_rows
        chunk_ids = rng.choice(np.array(sorted(self.chunks), np.int64), num_rows)
        rows = rng.integers(self.rows_per_chunk, size=num_rows).astype(np.int32)
        return Sample(chunk_ids, rows, self.draws, self.sampled_rows)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        self.draws, self.sampled_rows = draws, sampled_rows


@dataclass
class FakePublisher:
    """A weights store that keeps everything, and refuses a version that is not above the newest."""

    published: list[Weights] = field(default_factory=list)
    failure: Exception | None = None

    def publish(self, weights: Weights) -> None:
        if self.failure is not None:
            raise self.failure
        newest = self.newest_version()
        assert newest is None or weights.version > newest
        self.published.append(weights)

    def newest_version(self) -> int | None:
        return self.published[-1].version if self.published else None

    @property
    def versions(self) -> list[int]:
        return [weights.version for weights in self.published]


@pytest.fixture
def spec() -> BoardSpec:
    return BoardSpec(SIDE, SIDE)


@pytest.fixture
def network() -> NetworkConfig:
    return NetworkConfig(blocks=2, channels=8, precision="fp32")


@pytest.fixture
def toy_batch() -> Callable[..., Columns]:
    """Make a batch: toy_batch(rows, seed=…), with the columns that say who made each row."""

    def make(rows: int, *, seed: int = 0, version: int = 0) -> Columns:
        return Chunk("r", "toy", 3, 1, toy_columns(rows, seed=seed, version=version)).training_columns()

    return make


@pytest.fixture
def make_source() -> Callable[..., FakeSource]:
    """Make a replay of some chunks: make_source(chunks=3, rows=50, version=0)."""

    def make(*, chunks: int = 3, rows: int = 50, version: int = 0) -> FakeSource:
        made = {number: toy_chunk(rows, seed=number, version=version) for number in range(1, chunks + 1)}
        return FakeSource(made, rows)

    return make


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()
