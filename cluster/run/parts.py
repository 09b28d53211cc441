"""Builds each part of a run from its section of the configuration; both assemblies use the same parts.

Each function imports what it builds: on Ray every part is a process of its own and should load nothing else.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.run.machine_file import unmeasured_batch_rows
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder
from cluster.run.workloads import MODEL, Cast, EvaluatorPart, workload_of
from configs.schema import InferenceConfig, RunConfig
from core.messages import Reply, Request
from core.metrics import Metrics
from core.seeds import derive_rng

if TYPE_CHECKING:
    from actors.worker import Delivery, Worker
    from inference_server.client import Client
    from inference_server.model_host import Fetch, ModelHost
    from inference_server.server import InferenceServer
    from inference_server.weights_store import WeightsStore
    from learner.feed import Source
    from learner.loop import Learner, Publisher
    from learner.step import Trainer
    from networks.weights import Weights
    from replay.buffer import ObjectStore, ReplayBuffer


class Player:
    """A worker with the parts whose counters its stats come from; whoever runs it calls `close` in the end.

    Attributes:
        games_taken_over: of processes that have died; None until `carry_on`.
    """

    def __init__(self, worker: "Worker", cast: Cast) -> None:
        self.worker = worker
        self.groups = cast.groups
        self.harvest = cast.harvest
        self._close = cast.close
        self.games_taken_over: int | None = None
        self._carry_on = cast.carry_on
        self._trouble = cast.trouble
        self._ends = cast.ends
        self._counted = [0] * len(cast.groups)
        self._cause = ""

    @property
    def games_at_stake(self) -> int:
        """Games that would be lost now: in play, or finished and not acknowledged. Of environments, unrolls."""
        return sum(group.in_play for group in self.groups) + self.worker.undelivered_games

    @property
    def has_moved(self) -> bool:
        return any(group.moves for group in self.groups)

    def carry_on(self, folder: Callable[[], Path]) -> None:
        """Let games in play outlive this process by what is written into `folder`; go on with those found there.

        To be called before the worker runs. Where that cannot be, games are played all the same, and `stats` says why.
        """
        self.games_taken_over = self._carry_on(folder)

    def close(self, *, over: bool) -> None:
        """Free what is held outside of this process: once, when it plays no more.

        Args:
            over: whether nobody is to go on with its games.
        """
        self._close(over)

    def leave(self, seconds: float) -> None:
        """Begin no more games, and let the worker's loop end when those in play are over, or after `seconds`."""
        for group in self.groups:
            group.wind_up()
        self.worker.leave(seconds)

    def stats(self) -> dict[str, Any]:
        """Return counters since the actor began, and the seconds that each activity took."""
        spent = self.worker.spent
        return {
            "games": self.harvest.games,
            "plies": self.harvest.plies,
            "moves": sum(group.moves for group in self.groups),
            "games_at_stake": self.games_at_stake,
            "games_taken_over": self.games_taken_over,
            "set_aside": sum(group.set_aside for group in self.groups),
            "set_aside_cause": self._newest_cause(),
            "ends": dict(self._ends()),
            "trouble": self._trouble(),
            "search_seconds": spent.search,
            "wait_seconds": spent.wait,
            "deliver_seconds": spent.deliver,
            "held_back_seconds": spent.held_back,
            "search_cpu_seconds": spent.search_cpu,
        }

    def _newest_cause(self) -> str:
        """Return why the group that set games aside since it was last asked did so; else what was so before."""
        for number, group in enumerate(self.groups):
            if group.set_aside > self._counted[number]:
                self._counted[number], self._cause = group.set_aside, group.set_aside_cause
        return self._cause


def make_player(
    config: RunConfig,
    *,
    run: str,
    actor: int,
    epoch: int,
    client: "Client",
    delivery: "Delivery",
    metrics: Metrics,
    **worker_options: Any,
) -> Player:
    """Build actor number `actor` in its life `epoch`: its groups of games and the loop that plays them."""
    from actors.worker import Worker

    cast = workload_of(config).cast(run=run, actor=actor, epoch=epoch, metrics=metrics)
    worker = Worker(
        [group.play() for group in cast.groups],
        client,
        cast.harvest,
        delivery,
        chunk_rows=config.actors.chunk_rows,
        flush_seconds=config.actors.flush_seconds,
        **worker_options,
    )
    return Player(worker, cast)


