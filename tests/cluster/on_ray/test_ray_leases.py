"""The lease actor is a lock backend like any other, and goes on after its process was killed."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.on_ray.leases import RayLeases
from control import fencing
from control.database import Database
from control.fencing import Fence
from control.locks import Lock, UnreachableError, new_owner
from tests.control.lock_contract import NAME, AnyBackend, until

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def leases(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> RayLeases:
    return RayLeases(tmp_path_factory.mktemp("leases") / "control.sqlite")


@pytest.fixture
def backend(leases: RayLeases) -> Iterator[RayLeases]:
    yield leases
    for held in leases.holders():
        leases.take_away(held.name)


def another_answers(leases: RayLeases, pid: int) -> bool:
    """Whether another process than that one answers: who is being killed may do so once more."""
    with contextlib.suppress(UnreachableError):
        return leases.stats()["pid"] != pid
    return False


class TestRayLeases(AnyBackend):
    @pytest.fixture
    def backend(self, backend: RayLeases) -> RayLeases:
        return backend


def test_a_killed_actor_goes_on_with_its_holders_and_greater_numbers(backend: RayLeases) -> None:
    number = backend.try_acquire(NAME, "held", ttl_seconds=600, above=0)
    assert number is not None
    before = backend.stats()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: another_answers(backend, before["pid"]))
    assert backend.stats()["epoch"] > before["epoch"]
    assert backend.try_acquire(NAME, "next", ttl_seconds=600, above=0) is None
    assert backend.renew(NAME, "held")
    backend.release(NAME, "held")
    after = backend.try_acquire(NAME, "next", ttl_seconds=600, above=0)
    assert after is not None
    assert after > number


def test_a_lock_outlives_its_keeper(backend: RayLeases, tmp_path: Path) -> None:
    fence = Fence(Database(tmp_path / "control.sqlite", fencing.TABLES))
    with Lock(NAME, backend, fence, ttl_seconds=60) as holder:
        pid = backend.stats()["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: another_answers(backend, pid))
        assert [held.number for held in backend.holders()] == [holder.token.number]
        assert not holder.lost


def test_all_who_name_one_file_ask_one_actor(backend: RayLeases, tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    first, second = RayLeases(path), RayLeases(tmp_path / ".." / tmp_path.name / "control.sqlite")
    assert first.try_acquire(NAME, "a", ttl_seconds=600, above=0) is not None
    assert second.try_acquire(NAME, "b", ttl_seconds=600, above=0) is None
    assert first.stats() == second.stats() != backend.stats()


def test_one_that_is_gone_for_good_is_made_again(tmp_path: Path) -> None:
    import ray

    backend = RayLeases(tmp_path / "control.sqlite")
    owner = new_owner()
    number = backend.try_acquire(NAME, owner, ttl_seconds=600, above=0)
    pid = backend.stats()["pid"]
    ray.kill(backend._actor, no_restart=True)
    until(lambda: another_answers(backend, pid))
    assert [(held.owner, held.number) for held in backend.holders()] == [(owner, number)]


def test_who_leaves_the_cluster_with_a_lock_is_told_that_nobody_answers(
    backend: RayLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def __getattr__(self, name: str) -> object:
            raise AttributeError("'Worker' object has no attribute 'core_worker'")

    backend.stats()
    with monkeypatch.context() as patched:
        patched.setattr(backend, "_actor", Gone())
        with pytest.raises(UnreachableError, match="core_worker"):
            backend.renew(NAME, "held")
    with monkeypatch.context() as patched:
        patched.setattr("ray.is_initialized", lambda: False)
        with pytest.raises(UnreachableError, match="joined no Ray cluster"):
            backend.renew(NAME, "held")
    assert backend.stats()
