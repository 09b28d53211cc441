"""What is passed on to a server, and what is not."""

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.on_ray.news import News
from inference_server.broadcast import Announcement


class Publishing:
    """A store and a server, as far as new versions are concerned; weights are known by their version.

    Attributes:
        newest: that the store has.
        held: that the server answers with.
        offered: to the server, in order, with the time of their publication.
    """

    def __init__(self, *, newest: int | None, held: int | None) -> None:
        self.newest = newest
        self.held = held
        self.offered: list[tuple[int, float | None]] = []
        self.news = News(
            wait_newer=self.wait_newer,
            held_version=lambda: self.held,
            fetch=self.fetch,
            offer=lambda weights, published_at: self.offered.append((weights.version, published_at)),
        )

    def wait_newer(self, version: int) -> Announcement | None:
        if self.newest is None or self.newest <= version:
            return None
        return Announcement(self.newest, None, 0, 100.0 + self.newest)

    def fetch(self, announced: Announcement) -> Any:
        return SimpleNamespace(version=announced.version)


def test_each_new_version_is_offered_once_whether_or_not_it_was_taken() -> None:
    publishing = Publishing(newest=3, held=2)
    assert [publishing.news.pass_on() for _ in range(3)] == [True, False, False]
    publishing.newest = 4
    assert [publishing.news.pass_on() for _ in range(3)] == [True, False, False]

    assert publishing.offered == [(3, 103.0), (4, 104.0)]


@pytest.mark.parametrize(("newest", "held"), [(None, None), (3, None), (None, 3), (3, 3)])
def test_nothing_is_offered_to_a_server_that_nobody_has_asked_or_that_is_up_to_date(
    newest: int | None, held: int | None
) -> None:
    publishing = Publishing(newest=newest, held=held)
    assert not publishing.news.pass_on()
    assert publishing.offered == []


def test_what_came_with_a_request_meanwhile_is_not_offered_again() -> None:
    publishing = Publishing(newest=3, held=2)
    wait_newer = publishing.news.wait_newer

    def slowly(version: int) -> Announcement | None:
        publishing.held = 3
        return wait_newer(version)

    publishing.news.wait_newer = slowly
    assert not publishing.news.pass_on()
    assert publishing.offered == []


def test_a_version_that_could_not_be_fetched_is_tried_again() -> None:
    publishing = Publishing(newest=3, held=2)

    def away(announced: Announcement) -> Any:
        raise ConnectionError

    publishing.news.fetch = away
    with pytest.raises(ConnectionError):
        publishing.news.pass_on()
    publishing.news.fetch = publishing.fetch

    assert publishing.news.pass_on()
    assert publishing.offered == [(3, 103.0)]


def test_a_store_that_knows_less_after_a_crash_takes_nothing_back() -> None:
    publishing = Publishing(newest=7, held=5)
    assert publishing.news.pass_on()
    publishing.newest = 6

    assert not publishing.news.pass_on()
    assert publishing.offered == [(7, 107.0)]
