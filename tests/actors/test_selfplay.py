"""Every game of self-play is a whole, legal game, and every row says the truth about its position."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.game_log import claim
from actors.harvest import FinishedGame
from configs.schema import SearchConfig
from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from games.catalog import make_game
from games.game import Game, States
from search.contract import Decisions, Search
from search.factory import make_search
from search.hash_evaluator import HashEvaluator
from tests.actors.playing import SETTINGS, Table, a_group, play_games, replay, views_of
from tests.search.fakes import FailingEvaluator

GAMES = ("tic_tac_toe", "connect_four", "hex3", "hex3-swap")
PUCT = SETTINGS.model_copy(update={"algorithm": "puct"})


def moves(games: list[FinishedGame]) -> list[tuple[list[int], float, int]]:
    return [(game.actions, game.outcome, game.opening_plies) for game in games]


@pytest.mark.parametrize("settings", [SETTINGS, PUCT], ids=["gumbel", "puct"])
@pytest.mark.parametrize("name", GAMES)
def test_a_finished_game_is_legal_and_complete_and_its_outcome_is_that_of_the_rules(
    name: str, settings: SearchConfig
) -> None:
    game = make_game(name)
    for finished in play_games(name, 12, settings=settings, random_opening_plies=2):
        _, outcome = replay(game, finished.actions)

        assert finished.outcome == outcome
        plies = len(finished.actions)
        assert len(finished.values) == len(finished.recorded) == len(finished.versions) == plies
        assert (np.abs(finished.values) <= 1.001).all()


@pytest.mark.parametrize("name", GAMES)
def test_a_row_shows_its_position_in_a_view_with_the_policy_in_the_same(name: str) -> None:
    game = make_game(name)
    shown = set()
    for finished in play_games(name, 12, random_opening_plies=2):
        states, _ = replay(game, finished.actions)
        for row in finished.rows:
            fitting = [
                (symmetry, places)
                for symmetry, (cells, places) in enumerate(views_of(game, states, row.ply))
                if np.array_equal(cells, row.inputs["cells"])
            ]
            assert fitting
            shown.add(fitting[0][0])
            legal = game.legal(states, np.array([row.ply], np.int32))[0]
            # Of equal views any may have been meant: at least one has its illegal moves at zero.
            assert any((row.policy[places[~legal]] == 0).all() for _, places in fitting)
            assert row.policy.astype(np.float64).sum() == pytest.approx(1.0, abs=2e-3)
            assert row.mover == game.to_play(states, np.array([row.ply], np.int32))[0]
    assert len(shown) > 1


def ending_moves(game: Game, states: States, ply: int) -> list[int]:
    """Return the moves that end the game at once; the position after the one that was played is overwritten."""
    row, child = np.array([ply], np.int32), np.array([ply + 1], np.int32)
    found = []
    for action in np.flatnonzero(game.legal(states, row)[0]):
        game.play(states, row, np.array([action], np.int16), child)
        if game.outcome(states, child)[0][0]:
            found.append(int(action))
    return found


def test_the_policy_of_a_row_stands_where_its_view_has_the_moves() -> None:
    """In a view that no other symmetry equals, the only winning move has to be where the view says it is."""
    game = make_game("hex3")
    settings = SearchConfig(simulations=64, cheap_simulations=1, full_share=1.0)
    checked = 0
    for finished in play_games("hex3", 12, settings=settings):
        states, _ = replay(game, finished.actions)
        last = finished.rows[-1]
        views = views_of(game, states, last.ply)
        fitting = [places for cells, places in views if np.array_equal(cells, last.inputs["cells"])]
        if len(fitting) == 1 and last.policy.max() > 0.5 and len(ending_moves(game, states, last.ply)) == 1:
            assert np.argmax(last.policy) == fitting[0][finished.actions[-1]]
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_full_share_of_moves_is_searched_in_full_and_recorded(share: float) -> None:
    settings = SETTINGS.model_copy(update={"full_share": share})
    games = play_games("tic_tac_toe", 150, settings=settings, num_games=16)
    recorded = [flag for game in games for flag in game.recorded]

    assert np.mean(recorded) == pytest.approx(share, abs=0.06)  # four deviations of 1,100 draws
    for game in games:
        assert [row.ply for row in game.rows] == [ply for ply, flag in enumerate(game.recorded) if flag]


def test_a_full_share_of_one_records_every_move() -> None:
    settings = SETTINGS.model_copy(update={"full_share": 1.0})
    assert all(all(game.recorded) for game in play_games("tic_tac_toe", 10, settings=settings))


class WatchedSearch:
    """A search that notes with which budget, noise and sampling each position is searched."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.rows_per_game = search.rows_per_game
        self.seen: set[tuple[int, bool, bool]] = set()

    def decide(self, *args: Any, **told: Any) -> Steps[Decisions]:
        columns = (told["budgets"].tolist(), told["noise"].tolist(), told["sample"].tolist())
        self.seen.update(zip(*columns, strict=True))
        return self._search.decide(*args, **told)


