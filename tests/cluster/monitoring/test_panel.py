"""The panel holds its shape in every terminal, and says in a pipe what it says on a terminal."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cluster.monitoring.panel import RunDisplay, plain_line
from cluster.monitoring.panel_boxes import RunPanel
from cluster.monitoring.snapshot import (
    ActorsPart,
    Event,
    FaultsPart,
    GamesPart,
    InferencePart,
    LearnerPart,
    ReplayPart,
    RolloutPart,
    Score,
    Snapshot,
)

BOARD = "a b c d e\n ● · · ○ ·\n  · ● ○ · ·\n   · ● ○ · ·\n    ○ ● · · ·\n     · ● · · ○"
EMPTY = Snapshot(run="first", game="hex5", elapsed_seconds=0.0)
FULL = Snapshot(
    run="first",
    game="hex5",
    elapsed_seconds=312.0,
    remaining_seconds=888.0,
    stop="20 min",
    games=GamesPart(played=3412, per_hour=39_012.3, mean_plies=17.04, last_board=BOARD),
    actors=ActorsPart(search_share=0.31, wait_share=0.61, deliver_share=0.02, held_back_share=0.0),
    inference=InferencePart(
        positions_per_second=12_410.0, mean_batch_rows=441.2, busy_ratio=0.93, cache_hit_ratio=0.18
    ),
    learner=LearnerPart(
        steps=1640,
        steps_per_second=12.44,
        data_wait_ratio=0.66,
        policy_loss=1.412,
        value_loss=0.508,
        lag_versions=1.42,
        newest_version=33,
    ),
    replay=ReplayPart(rows=61_234, window_rows=50_000, capacity_rows=500_000, samples_per_insert=3.97),
    strength={"random": Score(1.0, 0.91, 1.0), "mcts:64": Score(0.71, 0.58, 0.84)},
    perfect_share=0.981,
    events=(Event(101.0, "replay restarted"), Event(250.0, "a match took 41 s")),
)


def drawn(
    snapshot: Snapshot, *, width: int = 100, height: int = 40, losses: tuple[float, ...] = ()
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as capture:
        console.print(RunPanel(snapshot, losses))
    return capture.get().splitlines()


def terminal(*, live: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=live, width=100, height=40, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 80])
def test_every_number_is_there_and_nothing_is_cut(width: int) -> None:
    text = "\n".join(drawn(FULL, width=width, losses=(3.0, 2.0)))
    expected = (
        "first · hex5 | 5:12 · 14:48 left until 20 min | 3,412 | 39,012 | 17.0 | 12,410 | 441 | 18% "
        "| 100%  ±4 | 71% ±13 | 98.1% | 33 | 31% | 61% | 93% | 34% | 1,640 | 12.4 | 1.412 | 0.508 | 1.4 "
        "| 4.0 | 61k/500k | limit brain | loss 1.920 █▁ | last game | ● · · ○ · | 1:41 replay restarted"
    )
    assert [part for part in expected.split(" | ") if part not in text] == []
    assert "…" not in text


def test_what_was_not_measured_is_a_dash() -> None:
    text = "\n".join(drawn(EMPTY, width=80))
    assert text.count("–") == 23
    assert "None" not in text
    assert "nan" not in text


@given(width=st.integers(40, 200), height=st.integers(10, 60), part=st.sampled_from([FULL, EMPTY]))
def test_no_line_is_wider_than_the_terminal(width: int, height: int, part: Snapshot) -> None:
    assert (
        max(cell_len(line) for line in drawn(part, width=width, height=height, losses=(1.0,) * 500)) <= width
    )


@pytest.mark.parametrize("snapshot", [FULL, EMPTY])
def test_it_fits_24_lines_of_80_columns(snapshot: Snapshot) -> None:
    assert len(drawn(snapshot, width=80, height=24)) < 24


def test_a_board_that_is_too_high_is_left_out() -> None:
    large = replace(FULL, games=replace(FULL.games, last_board="\n".join("·" * 19 for _ in range(19))))
    assert len(drawn(large, width=80, height=24)) < 24
    assert "last game" not in "\n".join(drawn(large, width=80, height=24))
    assert "last game" in "\n".join(drawn(large, width=80, height=50))


FAULTY = replace(FULL, faults=FaultsPart(512, 1024, 3, 0))


def test_faults_are_told_where_there_were_any() -> None:
    text = "\n".join(drawn(FAULTY, width=80, height=24))
    assert "faults 512 games set aside · 1,024 requests failed · 3 sent again" in text
    assert "chunks refused" not in text
    assert len(drawn(FAULTY, width=80, height=24)) < 24
    assert "faults" not in "\n".join(drawn(replace(FULL, faults=FaultsPart(0, 0, 0, 0))))
    assert plain_line(FAULTY) == plain_line(FULL).replace(" limit", " aside=512 failed=1024 resent=3 limit")


def test_how_episodes_ended_is_told_where_it_is_known() -> None:
    assert not any(line.startswith(" ends") for line in drawn(FULL))
    ended = replace(FULL, ends={"won": 1204, "lost": 33, "out of time": 1})
    assert " ends 1,204 won · 33 lost · 1 out of time" in drawn(ended)
    assert "won=1204 lost=33 out-of-time=1" in plain_line(ended)
    assert (ended.flat()["ends/won"], ended.flat()["ends/out of time"]) == (1204, 1)


def test_returns_show_as_many_digits_as_tell_something() -> None:
    small = RolloutPart(evaluated_return=0.4166, low=0.1, high=0.7332, training_return=-1)
    text = "\n".join(drawn(replace(FULL, rollout=small)))
    assert all(number in text for number in ("0.42", "0.10", "0.73", "-1.00"))
    assert "41.7" in "\n".join(drawn(replace(FULL, rollout=RolloutPart(evaluated_return=41.66))))


def test_markup_in_names_is_only_text() -> None:
    odd = replace(FULL, run="[bold]x[/]", events=(Event(1.0, "[red]no[/red] :boom:"),))
    text = "\n".join(drawn(odd))
    assert "[bold]x[/]" in text
    assert "[red]no[/red] :boom:" in text


def test_more_opponents_than_lines_leave_the_strongest() -> None:
    ladder = {f"mcts:{2**k}": Score(0.5, 0.4, 0.6) for k in range(10)}
    text = "\n".join(drawn(replace(FULL, strength=ladder)))
    assert "mcts:512" in text
    assert "mcts:1 " not in text
    assert "version" in text


def test_the_plain_line_leaves_out_what_was_not_measured() -> None:
    assert plain_line(EMPTY) == "t=0s"
    assert plain_line(FULL) == (
        "t=312s games=3412 g/h=39012 plies=17.0 evals/s=12410 batch=441 busy=0.93 rows=61234 steps=1640 "
        "loss=1.920 lag=1.4 random=1.00 mcts:64=0.71 perfect=0.981 limit=brain"
    )


def test_a_pipe_gets_a_line_now_and_then() -> None:
    console, now = terminal(live=False), [0.0]
    with RunDisplay(console, line_seconds=10.0, clock=lambda: now[0]) as display:
        for second in range(26):
            now[0] = float(second)
            display.update(replace(EMPTY, elapsed_seconds=float(second)))
    assert written(console).split() == ["t=0s", "t=10s", "t=20s"]


def test_a_pipe_gets_each_event_once_and_at_once() -> None:
    console = terminal(live=False)
    with RunDisplay(console, line_seconds=1e9, clock=lambda: 0.0) as display:
        display.update(EMPTY)
        for _ in range(3):
            display.update(replace(EMPTY, events=FULL.events))
    assert written(console).splitlines() == [
        "t=0s",
        "t=101s replay restarted",
        "t=250s a match took 41 s",
    ]


def test_lines_in_a_pipe_are_not_folded() -> None:
    console = Console(file=io.StringIO(), width=20)
    with RunDisplay(console) as display:
        display.update(FULL)
    assert written(console).splitlines()[-1] == plain_line(FULL)


def test_a_terminal_gets_lines_when_asked_to() -> None:
    console = terminal(live=True)
    with RunDisplay(console, plain=True) as display:
        display.update(EMPTY)
    assert written(console) == "t=0s\n"


def test_a_terminal_gets_the_panel_redrawn_in_place() -> None:
    console = terminal(live=True)
    with RunDisplay(console) as display:
        display.update(FULL)
        display.update(replace(FULL, games=replace(FULL.games, played=3413)))
    assert "3,412" in written(console)
    assert "\x1b[1A" in written(console).partition("3,413")[0]


def test_a_snapshot_is_flattened_under_its_groups() -> None:
    flat = FULL.flat()
    assert flat["games/played"] == 3412
    assert flat["learner/policy_loss"] == 1.412
    assert flat["strength/mcts:64/low"] == 0.58
    assert "games/last_board" not in flat
    assert FULL.flat().keys() - EMPTY.flat().keys() == {
        f"strength/{opponent}{end}" for opponent in ("random", "mcts:64") for end in ("", "/low", "/high")
    }
