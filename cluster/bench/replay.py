"""`tamen bench replay`: rows that reach the learner's process through Ray, over rows that numpy takes out of arrays.

Both sides make batches of the same rows in the same process. One has what a learner has: the replay actor, Ray's object
store, and the thread that makes batches ahead. The other has them all in one preallocated array a column.
"""

import contextlib
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster import environment
from cluster.bench.rig import Measuring
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder
from configs.loading import override
from configs.schema import RunConfig
from core.errors import ClusterError
from core.seeds import derive_rng
from games.catalog import make_game
from games.game import Game
from learner.feed import Batch, Feed
from replay.records import Chunk, GameRecord

GROWTH_GAME = "hex3"
"""Whose rows are small enough for ten million of them to fit into most machines, twice."""
PLIES = 60
"""Of a game, each with a row; fewer where no game is that long."""
CHUNKS_ON_THEIR_WAY = 2
"""As two actors would have: each sends the next when the one before is acknowledged."""
PATIENCE_SECONDS = 600.0


def replay_settings(batch_rows: int) -> list[str]:
    """Return settings with which nobody waits for anybody: what is measured is how fast rows can move."""
    return [
        f"learner.batch_rows={batch_rows}",
        "replay.min_rows=1",
        "replay.samples_per_insert=1000000000",
        f"replay.samples_per_insert_slack_rows={max(batch_rows, 20_000)}",
    ]


def bench_replay(config: RunConfig, measuring: Measuring, *, rows: int, grown_rows: int) -> dict[str, Any]:
    """Deliver batches of `config.learner.batch_rows` rows, and compare with taking them out of arrays.

    Args:
        config: whose game the rows are of, with `replay_settings`.
        measuring: seconds of each measurement, and rounds of both sides in turn.
        rows: in the window.
        grown_rows: to which the window grows by powers of ten, with the small rows of `GROWTH_GAME`; 0: it does not.

    Returns:
        delivered_rows_per_s, local_rows_per_s, delivered_over_local: medians of the rounds.
        inserts_per_s: rows that the replay took in, wrote to disk and acknowledged.
        growth: cost of a batch in windows of several sizes, measured in turn, on both sides.
        growth_ratio: what a batch costs in the largest over what it costs in the smallest.
    """
    with tempfile.TemporaryDirectory() as temporary, _ray_of_our_own():
        result = _compare(config, Path(temporary), measuring, rows=rows)
        if grown_rows:
            result |= _grow(config, Path(temporary), measuring, sizes=decades(rows, grown_rows))
    return result | {"config": config.model_dump(mode="json")}


def decades(first: int, last: int) -> list[int]:
    """Return `first`, ten times as many, and so on, up to `last`."""
    sizes = [first]
    while 10 * sizes[-1] <= last:
        sizes.append(10 * sizes[-1])
    return sizes


def random_chunk(game: Game, number: int, *, rows: int, games: int, run: str) -> Chunk:
    """Return rows of games of random moves, sound in form; the replay takes nothing else.

    Args:
        number: of the chunk; no two share a game.
        rows: R.
        games: that the rows are shared out to. With more rows than plies, several are of one position.
        run: whose experience it is.
    """
    rng = derive_rng(0, "bench replay", game.name, number)
    plies = min(PLIES, game.max_plies)
    seqs = np.arange(games) + number * games
    weights = rng.exponential(size=(rows, game.num_actions))
    each = np.arange(rows)
    columns = {
        **{
            spec.name: rng.integers(-1, 2, (rows, *spec.shape)).astype(spec.dtype)
            for spec in game.board.inputs
        },
        "policy": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float16),
        "policy_weight": np.ones(rows, np.float32),
        "outcome": rng.choice(np.array([-1, 1], np.float32), rows),
        "search_value": rng.uniform(-1, 1, rows).astype(np.float32),
        "seq": seqs[each * games // rows],
        "step": (each % plies).astype(np.int32),
        "weights_version": np.zeros(rows, np.int32),
    }
    records = tuple(_random_game(game, int(seq), plies=plies, run=run, rng=rng) for seq in seqs)
    return Chunk(run=run, game=game.name, actor=0, epoch=0, games=records, columns=columns)


