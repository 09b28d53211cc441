"""`tamen demo`: a network learns two small games before your eyes, through the real system, and is then examined."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.cli.terminal import console, is_live
from cluster.run.run_folder import RunFolder, open_run, run_folder
from core.seeds import derive_rng
from games.catalog import make_game
from games.game import Game

GAMES = (("tic_tac_toe", 0.4), ("hex4", 0.6))
"""What is learned, and its share of the time."""
OVERHEAD_SECONDS = 15.0
"""What a game takes beside learning: its parts load torch and kernels, stop, and the network is examined."""
EXAM_POSITIONS = 400


@dataclass(frozen=True, slots=True)
class Exam:
    """Shares of solved positions in which the network's likeliest move, without search, is perfect."""

    game: str
    positions: int
    untrained: float
    trained: float


def run_demo(*, seconds: float, runs: Path, plain: bool) -> list[Exam]:
    """Run the demo and return what the exams gave."""
    target, deadline = console(), time.monotonic() + seconds
    target.print("A network learns tic-tac-toe, then 4×4 hex, from nothing but the rules.", style="bold")
    names = [(game, f"demo-{game}-{time.strftime('%Y%m%d-%H%M%S')}", share) for game, share in GAMES]
    _while_loading(target, lambda: _load(plain))
    exams = []
    for number, (game, name, share) in enumerate(names):
        folder = run_folder(runs, name)
        left = deadline - time.monotonic() - OVERHEAD_SECONDS * (len(names) - number)
        shares_left = sum(share for _, _, share in names[number:])
        _learn(game, folder, minutes=max(5.0, left * share / shares_left) / 60, plain=plain)
        exams.append(_examine(game, folder))
        _show_exam(target, exams[-1])
    import ray

    ray.shutdown()
    _show_game(target, names[-1][0], run_folder(runs, names[-1][1]))
    target.print(f"next: tamen play {names[-1][1]}   or   tamen train hex5 --minutes 10", markup=False)
    return exams


def _load(plain: bool) -> None:
    """Import the slow libraries and start Ray, while the first board moves."""
    from cluster import environment

    environment.prepare_ray(None)
    from cluster.on_ray.address import connect
    from cluster.run.program import Machine

    connect(None, cpus=Machine.here().cpus)


def _while_loading(target: Console, load: Callable[[], None]) -> None:
    """Show random play in a thread until `load` is done.

    `load` stays in the main thread: the kernel ends Ray's processes together with the thread that started them.
    """
    loaded = threading.Event()

    def show() -> None:
        with (
            Live(console=target, auto_refresh=False, transient=True)
            if is_live(target)
            else _Still(target) as live
        ):
            for board in _random_boards(make_game("tic_tac_toe")):
                live.update(Text(f"Ray starts; meanwhile two random players:\n\n{board}\n"), refresh=True)
                if loaded.wait(0.4):
                    return

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        load()
    finally:
        loaded.set()
        shown.join(5.0)


class _Still:
    """Stands in for `Live` where nothing can be redrawn: shows the first board and then keeps quiet."""

    def __init__(self, target: Console) -> None:
        self._target = target
        self._shown = False

    def __enter__(self) -> "_Still":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, text: Text, *, refresh: bool) -> None:
        if not self._shown:
            self._target.print(text)
        self._shown = True


def _random_boards(game: Game):
    """Yield the boards of endless random play."""
    rng = derive_rng(0, "demo")
    states, row = game.new_states(1), np.zeros(1, np.int32)
    game.new(states, row)
    while True:
        yield game.render(states, 0)
        legal = np.flatnonzero(game.legal(states, row)[0])
        if len(legal):
            game.play(states, row, np.array([rng.choice(legal)], np.int16), row)
        else:
            game.new(states, row)


def _learn(game: str, folder: RunFolder, *, minutes: float, plain: bool) -> None:
    from cluster.monitoring.observer import Observer
    from cluster.training.train import make_engine, reached, resolve_config, run_engine

    config = resolve_config(game, [], size="cpu", minutes=minutes)
    lock = open_run(folder, config)
    try:
        observer = Observer(folder.name, config, evaluations_file=folder.evaluations_file)
        engine = make_engine("ray", config, folder, address=None, report=observer.note)
        snapshot = run_engine(engine, observer, config, folder, plain=plain, metrics_port=None)
        if snapshot is None or not reached(config, snapshot):
            raise KeyboardInterrupt
    finally:
        lock.release()


def _examine(game_name: str, folder: RunFolder) -> Exam:
    """Ask the first and the last network for their move in solved positions that neither was trained on by name."""
    from actors.evaluator import perfect_share
    from cluster.run.parts import MODEL, make_local_evaluate, make_store
    from games.solver import labelled_positions
    from search.drive import run

    game, store = make_game(game_name), make_store(folder)
    positions = labelled_positions(game, EXAM_POSITIONS, derive_rng(1, "exam", game_name))
    shares = [
        run(
            perfect_share(game, positions, MODEL),
            make_local_evaluate(folder.config(), store.get(MODEL, version)),
        )
        for version in (0, store.newest_version(MODEL))
    ]
    return Exam(game_name, EXAM_POSITIONS, *shares)


def _show_exam(target: Console, exam: Exam) -> None:
    target.print(
        f"{exam.game}: {exam.trained:.1%} perfect moves on {exam.positions} solver-checked positions, without search"
        f" (untrained: {exam.untrained:.1%})",
        style="bold green" if exam.trained > exam.untrained else "bold red",
    )


def _show_game(target: Console, game_name: str, folder: RunFolder) -> None:
    """Print the last game of self-play, as the replay kept it."""
    files = sorted(folder.games.glob("*"))
    lines = files[-1].read_text(encoding="utf-8").splitlines() if files else []
    if lines:
        target.print(f"a game it played against itself: {lines[-1]}", markup=False, soft_wrap=True)