def test_only_a_full_search_has_the_large_budget_and_looks_beyond_the_model() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    search = WatchedSearch(make_search(SETTINGS, game, 4))
    table = Table(a_group(game, finished, search=search), HashEvaluator(9))
    while len(finished) < 20:
        table.step()

    full, cheap = SETTINGS.simulations, SETTINGS.cheap_simulations
    assert search.seen == {
        (full, True, True),
        (full, True, False),
        (cheap, False, True),
        (cheap, False, False),
    }


@pytest.mark.parametrize("name", ["tic_tac_toe", "hex3-swap"])
def test_random_openings_are_bounded_and_never_recorded(name: str) -> None:
    settings = SETTINGS.model_copy(update={"full_share": 1.0})
    games = play_games(name, 80, settings=settings, random_opening_plies=3, num_games=8)

    assert {game.opening_plies for game in games} == {0, 1, 2, 3}
    assert len({tuple(game.actions[: game.opening_plies]) for game in games}) > 20
    for game in games:
        plies, searched = game.opening_plies, len(game.actions) - game.opening_plies
        assert searched > 0
        assert game.recorded == [False] * plies + [True] * searched
        assert game.values[:plies] == [0.0] * plies
        assert game.versions == [-1] * plies + [0] * searched


def test_an_opening_that_would_end_the_game_is_not_played() -> None:
    games = play_games("tic_tac_toe", 60, random_opening_plies=9, num_games=8)

    assert max(game.opening_plies for game in games) > 4
    assert all(game.opening_plies < len(game.actions) for game in games)


