"""What every backend of locks does; a subclass says by its fixture `backend` which."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control import fencing
from control.database import Database
from control.fencing import Fence
from control.locks import FencingToken, Lock, LockBackend, LockHeldError, LockLostError, new_owner
from core.errors import UsageError

PATIENCE_SECONDS = 60.0
NAME = "training:hex5_2p"
TTL = 0.4


def until(reached: Callable[[], bool]) -> None:
    """Wait until something holds; for long only when something is broken."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class AnyBackend:
    """Tests of who keeps locks, whoever that is."""

    @pytest.fixture
    def fence(self, tmp_path: Path) -> Iterator[Fence]:
        database = Database(tmp_path / "fence" / "control.sqlite", fencing.TABLES)
        yield Fence(database)
        database.close()

    @pytest.fixture
    def make_lock(self, backend: LockBackend, fence: Fence) -> Callable[..., Lock]:
        def made(name: str = NAME, **given: float) -> Lock:
            return Lock(name, backend, fence, **({"timeout_seconds": PATIENCE_SECONDS} | given))

        return made

    def granted(self, backend: LockBackend, owner: str, *, ttl_seconds: float = 60.0, above: int = 0) -> int:
        number = backend.try_acquire(NAME, owner, ttl_seconds=ttl_seconds, above=above)
        assert number is not None
        return number

    def test_one_holds_it_and_another_does_not(self, backend: LockBackend) -> None:
        first, second = new_owner(), new_owner()
        self.granted(backend, first)
        assert backend.try_acquire(NAME, second, ttl_seconds=60, above=0) is None
        backend.release(NAME, first)
        self.granted(backend, second)

    def test_two_names_are_two_locks(self, backend: LockBackend) -> None:
        names = ["a:b", "a.b", "a-b", "a_b", "a:b:c", "a"]
        numbers = [backend.try_acquire(name, new_owner(), ttl_seconds=60, above=0) for name in names]
        assert None not in numbers
        assert [held.name for held in backend.holders()] == sorted(names)

    def test_each_grant_has_a_greater_number_that_is_above_what_was_asked(self, backend: LockBackend) -> None:
        numbers = []
        for above in (0, 0, 100, 0, 7, 101):
            owner = new_owner()
            numbers.append(self.granted(backend, owner, above=above))
            backend.release(NAME, owner)
        assert numbers == sorted(set(numbers))
        assert numbers[2] > 100

    def test_who_asks_again_since_the_answer_was_lost_gets_the_same(self, backend: LockBackend) -> None:
        owner = new_owner()
        assert self.granted(backend, owner) == self.granted(backend, owner)

    def test_only_the_owner_renews_and_releases(self, backend: LockBackend) -> None:
        owner, other = new_owner(), new_owner()
        self.granted(backend, owner)
        assert not backend.renew(NAME, other)
        backend.release(NAME, other)
        assert backend.renew(NAME, owner)
        backend.release(NAME, owner)
        assert not backend.renew(NAME, owner)

    def test_one_that_gives_no_sign_of_life_loses_it_to_who_waits(self, backend: LockBackend) -> None:
        silent, waiting = new_owner(), new_owner()
        first = self.granted(backend, silent, ttl_seconds=TTL)
        second: list[int | None] = []

        def taken() -> bool:
            second.append(backend.try_acquire(NAME, waiting, ttl_seconds=60, above=0))
            return second[-1] is not None

        until(taken)
        assert second[-1] is not None
        assert second[-1] > first
        assert not backend.renew(NAME, silent)
        backend.release(NAME, silent)  # which is the other's by now
        assert backend.renew(NAME, waiting)

    def test_one_that_renews_keeps_it_for_longer_than_its_ttl(self, backend: LockBackend) -> None:
        owner, other = new_owner(), new_owner()
        self.granted(backend, owner, ttl_seconds=TTL)
        end = time.monotonic() + 3 * TTL
        while time.monotonic() < end:
            renewed_at = time.monotonic()
            assert backend.renew(NAME, owner)
            taken = backend.try_acquire(NAME, other, ttl_seconds=60, above=0)
            assert taken is None or time.monotonic() - renewed_at > TTL, "this machine stood still"
            time.sleep(TTL / 8)

    def test_it_says_who_holds_what(self, backend: LockBackend) -> None:
        assert backend.holders() == []
        owner = new_owner()
        number = self.granted(backend, owner, ttl_seconds=60)
        (held,) = backend.holders()
        assert (held.name, held.owner, held.number, held.ttl_seconds) == (NAME, owner, number, 60)
        assert abs(held.since - time.time()) < PATIENCE_SECONDS
        backend.release(NAME, owner)
        assert backend.holders() == []

    def test_what_is_taken_away_is_free_at_once_and_its_holder_is_told(self, backend: LockBackend) -> None:
        assert backend.take_away(NAME) is None
        owner = new_owner()
        number = self.granted(backend, owner)
        taken = backend.take_away(NAME)
        assert taken is not None
        assert (taken.owner, taken.number) == (owner, number)
        assert not backend.renew(NAME, owner)
        assert self.granted(backend, new_owner()) > number

    @pytest.mark.parametrize(
        "name", ["", "a/b", "../a", "a:..", "a:", ":a", "a b", "a\n", "a+b", "a:b:c:d", "é"]
    )
    def test_a_bad_name_is_refused_by_each_method(self, backend: LockBackend, name: str) -> None:
        for act in (
            lambda: backend.try_acquire(name, "x", ttl_seconds=1, above=0),
            lambda: backend.renew(name, "x"),
            lambda: backend.release(name, "x"),
            lambda: backend.take_away(name),
        ):
            with pytest.raises(UsageError, match="not allowed"):
                act()

    def test_with_acquires_keeps_alive_and_gives_back(
        self, backend: LockBackend, make_lock: Callable[..., Lock]
    ) -> None:
        with make_lock() as holder:
            assert not holder.lost
            assert [held.number for held in backend.holders()] == [holder.token.number]
        assert backend.holders() == []
        with pytest.raises(LockLostError, match="not held"):
            _ = holder.token

    def test_a_lock_that_is_held_is_waited_for_no_longer_than_said(
        self, make_lock: Callable[..., Lock]
    ) -> None:
        with make_lock():
            assert not make_lock().acquire(0)
            with (
                pytest.raises(LockHeldError, match=f"{NAME} is held") as caught,
                make_lock(timeout_seconds=0.05),
            ):
                pass
        assert "token" in caught.value.why

    def test_it_is_given_back_when_the_work_fails(self, make_lock: Callable[..., Lock]) -> None:
        with pytest.raises(InterruptedError), make_lock():
            raise InterruptedError
        assert make_lock().acquire(0)

    def test_one_who_waits_gets_it_when_it_is_released(self, make_lock: Callable[..., Lock]) -> None:
        holder, waiting = make_lock(), make_lock()
        holder.acquire()
        threading.Timer(0.1, holder.release).start()
        before = holder.token.number
        assert waiting.acquire()
        assert waiting.token.number > before
        waiting.release()

    def test_a_holder_that_works_for_longer_than_the_ttl_keeps_it(
        self, make_lock: Callable[..., Lock]
    ) -> None:
        with make_lock(ttl_seconds=1.0) as holder:
            assert not make_lock().acquire(2.5)
            assert not holder.lost

    def test_a_holder_whose_lock_is_taken_away_learns_it_and_cannot_write(
        self, backend: LockBackend, make_lock: Callable[..., Lock], fence: Fence
    ) -> None:
        with make_lock(ttl_seconds=TTL) as holder:
            with fence.write(holder.token):
                pass
            backend.take_away(NAME)
            until(lambda: holder.lost)
            with make_lock() as other, fence.write(other.token):
                pass
            with pytest.raises(LockLostError, match="another's by now"), fence.write(holder.token):
                pass

    def test_a_number_that_was_seen_before_is_never_given_again(
        self, make_lock: Callable[..., Lock], fence: Fence
    ) -> None:
        fence.admit(FencingToken(NAME, 1000))
        with make_lock() as holder:
            assert holder.token.number > 1000

    def test_a_lock_does_not_wait_for_itself(self, make_lock: Callable[..., Lock]) -> None:
        with make_lock() as holder, pytest.raises(UsageError, match="already acquired"):
            holder.acquire()

    def test_it_can_be_acquired_again(self, make_lock: Callable[..., Lock]) -> None:
        lock, numbers = make_lock(), []
        for _ in range(3):
            with lock as holder:
                numbers.append(holder.token.number)
        assert numbers == sorted(set(numbers))

    def test_threads_that_add_one_lose_nothing(self, make_lock: Callable[..., Lock]) -> None:
        total = [0]

        def add() -> None:
            for _ in range(10):
                with make_lock(ttl_seconds=30, poll_seconds=0.01):
                    before = total[0]
                    time.sleep(0.001)
                    total[0] = before + 1

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert total == [40]
