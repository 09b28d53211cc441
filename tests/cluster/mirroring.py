"""Runs to be mirrored whose replay is real and whose learner only leaves files, and places that fail."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.mirror.place import Place
from cluster.mirror.restore import Restoring
from cluster.mirror.thread import Mirror
from cluster.run.run_folder import RunFolder
from configs.schema import MirrorConfig, ReplayConfig
from core.files import write_atomic
from replay.buffer import ReplayBuffer
from replay.records import Chunk
from tests.cluster.tiny import tiny_config, tiny_run
from tests.replay.experience import a_chunk, open_buffer

GAMES_A_CHUNK = 2
SMALL_WINDOW = ReplayConfig(min_rows=6, capacity_rows=60)
"""Ten chunks of `a_run`; older ones are deleted."""


def a_run(folder: Path) -> RunFolder:
    """Return a run called "test", with a replay that has no chunk yet."""
    run = tiny_run(folder, tiny_config())
    write_atomic(run.root / "name.txt", b"test\n")
    return run


def deliver(replay: ReplayBuffer, number: int) -> None:
    """Let the chunk `number` come; all chunks are of one life of one actor."""
    seqs = range(GAMES_A_CHUNK * number, GAMES_A_CHUNK * (number + 1))
    replay.add(a_chunk(seqs).encode())


def checkpoint(run: RunFolder, number: int, size: int = 1000) -> None:
    """Leave a folder that looks like a checkpoint, in one step as the learner does."""
    unfinished = run.checkpoints / f".unfinished-{number}"
    write_atomic(unfinished / "trainer.pt", number.to_bytes(8, "little") * size)
    write_atomic(unfinished / "state.json", f'{{"number": {number}}}'.encode())
    unfinished.rename(run.checkpoints / f"{number:010d}")


def mirror_of(run: RunFolder, url: object, **settings: Any) -> Mirror:
    """Return the mirror of a run at `url`, which is its own by now."""
    given: dict[str, Any] = {"every_seconds": 0.1, "timeout_seconds": 10.0, **settings}
    mirror = Mirror(MirrorConfig(url=str(url), **given), run, report=lambda text: None)
    mirror.check()
    mirror.claim()
    return mirror


def restored(url: object, folder: Path, said: list[str] | None = None) -> RunFolder:
    """Return a run restored from `url` into `folder`."""
    run = RunFolder(folder)
    say = [].append if said is None else said.append
    Restoring(str(url), run, config=MirrorConfig(timeout_seconds=10.0), say=say).run(tiny_config())
    return run


def seqs(replay: ReplayBuffer) -> list[int]:
    """Return the numbers of the games whose chunks are held."""
    chunks = [Chunk.decode(data) for data in replay.handles(replay.live_chunks())]
    return [game.seq for chunk in chunks for game in chunk.games]


def assert_whole(run: RunFolder, *, acknowledged: int, config: ReplayConfig = SMALL_WINDOW) -> int:
    """Open the replay of a restored run, find all games that were acknowledged, once; return how many there are."""
    replay = open_buffer(run.root, config)
    games = int(replay.stats()["games"])
    held = seqs(replay)
    assert games >= acknowledged
    assert replay.stats()["total_rows"] == 3 * games
    assert held == list(range(games - len(held), games))  # the newest ones, none twice, none missing
    assert replay.check_valid() == []
    assert replay.opening_report.damaged == ()
    for number in range(max(0, games // GAMES_A_CHUNK - 15), games // GAMES_A_CHUNK):
        deliver(replay, number)
    assert (replay.stats()["games"], seqs(replay)) == (games, held)  # and none is taken a second time
    return games


def files_below(folder: Path) -> dict[str, bytes]:
    """Return all files of a run that are mirrored, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != "mirror.json"
    }


class FaultyPlace(Place):
    """A place whose operations meet `fault` first, which is told the operation and what it is of.

    Attributes:
        operations: that were asked for.
    """

    fault: Callable[[str, str], None] = staticmethod(lambda operation, name: None)

    def __init__(self, location: str, *, timeout_seconds: float) -> None:
        super().__init__(location, timeout_seconds=timeout_seconds)
        self.operations: list[tuple[str, str]] = []

    def _meet(self, operation: str, name: str) -> None:
        self.operations.append((operation, name))
        FaultyPlace.fault(operation, name)

    def read(self, name: str, most: int) -> bytes:
        self._meet("read", name)
        return super().read(name, most)

    def write(self, name: str, data: bytes) -> None:
        self._meet("write", name)
        super().write(name, data)

    def create(self, name: str, data: bytes) -> None:
        self._meet("create", name)
        super().create(name, data)

    def sizes(self, folder: str) -> dict[str, int]:
        self._meet("sizes", folder)
        return super().sizes(folder)

    def delete(self, name: str) -> None:
        self._meet("delete", name)
        super().delete(name)


@contextlib.contextmanager
def playing(replay: ReplayBuffer, run: RunFolder, acknowledged: list[int]) -> Any:
    """Let chunks and checkpoints come, as fast as they can, while the context lasts."""
    stop, failed = threading.Event(), []

    def play() -> None:
        try:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count(1)):
                deliver(replay, number - 1)
                acknowledged[0] = GAMES_A_CHUNK * number
                if number % 5 == 0:
                    checkpoint(run, number)
                time.sleep(0.002)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert failed == []


def until(reached: Callable[[], bool]) -> None:
    """Wait for what is to come within seconds."""
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
