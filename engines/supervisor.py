"""Keeps the daemons of one machine running: starts them, asks how they are, starts them again, tells how they stand.

    with Supervisor(config, folder) as supervisor:
        while running:
            supervisor.step()              # never waits
            supervisor.endpoints()         # where games can be asked for
        supervisor.stop()                  # without it the daemons go on, and the next supervisor takes them over

`engines.upkeep` decides; here it is done. What is on disk is described in `engines.supervised`.
"""

import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from configs.engines import EnginesConfig
from core.errors import TamenError
from core.metrics import Metrics, NoMetrics
from core.processes import this_process
from engines.errors import EngineFault
from engines.forge_protocol import Status
from engines.jvm import drop_old_pieces
from engines.launch import Launch, daemon_count, plan_launch
from engines.listeners import stranger_at
from engines.ports import LOOPBACK, free_port, is_free
from engines.probe import Probe
from engines.process import Ending, Program, kill_marked, marked_processes, start_alone
from engines.supervised import (
    LIFE_MARK,
    MARK,
    DaemonRecord,
    StateFile,
    SupervisorKind,
    end_everything,
    end_programs,
    mark_of,
    program_of,
    read_state,
    record_of,
    sole_supervisor,
    take_complaint,
    write_state,
)
from engines.upkeep import Action, Upkeep

WRITE_SECONDS = 2.0
"""Between two writes of the state when nothing but counts has changed."""
BUSY_ANSWERS = 60
"""Of which a busy share is taken."""
NO_METRICS = NoMetrics()
_SHOWN_CHARACTERS = 200


@dataclass(slots=True)
class _Daemon:
    """What is known of one daemon besides its policy.

    Attributes:
        earlier_games: of its former lives.
        life_games: of this one.
        busy: of its last answers, whether a game was in play.
    """

    number: int
    program: Program | None = None
    probe: Probe | None = None
    port: int = 0
    life: str = ""
    since: float = 0.0
    earlier_games: int = 0
    life_games: int = 0
    active_games: int = 0
    busy: deque[bool] = field(default_factory=lambda: deque(maxlen=BUSY_ANSWERS))

    @property
    def games(self) -> int:
        return self.earlier_games + self.life_games

    @property
    def busy_share(self) -> float | None:
        return sum(self.busy) / len(self.busy) if self.busy else None

    def hang_up(self) -> None:
        if self.probe is not None:
            self.probe.close()
        self.probe = None

    def forget(self) -> None:
        """Note that its process is gone."""
        self.hang_up()
        self.program = None
        self.earlier_games, self.life_games, self.active_games = self.games, 0, 0
        self.busy.clear()


