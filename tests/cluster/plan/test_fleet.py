"""The simulation of a fleet, where arithmetic, or a simpler simulation, knows the answer."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.plan import fleet
from cluster.plan.fleet import Machine, Spot, Work, daemons_of, drawn, simulate, steady_rates
from core.errors import UsageError
from core.seeds import derive_rng
from engines.timings import example_durations

EXAMPLE = example_durations().seconds
HOUR = 3600.0


def work(games: int, *seconds: float, **others: Any) -> Work:
    return Work(games=games, seconds=np.array(seconds), **others)


def spot(interruptions_per_hour: float, notice_seconds: float, replacement_seconds: float) -> Spot:
    return Spot(
        interruptions_per_hour=interruptions_per_hour,
        notice_seconds=notice_seconds,
        replacement_seconds=replacement_seconds,
    )


@given(
    st.integers(1, 500),
    st.integers(1, 8),
    st.integers(1, 8),
    st.floats(0.01, 100),
    st.floats(0, 100),
    st.floats(0, 10),
)
def test_games_of_one_duration_are_played_in_rounds(
    games: int, machines: int, daemons: int, seconds: float, startup: float, between: float
) -> None:
    asked = work(games, seconds, startup_seconds=startup, between_games=between)

    outcome = simulate([Machine(16, daemons)] * machines, asked)

    rounds = math.ceil(games / (machines * daemons))
    assert outcome.seconds == pytest.approx(startup + rounds * (between + seconds))
    assert outcome.tail_seconds == pytest.approx(between + seconds)
    assert outcome.core_seconds == pytest.approx(16 * machines * outcome.seconds)
    assert outcome.useful_share == pytest.approx(games * seconds / (outcome.seconds * machines * daemons))
    assert (outcome.finished, outcome.set_aside, outcome.failed, outcome.lost) == (games, 0, 0, 0)


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=20),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_whoever_is_free_first_plays_the_next_game(
    seconds: list[float], games: int, machines: int, daemons: int, seed: int
) -> None:
    durations = drawn(np.array(seconds), derive_rng(seed, "durations"))
    free = [1.0] * (machines * daemons)
    for _ in range(games):
        first = free.index(min(free))
        free[first] += next(durations)

    outcome = simulate(
        [Machine(1, daemons)] * machines, work(games, *seconds, startup_seconds=1.0), seed=seed
    )

    # Those that got none have been free from the start.
    assert outcome.seconds == pytest.approx(max(free))


@given(st.integers(1, 6), st.integers(1, 20), st.integers(1, 6))
def test_more_machines_take_less_time_in_proportion(machines: int, rounds: int, daemons: int) -> None:
    asked = work(rounds * machines * daemons, 7.0)

    one, many = (simulate([Machine(8, daemons)] * n, asked) for n in (1, machines))

    assert one.seconds == pytest.approx(machines * many.seconds)
    assert one.core_seconds == pytest.approx(many.core_seconds)


@given(st.integers(1, 200), st.floats(0.1, 1000))
def test_a_coordinator_hands_out_one_game_after_the_other(games: int, rate: float) -> None:
    asked = work(games, 5.0, startup_seconds=2.0, handouts_per_second=rate)

    outcome = simulate([Machine(16, 20)] * 10, asked)

    assert outcome.seconds == pytest.approx(2.0 + (games - 1) / rate + 5.0)


@given(
    st.integers(1, 60),
    st.floats(1, 400),
    st.floats(10, 1000),
    st.floats(0, 300),
    st.floats(0, 300),
    st.floats(0, 60),
    st.integers(0, 3),
)
def test_one_daemon_on_a_machine_that_comes_and_goes(
    games: int, seconds: float, mean_hold: float, notice: float, replacement: float, startup: float, seed: int
) -> None:
    taken = spot(HOUR / mean_hold, notice, replacement)
    asked = work(games, seconds, startup_seconds=startup)
    try:
        steady_rates([Machine(4, 1)], asked, taken)
    except UsageError:
        return  # it would hardly end; see below
    holds = derive_rng(seed, "interruptions")
    came, finished, lost, notices, present = 0.0, 0, 0, 0, 0.0
    end = 0.0
    while finished < games:
        told = came + holds.exponential(mean_hold)
        now = came + startup
        while now < told and finished < games:
            now += seconds
            if now < told + notice:
                finished, end = finished + 1, now
            else:
                lost += 1
        if finished == games:
            notices += told < end
            present += end - came
        else:
            notices += 1
            present += told + notice - came
            came = told + notice + replacement

    outcome = simulate([Machine(4, 1)], asked, taken, seed=seed)

    assert (outcome.finished, outcome.lost, outcome.interruptions) == (games, lost, notices)
    assert outcome.seconds == pytest.approx(end)
    assert outcome.core_seconds == pytest.approx(4 * present)


@given(
    st.integers(1, 300),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0, 0.8),
    st.integers(1, 4),
    st.floats(0, 200),
    st.floats(0.5, 100),
    st.integers(0, 100),
)
def test_every_game_is_finished_or_set_aside(
    games: int,
    machines: int,
    daemons: int,
    failed: float,
    tries: int,
    notice: float,
    handouts: float,
    seed: int,
) -> None:
    asked = Work(
        games=games,
        seconds=EXAMPLE,
        startup_seconds=8,
        failed_share=failed,
        tries=tries,
        handouts_per_second=handouts,
    )

    outcome = simulate([Machine(4, daemons)] * machines, asked, spot(20, notice, 60), seed=seed)

    assert outcome.finished + outcome.set_aside == games
    assert tries * outcome.set_aside <= outcome.failed <= tries * games
    assert outcome.lost <= daemons * outcome.interruptions
    if notice > EXAMPLE.max() + games / handouts:
        assert outcome.lost == 0
    assert 0 <= outcome.useful_share <= 1
    assert 0 < outcome.core_seconds <= 4 * machines * outcome.seconds * (1 + 1e-9)
    assert outcome.tail_seconds <= outcome.seconds


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=20),
    st.integers(1, 80),
    st.integers(1, 6),
    st.floats(0, 20),
    st.floats(0, 5),
    st.integers(0, 3),
)
def test_more_to_do_takes_no_less_and_more_to_do_it_with_no_more(
    seconds: list[float], games: int, daemons: int, startup: float, between: float, seed: int
) -> None:
    asked = work(games, *seconds, startup_seconds=startup, between_games=between)
    machines = [Machine(8, daemons)]
    takes = simulate(machines, asked, seed=seed).seconds

    for more in (
        replace(asked, games=games + 1),
        replace(asked, seconds=asked.seconds * 1.1),
        replace(asked, startup_seconds=startup + 1),
        replace(asked, between_games=between + 1),
        replace(asked, handouts_per_second=1.0),
    ):
        assert simulate(machines, more, seed=seed).seconds >= takes * (1 - 1e-9)
    for stronger in ([Machine(8, daemons + 1)], [*machines, Machine(8, 1)]):
        assert simulate(stronger, asked, seed=seed).seconds <= takes * (1 + 1e-9)


@given(
    st.lists(st.floats(0.5, 100), min_size=1, max_size=20),
    st.floats(0.01, 10),
    st.floats(0, 200),
    st.floats(0, 600),
    st.floats(0, 60),
)
def test_a_worse_place_to_play_gives_no_more_games(
    seconds: list[float], interruptions: float, notice: float, replacement: float, startup: float
) -> None:
    machines, asked = [Machine(16, 14)] * 2, work(1000, *seconds, startup_seconds=startup)
    here = steady_rates(machines, asked, spot(interruptions, notice, replacement))
    calm = steady_rates(machines, asked)

    for worse in (
        steady_rates(machines, asked, spot(1.1 * interruptions, notice, replacement)),
        steady_rates(machines, asked, spot(interruptions, notice, replacement + 60)),
        steady_rates(
            machines, replace(asked, startup_seconds=startup + 10), spot(interruptions, notice, replacement)
        ),
        steady_rates(machines, replace(asked, failed_share=0.1), spot(interruptions, notice, replacement)),
    ):
        assert worse.games <= here.games * (1 + 1e-9)
    assert here.games <= calm.games * (1 + 1e-9)
    assert (
        steady_rates(machines, asked, spot(interruptions, notice + 60, replacement)).lost <= here.lost + 1e-12
    )
    rare = steady_rates(machines, asked, spot(1e-7, notice, replacement))
    assert rare.games == pytest.approx(calm.games, rel=1e-3)


def test_a_game_that_fails_is_tried_as_often_as_it_may_be() -> None:
    outcome = simulate([Machine(4, 10)], work(20_000, 1.0, failed_share=0.5, tries=3))

    assert outcome.set_aside == pytest.approx(20_000 / 8, rel=0.1)
    assert outcome.failed == pytest.approx(20_000 * (1 / 2 + 1 / 4 + 1 / 8), rel=0.05)


def test_who_has_nothing_to_do_takes_what_was_lost() -> None:
    # The second machine idles from the start, and the first one's replacement would take eleven days.
    runs = [
        simulate([Machine(1, 1)] * 2, work(1, 1000.0), spot(1.0, 0.0, 1e6), seed=seed) for seed in range(30)
    ]

    lost_once = [outcome.seconds for outcome in runs if (outcome.lost, outcome.interruptions) == (1, 1)]
    assert lost_once
    assert all(1000 < seconds < 2000 for seconds in lost_once)


@pytest.mark.parametrize("notice", [0.0, 5.0, 60.0])
def test_a_long_run_is_as_fast_as_the_closed_form_says(
    monkeypatch: pytest.MonkeyPatch, notice: float
) -> None:
    monkeypatch.setattr(fleet, "LEAST_SIMULATED", 60_000)
    machines, taken = [Machine(5, 3)] * 20, spot(6.0, notice, 100.0)
    asked = Work(
        games=60_000, seconds=EXAMPLE, startup_seconds=8, between_games=0.5, failed_share=0.3, tries=2
    )

    outcome, rates = simulate(machines, asked, taken), steady_rates(machines, asked, taken)

    assert 60_000 / outcome.seconds == pytest.approx(rates.games, rel=0.03)
    assert outcome.interruptions / outcome.seconds == pytest.approx(rates.interruptions, rel=0.12)
    assert outcome.lost / outcome.seconds == pytest.approx(rates.lost, rel=0.15)
    present = outcome.core_seconds / (outcome.seconds * 100)
    assert 1 - present == pytest.approx(1 - rates.present_share, rel=0.12)


@pytest.mark.parametrize(
    ("taken", "handouts"),
    [(None, math.inf), (spot(2.0, 10.0, 200.0), math.inf), (spot(2.0, 10.0, 200.0), 6.0)],
)
def test_a_run_of_which_a_part_is_simulated_is_like_the_whole(
    monkeypatch: pytest.MonkeyPatch, taken: Spot | None, handouts: float
) -> None:
    machines = [Machine(16, 14)] * 4
    asked = Work(
        games=60_000,
        seconds=EXAMPLE,
        startup_seconds=8,
        failed_share=0.1,
        tries=2,
        handouts_per_second=handouts,
    )
    monkeypatch.setattr(fleet, "LEAST_SIMULATED", 20_000)
    part = simulate(machines, asked, taken)
    monkeypatch.setattr(fleet, "LEAST_SIMULATED", 60_000)
    whole = simulate(machines, asked, taken)

    assert (part.simulated, whole.simulated) == (20_000, 60_000)
    assert part.finished + part.set_aside == pytest.approx(60_000)
    for what in ("seconds", "finished", "failed", "core_seconds", "useful_share"):
        assert getattr(part, what) == pytest.approx(getattr(whole, what), rel=0.03), what
    assert part.lost == pytest.approx(whole.lost, rel=0.3)
    assert part.interruptions == pytest.approx(whole.interruptions, rel=0.3)


def test_ten_million_games_are_not_played_one_by_one() -> None:
    asked = Work(games=10_000_000, seconds=EXAMPLE)

    outcome = simulate([Machine(16, 14)], asked)

    assert outcome.simulated == fleet.LEAST_SIMULATED
    assert outcome.seconds == pytest.approx(10_000_000 * EXAMPLE.mean() / 14, rel=1e-4)


def test_each_duration_comes_once_before_one_comes_again() -> None:
    values = drawn(np.array([1.0, 2.0, 3.0]), np.random.default_rng(0))

    rounds = [[next(values) for _ in range(3)] for _ in range(20)]

    assert all(sorted(one) == [1.0, 2.0, 3.0] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_the_same_seed_gives_the_same_run() -> None:
    asked, taken = Work(games=500, seconds=EXAMPLE, failed_share=0.1), spot(20.0, 0.0, 60.0)
    machines = [Machine(4, 3)] * 3

    first, again, other = (simulate(machines, asked, taken, seed=seed) for seed in (1, 1, 2))

    assert first == again != other


def test_machines_that_go_before_they_have_played_are_refused() -> None:
    with pytest.raises(UsageError, match="before its machine is taken away"):
        simulate([Machine(4, 2)], work(10, 600.0), spot(60.0, 0.0, 60.0))


def test_a_run_that_is_all_interruptions_is_broken_off() -> None:
    slow = replace(work(1000, 1.0), handouts_per_second=0.001)
    with pytest.raises(UsageError, match="games are not played in"):
        simulate([Machine(1, 1)] * 50, slow, spot(60.0, 0.0, 0.0))


def test_two_cores_are_left_for_others() -> None:
    assert [daemons_of(cores) for cores in (1, 2, 3, 4, 16, 64)] == [1, 1, 1, 2, 14, 62]


def test_long_games_are_not_left_out_where_machines_are_taken_away() -> None:
    """Else the finished ones would be short, and more of them than without interruptions."""
    machines, asked = [Machine(16, 14)], work(1000, 0.5, 100.0)
    assert steady_rates(machines, asked, spot(10, 0, 0)).games < steady_rates(machines, asked).games
