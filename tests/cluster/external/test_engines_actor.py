"""Engines under Ray: one supervisor a machine, that goes on with the same daemons after its process was killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.external import engines_actor
from cluster.external.engines import engines_folder
from cluster.external.engines_actor import (
    EngineHost,
    end_hosts,
    find_hosts,
    let_go,
    start_hosts,
    wait_until_settled,
)
from cluster.on_ray.client import LOST, call, get
from core.errors import UsageError
from engines.supervisor import Supervisor
from tests.engines.supervising import PATIENCE_SECONDS, fakes, nothing_left

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def hosts(tmp_path: Path, local_ray: None) -> Iterator[dict[str, Any]]:
    hosts = start_hosts(fakes(base_port=24_000), tmp_path, detached=False)
    yield hosts
    end_hosts(hosts.values())
    assert nothing_left(engines_folder(tmp_path, "engines"))


def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_supervisor_comes_back_and_its_daemons_never_stopped(hosts: dict[str, Any]) -> None:
    (before,) = wait_until_settled(hosts, PATIENCE_SECONDS)
    assert len(before["endpoints"]) == 1
    (actor,) = hosts.values()
    os.kill(before["pid"], signal.SIGKILL)

    def is_back() -> bool:
        try:
            now = get(actor.stats.remote(), timeout_seconds=5.0)
        except LOST:
            return False
        return now["pid"] != before["pid"] and now["supervised"]

    until(is_back)
    after = call(actor.stats)
    assert after["endpoints"] == before["endpoints"]
    assert [daemon["pid"] for daemon in after["daemons"]] == [daemon["pid"] for daemon in before["daemons"]]


def test_they_are_found_by_their_name_and_started_once(hosts: dict[str, Any], tmp_path: Path) -> None:
    wait_until_settled(hosts, PATIENCE_SECONDS)
    again = start_hosts(fakes(base_port=24_000), tmp_path, detached=False)
    assert [call(actor.stats)["pid"] for actor in again.values()] == [
        call(actor.stats)["pid"] for actor in find_hosts("engines").values()
    ]
    with pytest.raises(UsageError, match="no engines 'other'"):
        find_hosts("other")


def test_supervisors_with_other_settings_take_over_the_daemons(tmp_path: Path) -> None:
    config = fakes(base_port=24_000)
    first = start_hosts(config, tmp_path, detached=True)
    (before,) = wait_until_settled(first, PATIENCE_SECONDS)
    let_go("engines")
    more = config.model_copy(update={"engine": config.engine.model_copy(update={"count": 2})})
    hosts = start_hosts(more, tmp_path, detached=True)
    (after,) = wait_until_settled(hosts, PATIENCE_SECONDS)
    assert after["serving"] == 2
    assert after["daemons"][0]["pid"] == before["daemons"][0]["pid"]
    assert [each["ended"] for each in end_hosts(hosts.values())] == [2]
    assert nothing_left(engines_folder(tmp_path, "engines"))


def test_engines_that_another_cluster_supervises_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cluster has a host of its own: here one is this process, and the other what it would be told."""
    monkeypatch.setattr(engines_actor, "LET_GO_SECONDS", 0.2)
    with Supervisor(fakes(base_port=24_100), engines_folder(tmp_path, "engines"), kind="actor") as theirs:
        ours = EngineHost(fakes(base_port=24_100), str(tmp_path))

        def is_told() -> bool:
            try:
                ours.stats()
            except UsageError as error:
                return "another Ray cluster" in error.what and str(os.getpid()) in error.why
            return False

        until(is_told)
        assert ours.stop()["ended"] == 0
        theirs.stop()


def test_what_cannot_be_started_is_told_as_it_is(tmp_path: Path) -> None:
    config = fakes()
    missing = config.model_copy(
        update={
            "engine": config.engine.model_copy(update={"name": "missing", "command": ("no-such", "{port}")})
        }
    )
    hosts = start_hosts(missing, tmp_path, detached=False)
    with pytest.raises(UsageError, match="no-such cannot be started"):
        wait_until_settled(hosts, PATIENCE_SECONDS)
    end_hosts(hosts.values())
