"""`tamen engines bench` in small: what it returns is what `tamen plan games` reads."""

import json
from pathlib import Path

import pytest

from cluster.bench.engines import bench_engines
from cluster.bench.rig import Measuring
from core.errors import UsageError
from engines.timings import read_durations

BRIEF = Measuring(seconds=1.0, rounds=1, quiet=True)


@pytest.mark.soak
@pytest.mark.usefixtures("local_ray")
def test_the_pipeline_is_measured_as_the_planner_wants_it(tmp_path: Path) -> None:
    result = bench_engines(("pipeline",), BRIEF, fault_games=1)
    assert 0.2 < result["share_of_capacity"] < 2.0
    assert (result["retries"], result["set_aside"]) == (0, 0)
    assert result["p95_s"] >= 0.05
    (tmp_path / "durations.json").write_text(json.dumps(result))
    durations = read_durations(tmp_path / "durations.json")
    assert len(durations.seconds) == len(result["durations_s"]) == 20
    assert durations.startup_seconds == result["startup_s"]


@pytest.mark.soak
@pytest.mark.usefixtures("local_ray")
def test_games_under_faults_are_accounted_for(tmp_path: Path) -> None:
    found = bench_engines(("faults",), BRIEF, fault_games=1300)["faults"]
    assert found["accounted"]
    assert found["finished"] + sum(found["set_aside"].values()) == 1300
    assert found["retried"]
    assert found["processes_left"] == 0


@pytest.mark.parametrize("sections", [(), ("pipelines",)])
def test_a_section_that_there_is_not_is_told(sections: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="there is no section"):
        bench_engines(sections, BRIEF, fault_games=1)
