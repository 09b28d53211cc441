"""Daemons in JVMs of their own, with the flags of each preset."""

from pathlib import Path

import pytest

from configs.engines import EngineConfig, EnginesConfig, JavaConfig, Preset, UpkeepConfig
from engines.jvm import recordings
from engines.reference.compile import compiled
from engines.supervisor import Supervisor
from tests.engines.supervising import nothing_left, until

pytestmark = pytest.mark.system


@pytest.mark.parametrize("preset", ["none", "throughput", "container"])
def test_a_jar_is_run_with_a_preset_and_recorded(preset: Preset, tmp_path: Path) -> None:
    config = EnginesConfig(
        engine=EngineConfig(jar=str(compiled()), count=1, base_port=25_000),
        java=JavaConfig(preset=preset, memory_mb=128, record=True),
        upkeep=UpkeepConfig(start_seconds=60.0, max_failures=0, grace_seconds=30.0),
    )
    folder = tmp_path / "engines"
    with Supervisor(config, folder) as supervisor:
        until(supervisor, supervisor.settled)
        assert len(supervisor.endpoints()) == 1
        assert supervisor.report()[0].restarts == 0
        supervisor.stop()
    assert nothing_left(folder)
    assert [size > 0 for _, size in recordings(folder)] == [True]
    assert not any((folder / "0" / "recording").iterdir())  # its pieces were put together
    assert (folder / "0" / "gc.log").exists() == (preset == "container")
