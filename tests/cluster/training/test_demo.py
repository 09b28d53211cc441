"""The pieces of the demo; the whole of it learns on Ray for two minutes."""

import io
import itertools
import threading
from pathlib import Path

import pytest
from rich.console import Console

from cluster.training import demo, train
from cluster.training.demo import Exam, run_demo
from cluster.training.local_engine import LocalEngine
from games.catalog import make_game
from tests.cluster.tiny import tiny_config


def a_pipe() -> Console:
    return Console(file=io.StringIO(), width=100)


def text_of(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def test_random_boards_never_end_and_begin_anew() -> None:
    boards = list(itertools.islice(demo._random_boards(make_game("tic_tac_toe")), 60))
    stones = [
        sum(board.count(stone) for stone in "xo") - board.splitlines()[0].count("o") for board in boards
    ]

    assert stones.count(0) > 4
    assert max(stones) >= 5
    assert all(later in (earlier + 1, 0) for earlier, later in itertools.pairwise(stones))


def test_loading_happens_in_the_callers_thread_while_a_board_is_shown() -> None:
    target, loaded_in = a_pipe(), []
    demo._while_loading(target, lambda: loaded_in.append(threading.current_thread()))

    assert loaded_in == [threading.current_thread()]
    assert text_of(target).count("two random players") <= 1


def test_a_load_that_fails_ends_the_show() -> None:
    def fail() -> None:
        raise RuntimeError("no Ray")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no Ray"):
        demo._while_loading(a_pipe(), fail)
    assert threading.active_count() <= before


@pytest.mark.parametrize(("trained", "colour"), [(0.9, "32"), (0.2, "31")])
def test_an_exam_is_green_when_something_was_learnt(trained: float, colour: str) -> None:
    target = Console(
        file=io.StringIO(), width=200, highlight=False, force_terminal=True, color_system="standard"
    )
    demo._show_exam(target, Exam("hex4", 400, untrained=0.3, trained=trained))

    assert f"{trained:.1%}" in text_of(target)
    assert f"\x1b[1;{colour}m" in text_of(target)


def test_the_demo_learns_examines_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real demo, but of one game and a few steps, and in this process."""
    monkeypatch.setattr(demo, "GAMES", (("tic_tac_toe", 1.0),))
    monkeypatch.setattr(demo, "_load", lambda plain: None)
    monkeypatch.setattr(train, "resolve_config", lambda game, *_, **__: tiny_config(stop__learner_steps=8))
    monkeypatch.setattr(train, "make_engine", lambda kind, config, folder, **_: LocalEngine(config, folder))
    (exam,) = run_demo(seconds=20.0, runs=tmp_path, plain=True)

    assert (exam.game, exam.positions) == ("tic_tac_toe", demo.EXAM_POSITIONS)
    assert 0.0 < exam.untrained < 1.0
    assert 0.0 < exam.trained < 1.0
    printed = capsys.readouterr().out
    assert "perfect moves" in printed
    assert "a game it played against itself: tic_tac_toe," in printed
    assert f"next: tamen play {next(tmp_path.iterdir()).name}" in printed
