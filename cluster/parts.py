"""Builds each part of a run from its section of the configuration; both assemblies use the same parts.

Each function imports what it builds: on Ray every part is a process of its own and should load nothing else.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cluster.machine_file import unmeasured_batch_rows
from cluster.program import Machine
from cluster.run_folder import RunFolder
from configs.schema import InferenceConfig, RunConfig
from core.messages import Reply, Request
from core.metrics import Metrics
from core.seeds import derive_rng, derive_seed

if TYPE_CHECKING:
    from actors.evaluator import Evaluator
    from actors.harvest import Harvest
    from actors.selfplay import GameGroup
    from actors.worker import Delivery, Worker
    from inference_server.client import Client
    from inference_server.model_host import Fetch, ModelHost
    from inference_server.server import InferenceServer
    from inference_server.weights_store import WeightsStore
    from learner.feed import Source
    from learner.loop import Learner, Publisher
    from networks.weights import Weights
    from replay.buffer import ObjectStore, ReplayBuffer

MODEL = "main"
"""Name of the model that a run trains."""


class Player:
    """A worker with the parts whose counters its stats come from."""

    def __init__(self, worker: "Worker", groups: "Sequence[GameGroup]", harvest: "Harvest") -> None:
        self.worker = worker
        self.groups = groups
        self.harvest = harvest
        self._counted = [0] * len(groups)
        self._cause = ""

    def stats(self) -> dict[str, Any]:
        """Return counters since the actor began, and the seconds that each activity took."""
        spent = self.worker.spent
        return {
            "games": self.harvest.games,
            "plies": self.harvest.plies,
            "game_seconds": self.harvest.game_seconds,
            "moves": sum(group.moves for group in self.groups),
            "set_aside": sum(group.set_aside for group in self.groups),
            "set_aside_cause": self._newest_cause(),
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
    from actors.harvest import Harvest
    from actors.selfplay import GameGroup
    from actors.worker import Worker
    from games.catalog import make_game
    from search.factory import make_search

    game = make_game(config.game)
    harvest = Harvest(game.board, run=run, game=game.name, actor=actor, epoch=epoch, metrics=metrics)
    groups = tuple(
        GameGroup(
            game,
            make_search(config.search, game, config.actors.games_per_group),
            config.search,
            num_games=config.actors.games_per_group,
            random_opening_plies=config.actors.random_opening_plies,
            model=MODEL,
            seed=derive_seed(config.seed, "self-play", actor, epoch, group),
            finish=harvest.add,
        )
        for group in range(config.actors.groups_per_actor)
    )
    worker = Worker(
        [group.play() for group in groups],
        client,
        harvest,
        delivery,
        chunk_rows=config.actors.chunk_rows,
        flush_seconds=config.actors.flush_seconds,
        **worker_options,
    )
    return Player(worker, groups, harvest)


def make_replay(
    config: RunConfig, folder: RunFolder, objects: "ObjectStore", *, limited: bool
) -> "ReplayBuffer":
    from games.catalog import make_game
    from replay.buffer import ReplayBuffer

    return ReplayBuffer(
        folder.root,
        config.replay,
        run=folder.name,
        game=make_game(config.game),
        seed=config.seed,
        objects=objects,
        limited=limited,
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
    *,
    prefetch: int,
    **options: Any,
) -> "Learner":
    """Build the learner; `options` inject its clock."""
    import torch

    from games.catalog import make_game
    from learner.checkpoint import CheckpointStore
    from learner.loop import Learner

    torch.set_num_threads(1)
    return Learner(
        make_game(config.game).board,
        config.game,
        model=MODEL,
        network=config.network,
        config=config.learner,
        source=source,
        publisher=publisher,
        checkpoints=CheckpointStore(folder.checkpoints, keep=config.learner.checkpoints_kept),
        seed=config.seed,
        device=device(),
        prefetch=prefetch,
        **options,
    )


def make_evaluator(
    config: RunConfig, folder: RunFolder, client: "Client", newest_version: Callable[[], int | None]
) -> "Evaluator":
    from actors.evaluator import Evaluator
    from games.catalog import make_game

    return Evaluator(
        make_game(config.game),
        config.evaluation,
        config.search,
        client=client,
        newest_version=newest_version,
        model=MODEL,
        results_file=folder.evaluations_file,
        seed=config.seed,
    )


def make_store(folder: RunFolder) -> "WeightsStore":
    from inference_server.weights_store import WeightsStore

    return WeightsStore(folder.models)


def make_host(config: RunConfig, *, fetch: "Fetch") -> "ModelHost":
    import torch

    from inference_server.model_host import ModelHost

    torch.set_num_threads(1)
    return ModelHost(_inference(config), precision=config.network.precision, device=device(), fetch=fetch)


def first_requests(config: RunConfig) -> Iterator[Request]:
    """Yield a request of some sizes that batches may have, the smallest first.

    Their boards are no game's; a network does not mind, and a cache will not meet them again.
    """
    from games.catalog import make_game

    specs, most = make_game(config.game).board.inputs, _inference(config).max_batch_rows
    for rows in (*(4**k for k in range(8) if 4**k < most), most):
        rng = derive_rng(config.seed, "first requests", rows)
        yield Request(
            MODEL,
            {spec.name: rng.integers(-1, 2, (rows, *spec.shape)).astype(spec.dtype) for spec in specs},
        )


def make_server(config: RunConfig, host: "ModelHost", metrics: Metrics) -> "InferenceServer":
    from inference_server.server import InferenceServer

    return InferenceServer(host, _inference(config), metrics=metrics)


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
