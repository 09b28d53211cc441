"""What does an export cost, what does its cache save, and does the estimate of its rows come true?

    .venv/bin/python -m benchmarks.export_cache [--game hex5] [--games 2500,10000] [--played FOLDER] [--json]

Run it from the checkout. Games are those of an untrained network, or those in the folder of a run. Three questions:

    skip      `export_rows` into an empty folder, and where nothing has changed: seconds of each, in turn, with the
              medians; and the same of the whole command `tamen data export`, which has to start.
    estimate  Rows that were foretold and rows that were made, of each tier and of several factors of a game.
    cycle     An export and a fitting of some epochs, as the autopilot has them: which share of that the cache saves
              when no games are new.
"""

import argparse
import contextlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.comparison import describe_machine
from cluster.data.export import export_rows, held_in
from cluster.run.models import FoundModel
from cluster.run.parts import device
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder
from cluster.training.selfplay import play_into
from configs.control import ExportConfig, GameConfig, TierConfig
from configs.loading import load
from configs.names import preset_names
from configs.schema import RunConfig
from configs.searched import SearchedFitSettings
from core.seeds import derive_seed
from games.catalog import make_game
from learner.offline import Around
from learner.searched_fitting import SearchedFitting, fit_searched
from networks.build import new_net, to_weights
from networks.weights import Weights

FACTORS = (0.8, 1.0, 1.2, 1.5)
LIMIT_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--game", default="hex5")
    parser.add_argument("--games", type=_numbers, default=(2_500, 10_000), metavar="N,N,…", help="sizes")
    parser.add_argument("--played", type=Path, help="folder of a run; by default games are played")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=_numbers, default=(2, 5), metavar="N,N,…")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--json", action="store_true", help="nothing but one JSON object")
    given = parser.parse_args()
    config = load(given.game if given.game in preset_names() else "hex5", [f"game={given.game}"])
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        played = given.played or _play(config, folder / "played", max(given.games))
        time.sleep(0.2)  # until the last file is older than a tick of the clock
        skips = [_skip(played, games, given.rounds, folder / f"skip{games}") for games in given.games]
        estimates = _estimates(played, given.game, folder / "estimates")
        first = folder / f"skip{given.games[0]}" / "rows"
        _cycle(config, first, skips[0], 1, folder / "fitting")  # what is compiled for the first time
        cycles = [
            _cycle(config, folder / f"skip{skip['max_games']}" / "rows", skip, epochs, folder / "fitting")
            for skip in skips
            for epochs in given.epochs
        ]
    if not given.json:
        print(_to_text(skips, estimates, cycles))
    print(json.dumps({"machine": describe_machine(), "skip": skips, "estimate": estimates, "cycle": cycles}))


def _play(config: RunConfig, folder: Path, games: int) -> Path:
    net = new_net(make_game(config.game).board, config.network, seed=derive_seed(config.seed, "network"))
    weights = to_weights(net, model="main", version=0, game=config.game)
    with contextlib.redirect_stdout(io.StringIO()):
        play_into(
            RunFolder(folder),
            FoundModel("untrained", weights, config),
            [],
            games=games,
            engine="local",
            address=None,
            plain=True,
        )
    return folder


