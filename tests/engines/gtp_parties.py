"""Both ends of a GTP conversation for tests: minds that need no search, and tables served over pipes here."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from engines.errors import EngineFault
from engines.gtp_server import GtpServer, serve
from engines.gtp_table import GameTable, Thought
from engines.lines import LineReader, LineWriter
from games.catalog import make_game
from games.game import Game, States

PATIENCE_SECONDS = 30.0
"""Of every wait; reached only when something is broken."""


class RandomMind:
    """Plays any legal move, and holds that it wins. `searched` counts its searches."""

    rows = 1

    def __init__(self, seed: int = 0) -> None:
        self.name = "random"
        self.searched = 0
        self._random = np.random.default_rng(seed)

    def think(
        self,
        game: Game,
        states: States,
        history: Sequence[int],
        *,
        search: bool,
        hurried: Callable[[], bool],
    ) -> Thought:
        legal = game.legal(states, np.zeros(1, np.int32))[0]
        self.searched += search
        action = int(self._random.choice(np.flatnonzero(legal)))
        return Thought(action, 0.5, legal / legal.sum(), np.where(legal, 2, 0) * int(search))


class WaitingMind(RandomMind):
    """Searches until it is hurried. `begun` is set when it does."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def think(self, game: Game, states: States, history: Sequence[int], *, search: bool, hurried) -> Thought:
        self.begun.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while search and not hurried():
            assert time.monotonic() < deadline, "nobody hurried it"
            time.sleep(0.001)
        return super().think(game, states, history, search=search, hurried=hurried)


class Pipes:
    """What `GtpEngine` needs of a dialogue, over two pipes instead of a program."""

    engine = "served"

    def __init__(self, reading: int, writing: int) -> None:
        self._reader = LineReader(reading, self.engine)
        self._writer = LineWriter(writing, self.engine)

    def send(self, lines: list[str], *, seconds: float) -> None:
        self._writer.write_lines(lines, time.monotonic() + seconds)

    def read_line(self, deadline: float, *, expected: str) -> str:
        line = self._reader.read_line(deadline)
        if line is None:
            raise EngineFault("died", self.engine, why=f"it ended where {expected} was expected")
        return line


def table_of(game: str, mind: RandomMind | None = None) -> GameTable:
    return GameTable(make_game(game), mind or RandomMind())


def end_of(*threads: threading.Thread) -> None:
    """Wait for threads, and for those that read for servers, which see that nothing more comes."""
    readers = [thread for thread in threading.enumerate() if thread.name == "gtp-reader"]
    for thread in (*threads, *readers):
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def served(table: GameTable) -> Iterator[Pipes]:
    """Serve a table from another thread, which has ended when the block has."""
    commands, to_server = os.pipe()
    from_server, responses = os.pipe()
    server = GtpServer(table, version="1")
    thread = threading.Thread(target=serve, args=(server, commands, responses), daemon=True)
    thread.start()
    try:
        yield Pipes(from_server, to_server)
    finally:
        os.close(to_server)
        end_of(thread)
        for descriptor in (commands, from_server, responses):
            os.close(descriptor)
