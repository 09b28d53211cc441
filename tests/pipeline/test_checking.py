"""What the rules allow, judged in bulk, is what a plain reading of them allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games.formats.reading import read_game
from games.formats.record import GameText, Reason, Word, cell_name
from games.hex import Hex
from pipeline.checking import CheckedGame, Fault, check_games

ROW = np.zeros(1, np.int32)


def check(text: str, **settings: str) -> CheckedGame | Fault:
    (checked,) = check_games([read_game(text)], **settings)  # pyright: ignore[reportArgumentType]
    return checked


def plainly(size: int, moves: tuple[int, ...], tag: int | None) -> tuple[Reason | None, int | None, bool]:
    """Play one game by the rules with the swap; return what is wrong, else who won and whether by a chain."""
    game = Hex(size, swap=True)
    states = game.new_states(1)
    game.new(states, ROW)
    for move in moves:
        action = size * size if move == Word.SWAP_PIECES else move
        if game.outcome(states, ROW)[0][0]:
            return Reason.AFTER_THE_END, None, False
        if not game.legal(states, ROW)[0, action]:
            return Reason.REPEATED_CELL, None, False
        game.play(states, ROW, np.array([action], np.int16), ROW)
    if not game.outcome(states, ROW)[0][0]:
        return None, tag, False
    winner = (len(moves) - 1) % 2
    return (Reason.WINNER_CONTRADICTED if tag == 1 - winner else None), winner, True


@st.composite
def almost_games(draw: st.DrawFn) -> GameText:
    """A game of distinct cells, perhaps too long, perhaps with a swap or a repeated cell."""
    size = draw(st.integers(3, 6))
    cells = draw(st.permutations(range(size * size)))
    moves = list(cells[: draw(st.integers(1, size * size))])
    if draw(st.booleans()):
        moves.insert(1, Word.SWAP_PIECES)
        moves = [move for place, move in enumerate(moves) if place < 2 or move >= 0]
    if draw(st.integers(0, 4)) == 0:
        moves.append(draw(st.sampled_from([move for move in moves if move >= 0])))
    return GameText("trmph", size, size, tuple(moves), draw(st.sampled_from([0, 1, None])))


@settings(max_examples=30)
@given(st.lists(almost_games(), min_size=1, max_size=12))
def test_many_games_at_once_are_judged_as_one_by_one(games: list[GameText]) -> None:
    for game, checked in zip(games, check_games(games), strict=True):
        reason, winner, finished = plainly(game.width, game.moves, game.winner)
        if isinstance(checked, Fault):
            assert checked.reason == reason, (game, checked)
            continue
        assert reason is None, (game, checked)
        swapped = Word.SWAP_PIECES in game.moves
        assert (checked.finished, checked.swapped) == (finished, swapped)
        assert checked.winner == (winner if winner is None or not swapped else 1 - winner)


@settings(max_examples=20)
@given(almost_games())
def test_a_swap_mirrored_away_shows_every_player_what_he_saw(game: GameText) -> None:
    (checked,) = check_games([game])
    if isinstance(checked, Fault) or not checked.swapped:
        return
    assert seen(Hex(game.width, swap=True), game.moves)[2:] == seen(Hex(game.width), checked.moves)[1:]


def seen(game: Hex, moves: tuple[int, ...]) -> list[list[int]]:
    """Return what the player to move sees before each move and at the end."""
    states = game.new_states(1)
    game.new(states, ROW)
    views = [game.encode(states, ROW, ROW)[0]["cells"][0].tolist()]
    for move in moves:
        action = game.num_actions - 1 if move == Word.SWAP_PIECES else move
        game.play(states, ROW, np.array([action], np.int16), ROW)
        views.append(game.encode(states, ROW, ROW)[0]["cells"][0].tolist())
    return views


@pytest.mark.parametrize(
    ("text", "moves", "winner", "finished"),
    [
        ("#3,b1a1b2a2b3 b", "b1a1b2a2b3", 0, True),
        ("#3,b1a1b2a2b3", "b1a1b2a2b3", 0, True),
        ("#3,a1a2b1b2a3c2 2", "a1a2b1b2a3c2", 1, True),
        ("#3,b1a1 r", "b1a1", 1, False),
        ("#3,b1a1", "b1a1", None, False),
        ("#3,b1a1:rb", "b1a1", 1, False),
        ("#3,b1a1b2a2b3:rw", "b1a1b2a2b3", 0, True),
        ("#3,b1:Sa1:fw", "b1a1", 0, False),
        ("#4,b1:sc1:rb", "b1a3", 0, False),
        ("#4,b1swapc1 r", "b1a3", 0, False),
    ],
)
def test_what_the_rules_allow(text: str, moves: str, winner: int | None, finished: bool) -> None:
    checked = check(text)
    assert isinstance(checked, CheckedGame), checked
    assert checked.text() == f"#{checked.size},{moves}"
    assert (checked.winner, checked.finished) == (winner, finished)


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("#14x10,a1", Reason.NOT_SQUARE, "14×10"),
        ("#99,a1b2", Reason.BOARD_SIZE, "99; boards of 3 to 19"),
        ("#2,a1", Reason.BOARD_SIZE, "2; boards of 3 to 19"),
        ("#20,a1", Reason.BOARD_SIZE, "20; boards of 3 to 19"),
        ("#5, b", Reason.NO_MOVES, "no stone"),
        ("#5,:rb", Reason.NO_MOVES, "no stone"),
        ("#5,a1b2a1", Reason.REPEATED_CELL, "move 3, a1, was taken by move 1"),
        ("#5,a2swapb2c4b2", Reason.REPEATED_CELL, "move 5, b2, was taken by move 3"),
        ("#5,a2swapb1", Reason.REPEATED_CELL, "move 3, b1, was taken by move 1"),
        ("#5,a1a1b2", Reason.REPEATED_CELL, "move 2, a1, was taken by move 1"),
        ("#3,b1a1b2a2b3c3 b", Reason.AFTER_THE_END, "move 6, c3: blue had won with the move before"),
        ("#3,a1swapb1a3b2c3b3a2", Reason.AFTER_THE_END, "move 8, a2: blue had won with the move before"),
        ("#3,a1:rbb2", Reason.AFTER_THE_END, "move 3, after one gave up"),
        ("#3,b1a1b2a2b3 r", Reason.WINNER_CONTRADICTED, "red is told to have won, but move 5 joined blue's"),
        ("#3,a1swapb1a3b2c3b3 r", Reason.WINNER_CONTRADICTED, "but move 7 joined blue's sides"),
        ("#5,a1:pb2", Reason.PASSED, "move 2"),
        ("#5,a1b2:s", Reason.MISPLACED_SWAP, "move 3"),
        ("#5,:sa1", Reason.MISPLACED_SWAP, "move 1"),
        ("#5,a1:s:S", Reason.MISPLACED_SWAP, "move 3"),
    ],
)
def test_what_the_rules_do_not_allow(text: str, reason: Reason, told: str) -> None:
    fault = check(text)
    assert isinstance(fault, Fault), fault
    assert (fault.reason, told in fault.detail) == (reason, True), fault


def test_a_repeated_first_cell_is_a_swap_only_where_it_is_said_to_be() -> None:
    assert check("#5,a2a2c1 b", repeated_cell="swap") == check("#5,a2swapc1 b")
    fault = check("#5,a2b2a2", repeated_cell="swap")
    assert isinstance(fault, Fault)
    assert fault.reason == Reason.REPEATED_CELL


def test_moves_have_the_names_of_the_text() -> None:
    size = 19
    line = f"#19,{''.join(cell_name(cell, size) for cell in range(0, 361, 7))}"
    checked = check(line)
    assert isinstance(checked, CheckedGame)
    assert checked.text() == line


def test_nothing_is_nothing() -> None:
    assert check_games([]) == []
