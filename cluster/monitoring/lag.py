"""Whether what is learnt reaches those who play: rows that were too old to be used, servers that keep old weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TELL_SECONDS = 30.0
"""Between two notes of rows that were dropped."""
STALE_SECONDS = 60.0
"""Weights answer within a second of their publication; a server that has none of them so long will not get them."""


@dataclass(slots=True)
class _Behind:
    """What a server held when it fell behind, and since when."""

    held: int
    since: float


class LagWatch:
    """Looks at the counters of all parts, and says in words what is wrong.

    Args:
        max_lag_versions: the learner's bound, to be named.
    """

    def __init__(self, max_lag_versions: int) -> None:
        self._max_lag_versions = max_lag_versions
        self._dropped: int | None = None
        self._next_note = float("-inf")
        self._behind: dict[str, _Behind] = {}

    def take(self, stats: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
        """Take in the counters at `now` seconds; return what a person should be told."""
        self._behind = {part: behind for part, behind in self._behind.items() if part in stats}
        learner = stats.get("learner", {})
        told = [self._dropped_rows(learner.get("rows_too_old"), now)]
        newest = learner.get("version")
        for part, counters in stats.items():
            held = counters.get("version") if part.startswith("inference") else None
            if newest is not None and held is not None:
                told.append(self._held(part, held, newest, now))
        return [text for text in told if text]

    def _dropped_rows(self, dropped: int | None, now: float) -> str:
        if dropped is None:
            return ""
        # A resumed run remembers those of its earlier lives; a learner that restarts may remember fewer than it told.
        before = dropped if self._dropped is None else min(self._dropped, dropped)
        if dropped == before or now < self._next_note:
            self._dropped = before
            return ""
        self._dropped, self._next_note = dropped, now + TELL_SECONDS
        return (
            f"learner: dropped {dropped - before:,} rows that were older than learner.max_lag_versions="
            f"{self._max_lag_versions}: lower replay.samples_per_insert_slack_rows, or raise that bound"
        )

    def _held(self, part: str, held: int, newest: int, now: float) -> str:
        behind = self._behind.get(part)
        if held >= newest or behind is None or held != behind.held:
            self._behind[part] = _Behind(held, now)
            return ""
        if now - behind.since < STALE_SECONDS:
            return ""
        seconds, behind.since = now - behind.since, now
        return (
            f"{part} has answered with version {held} for {seconds:.0f} s, although version {newest} is out"
        )
