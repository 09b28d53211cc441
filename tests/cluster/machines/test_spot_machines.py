"""A machine that its cloud takes away, on Ray: it delivers, leaves, and another comes in its place."""

import json
import subprocess
import sys
from typing import Any

import pytest

from cluster.environment import CHECKOUT

pytestmark = pytest.mark.soak
TIMEOUT_SECONDS = 240.0


@pytest.fixture(scope="module")
def came_of_it(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster.spot_machines", folder],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_it_is_watched_told_and_drained(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["before"]["watched_by"] == "aws"
    assert came_of_it["drained"]
    (told,) = [each for each in came_of_it["said"] if "is to leave" in each]
    assert "s (AWS says 'terminate'): its actors play their games out" in told
    assert came_of_it["counters"]["spot_notices"] == 1


def test_what_it_had_finished_is_on_disk_once_and_nothing_failed(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["delivered"] >= came_of_it["finished"] > 0
    assert came_of_it["on_disk"] >= came_of_it["acknowledged"] > 0
    assert came_of_it["twice"] == 0
    assert came_of_it["counters"]["games_lost"] == 0
    assert came_of_it["restarts_after"] == {}
    assert not any("failed" in each or "died" in each for each in came_of_it["said"])


def test_the_time_in_which_fewer_played_is_told(came_of_it: dict[str, Any]) -> None:
    assert 0.0 < came_of_it["counters"]["effective_ratio"] < 1.0
