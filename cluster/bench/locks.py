"""`tamen bench locks`: processes that go through critical sections while they are killed, stopped and misled.

Faults come at given shares of the work, each after the one before is got over. A process that is struck is stopped
first, and the fault written into the log, so that whatever follows from it follows in the log. One that is stopped in
the middle of a transaction of the log itself holds up all, whatever the locks do: it goes on, and is struck at
another moment.
"""

import itertools
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.autopilot import locks
from cluster.bench import lock_sections
from cluster.bench.lock_sections import Line, Order, What, append, judge, read_log
from cluster.cli.terminal import console
from cluster.environment import CHECKOUT
from control.database import Database
from control.locks import LockSetting, UnreachableError, fix_backend, parse_setting
from core.errors import ClusterError, UsageError

KINDS = ("file", "redis", "ray")
PATIENCE_SECONDS = 120.0
"""Until something must have happened: a worker's first section, a recovery, a fault that finds its moment."""
_LOOK_SECONDS = 0.002
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)
_JUMPS = ("+0", "+1h", "-1h", "+1y", "-1y", "+1d", "-1d")

Fault = Literal["kill", "stop", "restart", "jump"]


@dataclass(frozen=True, slots=True)
class LockBench:
    """What is done to each backend.

    Attributes:
        processes: at the same lock.
        sections: of each of them.
        ttl_seconds: of the lock.
        hold_ms: the longest that a section lasts beside its two writes.
        kills, stops, restarts, jumps: how often a holder is killed; is stopped for one and a half to two and a half
            TTL; how often who keeps the locks is ended (files are kept by nobody); and the clock of half of the
            processes set anew.
        seed: of the order of faults.

    Raises:
        UsageError: for a number out of its range.
    """

    processes: int = 8
    sections: int = 2000
    ttl_seconds: float = 1.0
    hold_ms: float = 2.0
    kills: int = 16
    stops: int = 8
    restarts: int = 2
    jumps: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.kills, self.stops, self.restarts, self.jumps, self.seed)
        reals = (self.ttl_seconds, self.hold_ms)
        if min(self.processes - 1, self.sections, *counts) < 0 or self.sections < 1 or self.processes > 256:
            raise UsageError(
                "these numbers cannot be measured",
                why="processes are 1-256, sections at least 1, and no fault comes less than 0 times",
                fix="see `tamen bench locks --help`",
            )
        if (
            not all(map(math.isfinite, reals))
            or not 0.1 <= self.ttl_seconds <= 60
            or not 0 <= self.hold_ms <= 1000
        ):
            raise UsageError(
                "these times cannot be measured",
                why="a TTL is 0.1-60 s, and a section lasts 0-1000 ms",
                fix="see `tamen bench locks --help`",
            )


def bench_locks(bench: LockBench, *, kinds: tuple[str, ...] = KINDS, quiet: bool = False) -> dict[str, Any]:
    """Go through the sections with each backend, and return what the log of each shows.

    Returns:
        config: what was done. backends: for each, `violations, unexplained, lost, recoveries, max_recovery_ms,
        max_restart_ms, p50_acquire_ms, p95_acquire_ms, sections, sections_per_s, refused`, how often each fault came,
        and seconds. See `cluster.bench.lock_sections.Verdict`; lost are sections that were acknowledged and are not in
        the log, or that another has written over. passed: whether there is neither a violation nor one lost.

    Raises:
        UsageError: for a backend that is none.
        ClusterError: when one cannot be started, or the work does not go on.
    """
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise UsageError(
            f"{', '.join(kinds) or 'nothing'} cannot be measured",
            why=f"locks are kept by {', '.join(KINDS)}",
            fix="name some of them, with commas between",
        )
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        with (
            tempfile.TemporaryDirectory(prefix="tamen-locks-") as folder,
            _kept(kind, Path(folder)) as keeper,
        ):
            found[kind] = _Bench(bench, keeper, Path(folder)).run()
        if not quiet:
            console().print(_in_words(kind, found[kind]), markup=False, soft_wrap=True)
    passed = all(not each["violations"] and not each["lost"] for each in found.values())
    return {"config": asdict(bench), "backends": found, "passed": passed}


@dataclass(frozen=True)
class _Keeper:
    """Who keeps the locks of one measurement.

    Attributes:
        end: ends it as a crash would, and returns when it answers again; None: it is nobody.
    """

    setting: LockSetting
    environment: dict[str, str]
    address: str | None = None
    end: Callable[[], None] | None = None


@contextmanager
def _kept(kind: str, folder: Path) -> Iterator[_Keeper]:
    if kind == "file":
        yield _Keeper(parse_setting("file"), {})
    elif kind == "redis":
        from cluster.bench.redis_server import serving
        from control.redis_locks import PASSWORD_VARIABLE

        (folder / "redis").mkdir()
        with serving(folder / "redis") as server:
            secret = {PASSWORD_VARIABLE: server.password}
            yield _Keeper(parse_setting(server.setting.text), secret, end=server.restart)
    else:
        yield from _kept_by_ray(folder / locks.CONTROL_FILE)


