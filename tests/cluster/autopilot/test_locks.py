"""`tamen locks` and `tamen bench locks`: what they show, what they refuse, and that the judge finds broken locks."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.autopilot import locks
from cluster.autopilot.locks import CONTROL_FILE, TABLES, open_locks, show_locks
from cluster.bench import lock_sections
from cluster.bench.lock_sections import Line, Order, What, go_through, judge, read_log
from cluster.bench.locks import LockBench, bench_locks
from control.database import Database
from control.fencing import Fence
from control.file_locks import FileLocks
from control.locks import FencingToken, Floor, Lock, LockBackend, LockLostError, UnreachableError, new_owner
from core.errors import UsageError
from tests.control.lock_contract import PATIENCE_SECONDS

NAME = "training:hex5_2p"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / CONTROL_FILE, TABLES)


class TestLocksOfAFolder:
    def test_nothing_is_made_by_looking(self, tmp_path: Path) -> None:
        assert show_locks(tmp_path, quiet=True) == []
        assert list(tmp_path.iterdir()) == []

    def test_looking_fixes_no_backend(self, tmp_path: Path, database: Database) -> None:
        assert show_locks(tmp_path, quiet=True) == []
        assert database.read("SELECT * FROM lock_backend") == []

    def test_it_tells_who_holds_what(
        self, tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with open_locks(database) as opened, opened.lock(NAME, ttl_seconds=45) as holder:
            (shown,) = show_locks(tmp_path)
            assert (shown["name"], shown["number"], shown["ttl_seconds"]) == (NAME, holder.token.number, 45)
            assert str(os.getpid()) in shown["owner"]
        said = capsys.readouterr().out
        assert NAME in said
        assert "--break" in said
        assert show_locks(tmp_path) == []
        assert "no lock is held" in capsys.readouterr().out

    def test_a_holder_from_the_future_has_held_it_for_no_time(
        self, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with open_locks(database) as opened, opened.lock(NAME):
            since = opened.backend.holders()[0].since
            monkeypatch.setattr(locks.time, "time", lambda: since - 1e6)
            assert show_locks(tmp_path, quiet=True)[0]["held_seconds"] == 0.0

    def test_who_is_broken_writes_no_more_and_the_next_gets_it(
        self, tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with open_locks(database) as opened, opened.lock(NAME, ttl_seconds=600) as holder:
            assert show_locks(tmp_path, broken=NAME) == []
            assert "was taken from" in capsys.readouterr().out
            with pytest.raises(LockLostError), opened.fence.write(holder.token):
                pass
            with opened.lock(NAME) as other, opened.fence.write(other.token):
                assert other.token.number > holder.token.number

    @pytest.mark.parametrize("used", [False, True])
    def test_to_break_what_nobody_holds_is_an_error(
        self, tmp_path: Path, database: Database, used: bool
    ) -> None:
        if used:
            with open_locks(database) as opened, opened.lock(NAME):
                pass
        with pytest.raises(UsageError, match=f"nobody holds {NAME}"):
            show_locks(tmp_path, broken=NAME, quiet=True)

    def test_a_bad_name_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not allowed"):
            show_locks(tmp_path, broken="../x", quiet=True)

    def test_a_process_configured_for_another_backend_is_refused(self, database: Database) -> None:
        with open_locks(database, "file"):
            pass
        with pytest.raises(UsageError, match="kept by file, not by ray"), open_locks(database, "ray"):
            pass

    @pytest.mark.parametrize("setting", ["redis://127.0.0.1:9", "ray"])
    def test_a_backend_that_does_not_answer_has_no_stand_in(
        self, tmp_path: Path, database: Database, setting: str
    ) -> None:
        for _ in range(2):
            with pytest.raises(UnreachableError), open_locks(database, setting):
                pass
        with pytest.raises(UnreachableError):
            show_locks(tmp_path, quiet=True)
        assert not (tmp_path / locks.FOLDER).exists()


class AdmitsAll:
    """A floor without a memory."""

    def highest(self, name: str) -> int:
        return 0

    def admit(self, token: FencingToken) -> bool:
        return True


class Lets:
    """A broken backend: everybody may, under the number that `numbered` gives."""

    def __init__(self, numbered: Callable[[int], int]) -> None:
        self._numbered = numbered

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        return self._numbered(above)

    def renew(self, name: str, owner: str) -> bool:
        return True

    def release(self, name: str, owner: str) -> None: ...

    def holders(self) -> list:
        return []

    def take_away(self, name: str) -> None: ...

    def close(self) -> None: ...


def work(folder: Path, backend: LockBackend, floor: Floor | None) -> tuple[lock_sections.Verdict, int]:
    """Let four threads go through 25 sections each; return the verdict and what the shared number came to."""

    def one(worker: int) -> None:
        database = Database(folder / CONTROL_FILE, TABLES + lock_sections.TABLES)
        lock = Lock(lock_sections.NAME, backend, floor or Fence(database), poll_seconds=0.01)
        order = Order(str(folder), worker, 25, 30.0, 3.0, str(folder / f"acknowledged-{worker}"))
        go_through(lock, database, order)
        database.close()

    database = Database(folder / CONTROL_FILE, TABLES + lock_sections.TABLES)
    threads = [threading.Thread(target=one, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    return judge(read_log(database)), database.read("SELECT total FROM section_total")[0]["total"]


class TestTheJudge:
    def test_a_sound_lock_passes(self, tmp_path: Path) -> None:
        verdict, total = work(tmp_path, FileLocks(tmp_path / "locks"), None)
        assert (verdict.violations, verdict.unexplained, verdict.refused) == (0, 0, 0)
        assert verdict.left == total == 100
        assert len(verdict.acquire_ms) == 100

    def test_a_lock_that_gives_all_the_same_number_is_found(self, tmp_path: Path) -> None:
        verdict, total = work(tmp_path, Lets(lambda above: 1), AdmitsAll())
        assert verdict.violations > 0
        assert total < verdict.left, "and what it should have kept apart has written over each other"

    def test_a_lock_that_lets_all_in_with_rising_numbers_is_found(self, tmp_path: Path) -> None:
        verdict, total = work(tmp_path, Lets(lambda above: above + 1), None)
        assert verdict.unexplained > 0
        assert verdict.refused > 0
        assert (verdict.violations, total) == (0, verdict.left), "the fence lets none of them write"

    @pytest.mark.parametrize(
        ("lines", "violations", "unexplained"),
        [
            ([("enter", 1, 1), ("leave", 1, 1), ("enter", 2, 2), ("leave", 2, 2)], 0, 0),
            ([("enter", 1, 2), ("leave", 1, 2), ("enter", 2, 1), ("leave", 2, 1)], 2, 0),
            ([("enter", 1, 1), ("enter", 2, 2), ("leave", 1, 1)], 2, 1),
            ([("enter", 1, 1), ("kill", 1, 0), ("enter", 2, 2), ("leave", 2, 2)], 0, 0),
            ([("enter", 1, 1), ("kill", 2, 0), ("enter", 2, 2), ("leave", 2, 2)], 0, 1),
            ([("enter", 1, 1), ("enter", 2, 2), ("kill", 1, 0), ("leave", 2, 2)], 0, 1),
            ([("enter", 1, 1), ("restart", 0, 0), ("enter", 2, 2), ("leave", 2, 2)], 0, 0),
            ([("restart", 0, 0), ("enter", 1, 1), ("enter", 2, 2), ("leave", 2, 2)], 0, 0),
            (
                [("restart", 0, 0), ("restarted", 0, 0), ("enter", 1, 1), ("enter", 2, 2), ("leave", 2, 2)],
                0,
                1,
            ),
            ([("enter", 1, 1), ("leave", 2, 1)], 1, 0),
            ([("leave", 1, 1)], 1, 0),
            ([("enter", 1, 1), ("leave", 1, 1), ("enter", 1, 1), ("leave", 1, 1)], 1, 0),
        ],
    )
    def test_logs_are_read_as_they_should_be(
        self, lines: list[tuple[What, int, int]], violations: int, unexplained: int
    ) -> None:
        verdict = judge([Line(what, pid, pid, token, 0.0, 0.0) for what, pid, token in lines])
        assert (verdict.violations, verdict.unexplained) == (violations, unexplained)

    def test_a_recovery_lasts_until_another_enters(self) -> None:
        lines = [
            Line("enter", 1, 1, 1, 5.0, 10.0),
            Line("stop", 1, 1, 0, 0.0, 10.5),
            Line("enter", 2, 2, 2, 900.0, 11.5),
            Line("leave", 2, 2, 2, 0.0, 11.6),
            Line("restart", 0, 0, 0, 0.0, 12.0),
            Line("enter", 2, 2, 3, 1.0, 12.1),
            Line("restarted", 0, 0, 0, 0.0, 12.5),
            Line("enter", 1, 1, 4, 7.0, 13.0),
        ]
        verdict = judge(lines)
        assert verdict.recovery_ms == [1000.0]
        assert verdict.restart_ms == [1000.0]
        assert verdict.acquire_ms == [1.0, 5.0, 7.0, 900.0]


class TestBenchOfLocks:
    @pytest.mark.system
    @pytest.mark.parametrize("kind", ["file", "redis", "ray"])
    def test_sections_under_faults_are_kept_apart_and_none_is_lost(self, kind: str) -> None:
        bench = LockBench(processes=3, sections=60, kills=3, stops=2, restarts=1, jumps=3)
        result = bench_locks(bench, kinds=(kind,), quiet=True)
        found = result["backends"][kind]
        assert (found["violations"], found["lost"], found["sections"]) == (0, 0, 180)
        assert result["passed"]
        assert found["faults"]["kill"] + found["faults"]["stop"] > 0
        assert found["recoveries"] > 0

    @pytest.mark.parametrize(
        "given",
        [
            {"processes": 0},
            {"processes": 257},
            {"sections": 0},
            {"kills": -1},
            {"seed": -1},
            {"ttl_seconds": float("nan")},
            {"ttl_seconds": 0.0},
            {"hold_ms": float("inf")},
        ],
    )
    def test_numbers_that_make_no_sense_are_refused(self, given: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="cannot be measured"):
            LockBench(**given)  # pyright: ignore - the types are what is wrong

    @pytest.mark.parametrize("kinds", [(), ("files",), ("file", "raft")])
    def test_a_backend_that_is_none_is_refused(self, kinds: tuple[str, ...]) -> None:
        with pytest.raises(UsageError, match="cannot be measured"):
            bench_locks(LockBench(), kinds=kinds)


def test_an_owner_is_used_once() -> None:
    assert len({new_owner() for _ in range(1000)}) == 1000
