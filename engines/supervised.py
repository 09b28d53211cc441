"""What a supervisor keeps on disk about its daemons, so that another, or a person, finds them again.

    supervisor.lock   held by the one supervisor of the folder as long as that runs
    beat              touched by it; daemons whose folder nobody touches for long end themselves
    state.json        who supervises, and each daemon: process, port, how it stands
    0/, 1/, …         the daemons' rooms: output.log, how the last one ended, and `complaint`, while there is one

Every process of the folder, and whatever it starts, has its `mark` in its environment.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from configs.schema import Count, Positive, Real, Section, Share
from core.errors import UsageError
from core.files import digest, write_atomic
from core.processes import Process, is_gone, this_process
from engines.process import Program, kill_marked
from engines.upkeep import State

FORMAT = 1
SupervisorKind: TypeAlias = Literal["service", "run", "actor"]
MARK, LIFE_MARK = "TAMEN_ENGINES", "TAMEN_DAEMON"
"""Environment variables: of which folder a process is, and of which life of a daemon."""
_COMPLAINT = "complaint"
_MARGIN_SECONDS = 5.0


class SupervisedError(UsageError):
    """Another supervises the folder."""


class ProcessRecord(Section):
    """`core.processes.Process`, as a file has it."""

    host: str
    boot: str
    namespace: str
    pid: Positive
    started: Count

    def process(self) -> Process | None:
        """Return the process, None when it was one of another machine or container, or before this start of it."""
        process, here = Process(**self.model_dump()), this_process()
        is_here = (process.host, process.boot, process.namespace) == (here.host, here.boot, here.namespace)
        return process if is_here else None


class DaemonRecord(Section):
    """How one daemon stands.

    Attributes:
        process: of its guard; None while there is none.
        life: marks its processes, and those alone.
        digest: of what it was started by.
        since: when it was started, in seconds since 1970.
        games: that it has finished, as far as its answers tell; `earlier_games` of them in former lives.
        busy_share: of its last answers, those with a game in play; None when there are none.
        trouble: why it was last lost; "" if never.
    """

    number: Count
    state: State
    serving: bool = False
    port: Count = 0
    process: ProcessRecord | None = None
    life: str = ""
    digest: str = ""
    since: Real = 0.0
    restarts: Count = 0
    games: Count = 0
    earlier_games: Count = 0
    active_games: Count = 0
    busy_share: Share | None = None
    trouble: str = ""


class StateFile(Section):
    """What is in state.json, `written` at a moment in seconds since 1970.

    Attributes:
        kind: of the supervisor: a program of its own, one that plays games besides, or an actor of a Ray cluster.
        count: of daemons that are to serve; the others are spares.
    """

    format: Literal[1] = FORMAT
    kind: SupervisorKind
    supervisor: ProcessRecord
    written: Real
    count: Positive
    grace_seconds: Real
    daemons: tuple[DaemonRecord, ...] = ()

    def is_supervised(self) -> bool:
        """Whether the supervisor that wrote it still runs."""
        process = self.supervisor.process()
        return process is not None and not is_gone(process, this_process())

    def running(self) -> tuple[DaemonRecord, ...]:
        """Return the daemons whose processes are there: without a supervisor nobody notes their ends."""
        here = this_process()
        found = [(daemon, daemon.process and daemon.process.process()) for daemon in self.daemons]
        return tuple(
            daemon for daemon, process in found if process is not None and not is_gone(process, here)
        )

    def settled(self) -> bool:
        """Whether each daemon is ready, or set aside."""
        return all(daemon.state in ("ready", "aside") for daemon in self.daemons)


def mark_of(folder: Path) -> str:
    """Return what the processes of `folder` have as `MARK`."""
    return digest(str(folder.resolve()).encode())


def record_of(process: Process) -> ProcessRecord:
    """Return `process` as a file has it."""
    return ProcessRecord(**asdict(process))


def write_state(folder: Path, state: StateFile) -> None:
    """Replace state.json, durably and in one step."""
    write_atomic(folder / "state.json", state.model_dump_json(indent=1).encode())


def read_state(folder: Path) -> StateFile | None:
    """Return what is in state.json; None when it is not there, or no such file.

    Processes are found by their marks as well, so a damaged file costs restarts and nothing else.
    """
    try:
        return StateFile.model_validate_json((folder / "state.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def complain(folder: Path, port: int) -> None:
    """Tell who supervises `folder` that all games hang at the daemon that listens on `port`."""
    state = read_state(folder)
    for daemon in () if state is None else state.daemons:
        if daemon.port == port and daemon.state == "ready":
            with contextlib.suppress(OSError):  # then it stays as it is
                write_atomic(folder / str(daemon.number) / _COMPLAINT, daemon.life.encode())


def take_complaint(folder: Path, number: int, life: str) -> bool:
    """Whether somebody has complained about this life of the daemon `number`; a complaint is heard once."""
    path = folder / str(number) / _COMPLAINT
    try:
        about = path.read_text()
        path.unlink()
    except OSError:
        return False
    return about == life


def program_of(daemon: DaemonRecord, folder: Path, grace_seconds: float) -> Program | None:
    """Return the program of a daemon, whether it still runs or not; None when it has none here."""
    process = None if daemon.process is None else daemon.process.process()
    if process is None:
        return None
    room = folder / str(daemon.number)
    return Program(process, engine=f"daemon {daemon.number}", room=room, grace_seconds=grace_seconds)


@contextmanager
def sole_supervisor(folder: Path) -> Iterator[None]:
    """Be the one that supervises `folder` inside the block. Raises SupervisedError when another does, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SupervisedError(
                f"the engines in {folder} have a supervisor",
                why="it runs, and holds their lock",
                fix="look with `tamen engines status`; `tamen engines down` ends it with its engines",
            ) from error
        yield
    finally:
        os.close(descriptor)


def end_programs(programs: list[Program], grace_seconds: float) -> None:
    """End all `programs` at the same time, and wait until they are gone; what does not go is killed."""
    for program in programs:
        program.ask_to_end()
    deadline = time.monotonic() + grace_seconds + _MARGIN_SECONDS
    for program in programs:
        if program.wait(max(0.0, deadline - time.monotonic())) is None:
            program.kill()


def end_everything(folder: Path) -> int:
    """End all daemons of `folder`, which nobody supervises now, and all that they have started.

    Returns:
        how many of the daemons were still running.
    """
    state = read_state(folder)
    running: list[Program] = []
    if state is not None:
        found = [program_of(daemon, folder, state.grace_seconds) for daemon in state.daemons]
        running = [program for program in found if program is not None and program.poll() is None]
        end_programs(running, state.grace_seconds)
    kill_marked(MARK, mark_of(folder))
    with contextlib.suppress(FileNotFoundError):
        (folder / "state.json").unlink()
    return len(running)
