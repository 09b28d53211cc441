"""What is wrong with the machines of a cluster, by what each has told: the judging part of the doctor, and pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.doctor.machine import DISK_BYTES, GIB, OF_OTHERS, RUN_BYTES, SHARED_BYTES, Finding
from cluster.doctor.node_report import NodeReport
from cluster.environment import CHECKOUT
from cluster.machines.roster import name_of
from cluster.on_ray.checkout import difference
from cluster.run.placement import ACTOR_BYTES, GPU, OWN_LABEL, SERVER_BYTES, Node

OPEN_FILES = 4096
"""Ray holds several for each process that one of its processes talks to."""
CLOCK_SECONDS, SIGNED_SECONDS = 1.0, 300.0
"""From where logs of two machines are hard to read together, and from where storage may refuse signed requests."""
FULL_SHARE = 0.95
"""Of a disk, from where Ray makes no more objects on it."""
GPU_LABELS = {OWN_LABEL: GPU, "ray.io/node-group": GPU}
ACCELERATOR_LABEL = "ray.io/accelerator-type"
SHOWN_MACHINES = 4


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a machine's clock is ahead of this one's, and how wrong that may be."""

    ahead_seconds: float
    within_seconds: float

    @property
    def surely_off_seconds(self) -> float:
        return max(0.0, abs(self.ahead_seconds) - self.within_seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a machine.

    Attributes:
        report: None when it did not answer; `trouble` says why.
        unreached: what went wrong between its processes and those of home, in words; "" when nothing did.
    """

    node: Node
    report: NodeReport | None = None
    trouble: str = ""
    clock: Clock | None = None
    unreached: str = ""


@dataclass(frozen=True, slots=True)
class _Complaint:
    said: str
    fix: str
    verdict: Literal["warn", "bad"] = "bad"


def declares_gpu(node: Node) -> bool:
    """Whether a machine is said to have a GPU: Ray counts one there, or a label names one."""
    named = any(node.labels.get(key) == value for key, value in GPU_LABELS.items())
    return node.gpus > 0 or named or ACCELERATOR_LABEL in node.labels


def compare(answers: Sequence[Answer]) -> Iterator[Finding]:
    """Yield what there is to say about machines of which one is home; a line for each kind of trouble."""
    silent = [(each.node, _Complaint(each.trouble, _SEE_TO_IT)) for each in answers if each.report is None]
    if silent:
        yield from _told("answers", silent, "")
    told = [each for each in answers if each.report is not None]
    home = next((each.report for each in told if each.node.is_home), None)
    if home is None:
        return
    for subject, check, fine in (
        ("code", _code, f"the same on all: {_in_words(home)}"),
        ("reached", _reached, "calls and objects travel between home and all others"),
        ("cluster token", _token, "asked for by all; its file is readable by its owner alone"),
        ("memory", _memory, f"{_least([report.available_bytes for report in _reports(told)])} available"),
        (
            "shared memory",
            _shared,
            f"{_least([r.shared_bytes or 0 for r in _reports(told)])} free in /dev/shm",
        ),
        ("disks", _disks, f"{_least([d.free_bytes for r in _reports(told) for d in r.disks.values()])} free"),
        ("open files", _open_files, f"{min(r.open_files for r in _reports(told)):,} at least"),
        ("clocks", _clock, f"within {_widest(told):.2f} s of this one"),
        ("GPUs", _gpus, f"{sum(r.gpus for r in _reports(told))}, as Ray counts them"),
        ("kernels", _kernels, f"{min(r.kernels for r in _reports(told))} compiled at least"),
    ):
        complaints = [
            (each.node, complaint)
            for each in told
            if each.report is not None and (complaint := check(each, each.report, home)) is not None
        ]
        yield from _told(subject, complaints, fine)


_SEE_TO_IT = (
    "look there for a full disk (`df`), at Ray's logs, and whether the checkout is at "
    f"{CHECKOUT} with the same Python; `ray stop` and `ray start` there mend what hangs"
)


def _told(subject: str, complaints: Sequence[tuple[Node, _Complaint]], fine: str) -> Iterator[Finding]:
    """Put complaints with the same fix into one line."""
    if not complaints:
        yield Finding(subject, fine, "ok")
    for kind in {(each.verdict, each.fix): each for _, each in complaints}.values():
        same = [
            f"{name_of(node)}: {complaint.said}"
            for node, complaint in complaints
            if (complaint.verdict, complaint.fix) == (kind.verdict, kind.fix)
        ]
        more = f"; and {len(same) - SHOWN_MACHINES} more machines" if len(same) > SHOWN_MACHINES else ""
        yield Finding(subject, "; ".join(same[:SHOWN_MACHINES]) + more, kind.verdict, kind.fix)


def _code(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if differs := difference(home.code, report.code):
        return _Complaint(
            differs, "bring its checkout and libraries to the state of home; until then it is not used"
        )
    return None


def _reached(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if answer.unreached:
        return _Complaint(
            answer.unreached,
            "let all TCP ports through among the cluster's machines, and to nobody else: Ray's processes take any",
        )
    return None


def _token(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if not report.with_token:
        return _Complaint(
            "its Ray asks for no token: whoever reaches it can run code on it",
            "put the token on all machines as ~/.ray/auth_token, and start Ray anew with RAY_AUTH_MODE=token",
        )
    if report.token_mode is not None and report.token_mode & OF_OTHERS:
        mode = f"{report.token_file} has mode {report.token_mode:o}"
        return _Complaint(mode, f"others there can read it: chmod 600 {report.token_file}")
    return None


def _memory(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    said = f"{report.available_bytes / GIB:.1f} GiB available"
    if answer.node.is_home and report.available_bytes < RUN_BYTES:
        return _Complaint(said, "home needs about 3 GiB for a run; close something there")
    node = answer.node
    of_ray = node.memory_bytes
    if of_ray is not None and of_ray < ACTOR_BYTES and node.takes_part and not node.is_home:
        said = f"Ray may use {of_ray / GIB:.2f} GiB there, in which no actor fits"
        return _Complaint(said, "start its Ray without --memory, or with 1.3 GiB or more", "warn")
    if report.available_bytes < ACTOR_BYTES + SERVER_BYTES:
        return _Complaint(said, "an actor and a server need some 1.3 GiB; close something there", "warn")
    return None


def _shared(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if report.shared_bytes is None:
        return _Complaint("no /dev/shm", "Ray keeps objects on disk there, which is slow; mount one", "warn")
    if report.shared_bytes < SHARED_BYTES:
        said = f"{report.shared_bytes / GIB:.1f} GiB free in /dev/shm"
        return _Complaint(said, "start its container with --shm-size=2g, or empty /dev/shm there", "warn")
    return None


def _disks(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    for folder, disk in report.disks.items():
        if 1 - disk.free_bytes / disk.all_bytes > FULL_SHARE:
            said = f"the disk of {folder} is full, {disk.free_bytes / GIB:.1f} GiB free"
            return _Complaint(said, "make room there: from 95 % Ray makes no more objects on it")
        if disk.free_bytes < DISK_BYTES:
            said = f"{disk.free_bytes / GIB:.1f} GiB free at {folder}"
            return _Complaint(said, "make room there: logs and objects take some GiB", "warn")
    return None


def _open_files(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if report.open_files < OPEN_FILES:
        return _Complaint(
            f"{report.open_files:,} a process", "type `ulimit -n 65536` before `ray start` there", "warn"
        )
    return None


def _clock(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    clock = answer.clock
    if clock is None or clock.surely_off_seconds < CLOCK_SECONDS:
        return None
    direction = "ahead of" if clock.ahead_seconds > 0 else "behind"
    verdict = "bad" if clock.surely_off_seconds > SIGNED_SECONDS else "warn"
    said = f"{abs(clock.ahead_seconds):.1f} s {direction} this one"
    return _Complaint(said, "let its clock be set by NTP: `timedatectl set-ntp true`", verdict)


def _gpus(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    node, usable = answer.node, report.gpus_of_torch
    if declares_gpu(node) and (not isinstance(usable, int) or usable < max(1, node.gpus)):
        declared = f"Ray counts {node.gpus} there" if node.gpus else "a label says so"
        torch = f"torch can use {usable}" if isinstance(usable, int) else usable
        return _Complaint(
            f"{declared}, the driver shows {report.gpus}, and {torch}",
            "install NVIDIA's driver and torch's build for CUDA there (setup_node.sh cuda), "
            "or start its Ray with --num-gpus=0 and without that label",
        )
    if report.gpus > node.gpus:
        said = f"{report.gpus} there, of which Ray counts {node.gpus}"
        if (
            node.is_home
        ):  # where a run asks Ray for shares of all that the driver shows, which it would wait for
            fix = f"start Ray here with --num-gpus={report.gpus}, or hide them from the run by CUDA_VISIBLE_DEVICES"
            return _Complaint(said, fix)
        return _Complaint(said, f"start its Ray with --num-gpus={report.gpus} to have them used", "warn")
    return None


def _kernels(answer: Answer, report: NodeReport, home: NodeReport) -> _Complaint | None:
    if not report.kernels:
        return _Complaint(
            "none compiled", "`python -m cluster.warm` there does it ahead; else the first run does", "warn"
        )
    return None


def _reports(answers: Sequence[Answer]) -> list[NodeReport]:
    return [each.report for each in answers if each.report is not None]


def _in_words(report: NodeReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.code.versions)
    return f"sources {report.code.digest}, {versions}"


def _least(bytes_of_each: Sequence[int]) -> str:
    return f"at least {min(bytes_of_each) / GIB:.1f} GiB"


def _widest(answers: Sequence[Answer]) -> float:
    offs = [abs(each.clock.ahead_seconds) + each.clock.within_seconds for each in answers if each.clock]
    return max(offs, default=0.0)
