"""Locks in a Redis server: `SET NX PX`, and scripts that compare before they extend or delete.

A value is "owner number since ttl_ms beat". Redis ends a key by the clock of its machine, which may jump:

- Forward, or when Redis loses its memory: the key is gone early. Its holder is told at its next beat, and until then
  the fence refuses its writes once the next holder is admitted.
- Back: the key would stay too long. One who waits takes it over when the value, whose beat counts up with each
  renewal, has not changed for a TTL on the waiter's own monotonic clock.

Numbers come from INCR. With `appendonly yes` they survive a restart of Redis; should they be lost nevertheless, they
go on from the greatest that `control.fencing` has admitted.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from control.locks import Held, LockSetting, UnreachableError, Watch, checked_lock_name
from core.errors import DataError, UsageError

PASSWORD_VARIABLE = "TAMEN_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
ANSWER_SECONDS = 2.0
"""Within which Redis answers, or is taken for unreachable."""

_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return held
end
if held and held ~= ARGV[5] then return held end
if held then redis.call('DEL', KEYS[1]) end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[3]) then redis.call('SET', KEYS[2], ARGV[3]) end
local number = string.format('%.0f', redis.call('INCR', KEYS[2]))
local value = ARGV[1] .. ' ' .. number .. ' ' .. ARGV[4] .. ' ' .. ARGV[2] .. ' 0'
redis.call('SET', KEYS[1], value, 'NX', 'PX', ARGV[2])
return value
"""
"""KEYS: of the lock, of its counter. ARGV: owner, TTL in ms, above, since, the value that is over (or "")."""
_RENEW = """
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
local front, ttl_ms, beat = string.match(held, '^(.* )(%d+) (%d+)$')
redis.call('SET', KEYS[1], front .. ttl_ms .. ' ' .. string.format('%.0f', beat + 1), 'PX', ttl_ms)
return 1
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then return redis.call('DEL', KEYS[1]) end
return 0
"""


class _Value(NamedTuple):
    owner: str
    number: int
    since: float
    ttl_seconds: float


class RedisLocks:
    """A `control.locks.LockBackend` in the Redis server of `setting`, which is asked at once.

    Args:
        setting: with an identity, under which the keys are: several runs may share a server.
        password: of the server; None: that of `TAMEN_REDIS_PASSWORD`, if it is set.
        clock: monotonic seconds.

    Raises:
        UnreachableError: when it does not answer.
        UsageError: when it refuses the password, or what locks need.
    """

    def __init__(
        self,
        setting: LockSetting,
        *,
        password: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = setting.text
        self._prefix = f"tamen:{setting.identity}"
        self._watch = Watch(clock)
        # It is polled anyway, and one who is asked twice must not wait twice.
        self._redis: Any = Redis.from_url(
            setting.text,
            password=password or os.environ.get(PASSWORD_VARIABLE) or None,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._renew = self._redis.register_script(_RENEW)
        self._release = self._redis.register_script(_RELEASE)
        with self._told():
            self._redis.ping()

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        over = ""
        for _ in range(2):
            shown = self._ask_for(name, owner, ttl_seconds=ttl_seconds, above=above, over=over)
            value = self._read(name, shown)
            if value.owner == owner:
                return value.number
            if self._watch.unchanged_seconds(name, shown) < value.ttl_seconds:
                return None
            over = shown
        return None

    def renew(self, name: str, owner: str) -> bool:
        with self._told():
            return bool(self._renew(keys=[self._lock_key(name)], args=[owner]))

    def release(self, name: str, owner: str) -> None:
        with self._told():
            self._release(keys=[self._lock_key(name)], args=[owner])

    def holders(self) -> list[Held]:
        with self._told():
            keys = sorted(self._redis.scan_iter(match=f"{self._prefix}:lock:*", count=1000))
            shown = self._redis.mget(keys) if keys else []
        names = [key.removeprefix(f"{self._prefix}:lock:") for key in keys]
        return [self._held(name, text) for name, text in zip(names, shown, strict=True) if text is not None]

    def take_away(self, name: str) -> Held | None:
        with self._told():
            shown = self._redis.getdel(self._lock_key(name))
        return None if shown is None else self._held(name, shown)

    def close(self) -> None:
        self._redis.close()

    def _ask_for(self, name: str, owner: str, *, ttl_seconds: float, above: int, over: str) -> str:
        with self._told():
            return self._acquire(
                keys=[self._lock_key(name), f"{self._prefix}:token:{name}"],
                args=[owner, max(1, round(ttl_seconds * 1000)), above, f"{time.time():.3f}", over],
            )

    def _lock_key(self, name: str) -> str:
        return f"{self._prefix}:lock:{checked_lock_name(name)}"

    def _held(self, name: str, shown: str) -> Held:
        value = self._read(name, shown)
        return Held(name, value.owner, value.number, value.ttl_seconds, value.since)

    def _read(self, name: str, shown: str) -> _Value:
        try:
            owner, number, since, ttl_ms, _ = shown.split(" ")
            return _Value(owner, int(number), float(since), int(ttl_ms) / 1000)
        except ValueError as error:
            raise DataError(
                f"{self._lock_key(name)} in {self._place} is not a lock of tamen's",
                why=f"its value is {shown[:80]!r}",
                fix="look who else writes there, and delete that key with redis-cli",
            ) from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, NoPermissionError) as error:
            raise UsageError(
                f"{self._place} does not let this process in",
                why=str(error),
                fix=f"set {PASSWORD_VARIABLE}; a user needs GET SET INCR DEL PEXPIRE SCAN MGET GETDEL EVALSHA there",
            ) from error
        except (RedisError, OSError) as error:
            refused = isinstance(error, ResponseError)
            raise UnreachableError(
                f"{self._place} {'refuses to keep locks' if refused else 'does not answer'}",
                why=str(error) or type(error).__name__,
                fix="start that Redis again; nothing else keeps this run's locks, so that no two kinds do",
            ) from error
