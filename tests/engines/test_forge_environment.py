"""A daemon's games as an environment: rewards, whose turn it is, and what becomes of a daemon that goes wrong."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.environments import environment_spec, open_environments
from actors.faults import CUT, END, FAULT
from actors.rollout import EnvironmentGroup
from actors.unrolls import Unrolls
from configs.loading import load
from configs.schema import RolloutConfig
from core.errors import TamenError, UsageError
from core.messages import Reply, Request
from engines.errors import EngineFault
from engines.forge_environment import ForgeEnvironment
from engines.observation import NUM_FEATURES, observe, observe_waiting
from engines.questions import NUM_SLOTS, Question
from tests.actors.small_environments import Driver
from tests.engines.duel_daemon import LIFE, DuelDaemon, Mood, duel_daemon

NAME = "engines.forge_environment:Forge-v0"


@pytest.fixture
def daemon() -> Iterator[DuelDaemon]:
    with duel_daemon() as found:
        yield found


def a_game(daemon: DuelDaemon, **options: Any) -> ForgeEnvironment:
    given = {"seat": "first", "opponent": "first", "answer_seconds": 20.0, **options}
    return ForgeEnvironment(deck="ours", opponent_deck="theirs", ports=daemon.port, **given)


def slot_of(env: ForgeEnvironment, card: str) -> int:
    """Return the slot of what is done with a card, of the question that is asked."""
    question = env._question
    assert question is not None
    return next(
        slot
        for candidate, slot in zip(question.candidates, question.slots, strict=True)
        if candidate.name.startswith(card)
    )


def play(env: ForgeEnvironment, card: str) -> tuple[list[float], bool, bool, dict[str, Any]]:
    """Do one thing again and again until the game is over; return the rewards and how it ended."""
    rewards: list[float] = []
    while True:
        shown, reward, terminated, truncated, infos = env.step(slot_of(env, card))
        rewards.append(reward)
        if terminated or truncated:
            assert not shown["action_mask"].any()
            return rewards, terminated, truncated, infos


def test_who_bolts_wins_against_who_passes(daemon: DuelDaemon) -> None:
    env = a_game(daemon)
    shown, _ = env.reset(seed=1)
    assert shown["observation"].shape == (NUM_FEATURES,)
    assert env.observation_space.contains(shown)
    assert shown["action_mask"].sum() == 3
    assert play(env, "Bolt") == ([0.0] * (LIFE - 1) + [1.0], True, False, {"end": "won"})
    assert daemon.replies == [["0", "-1"] * (LIFE - 1) + ["0"]]
    (command,) = daemon.commands
    assert command.startswith("NEWGAME ours theirs -i -c 600")
    assert env.ends == {"won": 1}


def test_from_the_second_seat_the_same_game_is_lost_by_waiting_long_enough(daemon: DuelDaemon) -> None:
    env = a_game(daemon, seat="second", opponent="random")
    env.reset(seed=3)
    rewards, terminated, _, _ = play(env, "pass")
    assert terminated
    assert rewards[-1] == -1.0
    assert set(rewards[:-1]) <= {0.0}
    assert daemon.commands[0].startswith("NEWGAME theirs ours -i")
    assert set(daemon.replies[0][1::2]) == {"-1"}


def test_both_seats_come_up_and_a_seed_tells_which(daemon: DuelDaemon) -> None:
    def commands(seed: int) -> list[str]:
        env, before = a_game(daemon, seat="random"), len(daemon.commands)
        env.reset(seed=seed)
        for _ in range(8):
            env.reset()
        env.close()
        return daemon.commands[before:]

    first = commands(7)
    assert first == commands(7) != commands(8)
    assert {command.split()[1] for command in first} == {"ours", "theirs"}


def test_environments_side_by_side_share_the_daemons_evenly(daemon: DuelDaemon) -> None:
    with duel_daemon() as another:
        config = RolloutConfig(
            vectorization="sync",
            env_options={"deck": "a", "opponent_deck": "b", "ports": f"{daemon.port},{another.port}"},
        )
        env = open_environments(NAME, config, num_envs=6)
        env.reset(seed=5)
        env.close()
        assert (len(daemon.commands), len(another.commands)) == (3, 3)


def test_a_slot_that_holds_nothing_is_refused_and_the_game_goes_on(daemon: DuelDaemon) -> None:
    env = a_game(daemon)
    shown, _ = env.reset()
    with pytest.raises(ValueError, match="holds no candidate"):
        env.step(int(shown["action_mask"].argmin()))
    assert play(env, "Bolt")[0][-1] == 1.0
    with pytest.raises(ValueError, match="no game"):
        env.step(0)


@pytest.mark.parametrize(
    ("mood", "kind"),
    [("closed", "closed"), ("garbled", "protocol"), ("unreadable", "protocol"), ("error", "protocol")],
)
def test_what_goes_wrong_in_a_game_is_a_fault_of_its_kind(mood: Mood, kind: str) -> None:
    with duel_daemon(mood) as daemon:
        env = a_game(daemon, opponent="first")
        env.reset(seed=1)
        with pytest.raises(EngineFault) as caught:
            play(env, "Wait")
        assert caught.value.kind == kind
        assert str(daemon.port) in str(caught.value)
        assert env.ends == {kind: 1}
        env.reset()
        assert play(env, "Bolt")[0][-1] == 1.0


def test_a_game_over_its_time_is_cut_and_not_lost() -> None:
    with duel_daemon("timeout") as daemon:
        env = a_game(daemon)
        env.reset()
        assert play(env, "Wait") == ([0.0, 0.0], False, True, {"end": "out of time"})
        assert env.ends == {"out of time": 1}


def test_a_daemon_that_does_not_go_on_is_a_fault_in_time() -> None:
    with duel_daemon("silent") as daemon:
        env = a_game(daemon, answer_seconds=0.2)
        with pytest.raises(EngineFault, match="did not answer in time") as caught:
            env.reset()
        assert "fewer games side by side" in caught.value.fix
        assert env.ends == {"timeout": 1}
        env.close()


def test_a_daemon_that_starts_anew_is_waited_for() -> None:
    with duel_daemon() as daemon:
        port = daemon.port
    now, again = [0.0], ExitStack()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 5.0:
            again.enter_context(duel_daemon(port=port))

    env = ForgeEnvironment(
        deck="a", opponent_deck="b", ports=port, start_seconds=30.0, clock=lambda: now[0], sleep=sleep
    )
    with again:
        env.reset()
        assert now == [5.0]
        env.close()
    with pytest.raises(EngineFault, match="is not running"):
        env.reset()
    assert now[0] >= 35.0
    assert env.ends == {"died": 1}


def test_a_daemon_that_nobody_started_is_not_waited_for_long() -> None:
    with duel_daemon() as daemon:
        port = daemon.port
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    env = ForgeEnvironment(deck="a", opponent_deck="b", ports=port, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(EngineFault, match="is not running"):
        env.reset()
    assert now == [10.0]


def test_games_without_a_question_are_passed_over_but_not_for_ever() -> None:
    with duel_daemon("over", "over", "well", *["over"] * 10) as daemon:
        env = a_game(daemon)
        env.reset()
        assert play(env, "Bolt")[0][-1] == 1.0
        with pytest.raises(EngineFault, match="10 games in a row"):
            env.reset()
        assert len(daemon.commands) == 13


def test_an_unknown_deck_is_told_at_once() -> None:
    with duel_daemon("refused") as daemon, pytest.raises(EngineFault) as caught:
        a_game(daemon).reset()
    assert caught.value.kind == "refused"
    assert "ours" in caught.value.why


@pytest.mark.parametrize(
    "options",
    [
        {"ports": "0"},
        {"ports": "17171;17172"},
        {"seat": "third"},
        {"opponent": "best"},
        {"deck": "a b"},
        {"options": "a;b"},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ForgeEnvironment(**{"deck": "ours", "opponent_deck": "theirs", **options})


def uniform(request: Request) -> Reply:
    """Answer as a network that masks: all that is allowed is as likely."""
    seen = request.arrays["observation"]
    policy = np.where(seen[:, NUM_FEATURES:] > 0, 0.0, -1e9).astype(np.float32)
    return Reply({"policy": policy, "value": np.zeros(len(seen), np.float32)}, 7)


def test_rollouts_keep_versions_probabilities_and_faults() -> None:
    with duel_daemon("well", "closed", "timeout", "garbled") as daemon:
        options = {
            "deck": "a",
            "opponent_deck": "b",
            "ports": daemon.port,
            "seat": "first",
            "opponent": "first",
        }
        config = RolloutConfig(vectorization="sync", unroll_steps=8, env_options=options)
        env, finished = open_environments(NAME, config, num_envs=2), list[Unrolls]()
        spec = environment_spec(env)
        group = EnvironmentGroup(env, spec, config, model="main", seed=0, finish=finished.append)
        Driver(group.play(), uniform).step(65)
        counted = sum((each.unwrapped.ends for each in env.envs), Counter())  # pyright: ignore
        env.close()
    assert spec.masked
    assert spec.observation_shape == (NUM_FEATURES + NUM_SLOTS,)
    assert group.faults.total == group.set_aside == 2
    assert "127.0.0.1" in group.set_aside_cause
    assert (counted["closed"], counted["protocol"], counted["out of time"]) == (1, 1, 1)
    assert group.ends == {how: count for how, count in counted.items() if how in group.ends}
    assert {"closed", "protocol", "out of time"} <= set(group.ends) <= set(counted)
    columns = {
        name: np.concatenate([each.columns[name] for each in finished]) for name in finished[0].columns
    }
    valid, over = columns["valid"], columns["terminated"]
    assert (columns["weights_version"] == 7).all()
    np.testing.assert_allclose(columns["log_prob"][valid], np.log(1 / 3), rtol=1e-5)
    assert over.any()
    assert set(columns["reward"][over].tolist()) <= {1.0, -1.0}
    assert (columns["reward"][valid & ~over] == 0).all()
    assert columns["truncated"].sum() == 1


def test_both_seats_are_asked_in_turn_and_one_wins_what_the_other_loses(daemon: DuelDaemon) -> None:
    options = {"deck": "a", "opponent_deck": "b", "ports": daemon.port, "seat": "second", "opponent": "self"}
    env = open_environments(NAME, RolloutConfig(vectorization="sync", env_options=options), num_envs=1)
    (game,) = env.unwrapped.envs  # pyright: ignore
    rows, _ = env.reset(seed=1)
    asked = []
    while True:
        masks = rows[:, NUM_FEATURES:]
        asked.append(int(masks.sum(axis=1).argmax()))
        assert masks[1 - asked[-1]].nonzero()[0].tolist() == [0]
        name = "Bolt" if asked[-1] else "pass"
        slots = [slot_of(game.unwrapped, name) if seat == asked[-1] else 0 for seat in (0, 1)]
        rows, reward, terminated, _, infos = env.step(np.array(slots))
        if terminated.any():
            break
    env.close()
    # We sit second, so the first to be asked is the other; it bolts, we pass and die.
    assert asked == [1, 0] * (len(asked) // 2) + [1] * (len(asked) % 2)
    assert reward.tolist() == [-1.0, 1.0]
    assert terminated.tolist() == [True, True]
    assert infos[END].tolist() == ["lost", CUT]


def test_who_waits_sees_the_table_and_no_hand(daemon: DuelDaemon) -> None:
    env = a_game(daemon, opponent="self")
    shown, _ = env.reset(seed=1)
    question = env._question
    assert question is not None
    asked, waits = shown["observation"]
    np.testing.assert_array_equal(asked, observe(question)[0])

    def changed(**of_who_is_asked: Any) -> Question:
        players = [dict(player) for player in question.decision.state["players"]]
        players[question.decision.seat] |= of_who_is_asked
        return replace(
            question,
            decision=replace(question.decision, state={**question.decision.state, "players": players}),
        )

    hand = changed(hand=[{"name": "Another", "id": 1}] * 3)
    np.testing.assert_array_equal(observe_waiting(hand), waits)
    assert (observe(hand)[0] != asked).any()
    # Each sees its own side first, so a life of who is asked stands further on for who waits.
    life = changed(life=9)
    (own,), (others,) = (
        np.flatnonzero(observe(life)[0] != asked),
        np.flatnonzero(observe_waiting(life) != waits),
    )
    assert own < others
    assert observe_waiting(life)[others] == observe(life)[0][own] == 9
    env.close()


def test_a_daemon_that_is_always_wrong_stops_the_run() -> None:
    with duel_daemon(*["garbled"] * 9) as daemon:
        options = {
            "deck": "a",
            "opponent_deck": "b",
            "ports": daemon.port,
            "seat": "first",
            "opponent": "first",
        }
        config = RolloutConfig(vectorization="sync", unroll_steps=8, env_options=options)
        env = open_environments(NAME, config, num_envs=1)
        group = EnvironmentGroup(
            env, environment_spec(env), config, model="main", seed=0, finish=lambda _: None
        )
        with pytest.raises(TamenError, match="3 times in a row"):
            Driver(group.play(), uniform).step(65)
        env.close()


def test_a_fault_in_a_process_of_its_own_is_told(daemon: DuelDaemon) -> None:
    daemon.moods = ["garbled"]
    options = {"deck": "a", "opponent_deck": "b", "ports": daemon.port, "seat": "first", "opponent": "first"}
    env = open_environments(NAME, RolloutConfig(vectorization="async", env_options=options), num_envs=1)
    env.reset(seed=1)
    rows, _, _, truncated, infos = env.step(np.array([0]))
    assert truncated.tolist() == [True]
    assert infos[FAULT][0].startswith(f"daemon 127.0.0.1:{daemon.port} broke its protocol: ")
    assert infos[END].tolist() == ["protocol"]
    rows, _, _, truncated, _ = env.step(np.array([0]))
    assert not truncated[0]
    assert rows[0, NUM_FEATURES:].sum() == 3
    env.close()


def test_the_preset_opens_it() -> None:
    config = load("forge", [], "cpu")
    assert config.environment == NAME
    env = open_environments(
        config.environment, config.rollout.model_copy(update={"vectorization": "sync"}), num_envs=1
    )
    assert environment_spec(env).masked
    env.close()