def make_replay(
    config: RunConfig, folder: RunFolder, objects: "ObjectStore", *, limited: bool, **options: Any
) -> "ReplayBuffer":
    """Build the replay; `options` inject its clock."""
    from replay.buffer import ReplayBuffer

    return ReplayBuffer(
        folder.root,
        config.replay,
        run=folder.name,
        experience=workload_of(config).experience(),
        seed=config.seed,
        objects=objects,
        limited=limited,
        **options,
    )


def replay_stats(replay: "ReplayBuffer") -> dict[str, Any]:
    """Return the replay's counters, the moves of the newest game, and what it found damaged when it opened."""
    newest, damaged = replay.newest_game, replay.opening_report.damaged
    return replay.stats() | {
        "newest_actions": [] if newest is None else newest.actions.tolist(),
        "damaged": f"set aside {', '.join(damaged)}: damaged" if damaged else "",
    }


def make_learner(
    config: RunConfig,
    folder: RunFolder,
    source: "Source",
    publisher: "Publisher",
    **options: Any,
) -> "Learner":
    """Build the learner; `options` say what is made ahead, and inject its clock."""
    import torch

    from cluster.run.first_weights import first_weights
    from learner.checkpoint import CheckpointStore
    from learner.loop import Learner

    torch.set_num_threads(1)
    workload = workload_of(config)
    return Learner(
        workload.spec,
        config.game,
        model=MODEL,
        network=config.network,
        config=config.learner,
        objective=workload.objective(),
        source=source,
        publisher=publisher,
        checkpoints=CheckpointStore(folder.checkpoints, keep=config.learner.checkpoints_kept),
        seed=config.seed,
        first=first_weights(folder),
        device=device(),
        **options,
    )


def make_colearner(config: RunConfig, rendezvous: Path, *, rank: int, size: int) -> "Trainer":
    """Join the team that gathers at `rendezvous`, and build what works on member `rank`'s part of each batch."""
    import torch

    from learner.step import new_trainer
    from learner.team import Member, join

    torch.set_num_threads(1)
    join(rendezvous, rank=rank, size=size, device=torch.device(device()))
    workload = workload_of(config)
    return new_trainer(
        workload.spec,
        config.network,
        config.learner,
        workload.objective(),
        seed=config.seed,
        device=device(),
        team=Member(size),
    )


def make_evaluator(
    config: RunConfig, folder: RunFolder, client: "Client", newest_version: Callable[[], int | None]
) -> EvaluatorPart:
    return workload_of(config).evaluator(client, newest_version, folder.evaluations_file)


def make_store(folder: RunFolder) -> "WeightsStore":
    from inference_server.weights_store import WeightsStore

    return WeightsStore(folder.models)


def make_host(config: RunConfig, *, fetch: "Fetch") -> "ModelHost":
    import torch

    from inference_server.model_host import ModelHost

    torch.set_num_threads(1)
    return ModelHost(_inference(config), precision=config.network.precision, device=device(), fetch=fetch)


def first_requests(config: RunConfig) -> Iterator[Request]:
    """Yield a request of some sizes that batches may have, the smallest first; what is in them makes no sense."""
    workload, most = workload_of(config), _inference(config).max_batch_rows
    for rows in (*(4**k for k in range(8) if 4**k < most), most):
        yield Request(MODEL, workload.any_inputs(rows, derive_rng(config.seed, "first requests", rows)))


def make_server(config: RunConfig, host: "ModelHost", metrics: Metrics, **options: Any) -> "InferenceServer":
    """Build the server; `options` say who hears of room in its queue."""
    from inference_server.server import InferenceServer

    return InferenceServer(host, _inference(config), metrics=metrics, **options)


def _inference(config: RunConfig) -> InferenceConfig:
    # A run on Ray has a number here. In one process games must not depend on a file that is no part of the run.
    return config.inference.given(unmeasured_batch_rows())


def make_local_evaluate(config: RunConfig, weights: "Weights") -> Callable[[Request], Reply]:
    """Return an evaluator in this process that answers every request with `weights`, whatever model it names."""
    host = make_host(config, fetch=lambda model: dataclasses.replace(weights, model=model))
    return lambda request: host.evaluate(request.model, request.arrays)


def device() -> str:
    """Return the torch device name of this machine's first accelerator, else the CPU."""
    return "cuda" if Machine.here().gpus else "cpu"
