"""A function in a process of its own, that tells how far it is, can be asked to end, and ends with this one."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, TypeAlias

from core.errors import ClusterError, TamenError
from pipeline.contract import Stopped

Tell: TypeAlias = Callable[[float, float, str], None]
"""Takes how much is done, of how much, in which unit."""

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
TELL_SECONDS = 0.5
"""Between two words of how far it is: what is told more often is left out."""
_DIED: tuple[str, Any] = ("died", None)


class ProcessDiedError(ClusterError):
    """The process ended without a word."""


def run_apart(
    function: Callable[[Any, Tell], dict[str, Any]],
    task: Any,
    *,
    should_stop: Callable[[], bool],
    tell: Tell | None = None,
    grace_seconds: float = GRACE_SECONDS,
    orphaned: Callable[[Any], None] | None = None,
    begun: Callable[[int], None] | None = None,
    finds_out: bool = False,
) -> dict[str, Any]:
    """Return what `function` makes of `task`, both of which can be pickled, in a new process.

    Args:
        function: of the top level of a module; it gets the task, and whom to tell how far it is.
        task: its argument.
        should_stop: once it says so, the process gets SIGTERM, and after `grace_seconds` SIGKILL.
        tell: told how far it is, as far as it says so.
        orphaned: of the top level of a module: called there with the task if this process dies before; else, and
            when it returns, the process ends with all that it began.
        begun: gets the number of the process.
        finds_out: when it is to stop it knows already, and gets SIGTERM only after `grace_seconds`.

    Raises:
        Stopped: when it was asked to stop.
        ProcessDiedError: when the process died.
        TamenError: what the function raised.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, function, task, orphaned), name=function.__name__)
    process.start()
    there.close()
    if begun is not None:
        assert process.pid is not None  # it was started
        begun(process.pid)
    grace = grace_seconds if finds_out else POLL_SECONDS
    try:
        kind, said = _last_word(here, process.sentinel, should_stop, tell)
        grace = grace_seconds  # libraries take their time to tidy up
    finally:
        _end(process, grace, grace_seconds)
        here.close()
    if kind == "made":
        return said
    if kind == "raised" and isinstance(said, TamenError):
        raise said
    if kind == "stopped" or should_stop():
        raise Stopped
    failed = ProcessDiedError if kind == "died" else ClusterError
    raise failed(
        f"{function.__name__} did not come to its end",
        why=f"its process ended with exit code {process.exitcode}" if kind == "died" else str(said),
        fix="if it fails again, see to the machine's memory and to the log",
    )


def _last_word(
    here: Any, sentinel: int, should_stop: Callable[[], bool], tell: Tell | None
) -> tuple[str, Any]:
    """Return what came of a process, passing on how far it is. Raises Stopped when it is to stop."""
    while True:
        heard = connection.wait([here, sentinel], POLL_SECONDS)
        if should_stop():
            raise Stopped
        if not heard:
            continue
        try:
            kind, said = here.recv() if here.poll() else _DIED
        except EOFError:
            return _DIED
        if kind != "progress":
            return kind, said
        if tell is not None:
            tell(*said)


def _end(process: Any, grace: float, last_grace: float) -> None:
    """Wait for a process, ask it to end, and see that nothing of it is left."""
    process.join(grace)
    if process.is_alive():
        process.terminate()
        process.join(last_grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it began
    if process.is_alive():
        process.kill()
        process.join(last_grace)


def _work(
    pipe: Any,
    function: Callable[[Any, Tell], dict[str, Any]],
    task: Any,
    orphaned: Callable[[Any], None] | None,
) -> None:
    os.setsid()  # a terminal's Ctrl-C is for the one who asks
    threading.Thread(target=_watch_parent, args=(orphaned, task), daemon=True).start()
    voice = _Voice(pipe)
    try:
        voice.say("made", function(task, voice.progress))
    except Stopped:
        voice.say("stopped", None)
    except TamenError as error:
        voice.say("raised", error)
    except Exception as error:  # told by the one who asks
        voice.say("failed", f"{type(error).__name__}: {error}")
        raise


class _Voice:
    """Sends words to the one who asks, from any thread; of how far it is only now and then."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._next = 0.0

    def say(self, kind: str, said: Any) -> None:
        with self._sending:
            self._pipe.send((kind, said))

    def progress(self, done: float, total: float, unit: str) -> None:
        now = time.monotonic()
        if now >= self._next or done >= total:
            self._next = now + TELL_SECONDS
            self.say("progress", (float(done), float(total), unit))


def _watch_parent(orphaned: Callable[[Any], None] | None, task: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    try:
        if orphaned is not None:
            orphaned(task)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(0, signal.SIGKILL)