def _random_game(game: Game, seq: int, *, plies: int, run: str, rng: np.random.Generator) -> GameRecord:
    return GameRecord(
        run=run,
        game=game.name,
        actor=0,
        epoch=0,
        seq=seq,
        actions=rng.permutation(game.num_actions)[:plies].astype(np.int16),
        outcome=1.0,
        values=np.zeros(plies, np.float32),
        recorded=np.ones(plies, bool),
        weights_versions=np.zeros(plies, np.int32),
        opening_plies=0,
    )


class LocalRows:
    """The floor: all rows in one preallocated array a column."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._filled = 0
        self._columns: dict[str, np.ndarray] = {}
        self._rng = derive_rng(0, "bench replay", "local")

    @property
    def row_bytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values()) // self._capacity

    def add(self, columns: dict[str, np.ndarray]) -> None:
        if not self._columns:
            self._columns = {
                name: np.empty((self._capacity, *column.shape[1:]), column.dtype)
                for name, column in columns.items()
            }
        rows = len(columns["seq"])
        for name, column in columns.items():
            self._columns[name][self._filled : self._filled + rows] = column
        self._filled += rows

    def batch(self, rows: int) -> dict[str, np.ndarray]:
        """Return rows drawn uniformly with replacement."""
        drawn = self._rng.integers(self._filled, size=rows)
        return {name: column.take(drawn, axis=0) for name, column in self._columns.items()}


class Window:
    """Rows in a replay actor, with a learner's feed, and the same rows in arrays.

    Attributes:
        chunks: in how many the rows came.
        insert_rates: rows a second that the replay acknowledged, in each part of the filling.
    """

    def __init__(
        self, config: RunConfig, folder: Path, *, rows: int, games_per_chunk: int, parts: int
    ) -> None:
        from cluster.on_ray.actors import DRAWS_AT_ONCE, PREFETCHED_BATCHES, Assignment, ReplayActor
        from cluster.on_ray.client import RayReplaySource
        from cluster.on_ray.program import dressed

        config = override(config, [f"replay.capacity_rows={rows}"])
        run = RunFolder(folder)
        self._batch_rows = config.learner.batch_rows
        self._replay = dressed(ReplayActor, num_cpus=0).remote(Assignment(config, run, 0, {}, True))
        self._ahead = PREFETCHED_BATCHES + DRAWS_AT_ONCE
        self._feed = Feed(
            RayReplaySource(self._replay),
            batch_rows=self._batch_rows,
            prefetch=PREFETCHED_BATCHES,
            draws_at_once=DRAWS_AT_ONCE,
        )
        self.rows = rows
        self.local = LocalRows(rows)
        sizes = chunk_sizes(rows, config.actors.chunk_rows)
        self.chunks = len(sizes)
        game = make_game(config.game)
        self.insert_rates = [
            self._fill(game, run.name, sizes, part, games=games_per_chunk)
            for part in np.array_split(range(len(sizes)), min(parts, len(sizes)))
        ]

    def close(self) -> None:
        """End the feed's thread and the replay's process."""
        import ray

        self._feed.close()
        ray.kill(self._replay)

    def delivered_batch_seconds(self, seconds: float) -> float:
        """Return what a batch takes that a learner is given which does nothing with it."""
        for _ in range(self._ahead + 2):  # made while the other side had its turn
            self._receive()
        batches, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            self._receive()
            batches += 1
        return elapsed / batches

    def local_batch_seconds(self, seconds: float) -> float:
        """Return what a batch takes out of arrays."""
        batches, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            self.local.batch(self._batch_rows)
            batches += 1
        return elapsed / batches

    def _receive(self) -> Batch:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not isinstance(batch := self._feed.next(1.0), Batch):
            if time.monotonic() > deadline:
                raise ClusterError(
                    "no rows were delivered",
                    why=batch.reason,
                    fix="ask for less: fewer rows by --rows and --grown-rows",
                )
        return batch

    def _fill(self, game: Game, run: str, sizes: Sequence[int], numbers: np.ndarray, *, games: int) -> float:
        """Let the replay take in some chunks; return the rows that it acknowledged a second."""
        from cluster.on_ray.client import get

        encoded, rows = [], 0
        for number in numbers.tolist():
            chunk = random_chunk(game, number, rows=sizes[number], games=games, run=run)
            self.local.add(chunk.training_columns())
            encoded.append(chunk.encode())
            rows += chunk.num_rows
        waiting: deque[Any] = deque()
        began = time.perf_counter()
        for data in encoded:
            if len(waiting) == CHUNKS_ON_THEIR_WAY:
                get(waiting.popleft(), timeout_seconds=PATIENCE_SECONDS)
            waiting.append(self._replay.add.remote(data))
        for reference in waiting:
            get(reference, timeout_seconds=PATIENCE_SECONDS)
        return rows / (time.perf_counter() - began)


def chunk_sizes(rows: int, chunk_rows: int) -> list[int]:
    """Return the rows of each chunk; the last has what is left."""
    return [min(chunk_rows, rows - start) for start in range(0, rows, chunk_rows)]


def _compare(config: RunConfig, root: Path, measuring: Measuring, *, rows: int) -> dict[str, Any]:
    games = max(1, config.actors.chunk_rows // min(PLIES, make_game(config.game).max_plies))
    window = Window(config, root / "rows", rows=rows, games_per_chunk=games, parts=measuring.rounds)
    measuring.say(f"{rows:,} rows inserted: {statistics.median(window.insert_rates):,.0f}/s")
    batch_rows = config.learner.batch_rows
    delivered, local = [], []
    try:
        for number in range(measuring.rounds):
            delivered.append(batch_rows / window.delivered_batch_seconds(measuring.seconds))
            local.append(batch_rows / window.local_batch_seconds(measuring.seconds))
            measuring.say(
                f"round {number + 1}: delivered {delivered[-1]:,.0f} rows/s  local {local[-1]:,.0f} rows/s"
            )
    finally:
        window.close()
    ratios = [one / other for one, other in zip(delivered, local, strict=True)]
    measuring.say(f"delivered over local: {statistics.median(ratios):.2f}")
    return {
        "delivered_rows_per_s": statistics.median(delivered),
        "local_rows_per_s": statistics.median(local),
        "delivered_over_local": statistics.median(ratios),
        "delivered_over_local_rounds": ratios,
        "inserts_per_s": statistics.median(window.insert_rates),
        "inserts_per_s_rounds": window.insert_rates,
        "rows": rows,
        "row_bytes": window.local.row_bytes,
        "chunks": window.chunks,
        "batch_rows": batch_rows,
    }


def _grow(config: RunConfig, root: Path, measuring: Measuring, *, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure what a batch costs in windows of several sizes, each with a replay of its own."""
    small = override(config, [f"game={GROWTH_GAME}", "replay.persisted=false"])
    windows: list[Window] = []
    try:
        for rows in sizes:
            windows.append(Window(small, root / f"{rows}-rows", rows=rows, games_per_chunk=1, parts=8))
            measuring.say(f"{rows:,} rows of {windows[-1].local.row_bytes} bytes inserted")
        rounds = []
        for number in range(measuring.rounds):
            rounds.append([_batch_ms(window, measuring.seconds) for window in windows])
            costs = "  ".join(f"{delivered:.2f} ms" for delivered, _ in rounds[-1])
            measuring.say(f"round {number + 1}: a batch costs {costs}")
    finally:
        for window in windows:
            window.close()
    medians = np.median(np.array(rounds), axis=0)
    ratio = statistics.median(costs[-1][0] / costs[0][0] for costs in rounds)
    measuring.say(f"a batch of {sizes[-1]:,} rows over one of {sizes[0]:,}: {ratio:.2f}")
    return {
        "growth": [
            {
                "rows": window.rows,
                "chunks": window.chunks,
                "batch_ms": float(delivered),
                "local_batch_ms": float(local),
            }
            for window, (delivered, local) in zip(windows, medians, strict=True)
        ],
        "growth_row_bytes": windows[0].local.row_bytes,
        "growth_ratio": ratio,
    }


def _batch_ms(window: Window, seconds: float) -> tuple[float, float]:
    """Return what a batch costs through Ray and out of arrays, in milliseconds."""
    return 1000 * window.delivered_batch_seconds(seconds), 1000 * window.local_batch_seconds(seconds)


@contextlib.contextmanager
def _ray_of_our_own() -> Iterator[None]:
    environment.prepare_ray(None)
    import ray

    from cluster.on_ray.address import connect

    connect(None, cpus=Machine.here().cpus)
    try:
        yield
    finally:
        ray.shutdown()
