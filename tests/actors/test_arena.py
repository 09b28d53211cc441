"""Matches: accounts, pairs, colours, determinism and what happens when the brain fails."""

from collections.abc import Container, Sequence

import numpy as np
import pytest

from actors.arena import MatchGame, MatchResult, Progress, joined, match
from actors.openings import random_openings
from core.errors import EvaluationError, UsageError
from core.messages import Request, Steps
from games.catalog import make_game
from games.game import Game, States
from search.contract import ask
from search.hash_evaluator import HashEvaluator


class UniformPlayer:
    """Plays any legal move, as its key says."""

    rows_per_game = 1

    def __init__(self, name: str = "uniform") -> None:
        self.name = name

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        yield from ()
        legal = game.legal(states, roots)
        return np.array(
            [
                np.random.default_rng(int(key)).choice(np.flatnonzero(row))
                for key, row in zip(keys, legal, strict=True)
            ],
            np.int16,
        )


class AskingPlayer(UniformPlayer):
    """Plays the legal move that its model gives the highest logit; writes all over its block."""

    rows_per_game = 5

    def choose(self, game, states, roots, *, histories, keys):
        rubbish = np.concatenate([roots + offset for offset in range(1, 5)]).astype(np.int32)
        game.new(states, rubbish)
        arrays, views = game.encode(states, roots, np.zeros(len(roots), np.int8))
        (reply,) = yield from ask((Request(self.name, arrays),))
        logits = np.take_along_axis(reply.arrays["policy"], game.views[views], axis=1)
        return np.where(game.legal(states, roots), logits, -np.inf).argmax(axis=1).astype(np.int16)


def drive(
    game: Game,
    steps: Steps[MatchResult],
    *,
    broken: Sequence[str] = (),
    broken_steps: Container[int] = (),
) -> tuple[MatchResult, list[list[str]]]:
    """Run a match in which a broken model fails at some steps; return (result, models asked in each step)."""
    evaluate = HashEvaluator(game.num_actions)
    asked = []
    try:
        requests = next(steps)
        while True:
            asked.append([one.model for one in requests])
            if len(asked) - 1 in broken_steps and any(one.model in broken for one in requests):
                requests = steps.throw(
                    EvaluationError("no reply", why="the server is gone", fix="restart it")
                )
            else:
                requests = steps.send(tuple(map(evaluate, requests)))
    except StopIteration as stop:
        return stop.value, asked


def test_random_against_random_is_even_and_every_game_is_accounted_for():
    game = make_game("hex3")
    openings = random_openings(game, pairs=300, plies=1, seed=1)
    progress = Progress()

    result, asked = drive(
        game,
        match(game, UniformPlayer("a"), UniformPlayer("b"), openings=openings, seed=2, progress=progress),
    )

    assert asked == []
    assert len(result.games) == 600
    assert sum(result.tally()) == 600
    assert result.tally(seat=0).wins + result.tally(seat=1).wins == result.tally().wins
    assert result.tally().draws == 0
    assert len(result.pair_scores) == 300
    assert result.score == pytest.approx((result.tally().wins + result.tally().draws / 2) / 600)
    # Five standard deviations of 600 coin flips.
    assert abs(result.score - 0.5) < 5 * 0.5 / np.sqrt(600)
    assert result.interval.low < 0.5 < result.interval.high
    assert result.elo_interval.low < result.elo < result.elo_interval.high
    assert (progress.games_finished, progress.games_set_aside) == (600, 0)
    assert progress.plies == result.plies == sum(len(one.actions) for one in result.games)


def test_both_games_of_a_pair_have_the_same_opening_and_the_seats_swapped():
    game = make_game("connect_four")
    openings = random_openings(game, pairs=12, plies=4, seed=1)

    result, _ = drive(
        game, match(game, UniformPlayer(), UniformPlayer(), openings=openings, seed=0, first_pair=5)
    )

    for index, opening in enumerate(openings):
        twins = result.games[2 * index : 2 * index + 2]
        assert [(twin.pair, twin.seat) for twin in twins] == [(5 + index, 0), (5 + index, 1)]
        assert [twin.actions[:4] for twin in twins] == [opening, opening]
    assert any(a.actions != b.actions for a, b in zip(result.games[::2], result.games[1::2], strict=True))


def test_points_and_lines_agree_with_the_rules():
    game = make_game("tic_tac_toe")
    openings = random_openings(game, pairs=40, plies=2, seed=1)

    result, _ = drive(game, match(game, UniformPlayer(), UniformPlayer(), openings=openings, seed=0))

    assert {one.points for one in result.games} == {0.0, 0.5, 1.0}
    for one in result.games:
        states, row = game.new_states(1), np.zeros(1, np.int32)
        game.new(states, row)
        mover = -1
        for action in one.actions:
            mover = int(game.to_play(states, row)[0])
            game.play(states, row, np.array([action], np.int16), row)
        terminal, value = game.outcome(states, row)
        assert terminal[0]
        winner = None if value[0] == 0 else mover
        assert one.points == (0.5 if winner is None else float(winner == one.seat))
        assert one.line == game.game_line(one.actions, 0.0 if winner is None else 1.0 - 2.0 * winner)


