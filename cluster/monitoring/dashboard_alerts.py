"""What Prometheus wakes somebody for, each with what mends it; bounds come from what is declared healthy."""

from dataclasses import dataclass
from typing import Literal

from cluster.monitoring.dashboard_panels import CONTROL_ALERTS, either
from core.metrics import Healthy, spec_of
from core.restarts import RestartPolicy

DISK_FULL_PERCENT = 90
MEMORY_FULL_RATIO = 0.9
SETTLING_SECONDS = 60
"""After Prometheus first looks, until it has read every machine; what counted before then is not new."""
SYNC_FACTOR = 5.0
"""Times the healthy bound: large networks take longer, a run suffers where they take so long."""
MIRROR_MINUTES = 3
"""That it stays behind by its own judgement: a round may be late, and the next one ends that."""
RESTARTS = RestartPolicy().max_failures // 4
"""In ten minutes; one part that dies four times as often within five ends the run."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule.

    Attributes:
        expression: in PromQL; whatever it returns is a fault.
        minutes: that it has to last.
        summary: in words, with {{ $labels.run }} and the like.
        fix: what mends it.
        page: where more of it is said.
    """

    name: str
    expression: str
    minutes: int
    severity: Literal["critical", "warning", "info"]
    summary: str
    fix: str
    page: str


def grew(name: str, by: str, *, more_than: float = 0, minutes: int = 10) -> str:
    """Return an expression that holds where a counter has grown by more than that within the last minutes.

    A counter is not there before it first counts, so that of a first mishap is new, and has not grown. One that was
    there when Prometheus first looked may be of long ago.
    """
    window = f"{minutes}m"
    looked = f"scalar(min({_first_seen('up', window)}))"

    def of(called: str) -> str:
        new = f"{called} and {_first_seen(called, window)} > {looked} + {SETTLING_SECONDS}"
        return (
            f"sum by ({by}) (increase({called}[{window}])) > {more_than:g}"
            f" or sum by ({by}) ({new}) > {more_than:g}"
        )

    return either(name, of)


def _first_seen(called: str, window: str) -> str:
    """Return an expression for when each series was first read within the last `window`, in seconds since 1970."""
    return f"min_over_time(timestamp({called})[{window}:10s])"


def stands_still(alive: str, name: str, *, minutes: int) -> str:
    """Return an expression that holds where a run wrote the gauge `alive` for so long, and a counter has not grown.

    Counters of a run that has ended stay in Ray's books for ever; gauges are gone after 20 s. A run that has just begun
    has no counter yet.
    """
    grows = either(name, lambda called: f"sum by (run) (increase({called}[{minutes}m])) > 0")
    return f"{_gauge(alive)} and on (run) {_gauge(alive, ago=minutes)} unless on (run) {grows}"


def _gauge(name: str, *, ago: int = 0) -> str:
    """Return the expression of a run's gauge, now or some minutes ago."""
    when = f" offset {ago}m" if ago else ""
    return either(name, lambda called: f"max by (run) ({called}{when})")


def _healthy_until(name: str) -> float:
    """Return the upper bound of what is healthy."""
    healthy = spec_of(name).healthy or Healthy()
    assert healthy.high is not None
    return healthy.high


_OF_RUN = "run {{ $labels.run }}"
_SYNC = "ray_tamen_weights_sync_seconds"
_SYNC_LIMIT = SYNC_FACTOR * _healthy_until("tamen_weights_sync_seconds")
_WAIT_LIMIT = _healthy_until("tamen_learner_data_wait_ratio")

