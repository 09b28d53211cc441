"""Games of a stock Forge, read from what it prints."""

from collections.abc import Sequence

import pytest

from engines.errors import EngineFault
from engines.sim_output import SimGame, is_sim_output, sim_games

PRINTED = """Simulation mode
Loading deck from: /decks/red.dck
Ai(1)-Red vs Ai(2)-Blue vs Grey - 3 games of Constructed
Match Result: Ai(1)-Red: 1 Ai(2)-Blue vs Grey: 0

Game Result: Game 1 ended in 8123 ms. Ai(1)-Red has won!


Stopping slow match as draw

Game Result: Game 2 ended in a Draw! Took 120004 ms.
Game Result: Game 3 ended in 7 ms. Ai(2)-Blue vs Grey has won!
""".splitlines()


def games(lines: Sequence[str]) -> list[SimGame]:
    return list(sim_games(lines, "forge sim"))


def test_games_are_read_between_lines_of_its_log() -> None:
    assert games(PRINTED) == [
        SimGame(1, 0, 8123, timed_out=False),
        SimGame(2, None, 120004, timed_out=True),
        SimGame(3, 1, 7, timed_out=False),
    ]


def test_a_game_comes_before_the_next_is_played() -> None:
    lines = iter(PRINTED)
    assert next(sim_games(lines, "forge sim")).number == 1
    assert next(lines) == ""


def test_runs_may_stand_behind_each_other_and_be_cut_off() -> None:
    first = games(PRINTED)
    assert games([*PRINTED, *PRINTED[:-1]]) == [*first, *first[:2]]
    assert games(PRINTED[:4]) == []


def test_what_it_prints_is_known_by_its_lines() -> None:
    assert is_sim_output(PRINTED)
    assert is_sim_output(["  Could not load deck - red, match cannot start"])
    assert not is_sim_output(["1.5", "GAME_RESULT: Draw in 1ms", '{"durations_s": [1]}'])


@pytest.mark.parametrize(
    ("lines", "kind", "told"),
    [
        (["Simulation mode", "Could not load deck - red, match cannot start"], "refused", "'red'"),
        ([PRINTED[-1]], "protocol", "which two decks"),
        ([*PRINTED[:6], PRINTED[5]], "protocol", "game 2"),  # one game twice
        ([*PRINTED[:3], PRINTED[-1]], "protocol", "game 1"),  # one left out
        ([*PRINTED[:3], "Game Result: Game 1 ended in 5 ms. Ai(3)-Green has won!"], "protocol", "Ai(3)"),
        ([*PRINTED[:3], "Game Result: Game 1 was lost"], "protocol", "was lost"),
    ],
)
def test_what_is_missing_or_foreign_is_told(lines: list[str], kind: str, told: str) -> None:
    with pytest.raises(EngineFault) as caught:
        games(lines)
    assert caught.value.kind == kind
    assert told in caught.value.why
