"""Players: how they are written, and that each one plays legally, by its key alone, and well enough.

Where a test needs a model, hashes stand in for it.
"""

import numpy as np
import pyspiel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.arena import match
from actors.open_spiel_player import open_spiel_name
from actors.openings import random_openings
from actors.players import Player, PlayerSpec, make_player, parse_player
from configs.schema import SearchConfig
from core.errors import UsageError
from games.catalog import make_game
from games.game import Game
from games.solver import Solver
from search.drive import run
from search.hash_evaluator import HashEvaluator

SETTINGS = SearchConfig(simulations=8, cheap_simulations=4, gumbel_considered_actions=4)


def player_of(text: str, game: Game, *, games: int) -> Player:
    return make_player(parse_player(text), game, settings=SETTINGS, games=games, served_as="net")


def play(game_name: str, first: str, second: str, *, pairs: int, plies: int, seed: int = 0):
    game = make_game(game_name)
    openings = random_openings(game, pairs=pairs, plies=plies, seed=seed)
    players = [player_of(text, game, games=2 * pairs) for text in (first, second)]
    return run(match(game, *players, openings=openings, seed=seed), HashEvaluator(game.num_actions))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("random", PlayerSpec("random")),
        ("solver", PlayerSpec("solver")),
        ("mcts:400", PlayerSpec("mcts", 400)),
        (" mcts:1\n", PlayerSpec("mcts", 1)),
        ("open_spiel_mcts:2", PlayerSpec("open_spiel_mcts", 2)),
        ("model:hex5-first", PlayerSpec("model", None, "hex5-first")),
        ("model:hex5-first:64", PlayerSpec("model", 64, "hex5-first")),
        ("model:hex5-first@12", PlayerSpec("model", None, "hex5-first", 12)),
        ("model:hex5-first@0:64", PlayerSpec("model", 64, "hex5-first", 0)),
        ("model:hex5-first:0", PlayerSpec("model", 0, "hex5-first")),
        ("model:hex5-first:policy", PlayerSpec("model", 0, "hex5-first")),
        ("model:runs/a@b/models/7", PlayerSpec("model", None, "runs/a@b/models/7")),
        ("model:../models/7@3:policy", PlayerSpec("model", 0, "../models/7", 3)),
    ],
)
def test_a_player_is_read_as_it_is_written(text, spec):
    assert parse_player(text) == spec


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a player is"),
        ("randoms", "a player is"),
        ("random:3", "a player is"),
        ("solver:", "a player is"),
        ("Mcts:3", "a player is"),
        ("mcts", "from 1 to 100000, and nothing was given"),
        ("mcts:", "nothing was given"),
        ("mcts:0", "'0' was given"),
        ("mcts:-5", "'-5' was given"),
        ("mcts:1e3", "'1e3' was given"),
        ("mcts:100001", "'100001' was given"),
        ("mcts:٣", "was given"),
        ("open_spiel_mcts:1", "from 2 to 100000, and '1' was given"),
        ("model", "a player is"),
        ("model:", "1-64 letters"),
        ("model:x y", "1-64 letters"),
        ("model:..", "1-64 letters"),
        ("model:x@champion", "1-64 letters"),
        ("model:x:", "nothing was given"),
        ("model:x:polici", "'polici' was given"),
        ("model:x:3:4", "a player is"),
    ],
)
def test_what_is_no_player_is_refused_with_a_reason_and_examples(text, why):
    with pytest.raises(UsageError) as refused:
        parse_player(text)
    assert why in refused.value.why
    assert refused.value.fix


@given(
    st.text(max_size=30) | st.from_regex(r"(mcts|open_spiel_mcts|model):[a-z/@:.0-9-]{0,20}", fullmatch=True)
)
def test_any_text_is_a_player_that_writes_itself_or_a_usage_error(text):
    try:
        spec = parse_player(text)
    except UsageError:
        return
    assert parse_player(str(spec)) == spec


@given(
    st.from_regex(r"[a-z0-9][a-z0-9._/-]{0,20}", fullmatch=True).filter(lambda name: ".." not in name),
    st.none() | st.integers(0, 10**15),
    st.none() | st.integers(0, 100_000),
)
def test_every_model_player_survives_being_written(model, version, simulations):
    spec = PlayerSpec("model", simulations, model, version)
    assert parse_player(str(spec)) == spec


PLAYERS = [
    "random",
    "mcts:20",
    "solver",
    "open_spiel_mcts:10",
    "model:net",
    "model:net:3",
    "model:net:policy",
]


def positions(game: Game, histories, *, rows_per_game: int):
    states = game.new_states(len(histories) * rows_per_game)
    roots = np.arange(len(histories), dtype=np.int32) * rows_per_game
    game.new(states, roots)
    for root, history in zip(roots, histories, strict=True):
        for action in history:
            game.play(states, np.array([root]), np.array([action], np.int16), np.array([root]))
    return states, roots


def chosen(player: Player, game: Game, histories, keys) -> np.ndarray:
    states, roots = positions(game, histories, rows_per_game=player.rows_per_game)
    steps = player.choose(game, states, roots, histories=histories, keys=np.array(keys, np.uint64))
    return run(steps, HashEvaluator(game.num_actions))


