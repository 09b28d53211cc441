"""A client that asks without thinking, to find what a server can serve."""

from collections.abc import Hashable

from cluster.bench.random_positions import random_positions
from cluster.on_ray.client import Handle, RayClient, in_one_place
from core.messages import Request
from core.processes import give_way
from games.catalog import make_game

POSITIONS = 4096


class LoadActor:
    """Keeps requests of random positions in flight at all times, as an actor of infinite speed would.

    Args:
        groups: requests in flight.
        rows: positions of each.
    """

    def __init__(self, game: str, servers: list[Handle], *, groups: int, rows: int, seed: int) -> None:
        self._positions = random_positions(make_game(game), max(POSITIONS, rows), seed=seed)
        self._groups = groups
        self._rows = rows
        self._client = RayClient(in_one_place(servers))

    def run(self) -> None:
        """Ask until the process is ended."""
        give_way()
        rows = self._rows
        starts = range(0, max(POSITIONS, rows) - rows + 1, rows)
        requests = [
            (Request("main", {name: array[start : start + rows] for name, array in self._positions.items()}),)
            for start in starts
        ]
        handles: set[Hashable] = {
            self._client.submit(requests[group % len(requests)]) for group in range(self._groups)
        }
        asked = self._groups
        while True:
            answer = self._client.wait_any(handles, timeout_seconds=1.0)
            if answer is not None:
                handles.remove(answer[0])
                handles.add(self._client.submit(requests[asked % len(requests)]))
                asked += 1
