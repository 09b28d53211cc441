"""A match on Ray: one inference server for both models, the pairs shared out over the machine's cores."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError

from actors.arena import MatchResult, joined, match
from actors.arena import Progress as MatchProgress
from actors.openings import Opening
from cluster.matches.match import faults_of
from cluster.on_ray.address import connect
from cluster.on_ray.client import LOST, Handle, RayClient, get, in_one_line, in_one_place
from cluster.on_ray.program import RayProgram, beside_the_driver, dressed
from cluster.run.parts import make_store
from cluster.run.program import Machine, plan_serving
from cluster.run.run_folder import RunFolder
from configs.schema import RunConfig
from core.errors import ClusterError
from core.processes import give_way
from games.catalog import make_game
from inference_server.client import drive
from networks.weights import Weights


class MatchActor:
    """Plays some of a match's pairs."""

    def __init__(
        self, game: str, sides: Sequence[Any], served_as: Sequence[str], servers: list[Handle]
    ) -> None:
        self._game = make_game(game)
        self._sides = sides
        self._served_as = served_as
        self._servers = servers
        self._progress = MatchProgress()

    def run(self, openings: list[Opening], first_pair: int, seed: int) -> MatchResult | None:
        """Play every opening from both sides; the pairs keep their numbers, and so their randomness."""
        give_way()
        players = [
            side.player(self._game.name, games=2 * len(openings), served_as=name)
            for side, name in zip(self._sides, self._served_as, strict=True)
        ]
        steps = match(
            self._game,
            *players,
            openings=openings,
            seed=seed,
            first_pair=first_pair,
            progress=self._progress,
        )
        result = drive(steps, RayClient(in_one_place(self._servers)), should_stop=lambda: False)
        return result and dataclasses.replace(result, faults=faults_of(players))

    @ray.method(concurrency_group="control")
    def games_finished(self) -> int:
        return self._progress.games_finished


class RayMatch:
    """A match under way; use as a context manager, which ends its actors.

    Args:
        config: of the server.
        models: weights by the name that requests will use.
        sides: the contenders.
        parts: over how many actors the pairs are shared out.
    """

    def __init__(
        self,
        config: RunConfig,
        models: Mapping[str, Weights],
        sides: Sequence[Any],
        openings: list[Opening],
        *,
        game: str,
        served_as: Sequence[str],
        seed: int,
        parts: int,
        address: str | None,
    ) -> None:
        self._models = models
        self._serving: RayProgram | None = None
        self._finished = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tamen-match-")
        self._connected = not ray.is_initialized()
        if self._connected:
            connect(address, cpus=Machine.here().cpus)
        servers = self._serve(config) if models else []
        actor = dressed(
            MatchActor,
            num_cpus=0,
            concurrency_groups={"control": 1},
            scheduling_strategy=beside_the_driver(),
        )
        # Contenders travel without their weights: those are the server's.
        light = [
            dataclasses.replace(side, model=side.model and _without_weights(side.model)) for side in sides
        ]
        self._actors = [actor.remote(game, light, served_as, servers) for _ in range(parts)]
        cuts = [len(openings) * part // parts for part in range(parts + 1)]
        self._running = [
            one.run.remote(openings[begin:end], begin, seed)
            for one, begin, end in zip(self._actors, cuts[:-1], cuts[1:], strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected:
            ray.shutdown()
        self._folder.cleanup()

    def games_finished(self) -> int | None:
        """Return how many games are finished, after at most half a second; None when all are.

        Raises:
            ClusterError: when the server cannot be made, or keeps dying.
        """
        if self._serving is not None:
            self._serving.supervise()
            self._serving.collect_stats(timeout_seconds=0.0)
        _, unfinished = ray.wait(self._running, num_returns=len(self._running), timeout=0.5)
        if not unfinished:
            return None
        try:
            counts = ray.get([actor.games_finished.remote() for actor in self._actors], timeout=2.0)
        except GetTimeoutError:
            return self._finished  # compiling a kernel, say, which answers nobody
        except LOST:
            return None  # `result` says what was lost
        self._finished = sum(counts)
        return self._finished

    def result(self) -> MatchResult:
        """Return the result of the whole match. Raises ClusterError when a part of it was lost."""
        try:
            parts = get(self._running, timeout_seconds=60.0)
        except LOST as error:
            raise ClusterError(
                "a part of the match was lost",
                why=in_one_line(error),
                fix="play it again; with the same --seed it is the same match",
            ) from error
        return joined(parts)

    def _serve(self, config: RunConfig) -> list[Handle]:
        folder = RunFolder(Path(self._folder.name))
        for name, weights in self._models.items():
            make_store(folder).publish(dataclasses.replace(weights, model=name))
        self._serving = RayProgram(config, folder, plan_serving(Machine.here()), report=lambda text: None)
        self._serving.start()
        return self._serving.handles("inference")


def _without_weights(model: Any) -> Any:
    """Return a found model whose tensors are gone."""
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, tensors={}))
