"""A function in a process of its own, that can be asked to end, and ends with this one."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from core.errors import ClusterError, TamenError
from pipeline.contract import Stopped

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
_DIED: tuple[str, Any] = ("died", None)


def run_apart(
    function: Callable[[Any], dict[str, Any]], task: Any, *, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Return what `function` makes of `task`, both of which can be pickled, in a new process.

    Args:
        function: of the top level of a module.
        task: its argument.
        should_stop: once it says so, the process gets SIGTERM, and after `GRACE_SECONDS` SIGKILL.

    Raises:
        Stopped: when it was asked to stop.
        TamenError: what the function raised, or that the process died.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, function, task), name=function.__name__)
    process.start()
    there.close()
    grace = POLL_SECONDS
    try:
        while not connection.wait([here, process.sentinel], POLL_SECONDS):
            if should_stop():
                raise Stopped
        kind, said = here.recv() if here.poll() else _DIED
        grace = GRACE_SECONDS  # libraries take their time to tidy up
    except EOFError:
        kind, said = _DIED
    finally:
        _end(process, grace)
        here.close()
    if kind == "made":
        return said
    if kind == "raised" and isinstance(said, TamenError):
        raise said
    if kind == "stopped" or should_stop():
        raise Stopped
    raise ClusterError(
        f"{function.__name__} did not come to its end",
        why=f"its process ended with exit code {process.exitcode}" if kind == "died" else str(said),
        fix="it is done again, three times at most; if it fails again, see to the memory and to the key's log.txt",
    )


def _end(process: Any, grace: float) -> None:
    """Wait for a process, ask it to end, and see that nothing of it is left."""
    process.join(grace)
    if process.is_alive():
        process.terminate()
        process.join(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it began
    if process.is_alive():
        process.kill()
        process.join(GRACE_SECONDS)


def _work(pipe: Any, function: Callable[[Any], dict[str, Any]], task: Any) -> None:
    os.setsid()  # a terminal's Ctrl-C is for the one who asks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(("made", function(task)))
    except Stopped:
        pipe.send(("stopped", None))
    except TamenError as error:
        pipe.send(("raised", error))
    except Exception as error:  # told by the one who asks
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGKILL)
