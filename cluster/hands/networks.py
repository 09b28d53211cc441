"""Networks of hand values that solvers ask: which there are, and how those who make samples reach them."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cluster.run.parts import MODEL, device, make_local_evaluate, make_store
from cluster.run.program import Machine, plan_serving
from cluster.run.run_folder import RunFolder, run_folder
from configs.schema import InferenceSettings, RunConfig
from core.errors import DataError, TamenError, UsageError
from core.hands import HandValueSpec, Street
from core.messages import Reply, Request
from inference_server.client import Client, InlineClient

if TYPE_CHECKING:
    from cluster.on_ray.program import RayProgram
    from networks.weights import Weights

CPU_BATCH_ROWS, GPU_BATCH_ROWS = 64, 4096
"""Most of a batch. On a CPU a row of 64 takes 0.16 ms, one of 144 0.28: what is computed no longer fits its caches."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HandNetwork:
    """A network that was fitted to samples of a street.

    Attributes:
        run: that has it, as it was typed.
        folder: of the run.
        digest: of its weights.
    """

    run: str
    folder: RunFolder
    digest: str


def find_networks(names: Sequence[str], runs: Path) -> dict[Street, HandNetwork]:
    """Return the networks of runs by the street that each is for.

    Raises:
        UsageError: when a run has none, or two are for one street.
        DataError: when weights are damaged.
    """
    found: dict[Street, HandNetwork] = {}
    for name in names:
        folder = run_folder(runs, name)
        weights = _newest(folder, name)
        street = _street_of(weights, name)
        if street in found:
            raise UsageError(
                f"{found[street].run} and {name} are both networks for the {street}",
                why="one network says what hands are worth there",
                fix="name one of them in networks=[…]",
            )
        found[street] = HandNetwork(name, folder, weights.digest)
    return found


def _newest(folder: RunFolder, name: str) -> "Weights":
    store = make_store(folder)
    if store.newest_version(MODEL) is None:
        raise UsageError(
            f"run {name!r} has no network",
            why=f"nothing was published in {folder.models}",
            fix=f"fit one: tamen train river_values samples=[…] --name {name}; or name another run",
        )
    return store.get(MODEL)


def _street_of(weights: "Weights", name: str) -> Street:
    from networks.weights import network_parts

    spec, _ = network_parts(weights.network)
    if not isinstance(spec, HandValueSpec):
        raise UsageError(
            f"the network of run {name!r} says nothing of hands",
            why=f"it was trained on {weights.game}",
            fix="name a run of `tamen train …_values`",
        )
    return spec.street


@dataclass(frozen=True, slots=True)
class Here:
    """Evaluates in the process that asks; see `pipeline.hand_samples.Connect`."""

    network: HandNetwork

    def __call__(self) -> Client:
        return InlineClient(_evaluate(self.network))


@dataclass(frozen=True, slots=True)
class Servers:
    """Asks inference servers on Ray, by their handles; see `pipeline.hand_samples.Connect`."""

    handles: tuple[Any, ...]

    def __call__(self) -> Client:
        from cluster.on_ray.client import RayClient, in_one_place

        return RayClient(in_one_place(self.handles))


@contextlib.contextmanager
def served(network: HandNetwork, *, say: Callable[[str], None]) -> Iterator[Servers]:
    """Have a network answered for by a server on the Ray that this process is connected to, and look after it.

    Args:
        network: to be asked.
        say: told what a person should know, such as that the server died and was started again.
    """
    from cluster.on_ray.program import RayProgram

    with TemporaryDirectory(prefix="tamen-values-") as name:
        folder = RunFolder(Path(name))
        make_store(folder).publish(dataclasses.replace(_weights(network), version=1))
        program = RayProgram(_serving(), folder, plan_serving(Machine.here()), report=say)
        program.start()
        ended = threading.Event()
        looks = threading.Thread(
            target=_look_after, args=(program, ended, say), name="look-after-server", daemon=True
        )
        looks.start()
        try:
            yield Servers(tuple(program.handles("inference")))
        finally:
            ended.set()
            looks.join(_LOOK_SECONDS * 10)
            program.stop()


def _look_after(program: "RayProgram", ended: threading.Event, say: Callable[[str], None]) -> None:
    """Notice when a server does not answer, or its thread has died, so that another takes its place."""
    while not ended.wait(_LOOK_SECONDS):
        try:
            program.supervise()
            program.collect_stats(timeout_seconds=0.0)
        except TamenError as error:  # who asks hears of it in the end; this says why
            say(f"{error.what}: {error.why}")
            return


def _weights(network: HandNetwork) -> "Weights":
    """Return a network's weights. Raises DataError when others have been published since it was found."""
    weights = make_store(network.folder).get(MODEL)
    if weights.digest != network.digest:
        raise DataError(
            f"run {network.run!r} has another network than a moment ago",
            why="it was fitted anew meanwhile",
            fix="run the same command again: what other weights made is made anew",
        )
    return weights


def _serving() -> RunConfig:
    rows = GPU_BATCH_ROWS if device() == "cuda" else CPU_BATCH_ROWS
    return RunConfig(game="holdem", inference=InferenceSettings(max_batch_rows=rows))


@lru_cache(maxsize=4)
def _evaluate(network: HandNetwork) -> Callable[[Request], Reply]:
    return make_local_evaluate(_serving(), _weights(network))
