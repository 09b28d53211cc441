"""A person at the board: what was typed is understood, refused, or ends the game."""

from collections.abc import Iterable

import numpy as np
import pytest

from actors.players import RESIGNED, make_player, parse_player
from cluster.matches.play import play_game
from configs.schema import SearchConfig
from core.messages import Steps
from games.catalog import make_game
from search.hash_evaluator import HashEvaluator


class Person:
    """Types what was written beforehand, and remembers what was said to him."""

    def __init__(self, moves: Iterable[str]) -> None:
        self._moves = iter(moves)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def ask(self, prompt: str) -> str:
        try:
            return next(self._moves)
        except StopIteration:
            raise EOFError from None


def play(person: Person, opponent: str, *, first: bool = True, game: str = "tic_tac_toe") -> float | None:
    made = make_game(game)
    settings = SearchConfig(simulations=4, cheap_simulations=4)
    player = make_player(parse_player(opponent), made, settings=settings, games=1, served_as="main")
    return play_game(
        made,
        player,
        HashEvaluator(made.num_actions),
        person=0 if first else 1,
        seed=1,
        say=person.say,
        ask=person.ask,
    )


def every_cell() -> list[str]:
    return [f"{column}{row}" for row in "123" for column in "abc"]


@pytest.mark.parametrize("opponent", ["solver", "mcts:20", "model:x:4", "model:x:policy", "random"])
@pytest.mark.parametrize("first", [True, False])
def test_a_game_is_played_to_its_end(opponent: str, first: bool) -> None:
    person = Person(every_cell() * 9)  # a cell that is taken is refused, and the next one is tried
    outcome = play(person, opponent, first=first)

    assert outcome in (-1.0, 0.0, 1.0)
    assert any("plays" in text for text in person.said)
    assert "a b c" in person.said[-1]


def test_nobody_wins_against_the_solver() -> None:
    for cells in (every_cell(), every_cell()[::-1], ["b2", *every_cell()]):
        for first in (True, False):
            outcome = play(Person(cells * 9), "solver", first=first)
            assert outcome is not None
            assert outcome <= 0.0


def test_the_outcome_is_the_persons() -> None:
    """At 3×3 hex the first player wins from the centre, whatever the other does."""
    replies = ["b2", *(["a3", "a2", "b1", "c1", "c2", "b3", "a1", "c3"] * 9)]

    assert play(Person(replies), "random", game="hex3") == 1.0
    assert play(Person(every_cell() * 9), "solver", first=False, game="hex3") == -1.0


@pytest.mark.parametrize("word", ["quit", "q", "exit", " quit "])
def test_a_person_may_leave(word: str) -> None:
    assert play(Person(["b2", word]), "solver") is None


def test_an_opponent_may_resign() -> None:
    class Resigning:
        name = "resigner"
        rows_per_game = 1

        def choose(self, *given: object, **named: object) -> Steps[np.ndarray]:
            yield from ()
            return np.array([RESIGNED], np.int16)

    person, made = Person(["b2"]), make_game("hex3")
    evaluate = HashEvaluator(made.num_actions)
    outcome = play_game(made, Resigning(), evaluate, person=0, seed=1, say=person.say, ask=person.ask)
    assert (outcome, person.said[-1]) == (1.0, "resigner resigns")


def test_the_end_of_what_is_typed_leaves_too() -> None:
    assert play(Person([]), "solver") is None


def test_what_is_no_move_is_told_with_an_example_and_asked_again() -> None:
    person = Person(["z9", "", "b2", "b2", "quit"])
    play(person, "solver")

    assert sum("z9" in text for text in person.said) == 1
    assert any("b2 is not legal here; legal are" in text for text in person.said)
    assert not any("legal are b2" in text or " b2" in text.partition("legal are")[2] for text in person.said)