def _skip(played: Path, games: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return seconds of exports of the newest games that are made and that are skipped, in turn."""
    out, runs = folder / "rows", folder / "runs"
    about: dict[str, Any] = {}

    def here() -> None:
        about.update(
            export_rows(
                [played], out, max_games=games, validation_share=0.05, force=False, runs=runs, quiet=True
            )
        )

    def command() -> None:
        words = [str(played), "--form", "rows", "--max-games", str(games), "--validation-share", "0.05"]
        words += ["--out", str(out), "--runs", str(runs), "--json"]
        program = [sys.executable, "-m", "cluster.main", "data", "export", *words]
        subprocess.run(program, check=True, timeout=LIMIT_SECONDS, stdout=subprocess.DEVNULL)

    took: dict[str, dict[str, list[float]]] = {}
    for name, work in (("here", here), ("command", command)):
        work()  # what is compiled and read for the first time
        took[name] = {"made": [], "skipped": []}
        for _ in range(rounds):
            shutil.rmtree(out)
            took[name]["made"].append(_timed(work))
            took[name]["skipped"].append(_timed(work))
    here()
    assert about["cached"], about
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    result = {"max_games": games, "games": about["games"], "rows": about["rows"], "bytes": size}
    for name, sides in took.items():
        medians = {side: statistics.median(seconds) for side, seconds in sides.items()}
        ratio = medians["made"] / medians["skipped"]
        result[name] = {"seconds": sides, "medians": medians, "ratio": ratio}
    return result


def _estimates(played: Path, game: str, folder: Path) -> list[dict[str, Any]]:
    """Return rows foretold and made under each tier, with each factor, of all games and of a quarter of them."""
    found = []
    for tier in ExportConfig().tiers:
        for factor in FACTORS:
            for share in (1.0, 0.25):
                config = _forced(tier, game, factor)
                out, runs = folder / "rows", folder / "runs"
                games = None if share == 1.0 else int(held_in(played).games * share)
                told = export_rows(
                    [played], out, max_games=games, force=False, runs=runs, quiet=True, config=config
                )
                kept = ("tier", "games", "stride", "estimated_rows", "rows", "off")
                found.append({"factor": factor, **{name: told[name] for name in kept}})
    return found


def _forced(tier: TierConfig, game: str, factor: float) -> ExportConfig:
    """Return settings under which any number of games is of `tier`."""
    moves = GameConfig(moves_per_game=1, sample_factor=factor)  # those of the games are measured
    return ExportConfig(tiers=(tier.model_copy(update={"below_games": None}),), games={game: moves})


def _cycle(config: RunConfig, rows: Path, skip: dict[str, Any], epochs: int, folder: Path) -> dict[str, Any]:
    """Return the seconds of a fitting, and the share of export and fitting that the cache saves."""
    torch.set_num_threads(Machine.here().cpus)
    batch_rows = 64 if skip["rows"] < 10_000 else 128  # as the caps for small exports have it
    shutil.rmtree(folder, ignore_errors=True)
    fitting = SearchedFitting(
        game=make_game(config.game),
        folder=rows,
        settings=SearchedFitSettings(epochs=epochs),
        network=config.network,
        learner=config.learner.model_copy(update={"batch_rows": batch_rows}),
        parent=None,
        seed=0,
    )
    around = Around(
        publisher=_Nobody(),
        progress=lambda done, total, unit: None,
        should_stop=lambda: False,
        log=lambda line: None,
        device=device(),
    )
    fit = _timed(lambda: fit_searched(fitting, folder, around))
    made, skipped = (skip["here"]["medians"][side] for side in ("made", "skipped"))
    return {
        "games": skip["games"],
        "rows": skip["rows"],
        "epochs": epochs,
        "export_seconds": made,
        "skip_seconds": skipped,
        "fit_seconds": fit,
        "saved": (made - skipped) / (made + fit),
    }


class _Nobody:
    """Takes weights and forgets them."""

    def publish(self, weights: Weights) -> None:
        pass

    def newest_version(self) -> int:
        return 0


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _to_text(
    skips: Sequence[dict[str, Any]], estimates: Sequence[dict[str, Any]], cycles: Sequence[dict[str, Any]]
) -> str:
    lines = ["games  rows  MB  made s  skipped s  ratio  (of the command: made s  skipped s  ratio)"]
    for each in skips:
        sides = [each[name] for name in ("here", "command")]
        figures = [(s["medians"]["made"], s["medians"]["skipped"], s["ratio"]) for s in sides]
        told = "  ".join(f"{made:.3f}  {skipped:.4f}  {ratio:.1f}×" for made, skipped, ratio in figures)
        lines.append(f"{each['games']:,}  {each['rows']:,}  {each['bytes'] / 1e6:.1f}  {told}")
    lines.append("\ntier  factor  stride  games  estimated  rows  off")
    lines += [
        f"{each['tier']}  {each['factor']:g}  {each['stride']:g}  {each['games']:,}  "
        f"{each['estimated_rows']:,}  {each['rows']:,}  {each['off']:+.2%}"
        for each in estimates
    ]
    lines.append("\ngames  rows  epochs  export s  fit s  saved")
    lines += [
        f"{each['games']:,}  {each['rows']:,}  {each['epochs']}  {each['export_seconds']:.2f}  "
        f"{each['fit_seconds']:.1f}  {each['saved']:.1%}"
        for each in cycles
    ]
    return "\n".join(lines)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(","))


if __name__ == "__main__":
    main()
