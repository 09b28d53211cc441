"""The simulation of one server and many actors, where arithmetic knows the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.plan.server_simulation import Load, Service, fit_service, simulate

SERVICE = Service(fixed_seconds=0.001, row_seconds=0.0001, max_batch_rows=1024)


def load(**changed: float) -> Load:
    given_ = {"actors": 1, "groups": 1, "rows": 10, "think_seconds": 0.004, "message_seconds": 0.001}
    return Load(**given_ | changed)  # pyright: ignore[reportArgumentType]


def test_one_group_takes_its_turns_with_the_server() -> None:
    outcome = simulate(load(), SERVICE, seconds=10.0)

    step = 0.004 + 0.001 + (0.001 + 10 * 0.0001) + 0.001
    assert outcome.rows_per_second == pytest.approx(10 / step, rel=0.01)
    assert outcome.mean_batch_rows == 10
    assert outcome.wait_seconds == 0
    assert outcome.server_busy == pytest.approx(0.002 / step, rel=0.01)
    assert outcome.actors_busy == pytest.approx(0.004 / step, rel=0.01)


def test_two_groups_of_an_actor_think_while_the_other_waits() -> None:
    alone, two = (simulate(load(groups=groups), SERVICE, seconds=10.0) for groups in (1, 2))

    assert two.rows_per_second == pytest.approx(2 * alone.rows_per_second, rel=0.02)
    assert simulate(load(groups=8), SERVICE, seconds=10.0).actors_busy == pytest.approx(1.0, abs=0.01)


def test_many_actors_fill_batches_until_the_server_gives_all_it_has() -> None:
    outcomes = [simulate(load(actors=actors), SERVICE, seconds=20.0) for actors in (1, 10, 100, 1000)]

    rates = [outcome.rows_per_second for outcome in outcomes]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(SERVICE.max_batch_rows // 10 * 10 / SERVICE.seconds(1020), rel=0.02)
    assert outcomes[-1].mean_batch_rows == pytest.approx(1020, rel=0.01)
    assert outcomes[-1].server_busy == pytest.approx(1.0, abs=0.01)


@given(
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 64),
    st.floats(0.0, 0.01),
    st.floats(0.0, 0.01),
)
def test_nobody_answers_more_than_was_asked_or_can_be_served(
    actors: int, groups: int, rows: int, think: float, message: float
) -> None:
    asked = load(actors=actors, groups=groups, rows=rows, think_seconds=think, message_seconds=message)

    outcome = simulate(asked, SERVICE, seconds=0.5)

    one_batch_more = SERVICE.max_batch_rows / 0.45  # the first one counts whole where it only ends
    assert outcome.rows_per_second <= SERVICE.most_rows_per_second + one_batch_more
    assert outcome.mean_batch_rows <= min(actors * groups * rows, SERVICE.max_batch_rows)
    assert 0 <= outcome.server_busy <= 1
    assert 0 <= outcome.actors_busy <= 1


def test_who_shares_one_processor_takes_turns_on_it() -> None:
    alone, crowded = (simulate(load(actors=actors, processors=1), SERVICE, seconds=20.0) for actors in (1, 4))

    # Four actors never leave it idle: a group thinks and is served, both on the one processor.
    batch = crowded.mean_batch_rows / 10
    busy = 0.004 + SERVICE.seconds(int(crowded.mean_batch_rows)) / batch
    assert crowded.rows_per_second == pytest.approx(10 / busy, rel=0.05)
    assert crowded.server_busy + 4 * crowded.actors_busy == pytest.approx(1.0, abs=0.01)
    assert alone.rows_per_second == pytest.approx(
        simulate(load(), SERVICE, seconds=20.0).rows_per_second, rel=0.01
    )


def test_as_many_processors_as_parts_are_enough_for_all() -> None:
    own, shared = (
        simulate(load(actors=5, groups=3, processors=n), SERVICE, seconds=5.0) for n in (float("inf"), 6)
    )

    assert own == shared


def test_a_request_larger_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="1025 rows"):
        simulate(load(rows=1025), SERVICE, seconds=1.0)


def test_service_times_are_read_from_rates() -> None:
    rates = {rows: rows / SERVICE.seconds(rows) for rows in (64, 128, 256, 512, 1024)}

    fitted = fit_service(rates, max_batch_rows=1024)

    assert fitted.fixed_seconds == pytest.approx(SERVICE.fixed_seconds)
    assert fitted.row_seconds == pytest.approx(SERVICE.row_seconds)
