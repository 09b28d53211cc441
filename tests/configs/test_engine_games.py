"""Settings of games of engines: wrong ones are told."""

import pytest

from configs.engines import ENGINES, EnginesConfig
from core.errors import UsageError


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("games.connections=0", "at least 1"),
        ("games.batch=many", "batch"),
        ("games.game_seconds=0", "at least 1"),
        ("games.slack_seconds=0", "more than 0"),
        ("games.tries=0", "at least 1"),
        ("games.try=3", "games.tries"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        ENGINES.override(EnginesConfig(), [setting])
    assert told in f"{caught.value.what} {caught.value.why} {caught.value.fix}"
