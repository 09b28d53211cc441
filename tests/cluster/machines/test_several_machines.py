"""A run follows the machines of its cluster: several of Ray's on this machine, in a process beside the tests."""

import json
import subprocess
import sys
from typing import Any

import pytest

from cluster.environment import CHECKOUT

TIMEOUT_SECONDS = 240.0


@pytest.fixture(scope="module")
def came_of_it(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return played(tmp_path_factory)


@pytest.fixture(scope="module")
def came_of_the_whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return played(tmp_path_factory, "whole")


def played(tmp_path_factory: pytest.TempPathFactory, *how: str) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster.several_machines", folder, *how],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.system
def test_a_machine_that_joins_plays_and_is_let_go_when_it_is_killed(came_of_it: dict[str, Any]) -> None:
    home, far = came_of_it["machines"]
    assert (home["state"], home["actors"], home["servers"]) == ("home", 1, 1)
    assert (far["state"], far["actors"], far["servers"]) == ("playing", 1, 1)
    assert far["labels"]["tamen"] == "spot"
    assert came_of_it["actors"] == [0, 1]
    assert came_of_it["idle"] == 0  # though parts ask for no cores: such a machine is not taken away
    assert any("has left: with it 1 actor and 1 server" in each for each in came_of_it["said"])
    nothing_failed_and_nothing_is_lost(came_of_it)


@pytest.mark.soak
def test_a_machine_can_be_scaled_and_its_server_follows_the_weights(
    came_of_the_whole: dict[str, Any],
) -> None:
    wanted = {"actors_per_machine": {"home": 1, "spot": 2}, "servers_per_machine": 1}
    assert came_of_the_whole["scaled"] == wanted
    home, far = came_of_the_whole["machines"]
    assert (home["state"], home["actors"], home["servers"]) == ("home", 1, 1)
    assert (far["state"], far["actors"], far["servers"]) == ("playing", 2, 1)
    assert came_of_the_whole["actors"][:2] == [0, 1]
    assert len(came_of_the_whole["actors"]) >= 3  # spares may have taken the numbers between


@pytest.mark.soak
def test_an_actor_that_is_killed_elsewhere_comes_back(came_of_the_whole: dict[str, Any]) -> None:
    assert came_of_the_whole["restarts"] == {came_of_the_whole["victim"]: 1}


@pytest.mark.soak
def test_a_machine_of_several_actors_that_is_killed_is_let_go(came_of_the_whole: dict[str, Any]) -> None:
    assert any("has left: with it 2 actors and 1 server" in each for each in came_of_the_whole["said"])
    nothing_failed_and_nothing_is_lost(came_of_the_whole)


def nothing_failed_and_nothing_is_lost(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["restarts_after"] == {}
    assert not any("failed" in each or "not used" in each for each in came_of_it["said"])
    assert came_of_it["twice"] == 0
    assert came_of_it["on_disk"] >= came_of_it["acknowledged"] > 0