class Supervisor:
    """See the module. Daemons that run in `folder` since before are taken over if they were started by the same.

    Args:
        folder: of this machine alone.
        kind: what this process is, for those who find the folder.
        tell: is told in a line what happens to daemons.
        clock: monotonic seconds.
        metrics: of restarts, and how busy daemons are.

    Raises:
        UsageError: when what is to be started is not there, or another supervises this folder.
    """

    def __init__(
        self,
        config: EnginesConfig,
        folder: Path,
        *,
        kind: SupervisorKind = "service",
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self._config = config
        self._folder = folder
        self._kind: SupervisorKind = kind
        self._tell = tell
        self._clock = clock
        self._metrics = metrics
        self._launch: Launch = plan_launch(config)
        self._digest = self._launch.digest()
        self._mark = mark_of(folder)
        self._open = ExitStack()
        self._open.enter_context(sole_supervisor(folder))
        count = daemon_count(config)
        self._upkeep = Upkeep(count, config.engine.spares, config.upkeep, random=random.Random())
        self._daemons = [_Daemon(slot.number) for slot in self._upkeep.slots]
        self._written: tuple[float, list[object]] = (0.0, [])
        self._touch()
        self._adopt()
        self._write(clock(), always=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def step(self) -> None:
        """Do what is due now: look who has ended, take answers, start, ask, kill."""
        now = self._clock()
        self._touch()
        for daemon in self._daemons:
            if daemon.program is not None and (ending := daemon.program.poll()) is not None:
                self._note_end(daemon, ending, now)
            if daemon.probe is not None:
                self._take_answer(daemon, daemon.probe, now)
            if daemon.program is not None and take_complaint(self._folder, daemon.number, daemon.life):
                self._upkeep.of_no_use(daemon.number, "games hang on it, though it answers STATUS", now)
        for action in self._upkeep.due(now):
            self._act(action, now)
        self._write(now)

    def endpoints(self) -> list[tuple[str, int]]:
        """Return host and port of each daemon that serves."""
        return [(LOOPBACK, self._daemons[number].port) for number in self._upkeep.serving()]

    def settled(self) -> bool:
        """Whether each daemon is ready, or set aside after too many failures."""
        return self._upkeep.all_settled()

    def report(self) -> list[DaemonRecord]:
        """Return how each daemon stands."""
        return [self._record(daemon) for daemon in self._daemons]

    def stop(self) -> None:
        """End all daemons with all that they have started, and leave nothing to be taken over."""
        for daemon in self._daemons:
            daemon.hang_up()
        self._write(self._clock(), always=True)
        end_everything(self._folder)
        self._open.close()

    def leave(self) -> None:
        """Supervise no longer; the daemons go on for a while, for another to take over."""
        for daemon in self._daemons:
            daemon.hang_up()
        self._open.close()

    def _adopt(self) -> None:
        """Take over what runs and is wanted, and end what runs and is not."""
        state, now = read_state(self._folder), self._clock()
        grace = self._config.upkeep.grace_seconds
        unwanted = []
        for found in state.daemons if state is not None else ():
            known = found.number < len(self._daemons)
            if known:
                self._daemons[found.number].earlier_games = found.games
            program = program_of(found, self._folder, grace)
            if program is None or program.poll() is not None:
                continue
            if known and found.digest == self._digest:
                daemon = self._daemons[found.number]
                daemon.program, daemon.port, daemon.life = program, found.port, found.life
                daemon.since = found.since
                daemon.earlier_games = found.earlier_games
                daemon.life_games = found.games - found.earlier_games
                self._upkeep.taken_over(
                    found.number,
                    now,
                    ready=found.state == "ready",
                    serving=found.serving,
                    restarts=found.restarts,
                )
                self._tell(f"daemon {found.number} runs on port {found.port}, and is taken over")
            else:
                unwanted.append(program)
        end_programs(unwanted, grace)
        lives = [daemon.life for daemon in self._daemons if daemon.program is not None]
        spared = {pid for life in lives for pid in marked_processes(LIFE_MARK, life)}
        if strays := kill_marked(MARK, self._mark, spared=spared):
            self._tell(f"{strays} processes of earlier daemons were killed")

    def _act(self, action: Action, now: float) -> None:
        daemon = self._daemons[action.number]
        if action.what == "start":
            self._start(daemon, now)
        elif action.what == "ask":
            deadline = now + self._config.upkeep.answer_seconds
            daemon.probe = Probe(LOOPBACK, daemon.port, engine=_name(daemon), deadline=deadline)
        elif daemon.program is not None:
            self._tell(f"{_name(daemon)} is killed: {self._upkeep.slots[action.number].trouble}")
            daemon.hang_up()
            daemon.program.kill()

    def _start(self, daemon: _Daemon, now: float) -> None:
        room, upkeep = self._folder / str(daemon.number), self._config.upkeep
        self._touch()  # to start many on a busy machine takes longer than the others may be alone
        try:
            taken = {other.port for other in self._daemons if other is not daemon}
            if not daemon.port or not is_free(daemon.port):
                daemon.port = free_port(self._config.engine.base_port, taken=taken)
            daemon.life = secrets.token_hex(8)
            room.mkdir(parents=True, exist_ok=True)
            drop_old_pieces(room)
            daemon.program = start_alone(
                self._launch.command(daemon.number, daemon.port, room),
                engine=_name(daemon),
                room=room,
                environment=self._launch.environment | {MARK: self._mark, LIFE_MARK: daemon.life},
                folder=None if self._launch.folder is None else Path(self._launch.folder),
                beat=self._folder / "beat",
                orphan_seconds=upkeep.orphan_seconds,
                grace_seconds=upkeep.grace_seconds,
                log_bytes=upkeep.log_kb << 10,
            )
        except (TamenError, OSError) as error:
            if daemon.life:  # its guard may be there, and only late to say so
                kill_marked(LIFE_MARK, daemon.life)
            why = f"{error.what}: {error.why}" if isinstance(error, TamenError) else str(error)
            self._upkeep.failed_to_start(daemon.number, why, now)
            self._tell_loss(daemon)
            return
        daemon.since = time.time()
        self._upkeep.started(daemon.number, now)
        if self._upkeep.slots[daemon.number].restarts:
            self._metrics.count("tamen_engine_restarts_total", daemon=str(daemon.number))

    def _note_end(self, daemon: _Daemon, ending: Ending, now: float) -> None:
        assert daemon.program is not None
        words = daemon.program.last_words()
        why = ending.in_words(words)
        if last := next((line.strip() for line in reversed(words.splitlines()) if line.strip()), ""):
            why += f"; its last words: {last[:_SHOWN_CHARACTERS]}"
        if ending.code is None:  # its guard could not see to the rest
            kill_marked(LIFE_MARK, daemon.life)
        daemon.forget()
        self._upkeep.ended(daemon.number, why, now)
        self._tell_loss(daemon)

    def _take_answer(self, daemon: _Daemon, probe: Probe, now: float) -> None:
        try:
            status = probe.poll(now)
        except EngineFault as fault:
            daemon.probe = None
            self._upkeep.silent(daemon.number, f"{fault.what}: {fault.why}", now)
            return
        if status is None:
            return
        daemon.probe = None
        was = self._upkeep.slots[daemon.number].state
        if was == "starting" and (stranger := self._stranger(daemon)) is not None:
            why = f"process {stranger}, none of its own, listens on its port {daemon.port}"
            self._upkeep.of_no_use(daemon.number, why, now)
            return
        self._note_status(daemon, status)
        self._upkeep.answered(daemon.number, now)
        if was == "starting":
            self._tell(f"daemon {daemon.number} is ready on port {daemon.port}")

    def _stranger(self, daemon: _Daemon) -> int | None:
        """Return who answers in its place: a port that was free at its start is anybody's until it listens."""
        assert daemon.program is not None
        mark, session = (LIFE_MARK, daemon.life), daemon.program.process.pid
        return stranger_at(daemon.port, mark=mark, session=session)

    def _note_status(self, daemon: _Daemon, status: Status) -> None:
        daemon.life_games, daemon.active_games = status.games_played, status.active_games
        daemon.busy.append(status.active_games > 0)
        self._metrics.gauge("tamen_engine_busy_ratio", daemon.busy_share or 0.0, daemon=str(daemon.number))

    def _tell_loss(self, daemon: _Daemon) -> None:
        slot = self._upkeep.slots[daemon.number]
        then = (
            f"it is set aside after {self._config.upkeep.max_failures + 1} failures"
            if slot.state == "aside"
            else "it is started again"
        )
        self._tell(f"daemon {daemon.number} is gone: {slot.trouble}; {then}")

    def _record(self, daemon: _Daemon) -> DaemonRecord:
        slot = self._upkeep.slots[daemon.number]
        return DaemonRecord(
            number=daemon.number,
            state=slot.state,
            serving=slot.serving,
            port=daemon.port,
            process=None if daemon.program is None else record_of(daemon.program.process),
            life=daemon.life,
            digest=self._digest,
            since=daemon.since,
            restarts=slot.restarts,
            games=daemon.games,
            earlier_games=daemon.earlier_games,
            active_games=daemon.active_games,
            busy_share=daemon.busy_share,
            trouble=slot.trouble,
        )

    def _write(self, now: float, *, always: bool = False) -> None:
        """Write the state when a daemon's has changed, and otherwise now and then."""
        standing: list[object] = [
            (slot.state, slot.serving, daemon.life, slot.trouble)
            for slot, daemon in zip(self._upkeep.slots, self._daemons, strict=True)
        ]
        last, written = self._written
        if not always and standing == written and now - last < WRITE_SECONDS:
            return
        self._written = now, standing
        state = StateFile(
            kind=self._kind,
            supervisor=record_of(this_process()),
            written=time.time(),
            count=self._upkeep.count,
            grace_seconds=self._config.upkeep.grace_seconds,
            daemons=tuple(self.report()),
        )
        try:
            write_state(self._folder, state)
        except OSError as error:  # a full disk, say; daemons are kept alive all the same
            self._tell(f"the state cannot be written: {error}")

    def _touch(self) -> None:
        beat = self._folder / "beat"
        try:
            os.utime(beat)
        except FileNotFoundError:
            beat.touch()


def _name(daemon: _Daemon) -> str:
    return f"daemon {daemon.number} on port {daemon.port}"
