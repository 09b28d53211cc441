"""Which games were lost with who played them, so that one that kills whoever plays it is found and none else suffers.

Who dies takes all that it had with it, though at most one of its games can be the cause. So what is lost among others
goes back as it was, and is then played in smaller company: a game that was lost once comes to a holder that has at most
256, after two losses 16, after three it comes alone. What is lost alone has failed.
"""

import math
from collections.abc import Callable

COMPANIES = (math.inf, 256, 16, 1)
"""The most games that a holder may have with one among them that was lost 0, 1, 2, 3 times or more."""


class Room:
    """What one holder may still be given. Made by `Losses.room`."""

    def __init__(self, losses: "Losses", held: int, most: float) -> None:
        self._losses, self._held, self._most = losses, held, most

    def takes(self, number: int) -> bool:
        """Take a game in, if it may be in this company; return whether it may."""
        most = min(self._most, self._losses.company(number))
        if self._held and self._held >= most:
            return False
        self._held, self._most = self._held + 1, most
        return True


class Losses:
    """How often games that are not done were lost among others.

    Attributes:
        counted: losses of all games.
    """

    def __init__(self) -> None:
        self.counted = 0
        self._times: dict[int, int] = {}

    def add(self, number: int) -> None:
        """Note that a game was lost among others."""
        self.counted += 1
        self._times[number] = self._times.get(number, 0) + 1

    def forget(self, number: int) -> None:
        """Note that a game is done."""
        self._times.pop(number, None)

    def company(self, number: int) -> float:
        """Return how many games a holder may have that has this one, itself included."""
        return COMPANIES[min(self._times.get(number, 0), len(COMPANIES) - 1)]

    def room(self, held: int, holds: Callable[[int], bool]) -> Room:
        """Return what one may still be given that has `held` games; `holds` tells of one that was lost if it has it."""
        companies = (self.company(number) for number in self._times if holds(number))
        return Room(self, held, min(companies, default=math.inf))
