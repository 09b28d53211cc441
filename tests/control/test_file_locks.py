"""Locks as files: free when their process ends, taken over when it stands still, and never two holders' at a time."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control import file_locks
from control.file_locks import KEPT_GENERATIONS, FileLocks
from control.locks import new_owner
from core.errors import DataError
from tests.control.lock_contract import NAME, AnyBackend, until

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from control.file_locks import FileLocks
locks = FileLocks(Path(sys.argv[1]))
assert locks.try_acquire("training:hex5_2p", "held", ttl_seconds=float(sys.argv[2]), above=0)
print("held", flush=True)
while True:
    time.sleep(0.02)
    print(locks.renew("training:hex5_2p", "held"), flush=True)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestFileLocks(AnyBackend):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[FileLocks]:
        backend = FileLocks(tmp_path / "locks")
        yield backend
        backend.close()


@contextmanager
def holder(folder: Path, *, ttl_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock and renews it."""
    command = [sys.executable, "-c", HOLD, str(folder), str(ttl_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
            process.stdout.read()


def taken(locks: FileLocks, *, ttl_seconds: float = 60.0) -> int:
    number = locks.try_acquire(NAME, new_owner(), ttl_seconds=ttl_seconds, above=0)
    assert number is not None
    return number


def room(folder: Path) -> Path:
    return folder / NAME.replace(":", "+")


def test_who_is_killed_leaves_it_free_long_before_its_ttl(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with holder(tmp_path, ttl_seconds=3600) as process:
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
        process.kill()
        process.wait(60)
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) == 2


def test_who_is_stopped_loses_it_after_its_ttl_and_learns_it_when_it_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    locks = FileLocks(tmp_path, clock=clock)
    with holder(tmp_path, ttl_seconds=10) as process:
        process.send_signal(signal.SIGSTOP)
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
        clock.now = 9.9
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None
        clock.now = 10.0
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) == 2
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        until(lambda: "False" in process.stdout.readline())  # pyright: ignore - it is not None
        assert locks.renew(NAME, "next")


def test_who_works_keeps_it_however_long_one_waits(tmp_path: Path) -> None:
    clock = Clock()
    locks, holding = FileLocks(tmp_path, clock=clock), FileLocks(tmp_path)
    holding.try_acquire(NAME, "held", ttl_seconds=10, above=0)
    for _ in range(20):
        clock.now += 9.0
        assert holding.renew(NAME, "held")
        assert locks.try_acquire(NAME, "next", ttl_seconds=60, above=0) is None


def test_a_child_that_has_the_file_open_does_not_keep_what_was_released(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    locks.try_acquire(NAME, "held", ttl_seconds=60, above=0)
    (descriptor,) = (each.descriptor for each in locks._mine.values())
    inherited = os.dup(descriptor)  # as fork would
    locks.release(NAME, "held")
    assert taken(FileLocks(tmp_path)) == 2
    os.close(inherited)


def test_one_who_slept_through_many_grants_between_two_steps_is_no_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper, others = FileLocks(tmp_path), FileLocks(tmp_path)
    first = new_owner()
    others.try_acquire(NAME, first, ttl_seconds=60, above=0)
    others.release(NAME, first)
    link, grants = os.link, 3 * KEPT_GENERATIONS
    held: list[int] = []

    def slow_link(source: str, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        for number in range(grants):
            owner = new_owner()
            held.append(others.try_acquire(NAME, owner, ttl_seconds=60, above=0) or 0)
            if number < grants - 1:
                others.release(NAME, owner)
        assert not target.exists(), "the number that it judged free has been used and removed"
        link(source, target)

    monkeypatch.setattr(os, "link", slow_link)
    assert sleeper.try_acquire(NAME, "sleeper", ttl_seconds=60, above=0) is None
    assert [each.number for each in others.holders()] == [held[-1]]
    assert FileLocks(tmp_path).try_acquire(NAME, "next", ttl_seconds=60, above=0) is None


def test_no_more_than_a_few_files_stay(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    for _ in range(4 * KEPT_GENERATIONS):
        owner = new_owner()
        locks.try_acquire(NAME, owner, ttl_seconds=60, above=0)
        locks.release(NAME, owner)
    assert len(list(room(tmp_path).iterdir())) <= KEPT_GENERATIONS + 1


def test_what_a_killed_process_left_half_made_is_cleared_away(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    taken(locks)
    (room(tmp_path) / ".half").write_bytes(b"")
    locks.close()
    taken(locks)
    assert not list(room(tmp_path).glob(".*"))


def test_a_file_that_somebody_has_flocked_is_not_removed(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    owner = new_owner()
    locks.try_acquire(NAME, owner, ttl_seconds=60, above=0)
    locks.release(NAME, owner)
    stopped = os.open(room(tmp_path) / "000000000001", os.O_RDWR)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    numbers = []
    for _ in range(2 * KEPT_GENERATIONS):
        owner, clock = new_owner(), Clock()
        other = FileLocks(tmp_path, clock=clock)
        while (number := other.try_acquire(NAME, owner, ttl_seconds=60, above=0)) is None:
            clock.now += 60
        numbers.append(number)
        other.release(NAME, owner)
    assert numbers == list(range(2, 2 + 2 * KEPT_GENERATIONS))
    assert (room(tmp_path) / "000000000001").exists()
    os.close(stopped)


def test_names_have_folders_of_their_own(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    names = ["a:b", "a.b", "a-b", "a_b"]
    for name in names:
        locks.try_acquire(name, name, ttl_seconds=60, above=0)
    assert len({path.name for path in tmp_path.iterdir()}) == len(names)


def test_a_damaged_file_is_said_to_be_so(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    taken(locks)
    path = room(tmp_path) / "000000000001"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        FileLocks(tmp_path).try_acquire(NAME, "next", ttl_seconds=60, above=0)
    locks.close()


def test_a_holder_whose_folder_is_removed_is_none_any_more(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    locks.try_acquire(NAME, "held", ttl_seconds=60, above=0)
    file_locks.shutil.rmtree(room(tmp_path))
    assert not locks.renew(NAME, "held")
