"""A job that would be killed while it saves is told, and what it needs."""

import pytest

from cluster.training.jobs import short_grace


@pytest.mark.parametrize(
    ("given", "mirror_seconds", "needed"),
    [
        ("60", 0.0, None),
        ("60", 60.0, "120"),
        ("119", 60.0, None),
        ("60", 10.0, None),
        ("3", 0.0, "60"),
        ("3", 200.0, "300"),
    ],
)
def test_a_mirrored_run_needs_the_longer(given: str, mirror_seconds: float, needed: str | None) -> None:
    environment = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": given}
    told = short_grace(environment, mirror_seconds=mirror_seconds)
    assert (told is None) == (needed is None)
    if needed is not None:
        assert f'"RAY_JOB_STOP_WAIT_TIME_S": "{needed}"' in str(told)
        assert ("mirror" in str(told)) == (mirror_seconds > 0)
