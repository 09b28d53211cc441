"""Small networks with an opinion, positions to ask them about, and a host whose every step a test decides."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from configs.schema import InferenceConfig, NetworkConfig
from core.errors import EvaluationError
from core.messages import Arrays, Reply, Request
from core.seeds import derive_rng
from games.catalog import make_game
from inference_server.model_host import ModelHost
from networks.build import new_net, to_weights
from networks.weights import Weights

torch.set_num_threads(1)

TIMEOUT_SECONDS = 30.0
"""Of every wait in these tests; reached only when something is broken."""


def some_weights(
    model: str = "main", *, version: int = 0, game: str = "tic_tac_toe", channels: int = 8
) -> Weights:
    """Return random weights; another version is another network.

    With 8 channels a net runs in compiled kernels, as in a run; with 4 torch runs it.
    """
    network = NetworkConfig(blocks=1, channels=channels)
    drawn = to_weights(
        new_net(make_game(game).board, network, seed=0), model=model, version=version, game=game
    )
    rng = derive_rng(version, model)
    tensors = {
        name: rng.normal(0.0, 0.3, tensor.shape).astype(np.float32) for name, tensor in drawn.tensors.items()
    }
    return Weights.pack(tensors, model=model, version=version, game=game, network=drawn.network)


def damaged(weights: Weights) -> Weights:
    """Return `weights` of which one number was altered after the digest was taken."""
    name, tensor = next(iter(weights.tensors.items()))
    altered = tensor.copy()
    altered.flat[0] += 1
    return replace(weights, tensors={**weights.tensors, name: altered})


def boards(rows: int, *, seed: int = 0, cells: int = 9) -> Arrays:
    return {"cells": derive_rng(seed, "boards").integers(-1, 2, (rows, cells)).astype(np.int8)}


def a_host(*weights: Weights, **config: Any) -> ModelHost:
    """Return a host in fp32 on the CPU that finds the last of `weights` of each name."""
    newest = {one.model: one for one in weights}
    return ModelHost(InferenceConfig(**config), precision="fp32", device="cpu", fetch=newest.__getitem__)


def outputs(weights: Weights, arrays: Arrays) -> dict[str, np.ndarray]:
    """Return what a host with nothing but `weights`, without a cache, makes of `arrays`."""
    return dict(a_host(weights).evaluate(weights.model, arrays).arrays)


def assert_same_outputs(found: Arrays, expected: Arrays) -> None:
    """Equal up to what another batch size may change in the last bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(
            found[name].astype(np.float32), array.astype(np.float32), rtol=2e-3, atol=1e-5
        )


def tally(value: int, rows: int = 1) -> Arrays:
    return {"number": np.full(rows, value, np.int32)}


@dataclass
class ScriptedHost:
    """Stands in for `ModelHost`: replies with the numbers it was sent and the version loaded last.

    Attributes:
        before_evaluation: called on the serving thread with the batch's numbers, before they are answered.
        fetch: called on the serving thread with a model's name, each time that it is to be in memory.
        batches: numbers of every batch that was evaluated, as (model, numbers, version).
    """

    before_evaluation: Callable[[list[int]], None] = lambda numbers: None
    fetch: Callable[[str], None] = lambda model: None
    loaded: int = 0
    wire_form: str = "fp32"
    on_cpu: bool = False
    batches: list[tuple[str, list[int], int]] = field(default_factory=list)

    def bring(self, model: str) -> None:
        self.fetch(model)

    def check(self, model: str, arrays: Arrays) -> None:
        if (arrays["number"] < 0).any():
            raise EvaluationError("a negative number", why="this test sends one", fix="send another")

    def evaluate(self, model: str, arrays: Arrays) -> Reply:
        numbers = arrays["number"].tolist()
        version = self.loaded
        self.batches.append((model, numbers, version))
        self.before_evaluation(numbers)
        return Reply({"number": arrays["number"]}, version)

    def prepare(self, weights: Weights) -> Weights:
        weights.verify()
        return weights

    def install(self, ready: Weights) -> None:
        self.loaded = ready.version

    def version(self, model: str) -> int | None:
        return self.loaded


class Gate:
    """Holds the serving thread inside a call of its host until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, argument: object) -> None:
        self._entered.set()
        assert self._opened.wait(TIMEOUT_SECONDS)

    def wait_until_entered(self) -> None:
        assert self._entered.wait(TIMEOUT_SECONDS)

    def open(self) -> None:
        self._opened.set()


def a_request(value: int, *, model: str = "main", rows: int = 1) -> Request:
    return Request(model, tally(value, rows))