def test_the_same_seed_plays_the_same_games_and_another_seed_others() -> None:
    first, again, other = (
        moves(play_games("tic_tac_toe", 20, seed=seed, random_opening_plies=2)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_what_other_groups_do_changes_no_game() -> None:
    game = make_game("tic_tac_toe")
    alone = moves(play_games("tic_tac_toe", 20, seed=1))
    finished, others = list[FinishedGame](), list[FinishedGame]()
    table = Table(a_group(game, finished, seed=1), HashEvaluator(9))
    noise = [
        Table(a_group(game, others, seed=seed, num_games=7), HashEvaluator(9, salt=seed)) for seed in (2, 3)
    ]
    turn = 0
    while len(finished) < 20:
        table.step()
        noise[turn % 2].step()
        turn += 1

    assert moves(finished[:20]) == alone
    assert others


def test_no_two_games_of_a_group_are_the_same_by_construction() -> None:
    games = play_games("connect_four", 12, num_games=6)
    assert len({tuple(game.actions) for game in games}) > 6


def test_each_move_carries_the_version_of_the_weights_that_made_it() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    evaluate = HashEvaluator(9)
    version = 0

    def newer_and_newer(request: Request) -> Reply:
        return Reply(evaluate(request).arrays, version)

    table = Table(a_group(game, finished), newer_and_newer)
    while len(finished) < 12:
        table.step()
        version += 1
    for one in finished:
        assert one.versions == sorted(one.versions)
        assert one.versions[0] < one.versions[-1]


def test_one_failed_evaluation_changes_no_game() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    table = Table(a_group(game, finished, seed=1), FailingEvaluator(HashEvaluator(9), {0, 7, 30, 90}))
    while len(finished) < 20:
        table.step()

    assert moves(finished[:20]) == moves(play_games("tic_tac_toe", 20, seed=1))


def test_a_second_failure_sets_the_games_aside_with_the_reason_and_play_goes_on() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    group = a_group(game, finished, num_games=4)
    table = Table(group, FailingEvaluator(HashEvaluator(9), {11, 12}))
    while len(finished) < 12:
        table.step()

    assert (group.set_aside, group.set_aside_cause) == (4, "this test wants it so")
    for one in finished:
        replay(game, one.actions)


def test_after_a_reply_of_no_use_a_group_asks_for_nothing_once() -> None:
    game = make_game("tic_tac_toe")
    group = a_group(game, [], num_games=4)
    play = group.play()
    replies = tuple(HashEvaluator(9)(request) for request in next(play))
    overflown = [
        {**reply.arrays, "policy": np.full_like(reply.arrays["policy"], np.inf)} for reply in replies
    ]

    assert play.send(tuple(Reply(arrays, 0) for arrays in overflown)) == ()
    assert group.set_aside == 4
    assert "logits must be finite" in group.set_aside_cause
    assert play.send(())[0].num_rows == 4


def test_a_brain_that_is_away_for_long_costs_games_but_not_the_group() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    group = a_group(game, finished, num_games=2)
    away = True

    def evaluate(request: Request) -> Reply:
        if away:
            raise EvaluationError("no answer", why="it is away", fix="wait")
        return HashEvaluator(9)(request)

    table = Table(group, evaluate)
    for _ in range(3 * 50):  # asked, asked once more, given up
        table.step()
    away = False
    while not finished:
        table.step()

    assert (group.set_aside, group.set_aside_cause) == (100, "it is away")
    replay(game, finished[0].actions)


def test_the_seconds_of_a_game_are_those_of_its_clock() -> None:
    game, finished = make_game("tic_tac_toe"), list[FinishedGame]()
    now = 0.0

    def clock() -> float:
        return now

    table = Table(a_group(game, finished, num_games=1, clock=clock), HashEvaluator(9))
    while len(finished) < 2:
        now += 1.0
        table.step()

    assert finished[0].seconds + finished[1].seconds == now


def test_who_waits_in_reserve_has_no_games_in_play_and_its_first_do_not_last_as_long_as_it_waited() -> None:
    finished: list[FinishedGame] = []
    now = 0.0
    group = a_group(
        make_game("tic_tac_toe"), finished, num_games=4, random_opening_plies=3, clock=lambda: now
    )
    assert group.in_play == 0
    now = 3600.0
    table = Table(group, HashEvaluator(9))
    while group.in_play < 4:
        table.step()
    while not finished:
        now += 1.0
        table.step()

    assert all(game.seconds < 60 for game in finished)


@pytest.mark.parametrize("name", GAMES)
def test_a_group_that_is_wound_up_plays_its_games_to_their_ends_and_begins_none(name: str) -> None:
    game, undisturbed, finished = make_game(name), list[FinishedGame](), list[FinishedGame]()
    table = Table(a_group(game, undisturbed, num_games=6), HashEvaluator(game.num_actions))
    while len(undisturbed) < 30:
        table.step()
    group = a_group(game, finished, num_games=6)
    table = Table(group, HashEvaluator(game.num_actions))
    while len(finished) < 3:
        table.step()
    begun = len(finished) + 6
    group.wind_up()
    with pytest.raises(StopIteration):
        table.step(times=10_000)

    assert (len(finished), group.in_play) == (begun, 0)
    # What stands beside a game does not change its moves, so these are games that would have been played anyway.
    assert {tuple(one.actions) for one in finished} <= {tuple(one.actions) for one in undisturbed}


def test_games_that_fail_while_they_are_wound_up_are_set_aside_and_not_begun_anew() -> None:
    game = make_game("tic_tac_toe")
    group = a_group(game, [], num_games=4)
    play = group.play()
    next(play)
    group.wind_up()
    failed = EvaluationError("no answer", why="test", fix="none")
    play.throw(failed)

    assert play.throw(failed) == ()
    assert (group.set_aside, group.in_play) == (4, 0)
    with pytest.raises(StopIteration):
        play.send(())


def told(finished: FinishedGame) -> tuple[Any, ...]:
    """Return all of a game but its seconds, to be compared."""
    rows = [
        (
            row.ply,
            row.mover,
            {name: array.tolist() for name, array in row.inputs.items()},
            row.policy.tolist(),
        )
        for row in finished.rows
    ]
    moves = finished.actions, finished.values, finished.recorded, finished.versions
    return *moves, finished.outcome, finished.opening_plies, rows


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, SETTINGS) for name in GAMES), ("hex3-swap", PUCT)],
    ids=[*GAMES, "hex3-swap-puct"],
)
@pytest.mark.parametrize("deaths", [(1, 17), (30, 9, 40)])
def test_games_whose_process_dies_are_gone_on_with_as_if_nothing_had_been(
    name: str, settings: SearchConfig, deaths: tuple[int, ...], tmp_path: Path
) -> None:
    game, evaluate = make_game(name), HashEvaluator(make_game(name).num_actions)
    options: dict[str, Any] = {"settings": settings, "num_games": 6, "random_opening_plies": 2}
    finished: list[FinishedGame] = []
    carried = 0
    for life, steps in enumerate((*deaths, 300)):
        log = claim(tmp_path, num_actions=game.num_actions, max_plies=game.max_plies)
        group = a_group(game, finished, seed=life, **options)
        in_play = group.carry_on(log)
        assert in_play == group.in_play
        assert in_play <= 6
        carried += in_play
        Table(group, evaluate).step(steps)
        log.close()

    undisturbed: list[FinishedGame] = []
    for life in range(len(deaths) + 1):
        Table(a_group(game, undisturbed, seed=life, **options), evaluate).step(500)
    expected = Counter(map(str, map(told, undisturbed)))
    assert carried > 0
    assert len(finished) > 12
    # None is other than it would have been, and none comes twice.
    assert not Counter(map(str, map(told, finished))) - expected