def _kept_by_ray(file: Path) -> Iterator[_Keeper]:
    from cluster import environment

    environment.prepare_ray(None)
    import ray

    from cluster.on_ray.address import connect
    from cluster.on_ray.leases import RayLeases

    connect(None, cpus=1)
    try:
        leases = RayLeases(file)
        _answered(leases.stats)

        def end() -> None:
            before = _answered(leases.stats)
            os.kill(before["pid"], signal.SIGKILL)
            _until(lambda: _answered(leases.stats)["epoch"] > before["epoch"], "the lease actor's return")

        yield _Keeper(parse_setting("ray"), {}, ray.get_runtime_context().gcs_address, end)
    finally:
        ray.shutdown()


class _Bench:
    """One backend's measurement: starts the processes, strikes them, and reads the log."""

    def __init__(self, bench: LockBench, keeper: _Keeper, folder: Path) -> None:
        self._bench = bench
        self._keeper = keeper
        self._folder = folder
        self._random = random.Random(bench.seed)
        file = folder / locks.CONTROL_FILE
        self._database = Database(file, locks.TABLES + lock_sections.TABLES)
        # Waits less long for a transaction than `Database` does: the one in its way may be of whom it has stopped.
        self._marks = sqlite3.connect(file, timeout=0.3, isolation_level=None)
        fix_backend(self._database, keeper.setting)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped: dict[int, float] = {}
        self._faketime = next((path for path in _FAKETIME if Path(path).exists()), None)
        self._clock_file = folder / "clock"
        self._clock_file.write_text("+0\n")
        self._counts: dict[Fault, int] = {"kill": 0, "stop": 0, "restart": 0, "jump": 0}

    def run(self) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            for worker in range(self._bench.processes):
                self._start(worker)
            for share, fault in self._schedule():
                self._wait_for(share)
                self._strike(fault)
            self._wait_for(1.0)
            self._until(lambda: not self._workers, "the end of the workers")
        finally:
            for worker in self._workers.values():
                worker.kill()
                worker.wait(PATIENCE_SECONDS)
                _clear_away(worker.pid)
        try:
            return self._report(time.monotonic() - begun)
        finally:
            self._marks.close()
            self._database.close()

    def _start(self, worker: int) -> None:
        order = Order(
            folder=str(self._folder),
            worker=worker,
            sections=self._bench.sections,
            ttl_seconds=self._bench.ttl_seconds,
            hold_ms=self._bench.hold_ms,
            acknowledged=str(self._folder / f"acknowledged-{worker}"),
            address=self._keeper.address,
        )
        command = [sys.executable, "-m", "cluster.bench.lock_sections", json.dumps(asdict(order))]
        with (self._folder / f"worker-{worker}.log").open("ab") as log:
            self._workers[worker] = subprocess.Popen(
                command, env=self._environment(worker), cwd=CHECKOUT, stdout=log, stderr=log
            )

    def _environment(self, worker: int) -> dict[str, str]:
        given = os.environ | self._keeper.environment
        if self._faketime is None or not self._bench.jumps or worker % 2:
            return given
        return given | {
            "LD_PRELOAD": self._faketime,
            "FAKETIME_TIMESTAMP_FILE": str(self._clock_file),
            "FAKETIME_CACHE_DURATION": "1",
            # As when the clock of a machine is set: its monotonic clock goes on.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def _schedule(self) -> list[tuple[float, Fault]]:
        """Return faults, each with the share of all sections after which it comes."""
        faults: list[Fault] = []
        for fault, count in self._wanted().items():
            faults.extend(itertools.repeat(fault, count))
        self._random.shuffle(faults)
        return [((number + 1) / (len(faults) + 1), fault) for number, fault in enumerate(faults)]

    def _wanted(self) -> dict[Fault, int]:
        bench = self._bench
        return {
            "kill": bench.kills,
            "stop": bench.stops,
            "restart": bench.restarts if self._keeper.end is not None else 0,
            "jump": bench.jumps if self._faketime is not None else 0,
        }

    def _strike(self, fault: Fault) -> None:
        if fault == "jump":
            replacement = self._clock_file.with_suffix(".new")
            replacement.write_text(f"{self._random.choice(_JUMPS)}\n")
            replacement.replace(self._clock_file)
        elif fault == "restart":
            assert self._keeper.end is not None
            self._mark("restart", 0, 0)
            self._keeper.end()
            self._mark("restarted", 0, 0)
            self._until_entered(0)
        elif not self._strike_holder(fault):
            return
        self._counts[fault] += 1

    def _strike_holder(self, fault: Literal["kill", "stop"]) -> bool:
        """Kill or stop who is in a section, and wait for the next; False when there is no more work."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (struck := self._frozen(fault)) is None:
            if not self._workers:  # the work is done
                return False
            self._look_after(deadline, f"a moment for a {fault}")
        worker, pid = struck
        if fault == "kill":
            os.kill(pid, signal.SIGKILL)
            self._workers[worker].wait(PATIENCE_SECONDS)
            _clear_away(pid)
        else:
            self._stopped[pid] = time.monotonic() + self._bench.ttl_seconds * self._random.uniform(1.5, 2.5)
        self._until_entered(pid)
        return True

    def _frozen(self, fault: Literal["kill", "stop"]) -> tuple[int, int] | None:
        """Stop who is in a section, and note the fault; None when it was in the middle of a transaction."""
        last = self._last_line()
        if last is None or last[0] != "enter":
            return None
        worker, pid = last[1], last[2]
        process = self._workers.get(worker)
        if process is None or process.pid != pid or process.poll() is not None or pid in self._stopped:
            return None
        os.kill(pid, signal.SIGSTOP)
        try:
            self._mark(fault, worker, pid)
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return None
        return worker, pid

    def _mark(self, what: What, worker: int, pid: int) -> None:
        append(self._marks, Line(what, worker, pid, 0, 0.0, time.monotonic()))

    def _last_line(self) -> tuple[str, int, int] | None:
        return self._marks.execute(
            "SELECT what, worker, pid FROM section_log WHERE what IN ('enter', 'leave') ORDER BY seq DESC LIMIT 1"
        ).fetchone()

    def _until_entered(self, pid: int) -> None:
        (marked,) = self._marks.execute("SELECT max(seq) FROM section_log WHERE pid = ?", (pid,)).fetchone()
        entered = "SELECT 1 FROM section_log WHERE seq > ? AND what = 'enter' AND pid != ? LIMIT 1"
        self._until(
            lambda: not self._workers or self._marks.execute(entered, (marked, pid)).fetchone() is not None,
            "the next holder",
        )

    def _wait_for(self, share: float) -> None:
        wanted = share * self._bench.processes * self._bench.sections
        before, deadline = -1, 0.0
        while (total := self._total()) < wanted:
            if total != before:
                before, deadline = total, time.monotonic() + PATIENCE_SECONDS
            self._look_after(deadline, "the next section")

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            self._look_after(deadline, what)

    def _look_after(self, deadline: float, awaited: str) -> None:
        """Let who was stopped go on when its time has come, and replace who was killed; then rest a little."""
        now = time.monotonic()
        for pid in [pid for pid, until in self._stopped.items() if now >= until]:
            del self._stopped[pid]
            os.kill(pid, signal.SIGCONT)
        for worker, process in list(self._workers.items()):
            code = process.poll()
            if code == 0:
                del self._workers[worker]
            elif code == -signal.SIGKILL:
                self._start(worker)
            elif code is not None:
                raise _failed(f"worker {worker} ended with {code}", self._said(worker))
        if now > deadline:
            raise _failed(f"{awaited} did not come within {PATIENCE_SECONDS:.0f} s", self._said(0))
        time.sleep(_LOOK_SECONDS)

    def _said(self, worker: int) -> str:
        said = (self._folder / f"worker-{worker}.log").read_text(errors="replace").strip().splitlines()
        return said[-1] if said else "it said nothing"

    def _total(self) -> int:
        return self._marks.execute("SELECT total FROM section_total").fetchone()[0]

    def _report(self, seconds: float) -> dict[str, Any]:
        verdict = judge(read_log(self._database))
        files = self._folder.glob("acknowledged-*")
        acknowledged = sum(path.stat().st_size for path in files)
        written_over = verdict.left - self._total()
        return {
            "violations": verdict.violations,
            "unexplained": verdict.unexplained,
            "lost": max(0, acknowledged - verdict.left) + abs(written_over),
            "recoveries": len(verdict.recovery_ms),
            "max_recovery_ms": _rounded(max(verdict.recovery_ms, default=None)),
            "max_restart_ms": _rounded(max(verdict.restart_ms, default=None)),
            "p50_acquire_ms": _rounded(_share(verdict.acquire_ms, 0.50)),
            "p95_acquire_ms": _rounded(_share(verdict.acquire_ms, 0.95)),
            "sections": verdict.left,
            "sections_per_s": round(verdict.left / seconds, 1),
            "refused": verdict.refused,
            "faults": dict(self._counts),
            "seconds": round(seconds, 1),
        }


def _clear_away(pid: int) -> None:
    """Remove what faketime keeps for each process, and leaves behind when it is killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)  # noqa: S108 - it is there that it keeps it


def _answered(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask until there is an answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise _failed(f"{what} did not come within {PATIENCE_SECONDS:.0f} s", "it is silent")
        time.sleep(0.05)


def _failed(what: str, why: str) -> ClusterError:
    return ClusterError(what, why=why, fix="see to the machine's load, and try fewer --processes")


def _share(values: list[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _in_words(kind: str, result: dict[str, Any]) -> str:
    faults = ", ".join(f"{count} × {fault}" for fault, count in result["faults"].items() if count)
    return (
        f"{kind}: {result['sections']:,} sections in {result['seconds']} s under {faults or 'no faults'}:"
        f" {result['violations']} violations, {result['lost']} lost,"
        f" recovered {result['recoveries']} times in at most {result['max_recovery_ms'] or 0:,.0f} ms;"
        f" 95% acquired within {result['p95_acquire_ms'] or 0:,.0f} ms"
    )
