"""What the parts of a run cost, for `tamen plan cluster`: as benchmarks printed it, or as it was measured before.

Each figure says where it is from. Nothing is guessed: what was not measured is a setting of the plan.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError

MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it is from.

    Attributes:
        game: that it holds for, "" for all.
        network: blocks and channels that it holds for, None for all.
    """

    value: float
    source: str
    game: str = ""
    network: tuple[int, int] | None = None


MEASURED_BEFORE = {
    "evals_per_core_s": Figure(9_211 / 2, "selfplay_2core-avx2, 3 x 32", "hex13", (3, 32)),
    "server_evals_per_s": Figure(9_211 / 0.83 / 2, "selfplay_2core-avx2, 3 x 32", "hex13", (3, 32)),
    "actor_eval_seconds": Figure(
        1 / 370_000 + 0.0012 / 512, "docs/STATUS.md (search), selfplay_2core-avx2 (a call)"
    ),
    "moves_per_game": Figure(127.0, "selfplay_2core-avx2, little is learnt", "hex13"),
    "chunk_seconds": Figure(0.0104, "scale_2core-avx512"),
    "row_seconds": Figure(7.28e-06, "scale_2core-avx512"),
    "draw_seconds": Figure(1 / 2_100_969, "replay_2core-avx2"),
    "row_bytes": Figure(543.0, "replay_2core-avx2, not compressed", "hex13"),
    "disk_bytes_per_s": Figure(380e6, "scale_2core-avx512, files of 0.6 MB"),
    "learner_rows_per_s": Figure(964.0, "learner_step_2core-avx2, 3 x 32", "hex13", (3, 32)),
    "weights_seconds_per_byte": Figure(0.020 / 10.1e6, "broadcast_2core-avx2"),
    "part_seconds": Figure(1.8e-5, "scale_2core-avx512"),
    "ask_seconds": Figure(3.4e-4, "scale_2core-avx512"),
}
"""By name, as `cluster.plan.cluster_model.Costs` has them; `weights_seconds_per_byte` is of a core, for each server.
Sources are files of benchmarks/results."""

OF_A_NETWORK = {name for name, figure in MEASURED_BEFORE.items() if figure.network is not None}
Result = Mapping[str, Any]


def read_costs(files: Sequence[Path], **given: float | None) -> dict[str, Figure]:
    """Return every figure, those of `files` before those that were measured before.

    Args:
        files: each what `bench selfplay`, `bench replay`, `bench broadcast` (with --json), benchmarks/learner_step.py
            or benchmarks/driver_costs.py printed. Several of `bench replay`, with chunks of several sizes, tell what a
            chunk costs apart from its rows.
        given: figures that come before all others, by name; None is not given.

    Raises:
        DataError: when a file is none of them.
    """
    figures, chunks = dict(MEASURED_BEFORE), []
    for file in files:
        result = _read(file)
        try:
            reader = next(reader for mark, reader in _READERS if mark in result)
            told = reader(result)
        except (StopIteration, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise _unknown(file, "it is not what one of these benchmarks prints") from error
        if "inserts_per_s" in result:
            chunks.append((result["config"]["actors"]["chunk_rows"], told.pop("inserts_per_s")))
        if not all(value > 0 and np.isfinite(value) for value in told.values()):
            raise _unknown(file, "it has figures that are not above 0")
        figures |= _figures(told, result, source=str(file))
    if chunks:
        fixed, each = _cost_of_chunks(chunks)
        source = f"{len(chunks)} files of bench replay"
        figures |= {"chunk_seconds": Figure(fixed, source), "row_seconds": Figure(each, source)}
    told_here = {name: Figure(value, "as given") for name, value in given.items() if value is not None}
    return figures | told_here


def _figures(told: Mapping[str, float], result: Result, *, source: str) -> dict[str, Figure]:
    """Return what a benchmark told, with the game and, where it matters, the network that it was told of."""
    of = result.get("config", result)
    network = of.get("network")
    size = None if network is None else (int(network["blocks"]), int(network["channels"]))
    return {
        name: Figure(value, source, of.get("game", ""), size if name in OF_A_NETWORK else None)
        for name, value in told.items()
    }


def _read(file: Path) -> Result:
    """Return the JSON object of a file's last line."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise _unknown(file, f"it has more than {MOST_BYTES >> 20} MiB")
        lines = file.read_text(encoding="utf-8").strip().splitlines()
        result = json.loads(lines[-1])
    except (ValueError, IndexError) as error:
        raise _unknown(file, "its last line is no JSON") from error
    if not isinstance(result, dict):
        raise _unknown(file, "its last line is no JSON object")
    return result


def _of_selfplay(result: Result) -> dict[str, float]:
    # A server for each core: that is how the benchmark sets them.
    cores = result["config"]["inference"]["servers"]
    return {
        "evals_per_core_s": result["evals_per_s"] / cores,
        "server_evals_per_s": result["raw_per_s"] / cores,
    }


def _of_replay(result: Result) -> dict[str, float]:
    return {
        "inserts_per_s": result["inserts_per_s"],
        "row_bytes": result["row_bytes"],
        "draw_seconds": 1 / result["delivered_rows_per_s"],
    }


def _of_broadcast(result: Result) -> dict[str, float]:
    seconds = max(1e-6, result["selfplay_loss_ratio"]) * result["every_seconds"]
    return {"weights_seconds_per_byte": seconds / (1e6 * result["megabytes"])}


def _of_learner(result: Result) -> dict[str, float]:
    precision = result["auto_precision"].partition(":")[0]  # in which a run would learn there
    return {"learner_rows_per_s": result["rows_per_s"][precision]}


def _of_driver(result: Result) -> dict[str, float]:
    return {name: max(1e-12, result[name]) for name in ("part_seconds", "ask_seconds")}


_READERS: tuple[tuple[str, Callable[[Result], dict[str, float]]], ...] = (
    ("evals_over_raw", _of_selfplay),
    ("inserts_per_s", _of_replay),
    ("selfplay_loss_ratio", _of_broadcast),
    ("one_microbatch_megabytes", _of_learner),
    ("ask_seconds", _of_driver),
)
"""By a key that no other benchmark has."""


def _cost_of_chunks(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the seconds of a chunk and of a row, from (rows of a chunk, rows a second).

    From several sizes by least squares of relative errors; from one, in the proportion that was measured before.
    """
    rows = np.array([size for size, _ in points], float)
    seconds = rows / np.array([rate for _, rate in points])
    fixed, each = MEASURED_BEFORE["chunk_seconds"].value, MEASURED_BEFORE["row_seconds"].value
    if len(set(rows.tolist())) == 1:
        ratio = float(np.median(seconds)) / (fixed + each * rows[0])
        return fixed * ratio, each * ratio
    design = np.stack([np.ones_like(rows), rows], axis=1) / seconds[:, None]
    fixed, each = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0]
    return max(0.0, float(fixed)), max(1e-9, float(each))


def _unknown(file: Path, why: str) -> DataError:
    return DataError(
        f"{file} tells nothing that was measured",
        why=why,
        fix="give what tamen bench selfplay, replay or broadcast printed with --json, or a script of docs/scale.md",
    )
