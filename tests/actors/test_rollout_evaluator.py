"""How good a version is: whole episodes, the first of each environment, always the same."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from actors.environments import open_environments
from actors.faults import Guard
from actors.rollout_evaluator import (
    Episode,
    RolloutEvaluator,
    mean_interval,
    play_episodes,
    student_t,
)
from configs.schema import EvaluationConfig, RolloutConfig
from core.errors import EvaluationError, TamenError, UsageError
from core.messages import Reply, Request
from inference_server.client import InlineClient
from search.drive import run
from tests.actors.small_environments import Counting, Network, counting, guarded

SYNC = RolloutConfig(vectorization="sync")


def leaning(request: Request) -> Reply:
    """Push the cart to where the pole falls."""
    seen = request.arrays["observation"]
    falls = seen[:, 2] + 0.3 * seen[:, 3]
    return Reply({"policy": np.stack([-falls, falls], axis=1), "value": falls}, 0)


def test_exactly_the_first_episode_of_each_environment_is_played_to_its_end() -> None:
    env = counting({}, {}, {}, length=5)
    assert run(play_episodes(env, model="main@1", seed=0), Network(3)) == [Episode(15.0, 5)] * 3


def test_a_short_episode_counts_as_often_as_a_long_one() -> None:
    env = SyncVectorEnv([lambda length=length: Guard(Counting(length)) for length in (9, 2, 3)])
    episodes = run(play_episodes(env, model="main@1", seed=0), Network(3))

    assert sorted(episodes) == [Episode(3.0, 2), Episode(6.0, 3), Episode(45.0, 9)]


def test_more_episodes_than_environments_are_shared_out_before_they_are_played() -> None:
    env = SyncVectorEnv([lambda length=length: Guard(Counting(length)) for length in (9, 2, 3)])
    episodes = run(play_episodes(env, model="main@1", seed=0, episodes=7), Network(3))

    assert sorted(episode.steps for episode in episodes) == [2, 2, 3, 3, 9, 9, 9]


def test_the_likeliest_action_is_taken() -> None:
    env = open_environments("CartPole-v1", SYNC, num_envs=4)

    def to_the_left(request: Request) -> Reply:
        rows = len(request.arrays["observation"])
        return Reply({"policy": np.tile(np.float32([0.1, 0]), (rows, 1)), "value": np.zeros(rows)}, 0)

    episodes = run(play_episodes(env, model="main@1", seed=5), to_the_left)
    expected = []
    for slot in range(4):
        single, steps, over = gymnasium.make("CartPole-v1"), 0, False
        single.reset(seed=5 + slot)
        while not over:
            _, _, terminated, truncated, _ = single.step(0)
            steps, over = steps + 1, terminated or truncated
        expected.append((float(steps), steps))
    assert sorted(episodes) == sorted(expected)


def test_an_episode_with_a_fault_is_played_again() -> None:
    env = counting({2: "nan"}, {}, length=5)
    assert run(play_episodes(env, model="main@1", seed=0), Network(3)) == [Episode(15.0, 5)] * 2


def test_a_slot_that_is_out_plays_its_next_episode() -> None:
    env = guarded(length=4, faults={2: "nan"})
    assert run(play_episodes(env, model="main@1", seed=0), Network(3)) == [Episode(10.0, 4)] * 2


def test_an_environment_that_always_fails_stops_the_evaluation() -> None:
    env = counting(dict.fromkeys(range(1, 50), "raise"), {}, length=5)
    with pytest.raises(TamenError, match="failed 3 times in a row"):
        run(play_episodes(env, model="main@1", seed=0), Network(3))


@pytest.mark.parametrize(
    ("degrees", "confidence", "t"),  # tables of Student's distribution
    [(1, 0.95, 12.7062), (2, 0.95, 4.3027), (5, 0.95, 2.5706), (19, 0.95, 2.0930), (40, 0.99, 2.7045)],
)
def test_students_t_is_that_of_the_tables(degrees: int, confidence: float, t: float) -> None:
    assert student_t(degrees, confidence) == pytest.approx(t, abs=5e-5)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        interval = mean_interval(rng.normal(3.0, 2.0, 6).tolist())
        assert interval is not None
        covered += interval.low <= 3.0 <= interval.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)  # four deviations


def test_one_value_says_nothing_of_its_spread() -> None:
    assert mean_interval([4.0]) is None


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def an_evaluator(
    folder: Path,
    clock: Clock,
    *,
    evaluate: Callable[[Request], Reply] = leaning,
    newest_version: Callable[[], int | None] = lambda: 0,
    episodes: int = 4,
) -> RolloutEvaluator:
    return RolloutEvaluator(
        "CartPole-v1",
        EvaluationConfig(every_seconds=10, episodes=episodes),
        RolloutConfig(env_options={"max_episode_steps": 60}),
        client=InlineClient(evaluate),
        newest_version=newest_version,
        model="main",
        results_file=folder / "evaluations.jsonl",
        seed=0,
        clock=clock,
        sleep=clock.sleep,
    )


def results(folder: Path) -> list[dict[str, Any]]:
    path = folder / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def never() -> bool:
    return False


def until(clock: Clock, seconds: float) -> Callable[[], bool]:
    return lambda: clock.now >= seconds


def test_a_round_tells_the_mean_return_with_its_interval(tmp_path: Path) -> None:
    def at_random(request: Request) -> Reply:
        seen = request.arrays["observation"]
        policy = np.sin(1e4 * seen[:, :2])
        return Reply({"policy": policy, "value": seen[:, 0]}, 0)

    an_evaluator(tmp_path, Clock(), evaluate=at_random, episodes=6).evaluate(7, never)
    (line,) = results(tmp_path)

    assert list(line) == ["version", "seconds", "episodes", "mean_return", "low", "high", "mean_steps"]
    assert (line["version"], line["episodes"]) == (7, 6)
    assert line["low"] < line["mean_return"] < line["high"]
    assert line["mean_return"] == line["mean_steps"]
    assert fmean([line["low"], line["high"]]) == pytest.approx(line["mean_return"])


def test_who_balances_the_pole_is_told_from_who_does_not(tmp_path: Path) -> None:
    def falling(request: Request) -> Reply:
        reply = leaning(request)
        return Reply({"policy": -reply.arrays["policy"], "value": reply.arrays["value"]}, 0)

    an_evaluator(tmp_path, Clock()).evaluate(1, never)
    an_evaluator(tmp_path, Clock(), evaluate=falling).evaluate(2, never)
    good, bad = results(tmp_path)

    assert good["mean_return"] == 60
    assert bad["mean_return"] < 20


def test_a_single_episode_has_no_interval(tmp_path: Path) -> None:
    an_evaluator(tmp_path, Clock(), episodes=1).evaluate(7, never)
    assert (results(tmp_path)[0]["low"], results(tmp_path)[0]["high"]) == (None, None)


def test_environments_of_the_evaluation_have_options_of_their_own(tmp_path: Path) -> None:
    evaluator = RolloutEvaluator(
        "CartPole-v1",
        EvaluationConfig(episodes=5, env_options={"max_episode_steps": 7}),
        RolloutConfig(envs_per_group=2, env_options={"max_episode_steps": 60, "sutton_barto_reward": False}),
        client=InlineClient(leaning),
        newest_version=lambda: 0,
        model="main",
        results_file=tmp_path / "evaluations.jsonl",
        seed=0,
    )
    evaluator.evaluate(0, never)
    (line,) = results(tmp_path)
    assert (line["episodes"], line["mean_return"], line["low"]) == (5, 7.0, 7.0)


def test_who_plays_both_seats_is_not_judged_by_that(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both seats"):
        RolloutEvaluator(
            "tests.actors.test_two_seats:TamenCoins-v0",
            EvaluationConfig(episodes=2),
            RolloutConfig(vectorization="sync"),
            client=InlineClient(leaning),
            newest_version=lambda: 0,
            model="main",
            results_file=tmp_path / "evaluations.jsonl",
            seed=0,
        )


def test_the_version_that_is_judged_is_the_one_that_is_asked(tmp_path: Path) -> None:
    asked = set()

    def evaluate(request: Request) -> Reply:
        asked.add(request.model)
        return leaning(request)

    an_evaluator(tmp_path, Clock(), evaluate=evaluate).evaluate(7, never)
    assert asked == {"main@7"}


def test_every_round_begins_with_the_same_episodes(tmp_path: Path) -> None:
    evaluator = an_evaluator(tmp_path, Clock())
    evaluator.evaluate(7, never)
    evaluator.evaluate(8, never)

    first, again = results(tmp_path)
    assert {**first, "version": 8} == again


def test_new_weights_are_judged_when_a_round_is_due_and_old_ones_never_again(tmp_path: Path) -> None:
    clock, versions = Clock(), [0, 1]
    evaluator = an_evaluator(tmp_path, clock, newest_version=lambda: versions[clock.now >= 3])
    evaluator.run(until(clock, 45))

    assert [(line["version"], line["seconds"]) for line in results(tmp_path)] == [(0, 0.0), (1, 10.0)]
    assert evaluator.stats() == {"rounds": 2, "evaluated_version": 1, "trouble": ""}


def test_nothing_is_judged_before_there_are_weights_or_if_no_episodes_are_wanted(tmp_path: Path) -> None:
    clock = Clock()
    an_evaluator(tmp_path, clock, newest_version=lambda: None).run(until(clock, 30))
    an_evaluator(tmp_path, clock, episodes=0).run(until(clock, 60))

    assert results(tmp_path) == []


def test_a_brain_that_is_away_spoils_a_round_and_no_more(tmp_path: Path) -> None:
    clock = Clock()

    def evaluate(request: Request) -> Reply:
        if clock.now < 15:
            raise EvaluationError("no answer", why="it is away", fix="wait")
        return leaning(request)

    evaluator = an_evaluator(tmp_path, clock, evaluate=evaluate)
    told: list[str] = []

    def over() -> bool:
        told.append(evaluator.last_trouble)
        return clock.now >= 40

    evaluator.run(over)

    assert list(dict.fromkeys(told)) == ["", "no answer: it is away"]
    assert told[-1] == ""
    assert {line["seconds"] for line in results(tmp_path)} == {20.0}


def test_a_round_that_is_stopped_writes_nothing_and_does_not_count(tmp_path: Path) -> None:
    class Silent(InlineClient):
        def wait_any(self, handles, *, timeout_seconds):
            return None

    evaluator = an_evaluator(tmp_path, Clock())
    evaluator._client = Silent(leaning)
    evaluator.evaluate(7, lambda: True)

    assert results(tmp_path) == []
    assert evaluator.rounds == 0
