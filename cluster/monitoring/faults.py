"""What went wrong since the driver began, and how episodes ended: counted over all lives of all parts."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cluster.monitoring.snapshot import FaultsPart

TELL_SECONDS = 30.0
"""Between two notes of games set aside: a failing brain fails many times a second, for every actor."""
COUNTERS = ("set_aside", "failed_requests", "resent_requests", "refused_chunks")


class Faults:
    """Adds up the fault counters of all parts, which begin at zero in each life of a part."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        self._totals: dict[str, int] = {}
        self._ends: Counter[str] = Counter()
        self._untold: dict[str, int] = {}
        self._cause = ""
        self._next_note = float("-inf")

    def take(self, stats: Mapping[str, Mapping[str, Any]]) -> FaultsPart:
        """Take in one moment of the run, all parts that there are; return the sums."""
        # A part that has left does not come back, and no other is given its name.
        self._seen = {seen: count for seen, count in self._seen.items() if seen[0] in stats}
        for part, counters in stats.items():
            for name in COUNTERS:
                if name in counters:
                    grown = self._growth(part, name, counters[name])
                    self._totals[name] = self._totals.get(name, 0) + grown
                    if name == "set_aside" and grown:
                        self._untold[part] = self._untold.get(part, 0) + grown
                        self._cause = str(counters.get("set_aside_cause", "")) or self._cause
        return FaultsPart(
            games_set_aside=self._totals.get("set_aside"),
            failed_requests=self._totals.get("failed_requests"),
            resent_requests=self._totals.get("resent_requests"),
            refused_chunks=self._totals.get("refused_chunks"),
        )

    def ends(self, stats: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
        """Take in one moment of the run; return how episodes ended, the most frequent first."""
        for part, counters in stats.items():
            for how, count in counters.get("ends", {}).items():
                self._ends[how] += self._growth(part, f"ends/{how}", count)
        return dict(self._ends.most_common())

    def note(self, now: float) -> str:
        """Return what a person should be told of games set aside, at most once in `TELL_SECONDS`; "" for nothing."""
        if not self._untold or now < self._next_note:
            return ""
        who = next(iter(self._untold)) if len(self._untold) == 1 else f"{len(self._untold)} actors"
        games = sum(self._untold.values())
        self._untold.clear()
        self._next_note = now + TELL_SECONDS
        return f"{who} set {games:,} games aside: {self._cause}"

    def _growth(self, part: str, name: str, count: int) -> int:
        before = self._seen.get((part, name), 0)
        self._seen[part, name] = count
        return count - before if count >= before else count
