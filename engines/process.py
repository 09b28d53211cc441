"""An engine as a process: started with only what it needs, watched, and ended with all that it has started.

    with start_beside(["gnugo", "--mode", "gtp"], engine="gnugo") as program:     # ends with this process
        program.stdin, program.stdout                                             # its pipes
    program = start_alone([…], engine="forge 0", room=folder)                     # outlives this process
    program = Program.of_record(program.record(), engine="forge 0", room=folder)  # in another process, later

A guard (engines/guard.py) stands between, in a session and process group of its own, which the engine shares. It keeps
what the engine writes (stderr; without pipes stdout as well), and writes down how it ended.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from core.errors import UsageError
from core.processes import Process, is_gone, process_of, this_process
from engines import guard
from engines.errors import EngineFault

ALWAYS_PASSED = ("PATH", "HOME", "LANG")
"""What an engine gets of this process's environment without being named."""
GRACE_SECONDS = 5.0
ORPHAN_SECONDS = 120.0
LOG_BYTES = 4 << 20
WORDS_BYTES = 4096
"""Of an engine's last words."""
_MARGIN_SECONDS = 5.0
_POLL_SECONDS = 0.02
_START_SECONDS = 30.0
_RECORD_BYTES = 1 << 16
_OUT_OF_MEMORY = ("OutOfMemoryError", "std::bad_alloc", "Cannot allocate memory", "MemoryError")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an engine ended.

    Attributes:
        code: its exit code, negative for a signal; None when nobody saw it, as when its guard was killed.
        asked: why it was asked to end; "" when it ended by itself.
        problem: why it could not be started; "" when it was.
    """

    code: int | None
    asked: str = ""
    problem: str = ""

    def in_words(self, last_words: str = "") -> str:
        """Return a phrase such as "it was ended by SIGSEGV"; `last_words` may tell that memory was short."""
        if self.problem:
            return self.problem
        memory = next((sign for sign in _OUT_OF_MEMORY if sign in last_words), None)
        hint = f"; it told of {memory}: give it more memory, or run fewer" if memory else ""
        if self.code is None:
            return f"it was killed together with its guard{hint}"
        if self.asked:
            return f"it ended because {self.asked}{hint}"
        # A shell, as xvfb-run is one, tells of a signal by a code above 128.
        number = -self.code if self.code < 0 else self.code - 128
        with contextlib.suppress(ValueError):
            name = signal.Signals(number).name
            if number == signal.SIGKILL and not hint:
                hint = "; the system may have run out of memory (see dmesg): run fewer, or give each less"
            return f"it was ended by {name}{hint}"
        return f"it ended with exit code {self.code}{hint}"


class Program:
    """An engine that runs, or has ended: `process` is its guard, `room` the folder with its log and its record.

    Args:
        grace_seconds: between its guard's SIGTERM and SIGKILL.
    """

    def __init__(
        self, process: Process, *, engine: str, room: Path, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self.process = process
        self.engine = engine
        self._room = room
        self._grace_seconds = grace_seconds
        self._here = this_process()

    @classmethod
    def of_record(
        cls, record: Mapping[str, Any], *, engine: str, room: Path, grace_seconds: float = GRACE_SECONDS
    ) -> Self:
        """Return the program of a `record`. Raises ValueError or TypeError for one that is none."""
        kinds = {"host": str, "boot": str, "namespace": str, "pid": int, "started": int}
        if {name: type(value) for name, value in record.items()} != kinds or record["pid"] <= 1:
            raise ValueError(f"{record} is no record of a process")
        return cls(Process(**record), engine=engine, room=room, grace_seconds=grace_seconds)

    def record(self) -> dict[str, Any]:
        """Return what finds this program again, as JSON takes it."""
        return asdict(self.process)

    def poll(self) -> Ending | None:
        """Return how it ended, None while it runs. Another machine's programs always run, as far as one can tell."""
        if not is_gone(self.process, self._here):
            return None
        return _read_ending(self._room / "ended.json") or Ending(None)

    def wait(self, timeout_seconds: float) -> Ending | None:
        """Wait until it has ended; None when it has not."""
        deadline = time.monotonic() + timeout_seconds
        while (ending := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return ending

    def ask_to_end(self) -> None:
        """Let its guard end it: SIGTERM to the group, and after the grace SIGKILL. Does not wait."""
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(self.process.pid)  # from here on the number is of this process alone
            try:
                if not is_gone(self.process, self._here):
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            finally:
                os.close(descriptor)

    def kill(self) -> None:
        """Kill the guard, the engine, and all that is in their group, at once. Does not wait."""
        if not is_gone(self.process, self._here):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> Ending:
        """End it, wait until nothing of its group is left, and return how it ended.

        Raises:
            EngineFault: `timeout` when it cannot be killed, which is for the system to answer.
        """
        self.ask_to_end()
        ending = self.wait(self._grace_seconds + _MARGIN_SECONDS)
        if ending is None:
            self.kill()
            ending = self.wait(_MARGIN_SECONDS)
        if ending is None:
            raise EngineFault(
                "timeout", self.engine, why=f"process {self.process.pid} is still there after SIGKILL"
            )
        return ending

    def last_words(self, most_bytes: int = WORDS_BYTES) -> str:
        """Return the end of what it wrote to stderr (and, without pipes, to stdout)."""
        log = self._room / "output.log"
        words = b"".join(_tail(path, most_bytes) for path in (log.with_name("output.log.1"), log))
        return words[-most_bytes:].decode("utf-8", errors="replace")


class Beside(Program):
    """An engine that ends with the process that has started it, and talks over pipes.

    Attributes:
        stdin, stdout: unbuffered, of the engine itself.
    """

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        *,
        engine: str,
        room: "tempfile.TemporaryDirectory[str]",
        grace_seconds: float,
    ) -> None:
        super().__init__(
            process_of(child.pid), engine=engine, room=Path(room.name), grace_seconds=grace_seconds
        )
        assert child.stdin is not None
        assert child.stdout is not None
        self.stdin: IO[bytes] = child.stdin
        self.stdout: IO[bytes] = child.stdout
        self._child = child
        self._own_room = room

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def poll(self) -> Ending | None:
        ending = super().poll()
        if ending is not None:
            self._child.poll()
        return ending

    def close(self) -> None:
        """End it and forget what it wrote; may be called twice."""
        try:
            self.end()
        finally:
            for pipe in (self.stdin, self.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            self._own_room.cleanup()


def start_beside(
    command: Sequence[str],
    *,
    engine: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> Beside:
    """Start an engine that talks over pipes, and ends when this process does, however that ends.

    Args:
        command: the program and its arguments; no shell reads them.
        engine: its name in errors.
        environment: what it gets besides `ALWAYS_PASSED`.
        folder: in which it works; None: this process's.

    Raises:
        UsageError: when there is no such program or folder.
    """
    checked_command(command, folder, engine=engine)
    room = tempfile.TemporaryDirectory(prefix="tamen-engine-")
    child = _start_guard(
        command,
        Path(room.name),
        environment,
        folder,
        pipes=True,
        parent=os.getpid(),
        grace_seconds=grace_seconds,
    )
    return Beside(child, engine=engine, room=room, grace_seconds=grace_seconds)


def start_alone(
    command: Sequence[str],
    *,
    engine: str,
    room: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    beat: Path | None = None,
    orphan_seconds: float = ORPHAN_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
    log_bytes: int = LOG_BYTES,
) -> Program:
    """Start an engine that goes on without this process, as `start_beside` but for the following.

    Args:
        room: folder for what it writes and how it ended; of this engine alone. What an earlier one wrote stays.
        beat: a file that somebody touches as long as the engine is wanted; None: it is until it is ended.
        orphan_seconds: for how long nobody need touch it.
        log_bytes: of its log, beside which there may be as much that is older.

    Raises:
        UsageError: when there is no such program or folder.
        EngineFault: `died` when its guard did not start.
    """
    checked_command(command, folder, engine=engine)
    room.mkdir(parents=True, exist_ok=True)
    (room / "ended.json").unlink(missing_ok=True)
    launcher = _start_guard(
        command,
        room,
        environment,
        folder,
        grace_seconds=grace_seconds,
        log_bytes=log_bytes,
        beat=None if beat is None else str(beat.resolve()),
        orphan_seconds=orphan_seconds,
    )
    try:
        told, _ = launcher.communicate(timeout=_START_SECONDS)
        pid = int(told)
    except (subprocess.TimeoutExpired, ValueError) as error:
        launcher.kill()
        raise EngineFault(
            "died", engine, why=f"its guard did not start; see {room / 'output.log'}"
        ) from error
    return Program(process_of(pid), engine=engine, room=room, grace_seconds=grace_seconds)


def checked_command(command: Sequence[str], folder: Path | None, *, engine: str) -> None:
    """Raise UsageError unless the program of `command` and `folder`, in which it is to work, are on this machine."""
    if sys.platform != "linux":
        raise UsageError(
            f"{engine} cannot be run on {sys.platform}",
            why="engines are watched and ended by what only Linux has",
            fix="run it on Linux, or in a container of it",
        )
    if not command or any("\0" in word for word in command):
        raise UsageError(
            f"{engine} has no command that could be started",
            why="a command is a program and its arguments, without NUL bytes",
            fix="write for example ./daemon -p {port}",
        )
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"{engine} has no folder to work in", why=f"{folder} is no folder", fix="make it, or name another"
        )
    # As the guard finds it: what has a slash is looked up from the folder in which it works.
    program = os.path.join(folder or "", command[0]) if "/" in command[0] else command[0]
    if shutil.which(program) is None:
        raise UsageError(
            f"{command[0]} cannot be started",
            why="there is no such program" if "/" in command[0] else "no such program is on the PATH",
            fix="install it, or give its whole path",
        )


def marked_processes(name: str, value: str) -> list[int]:
    """Return the numbers of all processes but this one with the environment variable `name`=`value`.

    Of those of other users one cannot tell.
    """
    entry = os.fsencode(f"{name}={value}")
    numbers = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [pid for pid in numbers if pid != os.getpid() and _has_variable(pid, entry)]


def kill_marked(name: str, value: str, *, spared: Collection[int] = ()) -> int:
    """Kill what `marked_processes` returns, but for `spared`; return how many were killed."""
    entry, killed = os.fsencode(f"{name}={value}"), 0
    for pid in marked_processes(name, value):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)  # from here on the number is of this process alone
            try:
                if pid not in spared and _has_variable(pid, entry):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    killed += 1
            finally:
                os.close(descriptor)
    return killed


