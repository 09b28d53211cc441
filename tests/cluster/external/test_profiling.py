"""A profile has what all threads did, and what is told of it leaves out waiting."""

import os
import pstats
import threading
import time
from pathlib import Path

import pytest

from cluster.external.profiling import check_profile, costliest, profile_of, profiled, profiles_since
from core.errors import UsageError


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def burn_in_a_thread() -> None:
    burn(0.05)
    time.sleep(0.3)


def functions(path: Path) -> dict[str, float]:
    stats = pstats.Stats(str(path)).stats  # pyright: ignore[reportAttributeAccessIssue]
    return {name: cumulative for (_, _, name), (_, _, _, cumulative, _) in stats.items()}


def test_what_threads_did_is_in_it_and_waiting_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.prof"
    path.write_text("another")
    with profiled(path):
        threads = [threading.Thread(target=burn_in_a_thread) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        burn(0.05)

    found = functions(path)
    assert found["burn"] >= 0.15
    assert found["burn_in_a_thread"] >= 0.7
    head, *shown = costliest([path], count=2)
    assert head.split() == ["seconds", "share", "calls", "function"]
    assert {line.split()[-1] for line in shown} == {"burn", "time.thread_time"}
    assert any("external/test_profiling.py:" in line for line in shown)
    seconds = {line.split()[-1]: float(line.split()[0]) for line in costliest([path, path], count=99)[1:]}
    assert seconds["burn"] + seconds["time.thread_time"] == pytest.approx(2 * found["burn"], abs=0.05)
    assert not any("sleep" in line or "_thread." in line for line in costliest([path], count=99))


def test_threads_that_begin_later_are_left_alone(tmp_path: Path) -> None:
    with profiled(tmp_path / "a.prof"):
        pass
    left: list[object] = []
    later = threading.Thread(target=lambda: left.append(threading.getprofile()))
    later.start()
    later.join()

    assert left == [None]
    assert "burn" not in functions(tmp_path / "a.prof")


def test_without_a_file_nothing_is_done(tmp_path: Path) -> None:
    with profiled(None):
        assert threading.getprofile() is None
    assert not list(tmp_path.iterdir())


def test_what_was_profiled_is_written_also_when_it_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with profiled(tmp_path / "a.prof"):
            burn(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "burn" in functions(tmp_path / "a.prof")


def test_what_several_processes_have_written_is_found_and_older_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.prof"
    assert (profile_of(None, "one"), profiles_since(None, 0.0)) == (None, [])
    for process in ("one", "two", "old"):
        file = profile_of(path, process)
        assert file is not None
        file.write_text("x")
    (tmp_path / "b.one.prof").write_text("x")
    os.utime(tmp_path / "a.old.prof", (1000, 1000))

    assert profiles_since(path, 2000.0) == [tmp_path / "a.one.prof", tmp_path / "a.two.prof"]


def test_a_place_where_no_file_can_be_is_told(tmp_path: Path) -> None:
    check_profile(None)
    check_profile(tmp_path / "a.prof")
    with pytest.raises(UsageError) as folder:
        check_profile(tmp_path)
    assert folder.value.why == "it is a folder"
    with pytest.raises(UsageError) as nowhere:
        check_profile(tmp_path / "no" / "a.prof")
    assert "there is no folder" in nowhere.value.why
