"""`tamen engines up | status | down`: the engines of this machine, which go on when the command has ended.

A supervisor of their own keeps them alive (engines/service.py). With a Ray cluster there is one on each machine instead
(cluster/external/engines_actor.py).
"""

import contextlib
import fcntl
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.cli.progress import StepDisplay
from cluster.cli.terminal import UNKNOWN, console, duration, percent, whole
from cluster.environment import CHECKOUT
from configs.engines import ENGINES, EnginesConfig
from configs.loading import dump
from core.errors import ClusterError, UsageError
from core.files import write_atomic
from core.names import checked_name
from engines.jvm import recordings
from engines.launch import daemon_count, plan_launch
from engines.ports import LOOPBACK
from engines.supervised import DaemonRecord, StateFile, end_everything, read_state

FOLDER = ".engines"
"""Below the runs; no run has a name with a dot at its beginning."""
POLL_SECONDS = 0.1
SERVICE_SECONDS = 60.0
"""Within which a supervisor is there, or gone, besides what its daemons take."""
_LAST_BYTES = 4096
_SETTING = re.compile(r"(engine|java|upkeep|games)\.\w+=")
_TOLD = {"number", "state", "serving", "port", "restarts", "games", "active_games", "busy_share", "trouble"}


def engines_folder(runs: Path, name: str) -> Path:
    """Return the folder of the engines `name` on this machine; others may share the runs."""
    return _of_this_machine(runs) / checked_name(name, what="engines")


def machine_name() -> str:
    """Return a name of this machine that a file may have: what `TAMEN_HOST` says, or else its host name."""
    name = os.environ.get("TAMEN_HOST") or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or "here"


def engines_names(runs: Path) -> list[str]:
    """Return the names of all engines that were brought up on this machine."""
    found = [
        path for file in ("config.yaml", "state.json") for path in _of_this_machine(runs).glob(f"*/{file}")
    ]
    return sorted({path.parent.name for path in found})


def resolve_engines(words: Sequence[str]) -> EnginesConfig:
    """Return the configuration that was typed: FILE.yaml or FILE.jar, settings, and behind them a command.

    Raises:
        UsageError: for a file, setting or value that is not allowed.
    """
    left = list(words)
    file = left.pop(0) if left and left[0].endswith((".yaml", ".yml", ".jar")) else None
    settings = list(itertools.takewhile(_SETTING.match, left))
    command = left[len(settings) :]
    if file is not None and command:
        raise UsageError(
            f"{file} and the command {shlex.join(command)} are both given",
            why="engines are one program",
            fix="leave one of them out; settings are written section.key=value",
        )
    if command:
        settings.append(f"engine.command=[{', '.join(map(_quoted, command))}]")
    if file is None or file.endswith(".jar"):
        jar = [] if file is None else [f"engine.jar={_quoted(file)}"]
        return ENGINES.override(EnginesConfig(), [*jar, *settings])
    return ENGINES.override(ENGINES.load_file(Path(file)), settings)


def check_usable(config: EnginesConfig, state: StateFile) -> None:
    """Raise UsageError unless the engines of `config` are those that are up, in whose folder `state` was read."""
    name = config.engine.name
    if state.kind == "run":
        raise _of_a_run(name, state)
    wanted = plan_launch(config).digest()
    if any(daemon.digest != wanted for daemon in state.daemons):
        raise UsageError(
            f"other engines are up as {name}",
            why="they were started by another command, or with other flags",
            fix=f"end them with `tamen engines down {name}`, or choose another engine.name",
        )


def _of_a_run(name: str, state: StateFile) -> UsageError:
    pid = state.supervisor.pid
    return UsageError(
        f"the engines {name} are those of games that are being played",
        why=f"process {pid} plays them, and ends the engines with them",
        fix=f"stop it with Ctrl-C or `kill {pid}`, or choose another engine.name",
    )