def test_of_games_of_a_process_that_died_none_is_missing_and_none_comes_twice(tmp_path: Path) -> None:
    """Ten deaths in one row, each soon after the last: the games of the first process all come to their ends."""
    game, evaluate = make_game("hex3"), HashEvaluator(9)
    whole: list[FinishedGame] = []
    table = Table(a_group(game, whole, num_games=6), evaluate)
    while len(whole) < 6:
        table.step()
    finished: list[FinishedGame] = []
    for life in range(10):
        log = claim(tmp_path, num_actions=9, max_plies=game.max_plies)
        group = a_group(game, finished, num_games=6, seed=life)
        group.carry_on(log)
        Table(group, evaluate).step(9)
        log.close()

    counts = Counter(str(told(one)) for one in finished)
    assert [counts[str(told(one))] for one in whole[:6]] == [1] * 6


def test_games_that_lack_a_step_or_hold_no_legal_move_are_begun_anew(tmp_path: Path) -> None:
    game, evaluate = make_game("tic_tac_toe"), HashEvaluator(9)
    log = claim(tmp_path, num_actions=9, max_plies=9)
    group = a_group(game, [], num_games=4)
    group.carry_on(log)
    table = Table(group, evaluate)
    while group.moves < 8:
        table.step()
    log.close()
    log = claim(tmp_path, num_actions=9, max_plies=9)
    first, second = log.found
    occupied = second.of(np.array([True, False, False, False]))
    occupied.actions[0] = first.actions[0]
    outside = second.of(np.array([False, True, False, False]))
    outside.actions[0] = 9
    late = dataclasses.replace(second.of(np.array([False, False, True, False])), plies=np.array([2]))
    heir = a_group(game, [], num_games=4, seed=9)
    # What is in play is told by the newest step, here one that comes twice for all but the last game.
    log.found = [first, occupied, outside, late, second]

    assert heir.carry_on(log) == 1
    assert heir.in_play == 1


def test_a_game_that_is_over_is_not_handed_over_again(tmp_path: Path) -> None:
    game, evaluate = make_game("tic_tac_toe"), HashEvaluator(9)
    finished: list[FinishedGame] = []
    log = claim(tmp_path, num_actions=9, max_plies=9)
    group = a_group(game, finished, num_games=1)
    group.carry_on(log)
    table = Table(group, evaluate)
    while not finished:
        table.step()
    log.close()

    heir = a_group(game, finished, num_games=1, seed=9)
    assert heir.carry_on(claim(tmp_path, num_actions=9, max_plies=9)) == 0
    assert heir.in_play == 0
