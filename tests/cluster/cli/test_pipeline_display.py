"""Progress as a person sees it."""

import io

from rich.console import Console

from cluster.cli.progress import StepDisplay


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pipe_gets_a_line_now_and_then_with_rate_and_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    with StepDisplay(Console(file=out, width=80), clock=clock) as display:
        display.begin("shuffle")
        for second in range(21):
            clock.now = float(second)
            display.progress(50.0 * second, 2000, "rows")
    assert out.getvalue().splitlines() == [
        "shuffle: 500 of 2,000 rows, 50/s, 0:30 left",
        "shuffle: 1,000 of 2,000 rows, 50/s, 0:20 left",
    ]


def test_what_was_done_before_is_no_speed_and_parts_are_measured_apart() -> None:
    out, clock = io.StringIO(), Clock()
    display = StepDisplay(Console(file=out, width=80), clock=clock, line_seconds=1.0)
    display.begin("shuffle")
    for clock.now, done, unit in [
        (1.0, 90, "files"),
        (3.0, 91, "files"),
        (4.0, 0, "buckets"),
        (6.0, 2, "buckets"),
    ]:
        display.progress(done, 100, unit)
    assert out.getvalue().splitlines() == [
        "shuffle: 90 of 100 files, –/s, – left",
        "shuffle: 91 of 100 files, 0.5/s, 0:18 left",
        "shuffle: 0 of 100 buckets, –/s, – left",
        "shuffle: 2 of 100 buckets, 1/s, 1:38 left",
    ]


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    out = io.StringIO()
    console = Console(
        file=out, width=80, force_terminal=True, force_interactive=True, _environ={"TERM": "xterm"}
    )
    with StepDisplay(console) as display:
        display.begin("positions")
        display.progress(3, 4, "files")
        display.say("positions: a remark")
        display.begin("shuffle")
        display.say("shuffle: finished")
    text = out.getvalue()
    assert "3 of 4 files" in text
    assert "a remark" in text
    assert text.endswith("shuffle: finished\n")