@pytest.mark.parametrize("text", PLAYERS)
@pytest.mark.parametrize("game_name", ["tic_tac_toe", "hex3"])
def test_a_choice_is_legal_and_depends_on_its_own_position_and_key_alone(text, game_name):
    game = make_game(game_name)
    histories = random_openings(game, pairs=6, plies=3, seed=2) + random_openings(
        game, pairs=6, plies=0, seed=2
    )
    keys = [2**64 - 1 - i for i in range(12)]
    player = player_of(text, game, games=12)

    together = chosen(player, game, histories, keys)

    assert together.shape == (12,)
    assert np.issubdtype(together.dtype, np.integer)
    assert all(action not in history for action, history in zip(together, histories, strict=True))
    some = [9, 0, 4]
    alone = chosen(player, game, [histories[i] for i in some], [keys[i] for i in some])
    assert alone.tolist() == together[some].tolist()


@pytest.mark.parametrize("text", ["random", "mcts:20", "solver", "open_spiel_mcts:10"])
def test_another_key_is_another_choice_where_moves_are_alike(text):
    game = make_game("tic_tac_toe")
    choices = chosen(player_of(text, game, games=30), game, [()] * 30, range(30))
    assert len(set(choices.tolist())) > 1


def test_the_solver_never_loses_tic_tac_toe_from_the_start():
    assert play("tic_tac_toe", "solver", "random", pairs=40, plies=0).tally().losses == 0
    assert play("tic_tac_toe", "random", "solver", pairs=40, plies=0).tally().wins == 0
    assert play("tic_tac_toe", "solver", "solver", pairs=10, plies=0).tally() == (0, 20, 0)
    assert play("tic_tac_toe", "random", "random", pairs=40, plies=0).tally().losses > 0


def test_the_solver_gets_at_least_what_an_opening_is_worth():
    game = make_game("tic_tac_toe")
    result = play("tic_tac_toe", "solver", "random", pairs=40, plies=3)

    openings = [one.actions[:3] for one in result.games]
    states, roots = positions(game, openings, rows_per_game=1)
    for one, root in zip(result.games, roots, strict=True):
        worth = Solver(game).solve(states, int(root)) * (1 if one.seat == 1 else -1)
        assert one.points is not None
        assert one.points >= (1 + worth) / 2


def test_the_solver_wins_hex_whenever_it_begins():
    result = play("hex3", "solver", "mcts:10", pairs=20, plies=0)

    assert result.tally(seat=0) == (20, 0, 0)
    # Without it, beginning is not enough.
    assert play("hex3", "random", "mcts:10", pairs=20, plies=0).tally(seat=0).losses > 0


def test_a_search_with_rollouts_beats_random_play_at_connect_four():
    result = play("connect_four", "mcts:200", "random", pairs=20, plies=2)
    without_search = play("connect_four", "random", "random", pairs=20, plies=2)

    assert result.interval.low > 0.7
    assert without_search.interval.low < 0.7


@pytest.mark.parametrize(
    "game_name", ["hex5", "hex5-swap", "connect_four", "open_spiel:breakthrough(rows=5,columns=4)"]
)
def test_open_spiels_search_plays_here_and_beats_random_play(game_name):
    result = play(game_name, "open_spiel_mcts:40", "random", pairs=3, plies=1)
    assert result.score > 0.7


@pytest.mark.parametrize("game_name", ["tic_tac_toe", "connect_four", "hex3", "hex4-swap", "hex5"])
@pytest.mark.parametrize("seed", range(5))
def test_open_spiels_board_has_the_same_moves_and_winners_as_ours(game_name, seed):
    game, rng = make_game(game_name), np.random.default_rng(seed)
    states, row = game.new_states(1), np.zeros(1, np.int32)
    game.new(states, row)
    theirs = pyspiel.load_game(open_spiel_name(game.name)).new_initial_state()
    while not theirs.is_terminal():
        legal = np.flatnonzero(game.legal(states, row)[0])
        assert legal.tolist() == theirs.legal_actions()
        # Swapping is rare among random moves, so it comes when it can.
        action = legal[-1] if legal[-1] == 16 and game_name == "hex4-swap" else rng.choice(legal)
        theirs.apply_action(int(action))
        game.play(states, row, np.array([action], np.int16), row)
    terminal, value = game.outcome(states, row)
    assert terminal[0]
    assert value[0] == theirs.returns()[game.to_play(states, row)[0]]


@pytest.mark.parametrize(
    ("text", "game_name", "message"),
    [
        ("solver", "connect_four", "there is no solver for connect_four"),
        ("solver", "hex5", "there is no solver for hex5"),
    ],
)
def test_a_player_of_other_games_is_refused(text, game_name, message):
    with pytest.raises(UsageError, match=message):
        player_of(text, make_game(game_name), games=1)


def test_a_game_that_open_spiel_does_not_have_is_refused():
    with pytest.raises(UsageError, match="OpenSpiel's search cannot play havannah4"):
        open_spiel_name("havannah4")
    assert open_spiel_name("open_spiel:breakthrough(rows=6)") == "breakthrough(rows=6)"


def test_a_model_is_asked_under_the_name_it_is_served_as():
    game = make_game("hex3")
    states, roots = positions(game, [()], rows_per_game=9)
    steps = player_of("model:first@3", game, games=1).choose(
        game, states, roots, histories=[()], keys=np.zeros(1, np.uint64)
    )
    assert {request.model for request in next(steps)} == {"net"}