def bring_up(config: EnginesConfig, runs: Path, *, quiet: bool, plain: bool = False) -> dict[str, Any]:
    """Start the engines of `config` and return how they stand once each is ready, or set aside.

    Those that run already with the same command go on; the others are ended.

    Raises:
        UsageError: when what is to be started is not there, or another command brings them up at this moment.
        ClusterError: when the supervisor does not start, or none of the daemons does; then nothing is left running.
    """
    plan_launch(config)
    name = config.engine.name
    folder = engines_folder(runs, name)
    if not quiet:
        _warn_of_memory(config)
    with (
        _only_one(folder),
        told_when_interrupted(name),
        StepDisplay(console(stderr=True), plain=plain) as display,
    ):
        _let_go(folder)
        write_atomic(folder / "config.yaml", dump(config).encode())
        display.begin(f"engines {name}")
        state = _wait_until_settled(config, folder, None if quiet else display)
    found = standing(name, folder, state)
    if not found["serving"]:
        take_down(runs, name, quiet=True)
        troubles = [daemon["trouble"] for daemon in found["daemons"] if daemon["trouble"]]
        raise ClusterError(
            f"no daemon of {name} came up",
            why=troubles[0] if troubles else "none has answered STATUS in time",
            fix=f"see {folder}/0/output.log; what takes longer to start needs a greater upkeep.start_seconds",
        )
    if not quiet:
        show_standing(found)
    return found


