"""`tamen evaluate`: how well a model foretells the moves and winners of games in files."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, whole
from cluster.data.files import tell_set_aside
from cluster.run.models import FoundModel, find_model
from core.errors import DataError, UsageError
from games.catalog import make_game
from games.hex import Hex
from pipeline.contract import Context, Stopped
from pipeline.executors import Inline
from pipeline.positions import Selection, cut_rows
from pipeline.preprocess import PreprocessStep

PART_ROWS = 1 << 14
_PLIES_A_LINE = 10


def evaluate_model(
    model: str, data: Sequence[str], *, runs: Path, as_json: bool, max_rows: int | None = None
) -> dict[str, Any]:
    """Return what `learner.accuracy` reports of a model on games, and print it unless `as_json`.

    Args:
        model: RUN, RUN@VERSION or a .safetensors file.
        data: files of games, folders of them, or one folder of shuffled rows, of which those of validation are used.
        runs: where runs are.
        as_json: whether the caller prints what is returned; then only progress is shown.
        max_rows: at most so many positions; None: all.

    Returns:
        The report, with "model", "game", "seconds", of files "duplicates" and "rejected" lines, and "files_set_aside",
        those that could not be read whole.

    Raises:
        UsageError: when there is no such model or file, or the games are not those of the model.
        DataError: when nothing in the files can be used.
    """
    found = find_model(model, runs=runs)
    began = time.monotonic()
    display = StepDisplay(console(stderr=True), plain=as_json)
    try:
        with stop_request() as stop, display, Inline() as executor:
            context = Context(executor, display.progress, lambda: stop.requested, lambda line: None)
            display.begin("reading")
            if len(data) == 1 and (Path(data[0]) / "manifest.json").exists() and _is_shuffled(Path(data[0])):
                shards, counts = _kept_apart(Path(data[0]), found), {"files_set_aside": []}
            else:
                shards, counts = _rows_of_files(data, found, context)
            display.begin("evaluating")
            report = _judged(found, shards, context, max_rows=max_rows)
    except Stopped:
        raise KeyboardInterrupt from None
    about = {"model": found.label, "game": found.weights.game, "seconds": round(time.monotonic() - began, 3)}
    report = {**about, **counts, **report}
    if not as_json:
        tell_set_aside(counts)
        _show(report)
    return report


def _judged(
    found: FoundModel, shards: Sequence[dict[str, np.ndarray]], context: Context, *, max_rows: int | None
) -> dict[str, Any]:
    import torch

    from cluster.run.parts import device
    from cluster.run.program import Machine
    from learner.board_fitting import judge
    from networks.build import build_net
    from networks.precision import resolve

    torch.set_num_threads(Machine.here().cpus)
    total = sum(len(rows["game"]) for rows in shards)
    total = total if max_rows is None else min(total, max_rows)
    precision = resolve(found.config.network.precision, device())

    def parts() -> Iterator[Mapping[str, np.ndarray]]:
        done = 0
        for rows in shards:
            for start in range(0, len(rows["game"]), PART_ROWS):
                if context.should_stop():
                    raise Stopped
                stop = min(start + PART_ROWS, start + total - done)
                part = {name: column[start:stop] for name, column in rows.items()}
                if not len(part["game"]):
                    return
                yield part
                done += len(part["game"])
                context.progress(done, total, "positions")

    return judge(build_net(found.weights), parts(), make_game(found.weights.game), precision)


def _rows_of_files(
    data: Sequence[str], found: FoundModel, context: Context
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Return the rows of all games of the model's board, each game once, and counts of what was left out."""
    game = make_game(found.weights.game)
    if not isinstance(game, Hex) or game.board.extra_actions:
        raise UsageError(
            f"{found.label} cannot be judged by files of games",
            why=f"it plays {game.name}, and files are of hex without the swap",
            fix="name a model of hex",
        )
    with tempfile.TemporaryDirectory(prefix="tamen-") as temporary:
        folder = Path(temporary)
        counts = PreprocessStep(data).run({}, folder, context)
        texts = sorted(folder.glob(f"{game.name}_*.trmph"))
        rows = [cut_rows(path.read_bytes(), game.size, Selection(), source=", ".join(data)) for path in texts]
    if not rows:
        sizes = ", ".join(f"{whole(number)} on {size}×{size}" for size, number in counts["by_size"].items())
        raise DataError(
            f"there are no games of {game.name} in {', '.join(data)}",
            why=f"they hold {sizes or 'none at all'}, and {whole(counts['rejected'])} lines that are none",
            fix="name files of the game that the model plays; `tamen data check FILES` tells why lines are refused",
        )
    return rows, {name: counts[name] for name in ("duplicates", "rejected", "files_set_aside")}


def _is_shuffled(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "validation").is_dir()


def _kept_apart(folder: Path, found: FoundModel) -> list[dict[str, np.ndarray]]:
    from learner.mixing import DataSet, read_manifest, validation_rows

    manifest = read_manifest(folder)
    if manifest.game != found.weights.game:
        raise UsageError(
            f"{found.label} cannot be judged by {folder}",
            why=f"its rows are of {manifest.game}, the model plays {found.weights.game}",
            fix="name rows of the game that the model plays",
        )
    rows = list(validation_rows([DataSet(folder)], most=2**62))
    if not rows:
        raise DataError(
            f"no games were kept apart in {folder}",
            why="all its rows are for training, and a model knows those",
            fix="name files of other games, or shuffle with shuffle.validation_share above 0",
        )
    return rows


def _show(report: Mapping[str, Any]) -> None:
    """Print the figures, and some of them by ply."""
    target = console()
    target.print(
        Text(f"{report['model']} on {whole(report['games'])} games, {whole(report['positions'])} positions")
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, key in (
        ("moves foretold, from ply 2 on", "policy_top1"),
        ("  among the three likeliest", "policy_top3"),
        ("winners foretold", "value_accuracy"),
        ("  in second halves of games", "value_accuracy_second_half"),
    ):
        table.add_row(name, _percent(report[key]))
    if report["value_mse"] is not None:
        table.add_row("value's mean squared error", f"{report['value_mse']:.3f}")
        off = report["calibration"]["expected_error"]
        table.add_row("  forecasts off by, on average", _percent(off))
    target.print(table)
    by_ply = Table(box=None, pad_edge=False)
    for header in ("plies", "positions", "top 1", "top 3", "winners"):
        by_ply.add_column(header, justify="right")
    for first, line in _by_tens(report["by_ply"]).items():
        shares = (_percent(line[key]) for key in ("policy_top1", "policy_top3", "value_accuracy"))
        by_ply.add_row(f"{first}–{first + _PLIES_A_LINE - 1}", whole(line["positions"]), *shares)
    target.print(by_ply)


def _by_tens(lines: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return figures of each ten plies."""
    tens: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        tens.setdefault(line["ply"] // _PLIES_A_LINE * _PLIES_A_LINE, []).append(line)
    return {
        first: {
            "positions": sum(line["positions"] for line in some),
            **{
                key: _mean([(line[key], line[weight]) for line in some if line[key] is not None])
                for key, weight in (
                    ("policy_top1", "moves"),
                    ("policy_top3", "moves"),
                    ("value_accuracy", "known"),
                )
            },
        }
        for first, some in tens.items()
    }


def _mean(pairs: Sequence[tuple[float, int]]) -> float | None:
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
