"""What every game promises (`games.game.Game`). A game joins by one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from games.catalog import make_game
from games.game import Game, States
from tests.games.random_games import play_random_games, positions

WITH_A_VIEW = [
    "tic_tac_toe",
    "connect_four",
    "connect_four_5x4",
    "hex3",
    "hex5",
    "hex5-swap",
    "hex13",
]
RULES_ONLY = [
    "open_spiel:breakthrough(rows=5,columns=4)",
    "open_spiel:othello",
]

ALL = {name: make_game(name) for name in WITH_A_VIEW + RULES_ONLY}

every_game = pytest.mark.parametrize("game", ALL.values(), ids=ALL)
every_board = pytest.mark.parametrize("game", [ALL[name] for name in WITH_A_VIEW], ids=WITH_A_VIEW)


def snapshots(game: Game, states: States, rows: np.ndarray) -> list[bytes]:
    return [game.snapshot(states, row) for row in rows]


def ids(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)


@every_game
def test_its_name_makes_it_again(game: Game) -> None:
    assert make_game(game.name).name == game.name


@every_game
def test_a_new_position_is_in_play_and_player_0_moves(game: Game) -> None:
    states = game.new_states(3)
    game.new(states, ids(3))
    terminal, values = game.outcome(states, ids(3))
    assert game.legal(states, ids(3)).any(axis=1).all()
    assert game.to_play(states, ids(3)).tolist() == [0, 0, 0]
    assert not terminal.any()
    assert values.tolist() == [0, 0, 0]


@every_game
def test_answers_have_the_promised_shapes_and_dtypes(game: Game) -> None:
    states, rows = positions(game, 5, seed=0)
    terminal, values = game.outcome(states, rows)
    legal, players = game.legal(states, rows), game.to_play(states, rows)
    assert (legal.dtype, legal.shape) == (np.bool_, (5, game.num_actions))
    assert (players.dtype, players.shape) == (np.int8, (5,))
    assert (terminal.dtype, terminal.shape) == (np.bool_, (5,))
    assert (values.dtype, values.shape) == (np.float32, (5,))


@every_game
def test_every_game_ends_in_time_and_then_nothing_is_legal(game: Game) -> None:
    states = None
    for plies, (states, rows, _) in enumerate(play_random_games(game, 20, seed=1), start=1):
        assert plies <= game.max_plies
        assert not game.outcome(states, rows)[1].any()
    terminal, values = game.outcome(states, ids(20))
    assert terminal.all()
    assert set(values.tolist()) <= {-1.0, 0.0, 1.0}
    assert not game.legal(states, ids(20)).any()


@every_game
def test_a_child_apart_from_its_parent_is_the_child_in_its_place(game: Game) -> None:
    for states, rows, actions in play_random_games(game, 4, seed=2):
        pool = game.new_states(8)
        for row in range(4):
            game.restore(pool, row, game.snapshot(states, row))
        before = snapshots(game, pool, rows)
        game.play(pool, rows, actions, rows + 4)
        assert snapshots(game, pool, rows) == before
        game.play(pool, rows, actions, rows)
        assert snapshots(game, pool, rows + 4) == snapshots(game, pool, rows)
        assert snapshots(game, pool, rows) != before


@every_game
def test_many_rows_a_call_give_what_one_row_a_call_gives(game: Game) -> None:
    states, rows = positions(game, 12, seed=3)
    legal = game.legal(states, rows)
    actions = legal.argmax(axis=1).astype(np.int16)
    one_by_one = game.new_states(12)
    for row in range(12):
        game.restore(one_by_one, row, game.snapshot(states, row))
        alone = rows[row : row + 1]
        assert np.array_equal(game.legal(states, alone), legal[row : row + 1])
        assert game.to_play(states, alone) == game.to_play(states, rows)[row]
        game.play(one_by_one, alone, actions[row : row + 1], alone)
    game.play(states, rows, actions, rows)
    assert snapshots(game, states, rows) == snapshots(game, one_by_one, rows)
    together = game.outcome(states, rows)
    for row in range(12):
        alone = game.outcome(states, rows[row : row + 1])
        assert (alone[0][0], alone[1][0]) == (together[0][row], together[1][row])


@every_game
def test_a_copy_is_equal_and_goes_its_own_way(game: Game) -> None:
    states, rows = positions(game, 6, seed=4)
    pool = game.new_states(12)
    for row in rows:
        game.restore(pool, row, game.snapshot(states, row))
    before = snapshots(game, pool, rows)
    game.copy(pool, rows, rows + 6)
    assert snapshots(game, pool, rows + 6) == before
    game.play(pool, rows + 6, game.legal(pool, rows + 6).argmax(axis=1).astype(np.int16), rows + 6)
    assert snapshots(game, pool, rows) == before


@every_game
def test_a_copy_of_a_finished_game_is_finished(game: Game) -> None:
    finished, _, _ = list(play_random_games(game, 6, seed=13))[-1]
    pool = game.new_states(12)
    for row in range(6):
        game.restore(pool, row, game.snapshot(finished, row))
    game.new(pool, ids(12)[6:])
    game.copy(pool, ids(6), ids(12)[6:])
    assert game.outcome(pool, ids(12)[6:])[0].all()
    assert game.outcome(pool, ids(12)[6:])[1].tolist() == game.outcome(finished, ids(6))[1].tolist()


@every_game
def test_a_used_row_can_begin_anew(game: Game) -> None:
    states, rows = positions(game, 4, seed=5)
    fresh = game.new_states(4)
    game.new(states, rows)
    game.new(fresh, rows)
    assert snapshots(game, states, rows) == snapshots(game, fresh, rows)


@every_game
def test_a_restored_snapshot_plays_on_as_the_original(game: Game) -> None:
    states, rows = positions(game, 6, seed=6)
    restored = make_game(game.name)
    pool = restored.new_states(6)
    for row in rows:
        restored.restore(pool, row, game.snapshot(states, row))
    while rows.size:
        legal = game.legal(states, rows)
        assert np.array_equal(legal, restored.legal(pool, rows))
        assert np.array_equal(game.to_play(states, rows), restored.to_play(pool, rows))
        actions = legal.argmax(axis=1).astype(np.int16)
        game.play(states, rows, actions, rows)
        restored.play(pool, rows, actions, rows)
        terminal, values = game.outcome(states, rows)
        assert np.array_equal(values, restored.outcome(pool, rows)[1])
        rows = rows[~terminal]


@every_game
def test_a_foreign_or_damaged_snapshot_is_refused(game: Game) -> None:
    states, _ = positions(game, 1, seed=7)
    good = game.snapshot(states, 0)
    other = make_game("hex4")
    foreign = other.new_states(1)
    other.new(foreign, ids(1))
    for bad in (b"", b"\0", good[:-1], good + b"\0", other.snapshot(foreign, 0), good[1:]):
        with pytest.raises(DataError, match=r"this snapshot is not one of"):
            game.restore(states, 0, bad)
    assert game.snapshot(states, 0) == good


@every_game
def test_every_action_can_be_typed_as_it_is_called(game: Game) -> None:
    for action in range(game.num_actions):
        name = game.action_name(action)
        assert game.parse_action(name) == action
        assert game.parse_action(f"  {name.upper()} ") == action


@every_game
@given(typed=st.text(max_size=4))
def test_what_is_no_move_is_refused_with_an_example(game: Game, typed: str) -> None:
    names = {game.action_name(action) for action in range(game.num_actions)}
    if typed.strip().lower() in names:
        assert game.action_name(game.parse_action(typed)) == typed.strip().lower()
    else:
        with pytest.raises(UsageError) as refusal:
            game.parse_action(typed)
        assert refusal.value.fix.removeprefix("type a move such as ") in names


@every_game
def test_a_finished_game_is_one_line_and_shows_who_won(game: Game) -> None:
    lines = {game.game_line([0, 1, 2], outcome) for outcome in (1.0, -1.0)}
    assert len(lines) == 2
    assert all(line.splitlines() == [line] for line in lines)


@every_game
def test_different_positions_look_different(game: Game) -> None:
    states, rows = positions(game, 12, seed=8)
    pictures = {game.render(states, row) for row in rows}
    assert len(pictures) == len(set(snapshots(game, states, rows)))


@every_board
def test_a_view_is_a_permutation_and_the_first_shows_the_board_as_it_is(game: Game) -> None:
    assert game.views.dtype == np.int16
    assert game.views.shape[1] == game.num_actions
    assert len(game.views) >= game.num_symmetries
    assert np.array_equal(
        np.sort(game.views, axis=1), np.tile(np.arange(game.num_actions), (len(game.views), 1))
    )
    assert np.array_equal(game.views[0], np.arange(game.num_actions))


@every_board
def test_the_encoding_is_what_the_board_specification_says(game: Game) -> None:
    states, rows = positions(game, 9, seed=9)
    arrays, views = game.encode(states, rows, np.zeros(9, np.int32))
    assert set(arrays) == {spec.name for spec in game.board.inputs}
    assert all(spec.mismatch(arrays[spec.name]) is None for spec in game.board.inputs)
    assert set(np.unique(arrays["cells"])) <= {-1, 0, 1}
    assert (views.dtype, views.shape) == (np.int16, (9,))
    assert game.board.num_actions == game.num_actions


@every_board
def test_a_turned_encoding_is_the_plain_one_with_its_cells_where_the_view_says(game: Game) -> None:
    states, rows = positions(game, 40, seed=10)
    plain, plain_views = game.encode(states, rows, np.zeros(40, np.int32))
    for symmetry in range(game.num_symmetries):
        turned, views = game.encode(states, rows, np.full(40, symmetry, np.int32))
        for row in rows:
            here, there = game.views[plain_views[row]], game.views[views[row]]
            seen, expected = turned["cells"][row], plain["cells"][row]
            if game.board.policy == "columns":
                seen, expected = (cells.reshape(-1, game.board.width).T for cells in (seen, expected))
            on_board = len(seen)
            assert np.array_equal(seen[there[:on_board]], expected[here[:on_board]])


@every_board
def test_a_symmetry_leaves_the_rules_as_they_are(game: Game) -> None:
    for symmetry in range(game.num_symmetries):
        turn = game.views[symmetry]
        pool = game.new_states(10)
        game.new(pool, ids(10))
        states = None
        for states, rows, actions in play_random_games(game, 10, seed=11):
            assert np.array_equal(game.legal(pool, rows)[:, turn], game.legal(states, rows))
            game.play(pool, rows, turn[actions], rows)
        assert np.array_equal(game.outcome(pool, ids(10))[1], game.outcome(states, ids(10))[1])


@every_board
def test_a_player_sees_the_stone_that_the_other_just_set_as_the_other_s(game: Game) -> None:
    for ply, (states, rows, actions) in enumerate(play_random_games(game, 8, seed=12)):
        if game.board.extra_actions and ply < 2:
            continue  # a stone that may be swapped is shown in another way: test_hex.py
        before, _ = game.encode(states, rows, np.zeros(rows.size, np.int32))
        children = game.new_states(8)
        for row in rows:
            game.restore(children, row, game.snapshot(states, row))
        game.play(children, rows, actions, rows)
        after, _ = game.encode(children, rows, np.zeros(rows.size, np.int32))
        assert np.array_equal((before["cells"] == 1).sum(axis=1) + 1, (after["cells"] == -1).sum(axis=1))
        assert np.array_equal((before["cells"] == -1).sum(axis=1), (after["cells"] == 1).sum(axis=1))
