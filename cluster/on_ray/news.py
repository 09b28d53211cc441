"""How a server hears of new weights."""

from collections.abc import Callable
from dataclasses import dataclass

from inference_server.broadcast import Announcement
from networks.weights import Weights


@dataclass(slots=True)
class News:
    """Passes each new version of a model on to a server, once: it takes a batch's time to come into force, and one
    that was refused would be refused again.

    Attributes:
        wait_newer: returns the newest version as soon as it is above a number; None when that takes too long.
        held_version: of the weights that answer; None before the first request.
        fetch: gets an announced version.
        offer: hands it to the server, with the time at which it was published.
        passed_on: version of those that were offered last.
    """

    wait_newer: Callable[[int], Announcement | None]
    held_version: Callable[[], int | None]
    fetch: Callable[[Announcement], Weights]
    offer: Callable[[Weights, float | None], None]
    passed_on: int = -1

    def pass_on(self) -> bool:
        """Wait for what is newer than all that the server holds or was offered, offer it, return whether it came."""
        held = self.held_version()
        if held is None:
            return False
        announced = self.wait_newer(max(held, self.passed_on))
        if announced is None or announced.version <= max(self.held_version() or 0, self.passed_on):
            return False
        self.offer(self.fetch(announced), announced.published_at)
        self.passed_on = announced.version
        return True
