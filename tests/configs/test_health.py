"""From when on a training is unwell: the promised thresholds, and such as make no sense."""

import pytest

from configs.health import HEALTH, HealthConfig
from core.errors import UsageError


def test_the_thresholds_are_those_that_were_promised() -> None:
    config = HealthConfig()
    assert (config.stalled_training_hours, config.stale_model_hours, config.stale_data_hours) == (4, 24, 12)
    assert (config.failures_warning, config.failures_critical, config.min_win_rate) == (1, 3, 0.35)


@pytest.mark.parametrize(
    "setting",
    [
        "stalled_training_hours=-1",
        "stale_model_hours=.nan",
        "stale_data_hours=.inf",
        "min_win_rate=1.1",
        "failures_critical=0",
        "failures_warning=4",
        "alerts_kept=0",
        "stalled_hours=4",
    ],
)
def test_thresholds_that_make_no_sense_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        HEALTH.override(HealthConfig(), [setting])
