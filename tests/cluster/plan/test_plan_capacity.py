"""How many actors fill one server: where it is plain, the plan says so."""

import pytest

from cluster.plan.capacity import ACTORS, plan_capacity, show_capacity
from cluster.plan.server_simulation import Service

SERVICE = Service(fixed_seconds=0.001, row_seconds=0.0001, max_batch_rows=1024)


def plan(*, think_seconds: float):
    return plan_capacity(
        SERVICE, groups=2, rows=64, think_seconds=think_seconds, message_seconds=0.001, evals_per_move=33
    )


def test_the_server_is_saturated_by_the_actors_that_fill_its_batches() -> None:
    result = plan(think_seconds=0.1)

    # An actor asks for 640 rows a second, the server answers 1024 in 103.4 ms.
    assert result["saturated_at"] == next(n for n in ACTORS if n * 640 > 1024 / 0.1034)
    rates = [point["evals_per_s"] for point in result["points"]]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(640, rel=0.05)
    assert rates[-1] == pytest.approx(1024 / 0.1034, rel=0.02)
    assert result["points"][-1]["moves_per_s"] == pytest.approx(rates[-1] / 33)


def test_a_server_that_no_number_of_actors_fills_is_not_called_saturated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = plan(think_seconds=100.0)

    assert result["saturated_at"] is None
    show_capacity(result)
    assert "1,000 actors do not saturate one server" in capsys.readouterr().out
