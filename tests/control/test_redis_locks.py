"""Locks in a real Redis, which is ended, and made to forget, while they are held."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cluster.bench.redis_server import RedisServer
from control import fencing
from control.database import Database
from control.fencing import Fence
from control.locks import Lock, LockLostError, LockSetting, UnreachableError, new_owner, parse_setting
from control.redis_locks import RedisLocks
from core.errors import DataError, UsageError
from tests.control.lock_contract import NAME, PATIENCE_SECONDS, AnyBackend, until
from tests.control.redis_server import redis_server

pytestmark = pytest.mark.system
__all__ = ["redis_server"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(server: RedisServer, identity: str, **given: Clock) -> RedisLocks:
    return RedisLocks(LockSetting("redis", server.setting.text, identity), password=server.password, **given)


def client(server: RedisServer) -> Redis:
    return Redis(port=server.port, password=server.password, decode_responses=True)


@pytest.fixture
def identity() -> str:
    return new_owner().rpartition(":")[2]


@pytest.fixture
def backend(redis_server: RedisServer, identity: str) -> Iterator[RedisLocks]:
    backend = asked(redis_server, identity)
    yield backend
    backend.close()


class TestRedisLocks(AnyBackend):
    @pytest.fixture
    def backend(self, backend: RedisLocks) -> RedisLocks:
        return backend


@pytest.fixture
def fence(tmp_path: Path) -> Iterator[Fence]:
    database = Database(tmp_path / "control.sqlite", fencing.TABLES)
    yield Fence(database)
    database.close()


def test_a_lock_and_its_numbers_outlive_a_restart_of_redis(
    redis_server: RedisServer, backend: RedisLocks
) -> None:
    number = backend.try_acquire(NAME, "held", ttl_seconds=600, above=40)
    redis_server.restart()
    assert backend.renew(NAME, "held")
    backend.release(NAME, "held")
    assert number == 41
    assert backend.try_acquire(NAME, "next", ttl_seconds=600, above=0) == 42


def test_a_redis_that_forgot_everything_gives_no_number_twice(
    redis_server: RedisServer, backend: RedisLocks, fence: Fence
) -> None:
    before = Lock(NAME, backend, fence, ttl_seconds=60)
    with before as holder:
        redis_server.forget()
        with Lock(NAME, backend, fence, timeout_seconds=PATIENCE_SECONDS) as other:
            assert other.token.number > holder.token.number
            with fence.write(other.token):
                pass
            with pytest.raises(LockLostError), fence.write(holder.token):
                pass


def test_a_holder_learns_that_redis_forgot_it(
    redis_server: RedisServer, backend: RedisLocks, fence: Fence
) -> None:
    with Lock(NAME, backend, fence, ttl_seconds=2) as holder:
        redis_server.forget()
        until(lambda: holder.lost)


def test_a_wait_goes_on_over_a_restart(redis_server: RedisServer, backend: RedisLocks, fence: Fence) -> None:
    redis_server.kill()
    lock = Lock(NAME, backend, fence, timeout_seconds=0.1)
    with pytest.raises(UnreachableError, match="does not answer"):
        lock.acquire()
    redis_server.start()
    assert lock.acquire(PATIENCE_SECONDS)
    lock.release()


def test_who_waits_judges_by_a_clock_of_its_own_when_that_of_redis_stands(
    redis_server: RedisServer, backend: RedisLocks, identity: str
) -> None:
    clock = Clock()
    waiting = asked(redis_server, identity, clock=clock)
    backend.try_acquire(NAME, "held", ttl_seconds=100, above=0)
    client(redis_server).persist(
        f"tamen:{identity}:lock:{NAME}"
    )  # as if its clock had been set back for ever
    assert waiting.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
    clock.now = 99.0
    assert backend.renew(NAME, "held")
    clock.now = 101.0
    assert waiting.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
    clock.now = 200.9
    assert waiting.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
    clock.now = 201.0
    assert waiting.try_acquire(NAME, "next", ttl_seconds=60, above=0) == 2
    assert not backend.renew(NAME, "held")


def test_redis_ends_a_lease_by_itself(redis_server: RedisServer, backend: RedisLocks, identity: str) -> None:
    backend.try_acquire(NAME, "held", ttl_seconds=60, above=0)
    left = client(redis_server).pttl(f"tamen:{identity}:lock:{NAME}")
    assert isinstance(left, int)
    assert 0 < left <= 60_000


def test_runs_that_share_a_redis_do_not_meet(redis_server: RedisServer, backend: RedisLocks) -> None:
    other = asked(redis_server, "another")
    assert backend.try_acquire(NAME, "a", ttl_seconds=60, above=0) is not None
    assert other.try_acquire(NAME, "b", ttl_seconds=60, above=0) is not None


def test_a_wrong_password_is_said_to_be_so(redis_server: RedisServer) -> None:
    for password in ("wrong", None):
        with pytest.raises(UsageError, match="does not let this process in") as caught:
            RedisLocks(LockSetting("redis", redis_server.setting.text, "x"), password=password)
        assert "TAMEN_REDIS_PASSWORD" in caught.value.fix
        assert redis_server.password not in str(caught.value)


def test_a_server_that_is_not_there_is_an_error_within_seconds() -> None:
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        RedisLocks(parse_setting("redis://127.0.0.1:9"))
    assert "nothing else keeps this run's locks" in caught.value.fix


def test_a_value_of_another_program_is_an_error(
    redis_server: RedisServer, backend: RedisLocks, identity: str
) -> None:
    key = f"tamen:{identity}:lock:{NAME}"
    client(redis_server).set(key, "theirs")
    with pytest.raises(DataError, match="not a lock of tamen's"):
        backend.try_acquire(NAME, "a", ttl_seconds=60, above=0)


def test_what_redis_was_told_survives_in_its_own_words(
    redis_server: RedisServer, backend: RedisLocks, identity: str
) -> None:
    backend.try_acquire(NAME, "host:1:aa", ttl_seconds=60, above=0)
    backend.renew(NAME, "host:1:aa")
    shown = client(redis_server).get(f"tamen:{identity}:lock:{NAME}")
    owner, number, since, ttl_ms, beat = str(shown).split(" ")
    assert (owner, number, ttl_ms, beat) == ("host:1:aa", "1", "60000", "1")
    assert abs(float(since) - time.time()) < PATIENCE_SECONDS
