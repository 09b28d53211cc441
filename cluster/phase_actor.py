"""An actor that plays by minimax with widths and sends its positions one by one, by levels, or across games."""

import time
from collections.abc import Hashable
from typing import Never

from actors.harvest import FinishedGame
from actors.selfplay import GameGroup
from cluster.parts import MODEL
from cluster.phase import InPieces, Phase
from cluster.ray_client import Handle, RayClient
from configs.schema import RunConfig
from core.errors import EvaluationError
from core.messages import Request, Steps
from core.seeds import derive_seed
from games.catalog import make_game
from search.factory import make_search


class PhaseActor:
    """Plays without end; `play` goes on for a while and tells what was done in it."""

    def __init__(self, config: RunConfig, servers: list[Handle], phase: Phase, *, seed: int) -> None:
        game = make_game(config.game)
        self._phase = phase
        self._client = RayClient(servers)
        self._groups = [
            GameGroup(
                game,
                InPieces(make_search(config.search, game, phase.games_per_group), phase.pieces),
                config.search,
                num_games=phase.games_per_group,
                random_opening_plies=config.actors.random_opening_plies,
                model=MODEL,
                seed=derive_seed(seed, "phase", group),
                finish=self._count_game,
            )
            for group in range(phase.groups)
        ]
        self._unstarted = [group.play() for group in self._groups]
        self._pending: dict[Hashable, Steps[Never]] = {}
        self._done = {"requests": 0, "rows": 0, "games": 0}

    def play(self, seconds: float) -> dict[str, float]:
        """Play on and return what was done: seconds, moves, games, requests and rows."""
        before, began = self._counters(), time.monotonic()
        while time.monotonic() - began < seconds:
            self._step()
        elapsed = time.monotonic() - began
        grown = {name: count - before[name] for name, count in self._counters().items()}
        return {"seconds": elapsed, **grown}

    def _step(self) -> None:
        while self._unstarted:
            group = self._unstarted.pop()
            self._ask(group, next(group))
        answer = self._client.wait_any(self._pending, timeout_seconds=0.1)
        if answer is not None:
            handle, replies = answer
            group = self._pending.pop(handle)
            failed = isinstance(replies, EvaluationError)
            requests = group.throw(replies) if failed else group.send(replies)
            # A group that has set its games aside asks nothing, and begins anew.
            self._ask(group, requests or group.send(()))

    def _ask(self, group: Steps[Never], requests: tuple[Request, ...]) -> None:
        self._done["requests"] += len(requests)
        self._done["rows"] += sum(request.num_rows for request in requests)
        self._pending[self._client.submit(requests)] = group

    def _count_game(self, game: FinishedGame) -> None:
        self._done["games"] += 1

    def _counters(self) -> dict[str, int]:
        return self._done | {"moves": sum(group.moves for group in self._groups)}
