"""Errors are three lines that teach; numbers are written for people."""

import io

import pytest
from rich.console import Console

from cluster.cli.terminal import (
    console,
    duration,
    is_live,
    percent,
    real,
    short,
    show_error,
    sparkline,
    whole,
)
from core.errors import UsageError

ERROR = UsageError(
    "game 'hx5' is unknown", why="known are hex5 and tictactoe [see games]", fix="tamen train hex5"
)


def shown(*, debug: bool, width: int = 20) -> list[str]:
    target = Console(file=io.StringIO(), width=width)
    try:
        raise ERROR
    except UsageError as error:
        with target.capture() as capture:
            show_error(error, debug=debug, target=target)
    return capture.get().splitlines()


def test_an_error_is_three_lines_however_narrow_the_terminal() -> None:
    assert shown(debug=False) == [
        "error: game 'hx5' is unknown",
        "  why: known are hex5 and tictactoe [see games]",
        "  do:  tamen train hex5",
    ]


def test_debug_puts_the_traceback_before_it() -> None:
    lines = shown(debug=True)
    assert lines[0].startswith("Traceback")
    assert any("raise ERROR" in line for line in lines)
    assert lines[-3:] == shown(debug=False)


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(ERROR)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: game 'hx5'")


def test_a_pipe_is_plain_and_not_live(capsys: pytest.CaptureFixture[str]) -> None:
    target = console()
    target.print("[bold]3 games[/]")
    assert not is_live(target)
    assert capsys.readouterr().out == "3 games\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color


def test_a_dumb_terminal_is_not_live() -> None:
    assert not is_live(Console(force_terminal=True, _environ={"TERM": "dumb"}))
    assert is_live(Console(force_terminal=True, _environ={"TERM": "xterm"}))


def test_numbers_are_written_for_people() -> None:
    assert [whole(3412.4), real(1.416, 2), percent(0.583), percent(0.9812, 1)] == [
        "3,412",
        "1.42",
        "58%",
        "98.1%",
    ]
    assert [short(n) for n in (0, 999, 1000, 61_234, 999_499, 999_500, 1_240_000)] == [
        "0", "999", "1k", "61k", "999k", "1.0M", "1.2M",
    ]  # fmt: skip
    assert [duration(s) for s in (0, 59.9, 312, 3905)] == ["0:00", "0:59", "5:12", "1:05:05"]


def test_what_was_not_measured_is_a_dash() -> None:
    assert [whole(None), real(None, 2), percent(None), short(None), duration(None)] == ["–"] * 5


def test_a_sparkline_runs_from_the_highest_to_the_lowest() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert sparkline([8, 8, 1, 1], 2) == "█▁"
    assert sparkline([2, 2, 2], 10) == "▁▁▁"
    assert sparkline([], 10) == sparkline([1, 2], 0) == sparkline([1, 2], -5) == ""
