"""A run on many machines: the closed form where it can be reckoned by hand, and as the oracle of the simulation."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.on_ray.supervision import MOST_QUESTIONS
from cluster.plan.cluster_model import (
    CAPPING,
    Costs,
    Layout,
    capacities,
    driver_load,
    full_at,
    lost_at_start,
    spot_shares,
    steady,
)
from cluster.plan.cluster_simulation import simulate
from cluster.plan.fleet import Spot

SPOT = Spot(interruptions_per_hour=2.0, notice_seconds=120.0, replacement_seconds=180.0)
COSTS = Costs(
    evals_per_core_s=5000.0,
    server_evals_per_s=20_000.0,
    actor_eval_seconds=5e-6,
    evals_per_move=15.0,
    rows_per_move=0.25,
    moves_per_game=100.0,
    chunk_seconds=0.01,
    row_seconds=8e-6,
    draw_seconds=5e-7,
    row_bytes=500.0,
    disk_bytes_per_s=3e8,
    learner_rows_per_s=1000.0,
    weights_bytes=3e5,
    weights_server_seconds=6e-4,
    part_seconds=2e-4,
    ask_seconds=3e-4,
)
LAYOUT = Layout(
    cores=16,
    servers=8,
    actors=8,
    games_in_play=1024,
    chunk_rows=1024,
    samples_per_insert=4.0,
    learners=1,
    version_rows=6400.0,
    learner_on_cores=True,
    network_bytes_per_s=1.25e9,
    brain_evals_per_s=None,
    eval_bytes=350.0,
    tree=False,
    startup_seconds=15.0,
    spot=SPOT,
)
FAST_LEARNER = replace(LAYOUT, learner_on_cores=False, learners=10_000)
"""One that never holds anybody up."""

costs_drawn = st.builds(
    lambda evals, server, chunk, row, learner, part, weights: replace(
        COSTS,
        evals_per_core_s=evals,
        server_evals_per_s=evals * server,
        chunk_seconds=chunk,
        row_seconds=row,
        learner_rows_per_s=learner,
        part_seconds=part,
        weights_bytes=weights,
        weights_server_seconds=2e-9 * weights,
    ),
    st.floats(500, 50_000),
    st.floats(1.0, 2.5),
    st.floats(0, 0.05),
    st.floats(1e-6, 1e-4),
    st.floats(100, 1e6),
    st.floats(1e-5, 1e-3),
    st.floats(1e5, 1e8),
)
layouts_drawn = st.builds(
    lambda cores, insert, on_cores, rate, tree, brain: replace(
        LAYOUT,
        cores=2 * cores,
        servers=cores,
        actors=cores,
        samples_per_insert=insert,
        learner_on_cores=on_cores,
        tree=tree,
        brain_evals_per_s=brain,
        spot=replace(SPOT, interruptions_per_hour=rate),
    ),
    st.integers(1, 32),
    st.floats(0.5, 16),
    st.booleans(),
    st.floats(0, 10),
    st.booleans(),
    st.none() | st.floats(1e4, 1e7),
)


def test_one_machine_shares_its_cores_out_over_all_that_a_row_costs() -> None:
    rows = steady(1, COSTS, replace(LAYOUT, cores=2, learners=100)).rows

    driver = 16 * (2e-4 + 3e-4)
    row = 60 / 5000 + 4 / 1000 + 8e-6 + 0.01 / 1024 + 4 * 5e-7 + 8 * 6e-4 * 4 / 6400
    assert rows == pytest.approx((2 - driver) / row)


def test_without_interruptions_machines_add_up() -> None:
    still = replace(FAST_LEARNER, spot=None)
    costless = replace(
        COSTS,
        **dict.fromkeys(
            (
                "part_seconds",
                "ask_seconds",
                "weights_server_seconds",
                "chunk_seconds",
                "row_seconds",
                "draw_seconds",
            ),
            1e-12,
        ),
    )

    one, ten = (steady(size, costless, still) for size in (1, 10))

    assert ten.rows - one.rows == pytest.approx(9 * 16 * 5000 / 60)
    assert ten.games == pytest.approx(ten.rows / 25)
    assert ten.limit == "play"


def test_no_more_cores_play_than_the_servers_keep_busy() -> None:
    still = replace(FAST_LEARNER, spot=None)
    slow = replace(COSTS, server_evals_per_s=6000.0)

    rates = steady(10, slow, still)

    assert rates.rows == pytest.approx(10 * 8 * 6000 / 60, rel=0.02)
    assert rates.used["brain"] == pytest.approx(1.0, abs=0.02)
    assert rates.rows < 0.7 * steady(10, COSTS, still).rows
    assert rates.rows == pytest.approx(simulate(10, slow, still).rows, rel=0.01)


def test_what_interruptions_take_is_known() -> None:
    effective, present = spot_shares(10, COSTS, LAYOUT)

    # Two an hour: 30 minutes, of which the first seconds make nothing; then notice and replacement.
    game_seconds = 1024 * 100 / (16 * 5000 / 15)
    dead = 15 + 1
    assert game_seconds / 2 < SPOT.notice_seconds
    assert lost_at_start(10, COSTS, LAYOUT) == pytest.approx(dead)
    short = replace(LAYOUT, spot=replace(SPOT, notice_seconds=4.0))
    assert lost_at_start(10, COSTS, short) == pytest.approx(dead + game_seconds / 2 - 4.0)
    assert present == pytest.approx((1800 + 120) / (1800 + 120 + 180))
    assert effective == pytest.approx((1800 - dead) / 2100, rel=0.001)
    assert effective < present


def test_the_slowest_part_decides_and_is_the_one_that_is_full() -> None:
    slow = steady(10, COSTS, LAYOUT)
    assert slow.limit == "learner"
    assert slow.rows == pytest.approx(1000 / 4)
    assert slow.used["learner"] == pytest.approx(1.0)

    faster = steady(200, COSTS, FAST_LEARNER)
    assert faster.limit == "replay"
    assert faster.rows == pytest.approx(1 / (8e-6 + 0.01 / 1024 + 4 * 5e-7))


def test_a_part_is_full_from_the_machine_on_that_fills_it() -> None:
    assert full_at("store", COSTS, replace(FAST_LEARNER, tree=True), most=5_000) is None
    for part in ("replay", "store", "driver", "disk"):
        at = full_at(part, COSTS, FAST_LEARNER, most=20_000)
        assert at is not None
        assert at > 1
        assert full_at(part, COSTS, FAST_LEARNER, most=at - 1) is None


def test_a_driver_asks_only_so_many_parts_a_second() -> None:
    assert driver_load(10, COSTS, LAYOUT) == pytest.approx(160 * (2e-4 + 3e-4))
    assert driver_load(100, COSTS, LAYOUT) == pytest.approx(1600 * 2e-4 + MOST_QUESTIONS * 3e-4)


@given(costs_drawn, layouts_drawn, st.integers(1, 1500))
def test_no_part_gives_more_than_it_can(costs: Costs, layout: Layout, machines: int) -> None:
    rates = steady(machines, costs, layout)

    able = capacities(machines, costs, layout)
    assert all(rates.rows <= able[part] * (1 + 1e-9) for part in CAPPING)
    assert all(-1e-9 <= rates.used[part] <= 1 + 1e-9 for part in CAPPING)
    assert rates.used[rates.limit] == pytest.approx(1.0)
    assert 0 < rates.effective <= 1


@given(costs_drawn, layouts_drawn, st.integers(2, 1000), st.integers(1, 500))
def test_more_machines_never_make_less_while_the_driver_keeps_up(
    costs: Costs, layout: Layout, machines: int, more: int
) -> None:
    assume(driver_load(machines + more, costs, layout) <= 1)
    few, many = (steady(size, costs, layout).rows for size in (machines, machines + more))

    assert many >= few * (1 - 1e-9)


@given(costs_drawn, layouts_drawn, st.integers(2, 1000), st.floats(0.1, 10))
def test_interruptions_only_lose(costs: Costs, layout: Layout, machines: int, more: float) -> None:
    spot = layout.spot
    assert spot is not None
    worse = replace(layout, spot=replace(spot, interruptions_per_hour=spot.interruptions_per_hour + more))

    still, calm, rough = (steady(machines, costs, one) for one in (replace(layout, spot=None), layout, worse))

    assert rough.rows <= calm.rows * (1 + 1e-9) <= still.rows * (1 + 2e-9)
    assert rough.effective < calm.effective <= still.effective == 1


@pytest.mark.parametrize("machines", [1, 2, 10, 100, 1000])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="the learner is full"),
        pytest.param({"learner_on_cores": False, "learners": 10_000}, id="play, then the replay"),
        pytest.param({"learner_on_cores": False, "learners": 10_000, "spot": None}, id="nobody leaves"),
        pytest.param(
            {"brain_evals_per_s": 1e6, "servers": 0, "learner_on_cores": False, "learners": 10_000},
            id="one brain",
        ),
    ],
)
def test_the_simulation_comes_to_what_the_closed_form_says(machines: int, changed: dict[str, Any]) -> None:
    layout = replace(LAYOUT, **changed)

    expected, outcome = steady(machines, COSTS, layout), simulate(machines, COSTS, layout, seed=1)

    assert outcome.rows == pytest.approx(expected.rows, rel=0.03)
    assert outcome.effective == pytest.approx(expected.effective, abs=0.03)
    assert outcome.replay_used == pytest.approx(expected.used["replay"], abs=0.03)
    assert outcome.learner_used == pytest.approx(expected.used["learner"], abs=0.03)
    assert outcome.store_used == pytest.approx(min(1.0, expected.used["store"]), abs=0.1)


@settings(max_examples=15)
@given(costs_drawn, layouts_drawn, st.integers(1, 300), st.integers(0, 9))
def test_a_simulated_run_makes_no_more_than_any_part_can(
    costs: Costs, layout: Layout, machines: int, seed: int
) -> None:
    able = capacities(machines, costs, replace(layout, spot=None))

    outcome = simulate(machines, costs, layout, seed=seed)

    # What waited in queues when counting began, or a shorter stay than expected, is counted with the rest.
    assert all(outcome.rows <= able[part] * 1.05 for part in CAPPING)
    assert outcome.rows >= 0
    assert 0 <= outcome.effective <= 1


def test_one_seed_tells_the_same() -> None:
    assert simulate(10, COSTS, LAYOUT, seed=3) == simulate(10, COSTS, LAYOUT, seed=3)
    assert simulate(10, COSTS, LAYOUT, seed=3) != simulate(10, COSTS, LAYOUT, seed=4)