def test_one_step_asks_the_models_of_both_players():
    game = make_game("hex5")
    openings = random_openings(game, pairs=4, plies=2, seed=1)

    _, asked = drive(game, match(game, AskingPlayer("a"), AskingPlayer("b"), openings=openings, seed=0))

    assert asked[0] == ["a", "b"]
    assert all(set(models) <= {"a", "b"} and len(models) == len(set(models)) for models in asked)


def test_players_who_always_move_alike_split_every_pair():
    game = make_game("hex5")
    openings = random_openings(game, pairs=6, plies=2, seed=1)

    result, _ = drive(game, match(game, AskingPlayer("a"), AskingPlayer("b"), openings=openings, seed=0))

    assert result.pair_scores == (0.5,) * 6
    assert result.elo == 0.0


def test_a_match_is_told_again_by_its_seed_and_by_its_parts():
    game = make_game("hex5")
    openings = random_openings(game, pairs=10, plies=2, seed=1)

    def played(some, *, seed, first_pair=0):
        steps = match(
            game, UniformPlayer("a"), AskingPlayer("b"), openings=some, seed=seed, first_pair=first_pair
        )
        return drive(game, steps)[0]

    whole = played(openings, seed=7)

    assert played(openings, seed=7) == whole
    assert joined([played(openings[6:], seed=7, first_pair=6), played(openings[:6], seed=7)]) == whole
    assert played(openings, seed=8) != whole


def test_a_single_failed_step_changes_nothing():
    game = make_game("hex5")
    openings = random_openings(game, pairs=4, plies=2, seed=1)

    def steps() -> Steps[MatchResult]:
        return match(game, AskingPlayer("a"), UniformPlayer("b"), openings=openings, seed=3)

    smooth, _ = drive(game, steps())
    rough, asked = drive(game, steps(), broken=["a"], broken_steps=[0, 2, 5])

    assert rough == smooth
    assert asked[0] == asked[1] == ["a"]


def test_a_model_that_fails_twice_sets_aside_the_pairs_it_had_to_play():
    game = make_game("hex5")
    openings = random_openings(game, pairs=6, plies=2, seed=1)
    progress = Progress()
    steps = match(game, UniformPlayer("a"), AskingPlayer("b"), openings=openings, seed=1, progress=progress)

    result, _ = drive(game, steps, broken=["b"], broken_steps=range(3, 1000))

    assert len(result.set_aside) == 12
    assert {one.reason for one in result.set_aside} == {"no reply: the server is gone"}
    assert sum(result.tally()) == 0
    assert np.isnan(result.score)
    assert result.interval == (0.0, 1.0)
    assert (progress.games_finished, progress.games_set_aside) == (0, 12)


def test_pairs_that_were_over_before_the_failure_count():
    game = make_game("tic_tac_toe")
    openings = random_openings(game, pairs=60, plies=4, seed=1)
    progress = Progress()
    steps = match(game, AskingPlayer("a"), AskingPlayer("b"), openings=openings, seed=1, progress=progress)

    result, _ = drive(game, steps, broken=["b"], broken_steps=range(2, 1000))

    assert 0 < len(result.set_aside) < 120
    assert sum(result.tally()) == 2 * len(result.pair_scores) == 120 - len(result.set_aside)
    assert {one.pair for one in result.set_aside}.isdisjoint(
        {one.pair for one in result.games if one.points is not None}
    )
    assert progress.games_finished == 120 - len(result.set_aside)
    assert progress.games_set_aside == len(result.set_aside)


def test_an_opening_that_cannot_be_played_is_refused():
    game = make_game("tic_tac_toe")

    with pytest.raises(UsageError, match="opening 4 cannot be played"):
        next(match(game, UniformPlayer(), UniformPlayer(), openings=[(0, 0)], seed=0, first_pair=4))
    with pytest.raises(UsageError, match="opening 0 leaves nothing to play"):
        next(match(game, UniformPlayer(), UniformPlayer(), openings=[(0, 3, 1, 4, 2)], seed=0))


def test_a_result_counts_as_its_games_say():
    def pair(number, points):
        return [MatchGame(number, seat, (0,), one, "line") for seat, one in enumerate(points)]

    result = MatchResult("a", "b", tuple(pair(0, (1.0, 1.0)) + pair(1, (1.0, 0.0)) + pair(2, (0.5, 1.0))))

    assert result.tally() == (4, 1, 1)
    assert result.tally(seat=0) == (2, 1, 0)
    assert result.tally(seat=1) == (2, 0, 1)
    assert result.pair_scores == (1.0, 0.5, 0.75)
    assert result.score == pytest.approx(0.75)
    assert result.elo == pytest.approx(190.848502)
