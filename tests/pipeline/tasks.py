"""Tasks for workers: at the top level of a module that they can import."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from core.errors import DataError
from core.files import write_atomic


class Work(NamedTuple):
    """What a task of the tests is given."""

    number: int
    folder: str


def square(work: Work) -> int:
    """Return number², and leave a file that says by which process."""
    write_atomic(Path(work.folder) / f"{work.number}", str(os.getpid()).encode())
    return work.number**2


def refuse_three(work: Work) -> int:
    """Like `square`, except for 3."""
    if work.number == 3:
        raise DataError("3 is damaged", why="a test", fix="none")
    return square(work)


def die_once(work: Work) -> int:
    """Like `square`, but the first worker that is given 2 does not survive it."""
    if work.number == 2 and _is_first(work):
        os.kill(os.getpid(), signal.SIGKILL)
    return square(work)


def die_always(work: Work) -> int:
    """Like `square`, but nobody survives 2."""
    if work.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(work)


def slowly(work: Work) -> int:
    """Like `square`, a moment later."""
    time.sleep(0.2)
    return square(work)


def _is_first(work: Work) -> bool:
    try:
        (Path(work.folder) / "died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
