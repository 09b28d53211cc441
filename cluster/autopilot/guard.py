"""Keeps an autopilot going: its loop is a process of its own, and begun again when it dies.

Whichever of the two is killed, the other goes on. Without its loop the guard begins another; a loop whose guard is gone
becomes the guard itself, and begins another. So only who asks it to ends an autopilot: Ctrl-C, SIGTERM, `tamen stop`,
or its time. What was asked for is written down (`control.presence`), and nothing is handed on but a number.

    guard ── begins ──> loop ── begins ──> stage, one after the other
"""

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from cluster import environment
from cluster.autopilot.loop import TABLES, Asked, run_loop
from cluster.autopilot.stage_process import GRACE_SECONDS, ProcessDiedError, Tell, run_apart
from cluster.cli.stopping import is_stop_requested, stop_request
from cluster.cli.terminal import console, show_error
from control.database import CONTROL_FILE, Database
from control.presence import Presence
from core.errors import ClusterError, TamenError
from pipeline.contract import Stopped

MODULE = "cluster.autopilot.guard"  # `__name__` is another where it is the program
MOST_DEATHS = 5
"""Within `DEATHS_SECONDS`, after which it is given up."""
DEATHS_SECONDS = 300.0
LOOP_GRACE_SECONDS = 1.5 * GRACE_SECONDS
"""In which the loop ends its stage, which has a grace of its own."""


def begin(asked: Asked) -> None:
    """Begin an autopilot and keep it going until it ends.

    Raises:
        TamenError: when it cannot go on; what was finished is kept.
    """
    with _presence(asked.runs) as present:
        keep_going(present, present.enter(asked.to_json()))


def keep_going(present: Presence, number: int) -> None:
    """Keep the loop of autopilot `number` going until it ends by itself, or is asked to. Raises as `begin`."""
    asked = Asked.from_json(present.get(number).asked)
    deaths: deque[float] = deque(maxlen=MOST_DEATHS)
    message = "stopped"
    loop: list[int] = []

    def pass_on(number: int) -> None:
        # At once, before this process may end: the loop must not become the guard of what is to end.
        for process in loop:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    with stop_request(also=pass_on) as stop:
        try:
            while True:
                try:
                    task = (str(asked.runs), number)
                    run_apart(
                        autopilot_loop,
                        task,
                        should_stop=lambda: stop.requested,
                        grace_seconds=LOOP_GRACE_SECONDS,
                        orphaned=become_guard,
                        begun=loop.append,
                        finds_out=True,
                    )
                    return
                except ProcessDiedError as error:
                    loop.clear()
                    _note_death(deaths, error, quiet=asked.quiet)
        except Stopped:
            pass
        except TamenError as error:
            message = f"{error.what}: {error.why}"
            raise
        finally:
            present.leave(number, message)


def autopilot_loop(task: tuple[str, int], tell: Tell) -> dict[str, object]:
    """The loop's process."""
    runs, number = Path(task[0]), task[1]
    with _presence(runs) as present:
        present.take_over(number)
        asked = Asked.from_json(present.get(number).asked)
    run_loop(number, asked)
    return {}


def become_guard(task: tuple[str, int]) -> None:
    """The guard is gone: be it, unless the autopilot is to end.

    The stage ends when this image of the process does, and stays a zombie until the autopilot ends, one for each guard.
    """
    if is_stop_requested():
        return
    runs, number = Path(task[0]), task[1]
    with _presence(runs) as present:
        known = present.get(number)
    if not known.stop and known.ended is None:
        os.execv(sys.executable, [sys.executable, "-m", MODULE, str(runs), str(number)])  # noqa: S606 - ours


def main() -> None:
    """Go on as the guard of an autopilot that has lost its own: python -m cluster.autopilot.guard RUNS NUMBER."""
    environment.prepare()
    try:
        with _presence(Path(sys.argv[1])) as present:
            present.guard(int(sys.argv[2]))
            keep_going(present, int(sys.argv[2]))
    except TamenError as error:
        show_error(error)
        sys.exit(error.exit_code)


@contextlib.contextmanager
def _presence(runs: Path) -> Iterator[Presence]:
    with contextlib.closing(Database(runs / CONTROL_FILE, TABLES)) as database:
        yield Presence(database)


def _note_death(deaths: deque[float], error: ProcessDiedError, *, quiet: bool) -> None:
    """Tell that the loop died. Raises ClusterError when that happens all the time."""
    deaths.append(time.monotonic())
    if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] < DEATHS_SECONDS:
        raise ClusterError(
            "the autopilot dies again and again",
            why=f"{MOST_DEATHS} times within {DEATHS_SECONDS / 60:.0f} minutes; the last time {error.why}",
            fix="see to the machine's memory, and to the log.txt of the key that it worked on",
        ) from error
    target = console()
    with contextlib.suppress(OSError):  # a terminal that was closed
        target.show_cursor()  # the loop may have hidden it
        if not quiet:
            target.print(
                f"the autopilot's loop died, and is begun again: {error.why}", markup=False, soft_wrap=True
            )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
