"""Games of a stock Forge, read from what it prints."""

import pytest

from engines.errors import EngineFault
from engines.sim_output import SimGame, sim_games

PRINTED = """Simulation mode
Loading deck from: /decks/red.dck
Ai(1)-Red vs Ai(2)-Blue vs Grey - 3 games of Constructed
Match Result: Ai(1)-Red: 1 Ai(2)-Blue vs Grey: 0

Game Result: Game 1 ended in 8123 ms. Ai(1)-Red has won!


Stopping slow match as draw

Game Result: Game 2 ended in a Draw! Took 120004 ms.
Game Result: Game 3 ended in 7 ms. Ai(2)-Blue vs Grey has won!
""".splitlines()


def games(lines: list[str], count: int = 3) -> list[SimGame]:
    return list(sim_games(lines, "forge sim", games=count))


def test_games_are_read_between_lines_of_its_log() -> None:
    assert games(PRINTED) == [
        SimGame(1, 0, 8123, timed_out=False),
        SimGame(2, None, 120004, timed_out=True),
        SimGame(3, 1, 7, timed_out=False),
    ]


def test_a_game_comes_before_the_next_is_played() -> None:
    lines = iter(PRINTED)
    assert next(sim_games(lines, "forge sim", games=3)).number == 1
    assert next(lines) == ""


@pytest.mark.parametrize(
    ("lines", "kind", "told"),
    [
        (["Simulation mode", "Could not load deck - red, match cannot start"], "refused", "'red'"),
        (PRINTED[:-1], "closed", "game 3 of 3"),
        ([], "closed", "game 1 of 3"),
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