def _has_variable(pid: int, entry: bytes) -> bool:
    try:
        return entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _start_guard(
    command: Sequence[str],
    room: Path,
    environment: Mapping[str, str] | None,
    folder: Path | None,
    *,
    grace_seconds: float,
    pipes: bool = False,
    parent: int | None = None,
    beat: str | None = None,
    orphan_seconds: float = ORPHAN_SECONDS,
    log_bytes: int = LOG_BYTES,
) -> "subprocess.Popen[bytes]":
    room = room.resolve()
    order = {
        "command": list(command),
        "log": str(room / "output.log"),
        "log_bytes": log_bytes,
        "record": str(room / "ended.json"),
        "pipes": pipes,
        "parent": parent,
        "beat": beat,
        "orphan_seconds": orphan_seconds,
        "grace_seconds": grace_seconds,
    }
    passed = {name: os.environ[name] for name in ALWAYS_PASSED if name in os.environ}
    with (room / "output.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, json.dumps(order)],
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            cwd=folder,
            env=passed | dict(environment or {}),
            start_new_session=True,
        )


def _read_ending(path: Path) -> Ending | None:
    """Return what the guard has written; None when that is missing or no such record."""
    try:
        told = json.loads(path.read_bytes()[:_RECORD_BYTES])
        return Ending(told["code"], told["asked"], told["problem"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tail(path: Path, most_bytes: int) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - most_bytes))
        return file.read(most_bytes)
    return b""
