"""What a lock makes of the answers of any backend, and that a run has one backend."""

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import fencing, locks
from control.database import Database
from control.fencing import Fence
from control.file_locks import FileLocks
from control.locks import (
    FencingToken,
    Held,
    Lock,
    LockSetting,
    UnreachableError,
    Watch,
    checked_lock_name,
    fix_backend,
    parse_setting,
)
from core.errors import ClusterError, UsageError
from tests.control.lock_contract import NAME, until

TABLES = locks.TABLES + fencing.TABLES


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A backend whose answers the test decides."""

    def __init__(self) -> None:
        self.numbers: list[int | Exception | None] = []
        self.renewals: Callable[[], bool] = lambda: True
        self.renewed = 0
        self.released: list[str] = []
        self.asked_above: list[int] = []

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        self.asked_above.append(above)
        answer = self.numbers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew(self, name: str, owner: str) -> bool:
        self.renewed += 1
        return self.renewals()

    def release(self, name: str, owner: str) -> None:
        self.released.append(owner)

    def holders(self) -> list[Held]:
        return []

    def take_away(self, name: str) -> Held | None:
        return None

    def close(self) -> None: ...


def silent() -> UnreachableError:
    return UnreachableError("it is silent", why="it is away", fix="bring it back")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "control.sqlite", TABLES)


@pytest.fixture
def fence(database: Database) -> Fence:
    return Fence(database)


@pytest.fixture
def backend() -> Scripted:
    return Scripted()


def test_a_number_that_has_been_outrun_is_given_back_and_another_is_tried_for(
    backend: Scripted, fence: Fence
) -> None:
    fence.admit(FencingToken(NAME, 7))
    backend.numbers = [7, 3, 8]
    lock = Lock(NAME, backend, fence)
    assert lock.acquire()
    assert lock.token.number == 8
    assert len(backend.released) == 2
    assert backend.asked_above == [7, 7, 7]
    lock.release()


def test_two_that_are_given_one_number_are_not_both_holders(fence: Fence) -> None:
    backends = [Scripted(), Scripted()]
    made = [Lock(NAME, each, fence) for each in backends]
    for each in backends:
        each.numbers = [5]
    assert [lock.acquire(0) for lock in made] == [True, False]
    made[0].release()


def test_a_silence_is_waited_out_and_told_only_at_the_end(backend: Scripted, fence: Fence) -> None:
    lock = Lock(NAME, backend, fence, timeout_seconds=60)
    backend.numbers = [silent(), None, silent(), 1]
    assert lock.acquire()
    lock.release()
    backend.numbers = [silent()]
    with pytest.raises(UnreachableError, match="it is silent"):
        lock.acquire(0)
    assert len(backend.released) == 2, "it may have been granted, and only the answer was lost"


def test_a_holder_that_cannot_renew_is_lost_when_its_time_is_over_and_not_before(
    backend: Scripted, fence: Fence
) -> None:
    def fail() -> bool:
        raise silent()

    clock = Clock()
    backend.numbers, backend.renewals = [1], fail
    lock = Lock(NAME, backend, fence, ttl_seconds=0.2, clock=clock)
    assert lock.acquire(0)
    until(lambda: backend.renewed > 2)
    clock.now = 0.19
    assert not lock.lost
    clock.now = 0.2
    assert lock.lost
    lock.release()


def test_a_process_that_stood_still_knows_it_is_lost_before_its_thread_runs(
    backend: Scripted, fence: Fence
) -> None:
    clock = Clock()
    backend.numbers = [1]
    lock = Lock(NAME, backend, fence, ttl_seconds=600, clock=clock)
    assert lock.acquire(0)
    clock.now = 600.0
    assert lock.lost
    assert backend.renewed == 0
    clock.now = 0.0
    assert lock.lost, "what is lost stays lost"
    lock.release()


def test_a_holder_that_is_told_no_is_lost(backend: Scripted, fence: Fence) -> None:
    backend.numbers, backend.renewals = [1], lambda: False
    with Lock(NAME, backend, fence, ttl_seconds=0.2, clock=Clock()) as holder:
        until(lambda: holder.lost)
    assert not holder.lost


def test_no_thread_is_left_after_a_release(backend: Scripted, fence: Fence) -> None:
    backend.numbers = [1]
    before = set(threading.enumerate())
    with Lock(NAME, backend, fence):
        (beating,) = set(threading.enumerate()) - before
    assert not beating.is_alive()


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2)), min_size=1, max_size=30))
def test_a_watch_counts_from_the_last_change(seen: list[tuple[float, int]]) -> None:
    clock = Clock()
    watch, since, last = Watch(clock), 0.0, None
    for passed, shown in seen:
        clock.now += passed
        since, last = (since if shown == last else clock.now), shown
        assert watch.unchanged_seconds("a", shown) == clock.now - since


@pytest.mark.parametrize("name", ["training:hex5_2p", "a", "a:b:c", "A.b-c_d:1", "x" * 64])
def test_plain_names_pass(name: str) -> None:
    assert checked_lock_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ":", "a:", "a::b", "../a", "a:..", "a..b", ".a", "a/b", "a:b:c:d", "x" * 65]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        checked_lock_name(name)


@pytest.mark.parametrize(
    "given_",
    [
        {"ttl_seconds": 0.0},
        {"ttl_seconds": -1.0},
        {"ttl_seconds": float("nan")},
        {"ttl_seconds": float("inf")},
        {"timeout_seconds": -0.1},
        {"timeout_seconds": float("nan")},
        {"timeout_seconds": float("inf")},
        {"poll_seconds": 0.0},
    ],
)
def test_times_that_make_no_sense_are_refused(
    backend: Scripted, fence: Fence, given_: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        Lock(NAME, backend, fence, **given_)


def test_a_bad_timeout_of_one_wait_is_refused(backend: Scripted, fence: Fence) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        Lock(NAME, backend, fence).acquire(float("nan"))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("file", "file"),
        ("ray", "ray"),
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://LocalHost:6380/3", "redis://localhost:6380/3"),
        ("rediss://me@redis.example", "rediss://me@redis.example:6379/0"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
    ],
)
def test_a_setting_is_stored_in_one_form(text: str, stored: str) -> None:
    assert parse_setting(text).text == stored
    assert parse_setting(stored).text == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "files",
        "redis",
        "redis://",
        "http://a",
        "redis://a:x",
        "redis://a/b",
        "redis://a/-1",
        "redis://a:99999",
    ],
)
def test_what_is_no_place_for_locks_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no place for locks"):
        parse_setting(text)


def test_a_password_in_a_setting_is_refused_and_not_repeated() -> None:
    for text in ("redis://:secret@localhost", "redis://me:secret@localhost", "redis://me:secret@localhost/x"):
        with pytest.raises(UsageError) as caught:
            parse_setting(text)
        assert "secret" not in str(caught.value)


def test_the_first_process_fixes_the_backend_and_another_is_refused(database: Database) -> None:
    first = fix_backend(database, parse_setting("redis://localhost"))
    assert fix_backend(database, parse_setting("redis://localhost:6379/0")) == first
    assert fix_backend(database, None) == first
    for other in ("file", "ray", "redis://localhost:6380"):
        with pytest.raises(UsageError, match="not by") as caught:
            fix_backend(database, parse_setting(other))
        assert "the first process fixed" in caught.value.why


def test_without_a_setting_it_is_files(database: Database) -> None:
    assert fix_backend(database, None).kind == "file"
    with pytest.raises(UsageError):
        fix_backend(database, parse_setting("ray"))


def test_two_folders_have_two_identities(tmp_path: Path) -> None:
    found = {
        fix_backend(Database(tmp_path / name / "control.sqlite", TABLES), None).identity for name in "ab"
    }
    assert len(found) == 2


def configure(path: Path, text: str, told: Path) -> None:
    try:
        told.write_text(fix_backend(Database(path, TABLES), parse_setting(text)).text)
    except UsageError:
        told.write_text("refused")


def test_of_processes_that_begin_together_only_those_of_one_kind_go_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    texts = ["file", "ray", "redis://a:6379/0", "file"]
    told = [tmp_path / str(number) for number in range(len(texts))]
    Database(tmp_path / "control.sqlite", TABLES).close()
    begun = [
        context.Process(target=configure, args=(tmp_path / "control.sqlite", text, file))
        for text, file in zip(texts, told, strict=True)
    ]
    for each in begun:
        each.start()
    for each in begun:
        each.join(60)
    said = [file.read_text() for file in told]
    (kept,) = set(said) - {"refused"}
    assert said == [kept if text == kept else "refused" for text in texts]


def test_a_database_that_cannot_be_written_gives_the_lock_back(
    tmp_path: Path, backend: Scripted, database: Database
) -> None:
    class Stuck:
        def highest(self, name: str) -> int:
            return 0

        def admit(self, token: FencingToken) -> bool:
            raise ClusterError("locked", why="another writes", fix="wait")

    backend.numbers = [1]
    lock = Lock(NAME, backend, Stuck())
    with pytest.raises(ClusterError, match="locked"):
        lock.acquire()
    assert len(backend.released) == 1
    files = FileLocks(tmp_path / "locks")
    with pytest.raises(ClusterError, match="locked"):
        Lock(NAME, files, Stuck()).acquire()
    assert files.holders() == []


def test_a_setting_has_an_identity_only_when_it_is_fixed(database: Database) -> None:
    assert parse_setting("file") == LockSetting("file", "file")
    assert len(fix_backend(database, None).identity) == 16
