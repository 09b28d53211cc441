"""How much of the time that a run's actors should have played they did, whatever befell their machines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.on_ray.supervision import LONGEST_STEP_SECONDS

REPLACED_WITHIN_SECONDS = 600.0
"""For which the actors of a machine that left are still owed; after that nobody means to replace it."""


@dataclass(frozen=True, slots=True)
class _Vacancy:
    """Actors of a machine that has left, owed until others take their places."""

    actors: int
    until: float


class EffectiveTime:
    """Adds up the seconds that actors should have played, and those that they did.

    Owed are the actors that the settings give each machine which is of use, from when it is of use, leaving or not;
    and those of a machine that has left, until as many have come in their place or ten minutes have passed. An actor
    plays while its loop runs and it answers.
    """

    def __init__(self) -> None:
        self._owed: dict[str, int] = {}
        self._playing = 0
        self._vacancies: list[_Vacancy] = []
        self._stepped_at: float | None = None
        self._owed_seconds = self._played_seconds = 0.0

    @property
    def ratio(self) -> float | None:
        """The share, 0 to 1; None before there was anything to play."""
        return self._played_seconds / self._owed_seconds if self._owed_seconds else None

    def step(self, owed: Mapping[str, int], playing: int, now: float) -> None:
        """Take in how it stands.

        Args:
            owed: actors that each machine of use should have, by its id.
            playing: actors that do.
            now: monotonic seconds.
        """
        self._add_up(now)
        gone = [self._owed[id] for id in self._owed.keys() - owed.keys()]
        self._vacancies += [_Vacancy(actors, now + REPLACED_WITHIN_SECONDS) for actors in gone if actors]
        for id in owed.keys() - self._owed.keys():
            self._fill(owed[id])
        self._owed, self._playing, self._stepped_at = dict(owed), playing, now

    def _fill(self, actors: int) -> None:
        """Count the places of actors that left as taken by `actors` who have come, the oldest first."""
        while self._vacancies and actors:
            oldest = self._vacancies.pop(0)
            if actors < oldest.actors:
                self._vacancies.insert(0, replace(oldest, actors=oldest.actors - actors))
            actors = max(0, actors - oldest.actors)

    def _add_up(self, now: float) -> None:
        """Count the time since the last step as it stood then."""
        self._vacancies = [each for each in self._vacancies if each.until > now]
        seconds = now - self._stepped_at if self._stepped_at is not None else 0.0
        if seconds > LONGEST_STEP_SECONDS:
            return
        owed = sum(self._owed.values()) + sum(each.actors for each in self._vacancies)
        self._owed_seconds += owed * seconds
        self._played_seconds += min(self._playing, owed) * seconds
