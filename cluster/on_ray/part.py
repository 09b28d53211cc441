"""A part of a program on Ray as its driver sees it: what it is doing, how it was lost, and what ends it."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from ray.exceptions import RayActorError

from cluster.on_ray.client import Handle, Servers, get, in_one_line
from cluster.on_ray.supervision import Attendance
from core.errors import ClusterError
from core.restarts import RestartPolicy

AT_HOME = ""
"""In place of a node's id: the driver's."""
DELIVER_SECONDS = 3.0
"""What is left of the time that it has to leave for an actor that delivers; a chunk takes tenths of one."""


@dataclass(slots=True)
class Part:
    """One actor of the program, as the driver sees it.

    Ray restarts its process, but where games are played another one succeeds it; its loop has to be run again.

        state       running  lost  restart_at   leaves it by
        idle        -        ""    -            `run`: is working
        working     set      ""    -            `lose`: the loop ended with an error
        lost        -        set   -            `answered`, by a process that has not been killed
        back        -        ""    set          `run`, at `restart_at`: is working again

    A part that only answers is idle, or lost while its process is replaced. Beside that, whatever the state, a question
    is on its way (`asked`) or is not, and `attendance` watches that some process stays. A process that dies between
    two questions is known by the next one's pid. One that is not wanted any more leaves by `leave`.

    Attributes:
        node: id of its machine; `AT_HOME` for the driver's.
        ray_name: by which others look it up.
        given: the `Assignment` that its process was made with.
        num_gpus: that it asks for.
        made_at: when it was created.
        running: reference of its `run` call.
        lost: how it was lost, in words.
        killed_pid: of a process that the driver has killed, which may go on answering for a moment.
        trouble: what was heard of it instead of an answer, since the last answer.
        stats: its newest answer, and `asked`/`asked_at` the question on its way.
        heard_at: when it answered last; None before that.
        restarts: that were counted; each death is counted once.
        leaves_by: when it is ended at the latest, of a part that has been told to stop.
        servers: that it knows of; None when that is not sure.
        games_unsettled: of processes that died, until the next one has told what it goes on with.
        games_taken_over: with which one went on.
        games_lost: with which none did.
        successor: who has its place and has not answered yet, in words; succeeded_at: since when.
    """

    name: str
    role: str
    handle: Handle
    loops: bool
    node: str = AT_HOME
    ray_name: str = ""
    given: Any = None
    num_gpus: float = 0.0
    made_at: float = 0.0
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    attendance: Attendance = field(default_factory=Attendance)
    running: Any = None
    lost: str = ""
    restart_at: float | None = None
    killed_pid: int | None = None
    trouble: str = ""
    stats: dict[str, Any] = field(default_factory=dict)
    asked: Any = None
    asked_at: float = 0.0
    heard_at: float | None = None
    restarts: int = 0
    leaves_by: float | None = None
    servers: Servers | None = None
    games_lost: int = 0
    games_taken_over: int = 0
    games_unsettled: int = 0
    successor: str = ""
    succeeded_at: float = -math.inf

    @property
    def games_at_stake(self) -> int:
        """Games that would be lost with it, as it told last: in play, or finished and not acknowledged.

        While it takes over those of another process they are that one's still, as `games_unsettled`.
        """
        takes_over = self.stats.get("games_taken_over", 0) is None
        return 0 if takes_over else self.stats.get("games_at_stake", 0)

    def told(self) -> dict[str, Any]:
        """Return its newest answer, with what the driver counts of it."""
        return self.stats | {"restarts": self.restarts}

    def run(self) -> None:
        """Set its loop going."""
        self.restart_at = None
        self.running = self.handle.run.remote()

    def meet(self, servers: Servers) -> None:
        """Let it ask these servers from now on, as will a spare that is made after it."""
        self.handle.meet.remote(servers)
        self.servers = servers
        self.given = replace(self.given, servers=servers)

    def leave(self, by: float, now: float) -> None:
        """Let it play out its games and deliver them; it is ended at `by` at the latest."""
        self.leaves_by = by
        if self.running is not None:
            self.handle.leave.remote(max(0.0, by - now - DELIVER_SECONDS))

    def has_left(self) -> None:
        """Take in its last counters, which its loop has returned."""
        try:
            self.stats = get(self.running, timeout_seconds=1.0)
            self._settle()
        except Exception:  # whatever ended it instead: what it told last holds
            return

    def ask(self, now: float) -> None:
        """Ask how it is, unless that question is on its way already."""
        if self.asked is None:
            self.asked, self.asked_at = self.handle.stats.remote(), now

    def lose(self, reason: str, now: float, *, killed: bool) -> None:
        """Note that it is gone; only an answer to a question that is asked from now on tells that it is back.

        Args:
            killed: whether the driver has killed its process, so that another one has to answer.
        """
        self.running = self.restart_at = None
        self.lost = reason
        if killed:
            self.killed_pid = self.attendance.pid
        self.missed(reason, now)

    def succeed(self, handle: Handle, ray_name: str, now: float, *, has_waited: bool) -> None:
        """Let another process be this part from now on, in the place of one that was lost.

        Args:
            has_waited: whether it was a spare, else it begins.
        """
        self.handle, self.ray_name = handle, ray_name
        self.asked = self.killed_pid = None
        self.successor = "a spare plays in its place" if has_waited else "another process plays in its place"
        self.succeeded_at = now

    def who_is_back(self) -> str:
        """Return in words who plays on after it was lost."""
        successor, self.successor = self.successor, ""
        return f"{successor}, {self.ray_name.rpartition('/')[2]} in Ray's logs" if successor else "it is back"

    def missed(self, reason: str, now: float) -> None:
        """Note that nobody was there to answer."""
        self.asked = None
        self.trouble = reason
        self.attendance.missed(now)

    def answered(self, stats: dict[str, Any], now: float) -> str | None:
        """Take in an answer. If the part is back by it, return how it was lost ("" if nobody knows), else None."""
        self.asked = None
        if stats["pid"] == self.killed_pid:
            return None
        self.heard_at = now
        replaced = self.attendance.answered(stats["pid"], now)
        self.games_unsettled += self.games_at_stake if replaced else 0
        back, reason = bool(self.lost) or (replaced and not self.loops), self.lost or self.trouble
        self.stats, self.lost, self.trouble, self.killed_pid = stats, "", "", None
        self._settle()
        return reason if back else None

    def _settle(self) -> None:
        taken_over = self.stats.get("games_taken_over")
        if taken_over is not None and self.games_unsettled:
            self.games_taken_over += taken_over
            self.games_lost += max(0, self.games_unsettled - taken_over)
            self.games_unsettled = 0


def cause_of(error: Exception) -> str:
    """Return in a few words how Ray lost a part, as far as it knows."""
    return in_one_line(error).rpartition("unavailable: ")[2].partition(". The task")[0]


def keeps_dying(part: Part) -> ClusterError:
    return ClusterError(
        f"{part.name} keeps dying",
        why=f"no process of it has stayed for {part.attendance.patience_seconds:.0f} s: "
        f"{part.trouble or 'each answers for a moment'}",
        fix="look for its last words in Ray's logs (/tmp/ray/session_latest/logs), and at free memory",
    )


def cannot_be_made(part: str, error: RayActorError) -> ClusterError:
    """Return what a constructor raised, of which Ray keeps the text alone: for a TamenError its what, why and do."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    whys = [k for k, line in enumerate(lines) if line.startswith("why:")]
    if not whys:
        return ClusterError(
            f"the {part} cannot be made",
            why=lines[-1] if lines else type(error).__name__,
            fix="run again with `--engine local --debug`",
        )
    why = max(whys)
    do = next((k for k in range(why, len(lines)) if lines[k].startswith("do:")), len(lines))
    return ClusterError(
        f"the {part} cannot be made",
        why="; ".join([lines[max(0, why - 1)], "\n".join(lines[why:do])]),
        fix=lines[do][3:].strip() if do < len(lines) else "run again with `--engine local --debug`",
    )
