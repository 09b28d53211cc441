"""The learning rate at the places where it turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import LearnerConfig
from learner.schedule import learning_rate


def config(schedule: str, **changes: object) -> LearnerConfig:
    settings = {
        "learning_rate": 1.0,
        "warmup_steps": 10,
        "schedule_steps": 110,
        "final_learning_rate_share": 0.2,
    }
    return LearnerConfig.model_validate({"schedule": schedule, **settings, **changes})


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        ("constant", 0, 0.1),
        ("constant", 4, 0.5),
        ("constant", 9, 1.0),
        ("constant", 10, 1.0),
        ("constant", 10_000, 1.0),
        ("cosine", 10, 1.0),
        ("cosine", 60, 0.6),
        ("cosine", 110, 0.2),
        ("cosine", 10_000, 0.2),
        ("step", 109, 1.0),
        ("step", 110, 0.2),
    ],
)
def test_the_rate_at_its_turns(schedule: str, steps: int, expected: float) -> None:
    assert learning_rate(config(schedule), steps) == pytest.approx(expected)


@given(
    schedule=st.sampled_from(["constant", "cosine", "step"]),
    warmup_steps=st.integers(0, 50),
    schedule_steps=st.integers(1, 100),
    steps=st.integers(0, 200),
)
def test_the_rate_is_never_above_the_configured_one_and_never_zero(
    schedule: str, warmup_steps: int, schedule_steps: int, steps: int
) -> None:
    chosen = config(schedule, warmup_steps=warmup_steps, schedule_steps=schedule_steps)
    assert 0.0 < learning_rate(chosen, steps) <= 1.0 + 1e-12


@given(steps=st.integers(10, 200))
def test_after_the_warm_up_the_rate_never_rises(steps: int) -> None:
    assert learning_rate(config("cosine"), steps + 1) <= learning_rate(config("cosine"), steps)