_OF_RUNS = (
    Alert(
        "TamenNoGames",
        stands_still("tamen_replay_rows", "tamen_games_total", minutes=10),
        5,
        "critical",
        f"{_OF_RUN} has finished no game for 10 minutes",
        "see what log.txt of the run says of actors and servers; games that take so long are no fault",
        "docs/running.md#troubleshooting",
    ),
    Alert(
        "TamenLearnerStandsStill",
        stands_still("tamen_replay_rows", "tamen_learner_steps_total", minutes=15),
        5,
        "critical",
        f"{_OF_RUN} has taken no learner step for 15 minutes",
        "before replay.min_rows are there this is no fault; else see log.txt of the run for refused steps",
        "docs/running.md#watching",
    ),
    Alert(
        "TamenLearnerWaitsForData",
        f"{_gauge('tamen_learner_data_wait_ratio')} > {_WAIT_LIMIT:g}",
        30,
        "info",
        f"the learner of {_OF_RUN} waits {{{{ $value | humanizePercentage }}}} of its time for rows",
        "let more machines or actors play (actors.count), or draw rows more often (replay.samples_per_insert)",
        "docs/running.md#watching",
    ),
    Alert(
        "TamenPolicyLagTooHigh",
        grew("tamen_rows_too_old_total", "run"),
        0,
        "warning",
        f"{_OF_RUN} drops rows that are older than learner.max_lag_versions",
        "lower replay.samples_per_insert_slack_rows, or raise learner.max_lag_versions",
        "docs/learner.md#the-age-of-a-policy",
    ),
    Alert(
        "TamenWeightsSyncSlow",
        f"histogram_quantile(0.5, sum by (run, le) (rate({_SYNC}_bucket[10m]))) > {_SYNC_LIMIT:g}",
        10,
        "warning",
        f"new weights of {_OF_RUN} take {{{{ $value | humanizeDuration }}}} until they answer",
        "publish less often (learner.publish_every_steps), or look for a slow network or a busy machine",
        "docs/metrics.md#the-brain",
    ),
    Alert(
        "TamenWeightsDoNotArrive",
        "max by (run) (delta(ray_tamen_weights_version[10m])) > 0"
        f" unless on (run) sum by (run) (increase({_SYNC}_count[10m])) > 0",
        5,
        "critical",
        f"{_OF_RUN} publishes weights, and no server answers with them",
        "see log.txt of the run for what servers say of new weights, and their free memory",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenRequestsFail",
        grew("tamen_requests_failed_total", "run"),
        0,
        "warning",
        f"servers of {_OF_RUN} could not answer requests",
        "log.txt of the run names the cause",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenGamesSetAside",
        grew("tamen_games_set_aside_total", "run"),
        0,
        "warning",
        f"actors of {_OF_RUN} gave up games",
        "no fault around a restart of a server; else log.txt of the run names the cause",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenChunksRefused",
        grew("tamen_chunks_refused_total", "run"),
        0,
        "critical",
        f"the replay of {_OF_RUN} refused games for what is in them",
        "stop the run and see its log.txt: actors and replay do not run the same code",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenLearnerStepsRefused",
        grew("tamen_learner_steps_refused_total", "run"),
        0,
        "warning",
        f"the learner of {_OF_RUN} met numbers that are not finite",
        "a few are no fault under fp16; else lower learner.learning_rate, or set network.precision=fp32",
        "docs/metrics.md#replay-and-learner",
    ),
)
_OF_MACHINES = (
    Alert(
        "TamenPartsRestart",
        grew("tamen_restarts_total", "run, role", more_than=RESTARTS),
        0,
        "warning",
        f"{{{{ $labels.role }}}} of {_OF_RUN} died {{{{ $value | humanize }}}} times in 10 minutes",
        "see log.txt of the run for how, and the machines' free memory; machines that are taken away are no fault",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenMachineLost",
        "max_over_time(count by (SessionName) (ray_node_cpu_count)[15m:30s])"
        " - count by (SessionName) (ray_node_cpu_count) > 0",
        1,
        "warning",
        "{{ $value }} machines have left the cluster within 15 minutes",
        "no fault where they were sent away; else see `ray status`, and start Ray there again",
        "docs/running.md#inside-a-ray-cluster",
    ),
    Alert(
        "TamenMachineSilent",
        'up{job="ray"} == 0',
        2,
        "warning",
        "Prometheus gets no numbers of {{ $labels.instance }}",
        "see whether Ray runs there (`ray status`), and whether its metrics port can be reached",
        "docs/dashboards.md#prometheus",
    ),
    Alert(
        "TamenDiskNearlyFull",
        f"max by (instance) (ray_node_disk_utilization_percentage) > {DISK_FULL_PERCENT}",
        5,
        "critical",
        "the disk of {{ $labels.instance }} is {{ $value | humanize }} % full",
        "free room or lower replay.capacity_rows: a chunk that finds no room is not acknowledged",
        "docs/architecture.md#who-dies-and-what-happens",
    ),
    Alert(
        "TamenMemoryNearlyFull",
        f"max by (instance) (ray_node_mem_used) / max by (instance) (ray_node_mem_total) > {MEMORY_FULL_RATIO}",
        5,
        "warning",
        "the memory of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "start fewer actors there (actors.count) or lower replay.capacity_rows: at 95 % Ray ends processes",
        "docs/running.md#watching",
    ),
)
_OF_MIRRORS = (
    Alert(
        "TamenMirrorBehind",
        f"{_gauge('tamen_mirror_lag_seconds')} and on (run) {_gauge('tamen_mirror_behind')} > 0",
        MIRROR_MINUTES,
        "critical",
        f"what {_OF_RUN} has done for {{{{ $value | humanizeDuration }}}} is on one disk alone",
        "log.txt of the run names the cause: storage that cannot be reached, or too slow for what is new",
        "docs/storage.md#when-it-does-not-work",
    ),
    Alert(
        "TamenMirrorFails",
        grew("tamen_mirror_failures_total", "run"),
        0,
        "warning",
        f"{_OF_RUN} could not be mirrored",
        "it is tried again; log.txt of the run names the cause",
        "docs/storage.md#when-it-does-not-work",
    ),
)
_OF_ENGINES = (
    Alert(
        "TamenEngineGamesSetAside",
        grew("tamen_engine_games_set_aside_total", "instance, reason"),
        0,
        "warning",
        "games with engines on {{ $labels.instance }} were given up: {{ $labels.reason }}",
        "`tamen engines status` tells how the daemons are, their logs why",
        "docs/engines.md#what-becomes-of-each-game",
    ),
    Alert(
        "TamenEngineRestarts",
        grew("tamen_engine_restarts_total", "instance, daemon", more_than=RESTARTS),
        0,
        "warning",
        "daemon {{ $labels.daemon }} on {{ $labels.instance }} keeps ending",
        "see its log; after more failures it is set aside until `tamen engines up`",
        "docs/engines.md#how-daemons-are-kept-alive",
    ),
)
_OF_CONTROL = (
    Alert(
        "TamenTrainingUnhealthy",
        f"max({next(iter(CONTROL_ALERTS))}) > 0",
        0,
        "critical",
        "{{ $value }} alerts of the control plane are open and critical",
        "`tamen health` names them",
        "docs/control.md#health",
    ),
)
ALERTS: tuple[Alert, ...] = (*_OF_RUNS, *_OF_MACHINES, *_OF_MIRRORS, *_OF_ENGINES, *_OF_CONTROL)