def show_engines(runs: Path, name: str | None, *, quiet: bool) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, how the engines of this machine stand: those called `name`, or all.

    Raises:
        UsageError: when there are none of that name.
    """
    found = []
    for each in _known(runs, name):
        folder = engines_folder(runs, each)
        found.append(standing(each, folder, read_state(folder)))
        if not quiet:
            show_standing(found[-1])
    if not found and not quiet:
        console().print("no engines were brought up here; begin with: tamen engines up", markup=False)
    return found


def take_down(runs: Path, name: str | None, *, quiet: bool) -> list[dict[str, Any]]:
    """End engines of this machine, those called `name` or all, with all they have started; return how many of each.

    Raises:
        UsageError: when there are none of that name, or some are not this command's to end; all others are ended then.
        ClusterError: when a supervisor does not end.
    """
    ended: list[dict[str, Any]] = []
    refusal: UsageError | None = None
    for each in _known(runs, name):
        folder = engines_folder(runs, each)
        state = read_state(folder)
        running = 0 if state is None else len(state.running())
        try:
            if state is not None and state.is_supervised():
                _end_service(folder, state, signal.SIGTERM, SERVICE_SECONDS + state.grace_seconds)
        except UsageError as error:
            refusal = error
            continue
        end_everything(folder)
        found = standing(each, folder, None)["recordings"]
        ended.append({"engines": each, "ended": running, "recordings": found})
        if not quiet:
            console().print(f"{each}: {running} daemons ended", markup=False)
            _say_recordings(found, lambda line: console().print(line, markup=False, soft_wrap=True))
    if refusal is not None:
        raise refusal
    return ended


def is_unhealthy(found: Sequence[dict[str, Any]]) -> bool:
    """Whether fewer daemons serve than are to, where they were not taken down."""
    return any(each["up"] and (not each["supervised"] or each["serving"] < each["count"]) for each in found)


def _known(runs: Path, name: str | None) -> list[str]:
    names = engines_names(runs)
    if name is None:
        return names
    if checked_name(name, what="engines") not in names:
        raise UsageError(
            f"there are no engines {name!r} on this machine",
            why=f"those in {runs.resolve()} are {', '.join(names)}" if names else "none were brought up",
            fix="look with `tamen engines status`, or say with --runs where the runs are",
        )
    return [name]


def _of_this_machine(runs: Path) -> Path:
    return runs / FOLDER / machine_name()


@contextmanager
def told_when_interrupted(name: str) -> Iterator[None]:
    """Say at Ctrl-C what becomes of engines that are brought up: who has begun to keep them alive goes on with that."""
    try:
        yield
    except KeyboardInterrupt:
        console(stderr=True).print(
            f"the engines {name} go on starting; see `tamen engines status`, or `tamen engines down` ends them",
            markup=False,
            soft_wrap=True,
        )
        raise


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let no other command bring up the engines of `folder` meanwhile. Raises UsageError when one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"the engines {folder.name} are being brought up",
                why="another `tamen engines up` does that at this moment",
                fix="wait for it, and look with `tamen engines status`",
            ) from error
        yield


def _wait_until_settled(config: EnginesConfig, folder: Path, display: StepDisplay | None) -> StateFile:
    """Start the supervisor and wait until it has brought up, or given up, each of its daemons."""
    service = _start_service(folder)
    deadline = time.monotonic() + SERVICE_SECONDS + _patience(config)
    told: set[tuple[int, str]] = set()
    while True:
        state = read_state(folder)
        if state is not None and state.supervisor.pid == service.pid:
            if display is not None:
                ready = sum(daemon.state == "ready" for daemon in state.daemons)
                display.progress(ready, len(state.daemons), "daemons")
                _tell_troubles(state, told, display)
            if state.settled() or time.monotonic() > deadline:
                return state
        if service.poll() is not None or time.monotonic() > deadline:
            raise _no_service(folder, service.poll())
        time.sleep(POLL_SECONDS)


def _tell_troubles(state: StateFile, told: set[tuple[int, str]], display: StepDisplay) -> None:
    """Tell of each daemon what it failed of, once."""
    for daemon in state.daemons:
        trouble = (daemon.number, daemon.trouble)
        if daemon.state in ("waiting", "aside") and daemon.trouble and trouble not in told:
            told.add(trouble)
            display.say(f"daemon {daemon.number}: {daemon.trouble}")


def _patience(config: EnginesConfig) -> float:
    """Return how long daemons may take until each is ready or set aside, or at least has had its first try."""
    return config.upkeep.start_seconds + config.upkeep.max_delay_seconds


def _warn_of_memory(config: EnginesConfig) -> None:
    """Say so when the daemons' heaps together are larger than this machine's memory."""
    if config.engine.jar is None or config.java.preset == "none":
        return
    daemons = daemon_count(config) + config.engine.spares
    wanted = daemons * config.java.memory_mb
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    if wanted > there:
        console().print(
            f"note: {daemons} daemons may take {wanted:,} MB, and this machine has {there:,} MB;"
            f" java.memory_mb={there // (daemons + 1)} would fit",
            markup=False,
            soft_wrap=True,
        )


def _start_service(folder: Path) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    with (folder / "service.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "engines.service", str(folder.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )


def _let_go(folder: Path) -> None:
    """End the supervisor of `folder`, if there is one, but not its daemons: the next one takes them over."""
    state = read_state(folder)
    if state is not None and state.is_supervised():
        _end_service(folder, state, signal.SIGUSR1, SERVICE_SECONDS)


def _end_service(folder: Path, state: StateFile, number: signal.Signals, seconds: float) -> None:
    if state.kind == "actor":
        raise UsageError(
            f"the engines {folder.name} are those of a Ray cluster",
            why=f"an actor of it supervises them, process {state.supervisor.pid}",
            fix="give the cluster with --address, or choose another engine.name",
        )
    if state.kind == "run":
        raise _of_a_run(folder.name, state)
    pid, deadline = state.supervisor.pid, time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    while state.is_supervised():
        if time.monotonic() > deadline:
            raise ClusterError(
                "the supervisor of the engines does not end",
                why=f"process {pid} is still there {seconds:.0f} s after {number.name}",
                fix=f"end it with: kill -9 {pid}; then run the same command again",
            )
        time.sleep(POLL_SECONDS)


def _no_service(folder: Path, code: int | None) -> ClusterError:
    """Return why the supervisor is not there; `code` is that of its exit, None while it runs."""
    log = (folder / "service.log").read_bytes()[-_LAST_BYTES:].decode("utf-8", errors="replace")
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    if code == 0:
        return ClusterError(
            f"the engines {folder.name} were taken down before they were up",
            why="another command has ended their supervisor",
            fix="run the same command again if they are wanted",
        )
    if code is not None and code < 0:
        return ClusterError(
            f"the supervisor of the engines {folder.name} was killed",
            why=f"it was ended by {signal.Signals(-code).name}",
            fix="run the same command again: it takes over what runs, or `tamen engines down` ends that",
        )
    return ClusterError(
        "the supervisor of the engines did not start", why=last, fix=f"see {folder / 'service.log'}"
    )


def standing(name: str, folder: Path, state: StateFile | None) -> dict[str, Any]:
    """Return how the engines in `folder` stand, whose state was read; None: they are down.

    Returns:
        engines (their name), folder, up, supervised, supervisor (its kind), count (that are to serve), serving,
        endpoints ("host:port" of each that does), daemons (of each what `DaemonRecord` says, pid and uptime_seconds),
        recordings (of flight recordings file and bytes; 0 until the daemon ends).
    """
    daemons = () if state is None else state.daemons
    supervised = state is not None and state.is_supervised()
    if state is not None and not supervised:
        running = {daemon.number for daemon in state.running()}
        daemons = tuple(daemon if daemon.number in running else _ended(daemon) for daemon in daemons)
    now = time.time()
    told = [
        daemon.model_dump(include=_TOLD)
        | {
            "pid": None if daemon.process is None else daemon.process.pid,
            "uptime_seconds": None if daemon.process is None else round(max(0.0, now - daemon.since), 1),
        }
        for daemon in daemons
    ]
    return {
        "engines": name,
        "folder": str(folder),
        "up": state is not None,
        "supervised": supervised,
        "supervisor": None if state is None else state.kind,
        "count": 0 if state is None else state.count,
        "serving": sum(daemon.serving for daemon in daemons),
        "endpoints": [f"{LOOPBACK}:{daemon.port}" for daemon in daemons if daemon.serving],
        "daemons": told,
        "recordings": [{"file": file, "bytes": size} for file, size in recordings(folder)],
    }


def _ended(daemon: DaemonRecord) -> DaemonRecord:
    """Return how a daemon stands that has ended and that nobody starts again."""
    changed: dict[str, Any] = {"process": None, "serving": False, "active_games": 0, "busy_share": None}
    if daemon.state != "aside":
        changed |= {
            "state": "waiting",
            "trouble": "it has ended, and no supervisor is there to start it again",
        }
    return daemon.model_copy(update=changed)


def show_standing(found: dict[str, Any]) -> None:
    """Print what `standing` has returned."""
    target, name = console(), found["engines"]

    def say(line: str) -> None:
        target.print(line, markup=False, soft_wrap=True)

    if not found["up"]:
        say(f"{name}: down; bring them up with: tamen engines up {found['folder']}/config.yaml")
        _say_recordings(found["recordings"], say)
        return
    say(f"{name}: {found['serving']} of {found['count']} daemons serve")
    table = Table(box=None, pad_edge=False)
    for heading in ("daemon", "state", "port", "pid", "up", "restarts", "games", "busy"):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    for daemon in found["daemons"]:
        spare = daemon["state"] == "ready" and not daemon["serving"]
        table.add_row(
            str(daemon["number"]),
            "spare" if spare else daemon["state"],
            str(daemon["port"] or UNKNOWN),
            str(daemon["pid"] or UNKNOWN),
            duration(daemon["uptime_seconds"]),
            str(daemon["restarts"]),
            whole(daemon["games"]),
            percent(daemon["busy_share"]),
        )
    target.print(table)
    for daemon in found["daemons"]:
        if daemon["trouble"] and daemon["state"] != "ready":
            say(
                f"daemon {daemon['number']}: {daemon['trouble']}; see {found['folder']}/{daemon['number']}/output.log"
            )
    _say_recordings(found["recordings"], say)
    if not found["supervised"]:
        running = any(daemon["pid"] is not None for daemon in found["daemons"])
        say(
            "their supervisor is gone, and they end before long; take them over with the same `tamen engines up`"
            if running
            else f"their supervisor is gone, and they have ended; clear up with: tamen engines down {name}"
        )
    elif found["supervisor"] == "run":
        say("they end with the games that are being played")
    elif found["supervisor"] == "service":
        say(f"end them with: tamen engines down {name}")


def _say_recordings(found: Sequence[dict[str, Any]], say: Callable[[str], None]) -> None:
    for recording in found:
        size = f"{recording['bytes'] / 1e6:.1f} MB" if recording["bytes"] else "written when its daemon ends"
        say(f"flight recording: {recording['file']} ({size})")


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"
