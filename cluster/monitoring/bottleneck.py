"""Which part holds a run back, and what to change."""

from typing import NamedTuple

from cluster.cli.terminal import UNKNOWN, percent
from cluster.monitoring.snapshot import Measured, Snapshot

HIGH_SHARE = 0.25
"""An actor that idles less than this has so little to gain that another part is not worth changing for it."""
BUSY = 0.7
FAILING = 0.1
SMALL_BATCH_ROWS = 64
"""A small network on one core does 1,100 positions/s one by one and 9,900 in batches of 256."""


class Bottleneck(NamedTuple):
    """The part that the others wait for, and what to do about it."""

    name: str
    advice: str


def bottleneck(snapshot: Snapshot) -> Bottleneck:
    """Name the part that limits games per hour, by following what the actors wait for.

    Everything begins with the actors, so their idle time points at the culprit: the learner that holds them
    back, the replay that is slow to take their games, the brain that is busy or, when it is not, the way to
    it. Actors that hardly idle are the limit themselves. Where both sides idle for the other, it is the slack between
    them that is too small.
    """
    actors = snapshot.actors
    if actors.search_share is None or actors.wait_share is None:
        return Bottleneck(UNKNOWN, "measuring")
    if _at_least(actors.held_back_share, HIGH_SHARE):
        return _held_back(snapshot)
    if _at_least(actors.deliver_share, HIGH_SHARE):
        return Bottleneck(
            "replay", f"actors spend {percent(actors.deliver_share)} on it: raise actors.chunk_rows"
        )
    if actors.wait_share >= HIGH_SHARE:
        return _slow_evaluation(snapshot)
    doing = "search" if snapshot.rollout is None else "step"
    searching = f"actors {doing} {percent(actors.search_share)}"
    if _at_least(snapshot.inference.busy_ratio, BUSY):
        busy = percent(snapshot.inference.busy_ratio)
        return Bottleneck("none", f"{searching}, the brain is busy {busy}: well balanced")
    return Bottleneck("search", f"{searching}, the brain has time: raise actors.count where cores are free")


def _held_back(snapshot: Snapshot) -> Bottleneck:
    held, waits = percent(snapshot.actors.held_back_share), snapshot.learner.data_wait_ratio
    if _at_least(waits, HIGH_SHARE):
        both = f"actors are held back {held} while the learner waits {percent(waits)}"
        return Bottleneck("slack", f"{both}: raise replay.samples_per_insert_slack_rows")
    if snapshot.rollout is None:
        return Bottleneck("learner", f"actors are held back {held} for it: lower replay.samples_per_insert")
    # PPO draws each row once, whatever the epochs; with fewer draws than rows some would never be learnt from.
    fewer = "policy_gradient.epochs, or of V-trace replay.samples_per_insert"
    return Bottleneck("learner", f"actors are held back {held} for it: lower {fewer}")


def _slow_evaluation(snapshot: Snapshot) -> Bottleneck:
    if _at_least(snapshot.inference.failure_ratio, FAILING):
        failing = percent(snapshot.inference.failure_ratio)
        return Bottleneck("brain", f"{failing} of its requests fail: see the run's log.txt")
    waiting = f"actors wait {percent(snapshot.actors.wait_share)}"
    rows, busy = snapshot.inference.mean_batch_rows, snapshot.inference.busy_ratio
    board = snapshot.rollout is None
    if rows is not None and rows < SMALL_BATCH_ROWS:
        more = "actors.games_per_group" if board else "rollout.envs_per_group"
        advice = f"{waiting}, batches hold only {rows:.0f} rows: raise {more}"
        return Bottleneck("batches", advice)
    if _at_least(busy, BUSY):
        smaller = "network.channels" if board else "network.layers"
        advice = f"{waiting}, it is busy {percent(busy)}: lower {smaller} or add inference.servers"
        return Bottleneck("brain", advice)
    return Bottleneck("round trip", f"{waiting}, the brain has time: raise actors.groups_per_actor")


def _at_least(share: Measured, bound: float) -> bool:
    return share is not None and share >= bound
