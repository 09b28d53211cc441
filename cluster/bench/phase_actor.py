"""An actor that plays by minimax with widths and sends its positions one by one, by levels, or across games."""

import time
from collections.abc import Hashable
from dataclasses import dataclass

from actors.selfplay import GameGroup
from cluster.bench.phase import InPieces, Phase
from cluster.on_ray.client import Handle, RayClient, in_one_place
from cluster.run.parts import MODEL
from configs.schema import RunConfig
from core.errors import EvaluationError
from core.messages import Request, Steps
from core.processes import give_way
from core.seeds import derive_seed
from games.catalog import make_game
from search.factory import make_search


@dataclass(slots=True)
class _Player:
    """A group of games as it is played, and the requests of the moves that are not finished yet."""

    number: int
    games: GameGroup
    steps: Steps[None]
    asked: int = 0


class PhaseActor:
    """Plays without end; `play` goes on for a while and tells what was done in it."""

    def __init__(self, config: RunConfig, servers: list[Handle], phase: Phase, *, seed: int) -> None:
        game = make_game(config.game)
        self._phase = phase
        self._client = RayClient(in_one_place(servers))
        groups = [
            GameGroup(
                game,
                InPieces(make_search(config.search, game, phase.games_per_group), phase.pieces),
                config.search,
                num_games=phase.games_per_group,
                random_opening_plies=config.actors.random_opening_plies,
                model=MODEL,
                seed=derive_seed(seed, "phase", group),
                finish=lambda game: None,
            )
            for group in range(phase.groups)
        ]
        self._unstarted = [_Player(number, group, group.play()) for number, group in enumerate(groups)]
        self._pending: dict[Hashable, _Player] = {}
        self._done = {"moves": 0, "requests": 0}

    def play(self, seconds: float) -> dict[str, float]:
        """Play on and return what was done: seconds, moves, and the requests of these moves."""
        give_way()
        before, began = dict(self._done), time.monotonic()
        while time.monotonic() - began < seconds:
            self._step()
        elapsed = time.monotonic() - began
        return {"seconds": elapsed} | {name: count - before[name] for name, count in self._done.items()}

    def _step(self) -> None:
        while self._unstarted:
            player = self._unstarted.pop()
            self._ask(player, next(player.steps))
        answer = self._client.wait_any(self._pending, timeout_seconds=0.1)
        if answer is not None:
            handle, replies = answer
            player = self._pending.pop(handle)
            moves = player.games.moves
            failed = isinstance(replies, EvaluationError)
            requests = player.steps.throw(replies) if failed else player.steps.send(replies)
            self._count_moves(player, player.games.moves - moves)
            # A group that has set its games aside asks nothing, and begins anew.
            self._ask(player, requests or player.steps.send(()))

    def _ask(self, player: _Player, requests: tuple[Request, ...]) -> None:
        player.asked += len(requests)
        self._pending[self._client.submit(requests, stream=player.number)] = player

    def _count_moves(self, player: _Player, moves: int) -> None:
        """Count moves that were just finished, and only now the requests that led to them."""
        if moves:
            self._done["moves"] += moves
            self._done["requests"] += player.asked
            player.asked = 0
