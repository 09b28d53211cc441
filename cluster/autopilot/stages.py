"""What the autopilot does for a key: games, a data set, a network, matches. Each in a process of its own.

runs/autopilot/<key>/
  selfplay/r<number>/     games of one reign of a champion, as `tamen selfplay` makes them; r0 is the untrained one
  data/                   the data set of the present training
  trainings/<number>/     fitting/ the checkpoints of a training, model.safetensors what came of it
  log.txt                 what the processes say

A stage that was killed is done again and finds what was there: games count on, a data set is the same bytes, a fitting
goes on from its checkpoint. So a stage may be run twice and makes the same.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.autopilot.stage_process import TELL_SECONDS, Tell
from cluster.data.export import held_in
from cluster.run.program import Machine
from configs.loading import load
from configs.names import preset_names
from configs.schema import RunConfig
from control.keys import Key
from core.errors import DataError, UsageError
from core.files import write_atomic

Engine = Literal["ray", "local"]
MODEL_FILE = "model.safetensors"
UNTRAINED = 0
FEWEST_SIDE_BY_SIDE = 16
"""Games of a group: fewer are not searched well together."""
LOG_BYTES = 16 << 20
"""Beyond which a log begins anew; the one before is kept."""


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """Where what is made for a key lies."""

    root: Path

    @property
    def selfplay(self) -> Path:
        return self.root / "selfplay"

    @property
    def log_file(self) -> Path:
        return self.root / "log.txt"

    @property
    def untrained(self) -> Path:
        return self.root / "untrained.safetensors"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def games_of(self, reign: int) -> Path:
        return self.selfplay / f"r{reign}"

    def training(self, number: int) -> Path:
        return self.root / "trainings" / str(number)

    def trainings(self, last: int) -> list[Path]:
        """Return the folders of the trainings up to number `last` that there are."""
        found = self.training(last).parent.glob("*")
        return [path for path in found if path.name.isdecimal() and int(path.name) <= last]

    def played_in(self) -> list[Path]:
        """Return the folders of games that there are, the oldest first."""
        found = [path for path in self.selfplay.glob("r*") if path.name[1:].isdecimal()]
        return sorted(found, key=lambda path: int(path.name[1:]))


@dataclass(frozen=True, slots=True)
class PlayTask:
    """Games of a model in a reign: the folder is to hold so many. Without a model the untrained one plays."""

    config: RunConfig
    folder: KeyFolder
    model: Path | None
    reign: int
    games: int
    engine: Engine
    address: str | None


@dataclass(frozen=True, slots=True)
class ExportTask:
    """A data set of the newest games, of which `keep` says which rows; a share of them is kept apart."""

    config: RunConfig
    folder: KeyFolder
    max_games: int | None
    validation_share: float
    keep: Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class FitTask:
    """A network fitted to the data set of a training, from the parent's weights or untrained."""

    config: RunConfig
    folder: KeyFolder
    number: int
    parent: Path | None
    epochs: float
    batch_rows: int
    threads: int


@dataclass(frozen=True, slots=True)
class MatchTask:
    """A match on paired openings between two players, as `tamen match` names them; a path stands for its model."""

    key: Key
    folder: KeyFolder
    first: str
    second: str
    pairs: int
    first_pair: int
    opening_plies: int
    seed: int
    simulations: int


def config_of(key: Key, overrides: list[str]) -> RunConfig:
    """Return the configuration of a key: the preset of its game if there is one, else the defaults.

    Raises:
        UsageError: when the game is none, or is not for so many players.
    """
    from games.catalog import make_game

    game = make_game(key.game)
    if key.players != 2:
        raise UsageError(
            f"{key} cannot be played",
            why=f"{game.name} is a game of 2 players",
            fix=f"write {key.game}_2p",
        )
    if key.game in preset_names():
        return load(key.game, overrides)
    return load("hex5", [f"game={key.game}", *overrides])


def games_at_rest(folder: KeyFolder) -> tuple[int, int]:
    """Return how many games there are, and rows of them."""
    counts = [games_of(played) for played in folder.played_in()]
    return sum(games for games, _ in counts), sum(rows for _, rows in counts)


def games_of(played: Path) -> tuple[int, int]:
    """Return likewise what is in one folder of games."""
    held = held_in(played)
    return held.games, held.rows


def play(task: PlayTask, tell: Tell) -> dict[str, Any]:
    """Play until the folder of the model's games holds so many; return {"games", "model"}."""
    from cluster.run.models import FoundModel
    from cluster.run.run_folder import RunFolder
    from cluster.training.selfplay import play_into
    from networks.weights import Weights

    path = task.model or _untrained(task)
    with _said_to(task.folder.log_file):
        weights = Weights.from_bytes(path.read_bytes(), source=str(path))
        folder = RunFolder(task.folder.games_of(task.reign))
        there = games_of(folder.root)[0]
        wanted = max(1, task.games - there)
        tell(0, wanted, "games")  # Ray takes its time to begin
        play_into(
            folder,
            FoundModel(path.stem, weights, task.config),
            _for_few_games(task.config, wanted),
            games=task.games,
            engine=task.engine,
            address=task.address,
            plain=True,
            watch=lambda seen: tell(max(0, (seen.games.played or 0) - there), wanted, "games"),
        )
    return {"games": games_at_rest(task.folder)[0], "model": weights.digest}


