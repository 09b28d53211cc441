"""Settings of engines: what goes together, and what is told of the rest."""

from pathlib import Path

import pytest

from configs.engines import ENGINES, EnginesConfig
from configs.loading import dump
from core.errors import UsageError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = ENGINES.override(
        EnginesConfig(),
        ["engine.command=[./daemon, -p, '{port}']", "engine.environment={A: null}", "java.preset=none"],
    )
    (tmp_path / "config.yaml").write_text(dump(config))
    assert ENGINES.load_file(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("engine.command=[./daemon]", "does not say where the port goes"),
        ("engine.name=../x", "is not allowed"),
        ("engine.count=0", "at least 1"),
        ("engine.base_port=80", "at least 1024"),
        ("java.preset=fast", "none or throughput or container"),
        ("upkeep.orphan_seconds=0", "at least 1"),
        ("upkeep.max_failure=3", "upkeep.max_failures"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ENGINES.override(EnginesConfig(), [setting])


def test_engines_are_one_program() -> None:
    with pytest.raises(UsageError, match="both command and jar"):
        ENGINES.override(EnginesConfig(), ["engine.command=['{port}']", "engine.jar=a.jar"])
