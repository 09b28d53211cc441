"""When a game can have begun is known from how many are played at a time, and is never thought to be too early."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.turns import Turns


def turns_of(places: int) -> Turns:
    turns = Turns()
    turns.set_places(places)
    return turns


def test_games_begin_as_places_are_free() -> None:
    turns = turns_of(2)
    turns.asked("abcd", 10.0)
    assert [turns.began(game) for game in "abcd"] == [10.0, 10.0, None, None]
    turns.ended("b", 11.0, seconds=5.0)
    turns.ended("a", 12.0, seconds=5.0)
    assert [turns.began(game) for game in "abcd"] == [None, None, 11.0, 12.0]


def test_games_of_a_closed_connection_make_room() -> None:
    turns = turns_of(1)
    turns.asked("ab", 10.0)
    turns.asked("cd", 10.0)
    turns.given_up("ab", 11.0)
    assert [turns.began(game) for game in "cd"] == [11.0, None]
    turns.given_up("cd", 11.0)
    turns.given_up("cd", 12.0)


def test_games_that_hang_keep_their_places() -> None:
    turns = turns_of(2)
    turns.asked("abc", 10.0)
    turns.hung("a")
    assert not turns.is_stuck()
    assert turns.began("c") is None
    turns.hung("b")
    assert turns.is_stuck()
    turns.ended("a", 20.0, seconds=5.0)  # late, but it came
    assert not turns.is_stuck()
    assert turns.began("c") == 20.0


def test_places_are_lost_where_the_daemon_plays_on_what_was_given_up() -> None:
    turns = turns_of(2)
    for game in "ab":
        assert not turns.is_spent()
        turns.asked(game, 10.0)
        turns.hung(game)
        turns.given_up(game, 20.0)
    assert turns.is_spent()
    assert not turns.settle(1)  # one of them it has given up as well
    assert not turns.is_spent()
    turns.asked("cd", 30.0)
    turns.hung("c")
    turns.ended("c", 40.0, seconds=5.0)  # late, so its place is not lost
    turns.hung("d")
    assert turns.is_spent()
    assert turns.settle(2)
    assert not turns.is_spent()  # that was told


def test_one_that_hangs_is_not_excused_by_games_that_came_long_after_it() -> None:
    turns = turns_of(2)
    turns.asked("a", 0.0)
    for number in range(10):
        now = 10.0 + number
        turns.asked([f"b{number}", f"c{number}"], now)
        turns.ended(f"c{number}", now, seconds=5.0)  # in another order
        turns.ended(f"b{number}", now, seconds=5.0)
    assert turns.began("a") == 0.0


@settings(max_examples=300)
@given(st.integers(1, 4), st.integers(4, 8), st.integers(0, 10_000))
def test_a_daemon_that_takes_another_order_is_not_blamed_for_it(places: int, batch: int, seed: int) -> None:
    """Whichever of two connections it serves first, no game seems to be over a limit that the daemon keeps."""
    luck, turns, now, limit = random.Random(seed), turns_of(places), 0.0, 10.0
    connections = [[(place, number) for number in range(batch)] for place in range(2)]
    for games in connections:
        turns.asked(games, now)
    waiting = [*connections[1], *connections[0]]
    ends: dict[tuple[int, int], float] = {}
    while waiting or ends:
        while waiting and len(ends) < places:
            ends[waiting.pop(0)] = now + luck.uniform(0.0, limit)
        game = min(ends, key=lambda game: ends[game])
        now = ends.pop(game)
        supposed = [began for one in (*waiting, *ends, game) if (began := turns.began(one)) is not None]
        assert all(now <= began + limit for began in supposed)
        turns.ended(game, now, seconds=limit)