def export(task: ExportTask, tell: Tell) -> dict[str, Any]:
    """Make the data set of a training; return its counts and its digest."""
    from configs.searched import SearchedExportSettings
    from games.catalog import make_game
    from pipeline.searched_rows import export_searched

    with _said_to(task.folder.log_file):
        made = export_searched(
            task.folder.played_in(),
            make_game(task.config.game),
            task.folder.data,
            SearchedExportSettings(
                max_games=task.max_games, validation_share=task.validation_share, seed=task.config.seed
            ),
            keep=task.keep,
            progress=tell,
            log=_say,
        )
    return {
        "games": made.games,
        "rows": made.rows,
        "validation_rows": made.validation_rows,
        "digest": made.digest,
        "damaged": made.damaged,
    }


def fit(task: FitTask, tell: Tell) -> dict[str, Any]:
    """Fit a network and write it; return {"model": its path, "config", "metrics"}."""
    import torch

    from cluster.run.parts import device
    from configs.searched import SearchedFitSettings
    from games.catalog import make_game
    from learner.offline import Around
    from learner.searched_fitting import SearchedFitting, fit_searched
    from networks.weights import Weights

    torch.set_num_threads(task.threads)
    config, folder = task.config, task.folder.training(task.number)
    parent = (
        None if task.parent is None else Weights.from_bytes(task.parent.read_bytes(), source=str(task.parent))
    )
    learner = config.learner.model_copy(update={"batch_rows": task.batch_rows})
    fitting = SearchedFitting(
        game=make_game(config.game),
        folder=task.folder.data,
        settings=SearchedFitSettings(epochs=task.epochs),
        network=config.network,
        learner=learner,
        parent=parent,
        seed=config.seed,
    )
    kept = _Kept(0 if parent is None else parent.version)
    with _said_to(task.folder.log_file):
        around = Around(
            publisher=kept,
            progress=tell,
            should_stop=lambda: False,
            log=_say,
            device=device(),
        )
        counts = fit_searched(fitting, folder / "fitting", around)
    write_atomic(folder / MODEL_FILE, kept.newest.to_bytes())
    judged = (counts.get("best") or {}).get("validation") or {}
    figures = {
        f"validation_{name}": value for name, value in judged.items() if isinstance(value, int | float)
    }
    return {
        "model": str(folder / MODEL_FILE),
        "config": {
            "network": config.network.model_dump(mode="json"),
            "learner": learner.model_dump(mode="json"),
            "epochs": task.epochs,
        },
        "metrics": {"steps": counts["steps"], "rows": counts["rows"], **figures},
    }


def meet(task: MatchTask, tell: Tell) -> dict[str, Any]:
    """Play a match; return {"pair_scores": of the first, "set_aside", "plies"}."""
    from actors.arena import Progress
    from cluster.matches.match import contest, find_contender

    progress = Progress()
    with _said_to(task.folder.log_file), _following(progress, 2 * task.pairs, tell):
        sides = tuple(
            find_contender(text, simulations=task.simulations, runs=task.folder.root)
            for text in (task.first, task.second)
        )
        result = contest(
            sides,
            task.key.game,
            pairs=task.pairs,
            first_pair=task.first_pair,
            opening_plies=task.opening_plies,
            seed=task.seed,
            progress=progress,
        )
    tally = result.tally()
    return {
        "wins": tally.wins,
        "draws": tally.draws,
        "losses": tally.losses,
        "pair_scores": list(result.pair_scores),
        "set_aside": len(result.set_aside),
        "plies": result.plies,
    }


class _Kept:
    """Keeps what is published: the weights of a training."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._newest: Any = None

    @property
    def newest(self) -> Any:
        if self._newest is None:
            raise DataError("nothing came of the fitting", why="it ended unfinished", fix="run it again")
        return self._newest

    def publish(self, weights: Any) -> None:
        self._newest = weights

    def newest_version(self) -> int:
        return self._version


def _for_few_games(config: RunConfig, games: int) -> list[str]:
    """Return settings with which not many more games are played: what is in play when they are reached counts, too."""
    in_turn = config.actors.groups_per_actor * Machine.here().cpus
    side_by_side = min(config.actors.games_per_group, max(FEWEST_SIDE_BY_SIDE, -(-games // in_turn)))
    soon = ["actors.flush_seconds=0.5"] if side_by_side < config.actors.games_per_group else []
    return [f"actors.games_per_group={side_by_side}", *soon]


@contextlib.contextmanager
def _following(progress: Any, games: int, tell: Tell) -> Iterator[None]:
    """Tell from a thread how far a match is, while the block runs."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(TELL_SECONDS):
            tell(progress.games_finished, games, "games")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _untrained(task: PlayTask) -> Path:
    """Return the file of the untrained network of a key, making it if it is not there."""
    from core.seeds import derive_seed
    from games.catalog import make_game
    from networks.build import new_net, to_weights

    path = task.folder.untrained
    if not path.exists():
        config = task.config
        net = new_net(make_game(config.game).board, config.network, seed=derive_seed(config.seed, "network"))
        write_atomic(path, to_weights(net, model="main", version=UNTRAINED, game=config.game).to_bytes())
    return path


@contextlib.contextmanager
def _said_to(file: Path) -> Iterator[None]:
    """Append what is printed to a file, by this process and those that it begins: a screen shows other things."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > LOG_BYTES:
        file.rename(file.with_suffix(".1.txt"))
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    with file.open("ab") as target:
        for stream in (1, 2):
            os.dup2(target.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, before in zip((1, 2), kept, strict=True):
                os.dup2(before, stream)
                os.close(before)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
