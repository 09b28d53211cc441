"""Which of the games that a daemon was asked for it plays at a moment, as far as that is seen from outside.

It plays so many at a time, of all its connections, and begins them as they were asked for. No line tells when a game
begins, so its limit of time can only be counted from when it can have begun.
"""

import math
import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

ORDER_SECONDS = 1.0
"""Asked for within this, over two connections, games may begin in another order."""


@dataclass(slots=True)
class _Begun:
    asked: float
    began: float


class Turns:
    """The turns of one daemon's games, whatever stands for them. Any number of threads may use it.

    The end of a game that was thought to wait shows that the daemon took another order. Then one of those that were
    thought to be played was not, and may have to wait for others; so that none is given up too early, those that were
    asked for at about that time are taken to begin a whole game later.

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = 1
        self._begun: dict[Hashable, _Begun] = {}
        self._waiting: dict[Hashable, float] = {}
        """When they were asked for, in that order."""
        self._hung: set[Hashable] = set()
        self._lost = 0
        """Games that have hung and never ended, also of connections that are closed."""
        self._mixed_up, self._delay_seconds = -math.inf, 0.0
        """When games were asked for that the daemon took in another order, and how long one of them may take."""

    def set_places(self, places: int) -> None:
        """Note how many games the daemon plays at a time."""
        with self._lock:
            self._places = places

    def asked(self, games: Iterable[Hashable], now: float) -> None:
        """Note that it is about to be asked for games."""
        with self._lock:
            self._waiting.update(dict.fromkeys(games, now))
            self._begin(now)

    def began(self, game: Hashable) -> float | None:
        """Return when a game can have begun at the latest; None while it waits for its turn."""
        begun = self._begun.get(game)
        return None if begun is None else begun.began

    def ended(self, game: Hashable, now: float, *, seconds: float) -> None:
        """Note that the daemon has told the end of a game, which might have taken some `seconds`."""
        with self._lock:
            if (asked := self._waiting.get(game)) is not None:
                self._mixed_up, self._delay_seconds = asked, seconds
                for begun in self._begun.values():
                    if abs(begun.asked - asked) < ORDER_SECONDS:
                        begun.began = now + seconds
            self._lost -= game in self._hung and self._lost > 0
            self._forget([game], now)

    def hung(self, game: Hashable) -> None:
        """Note that a game is waited for no longer; it keeps its place until it ends or is given up."""
        with self._lock:
            self._hung.add(game)
            self._lost += 1

    def given_up(self, games: Iterable[Hashable], now: float) -> None:
        """Note that the daemon need not play these any more: their connection is closed."""
        with self._lock:
            self._forget(games, now)

    def is_stuck(self) -> bool:
        """Whether games that hang have all places, so that nothing else will ever begin."""
        return len(self._hung) >= self._places

    def is_spent(self) -> bool:
        """Whether as many games have hung as the daemon has places; it may have given some of them up since."""
        return self._lost >= self._places

    def settle(self, active_games: int) -> bool:
        """Take in how many games the daemon says it plays; return, once, whether games that hang have all places."""
        with self._lock:
            known = len(self._begun) - len(self._hung)
            self._lost = min(self._lost, max(0, active_games - known))
            is_spent = self._lost >= self._places
            self._lost = 0 if is_spent else self._lost
            return is_spent

    def _forget(self, games: Iterable[Hashable], now: float) -> None:
        for game in games:
            self._begun.pop(game, None)
            self._waiting.pop(game, None)
            self._hung.discard(game)
        self._begin(now)

    def _begin(self, now: float) -> None:
        while self._waiting and len(self._begun) < self._places:
            game = next(iter(self._waiting))
            asked = self._waiting.pop(game)
            self._begun[game] = _Begun(asked, self._latest(asked, now))

    def _latest(self, asked: float, now: float) -> float:
        """Return when a game can have begun at the latest that begins now if all is in order."""
        if abs(asked - self._mixed_up) < ORDER_SECONDS:
            return now + self._delay_seconds
        return now
