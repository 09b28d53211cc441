"""An engine's process: what it gets, what is told of it, and that nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UsageError
from core.processes import this_process
from engines.guard import Log
from engines.process import Ending, Program, kill_marked, marked_processes, start_alone, start_beside

PATIENCE_SECONDS = 60.0
MARK = "TAMEN_TEST_MARK"
STUBBORN = "trap '' TERM; echo deaf >&2; while true; do sleep 0.1; done"


def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture
def mark(tmp_path: Path) -> dict[str, str]:
    return {MARK: str(tmp_path)}


def nothing_left(mark: dict[str, str]) -> None:
    until(lambda: not marked_processes(MARK, mark[MARK]))


def test_an_engine_talks_over_pipes_and_its_other_words_are_kept() -> None:
    with start_beside(shell("read x; echo got $x; echo a word >&2; exit 3"), engine="parrot") as program:
        program.stdin.write(b"this\n")
        assert program.stdout.read() == b"got this\n"
        assert program.wait(PATIENCE_SECONDS) == Ending(3)
        assert program.last_words() == "a word\n"


def test_an_engine_sees_the_end_of_its_input() -> None:
    with start_beside(["cat"], engine="cat") as program:
        program.stdin.close()
        assert program.stdout.read() == b""
        assert program.wait(PATIENCE_SECONDS) == Ending(0)


def test_an_engine_gets_only_what_is_named_and_works_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of ours")
    script = "import os, json; print(json.dumps([dict(os.environ), os.getcwd()]))"
    command = [sys.executable, "-I", "-c", script]
    with start_beside(command, engine="x", environment={"DECKS": "here"}, folder=tmp_path) as program:
        environment, folder = json.loads(program.stdout.read())
    assert set(environment) - {"LC_CTYPE"} <= {"PATH", "HOME", "LANG", "DECKS"}
    assert environment["DECKS"] == "here"
    assert Path(folder) == tmp_path.resolve()


def test_one_that_does_not_listen_is_killed_with_all_it_has_started(mark: dict[str, str]) -> None:
    with start_beside(
        shell(f"sleep 1000 & {STUBBORN}"), engine="deaf", environment=mark, grace_seconds=0.2
    ) as program:
        until(lambda: "deaf" in program.last_words())
        ending = program.end()
        assert ending.code == -signal.SIGKILL
        assert ending.in_words() == "it ended because it was asked to"
    nothing_left(mark)


def test_one_that_listens_has_time_to_finish(tmp_path: Path) -> None:
    script = f"trap 'sleep 0.3; echo done > {tmp_path}/told; exit 0' TERM; echo up >&2; while true; do sleep 0.05; done"
    with start_beside(shell(script), engine="tidy") as program:
        until(lambda: "up" in program.last_words())
        program.end()
    assert (tmp_path / "told").read_text() == "done\n"


def test_children_of_one_that_has_ended_end_too(mark: dict[str, str]) -> None:
    with start_beside(shell("sleep 1000 & exit 0"), engine="parent", environment=mark) as program:
        assert program.wait(PATIENCE_SECONDS) == Ending(0)
        nothing_left(mark)


def test_an_engine_beside_ends_with_the_process_that_started_it(mark: dict[str, str]) -> None:
    code = (
        "import os; from engines.process import start_beside\n"
        f"start_beside(['sh', '-c', \"trap '' TERM; while true; do sleep 0.1; done\"], engine='x',"
        f" environment={mark!r}, grace_seconds=0.1)\n"
        "print('up', flush=True); input()"
    )
    checkout = str(Path(__file__).parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": checkout},
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        until(lambda: marked_processes(MARK, mark[MARK]))
        starter.kill()
    nothing_left(mark)


def test_an_engine_alone_is_found_again_and_its_end_is_known(tmp_path: Path) -> None:
    program = start_alone(shell("echo hello; sleep 1000"), engine="x", room=tmp_path)
    found = Program.of_record(json.loads(json.dumps(program.record())), engine="x", room=tmp_path)
    assert found.poll() is None
    until(lambda: "hello" in found.last_words())
    found.end()
    ending = program.poll()
    assert ending is not None
    assert (ending.code, ending.asked) == (-signal.SIGTERM, "it was asked to")


def test_it_is_no_child_that_would_have_to_be_waited_for(tmp_path: Path) -> None:
    program = start_alone(["sleep", "1000"], engine="x", room=tmp_path)
    try:
        with pytest.raises(ChildProcessError):
            os.waitpid(program.process.pid, os.WNOHANG)
    finally:
        program.end()


def test_an_engine_alone_ends_when_nobody_touches_its_beat(tmp_path: Path, mark: dict[str, str]) -> None:
    beat = tmp_path / "beat"
    beat.touch()
    program = start_alone(
        ["sleep", "1000"], engine="x", room=tmp_path, beat=beat, orphan_seconds=1.0, environment=mark
    )
    for _ in range(20):  # twice as long as it would wait
        os.utime(beat)
        time.sleep(0.1)
    assert program.poll() is None
    ending = program.wait(PATIENCE_SECONDS)
    assert ending is not None
    assert ending.in_words() == "it ended because no supervisor was there for 1 s"
    nothing_left(mark)


def test_an_engine_dies_with_its_guard(tmp_path: Path, mark: dict[str, str]) -> None:
    program = start_alone(["sleep", "1000"], engine="x", room=tmp_path, environment=mark)
    until(lambda: len(marked_processes(MARK, mark[MARK])) == 2)
    os.kill(program.process.pid, signal.SIGKILL)
    assert program.wait(PATIENCE_SECONDS) == Ending(None)
    nothing_left(mark)


def test_one_that_left_its_group_is_found_by_its_mark(tmp_path: Path, mark: dict[str, str]) -> None:
    program = start_alone(
        shell("setsid sleep 1000 & sleep 1000"), engine="x", room=tmp_path, environment=mark
    )
    until(lambda: len(marked_processes(MARK, mark[MARK])) == 4)
    program.end()
    (stray,) = marked_processes(MARK, mark[MARK])
    assert kill_marked(MARK, mark[MARK], spared=[stray]) == 0
    assert kill_marked(MARK, mark[MARK]) == 1
    nothing_left(mark)


def test_what_it_writes_is_bounded_and_the_end_is_kept(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i of many; i=$((i+1)); done"
    program = start_alone(shell(script), engine="x", room=tmp_path, log_bytes=10_000)
    assert program.wait(PATIENCE_SECONDS) == Ending(0)
    sizes = [path.stat().st_size for path in tmp_path.glob("output.log*")]
    assert len(sizes) == 2
    assert max(sizes) <= 10_000 + (1 << 16)  # a read of the guard's
    assert program.last_words().splitlines()[-1] == "line 2999 of many"
    assert len(program.last_words(1000)) == 1000


def test_a_program_that_is_there_and_cannot_be_run_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    program = start_alone([str(broken)], engine="x", room=tmp_path / "room")
    ending = program.wait(PATIENCE_SECONDS)
    assert ending is not None
    assert "could not be started" in ending.in_words()


@pytest.mark.parametrize("command", [["no-such-engine"], ["./no/such"], [], ["sh\0"], ["./text"]])
def test_a_program_that_is_not_there_is_refused(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(UsageError):
        start_alone(command, engine="x", room=tmp_path / "room", folder=tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        start_beside(["cat"], engine="x", folder=tmp_path / "none")


@pytest.mark.parametrize(
    "record",
    [{}, {"pid": 7}, {"host": "h", "boot": "b", "namespace": "n", "pid": 1, "started": 3}, {"pid": "7"}],
)
def test_what_is_no_record_of_a_process_is_refused(record: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no record"):
        Program.of_record(record, engine="x", room=tmp_path)


def test_a_number_that_was_given_again_is_not_signalled(tmp_path: Path) -> None:
    with start_beside(["cat"], engine="x") as bystander:
        record = bystander.record() | {"started": this_process().started - 1}
        other = Program.of_record(record, engine="y", room=tmp_path)
        other.ask_to_end()
        other.kill()
        assert other.poll() == Ending(None)
        bystander.stdin.write(b"still here\n")
        assert bystander.stdout.readline() == b"still here\n"


@pytest.mark.parametrize(
    ("ending", "last_words", "told"),
    [
        (Ending(0), "", "it ended with exit code 0"),
        (Ending(-11), "", "it was ended by SIGSEGV"),
        (Ending(-9), "", "it was ended by SIGKILL; the system may have run out of memory"),
        (Ending(137), "", "it was ended by SIGKILL; the system may have run out of memory"),
        (
            Ending(1),
            "java.lang.OutOfMemoryError: heap",
            "it ended with exit code 1; it told of OutOfMemoryError",
        ),
        (Ending(200), "", "it ended with exit code 200"),
        (Ending(None), "", "it was killed together with its guard"),
    ],
)
def test_an_ending_is_told_in_words(ending: Ending, last_words: str, told: str) -> None:
    assert ending.in_words(last_words).startswith(told)


def test_a_log_that_had_no_room_goes_on_when_there_is_some(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = Log(folder / "output.log", 10)
    log.write(b"12345678")
    folder.rename(tmp_path / "gone")
    log.write(b"lost, and no file to write to is left")
    folder.mkdir()
    log.write(b"again")
    assert (folder / "output.log").read_bytes() == b"again"
    assert log.lost_bytes == len(b"lost, and no file to write to is left")
