"""A client that asks without thinking, to find what a server can serve."""

from collections.abc import Hashable

from cluster.raw_forward import random_positions
from cluster.ray_client import Handle, RayClient
from core.messages import Request
from games.catalog import make_game

GROUPS = 2
POSITIONS = 4096


class LoadActor:
    """Keeps `GROUPS` requests of random positions in flight at all times, as an actor of infinite speed would."""

    def __init__(self, game: str, servers: list[Handle], seed: int) -> None:
        self._positions = random_positions(make_game(game), POSITIONS, seed=seed)
        self._client = RayClient(servers)

    def run(self, rows: int) -> None:
        """Ask for `rows` positions a request, until the process is ended."""
        starts = range(0, POSITIONS - rows + 1, rows)
        requests = [
            (Request("main", {name: array[start : start + rows] for name, array in self._positions.items()}),)
            for start in starts
        ]
        handles: set[Hashable] = {self._client.submit(requests[group]) for group in range(GROUPS)}
        asked = GROUPS
        while True:
            answer = self._client.wait_any(handles, timeout_seconds=1.0)
            if answer is not None:
                handles.remove(answer[0])
                handles.add(self._client.submit(requests[asked % len(requests)]))
                asked += 1
