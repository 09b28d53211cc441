"""Daemons are kept running whatever they do, found again by the next supervisor, and gone when it stops."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UsageError
from core.metrics import NoMetrics
from engines.process import marked_processes, start_alone
from engines.supervised import LIFE_MARK, MARK, complain, end_everything, mark_of, read_state
from engines.supervisor import Supervisor
from tests.engines.supervising import BASE_PORT, fakes, nothing_left, pids, until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "engines"
    yield path
    end_everything(path)


def answer(host: str, port: int, command: str) -> str:
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(f"{command}\n".encode())
        return connection.makefile().read()


def test_daemons_come_up_on_ports_of_their_own_and_nothing_is_left_when_they_are_stopped(
    folder: Path,
) -> None:
    told: list[str] = []
    with Supervisor(fakes(count=2), folder, tell=told.append) as supervisor:
        until(supervisor, supervisor.settled)
        ports = [port for _, port in supervisor.endpoints()]
        assert len(set(ports)) == 2
        assert min(ports) >= BASE_PORT
        assert all("Active games: 0" in answer(*endpoint, "STATUS") for endpoint in supervisor.endpoints())
        supervisor.stop()
    assert len(told) == 2
    assert nothing_left(folder)
    assert read_state(folder) is None


def test_a_port_in_use_is_left_to_who_has_it(folder: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 21_100)),
        socket.create_server(("", 21_101)),
        Supervisor(fakes(base_port=21_100), folder) as supervisor,
    ):
        until(supervisor, supervisor.settled)
        assert supervisor.endpoints()[0][1] > 21_101
        supervisor.stop()


def test_two_that_choose_one_port_before_either_listens_are_parted(folder: Path, tmp_path: Path) -> None:
    """The one that is late goes on and does not answer; the other must not be taken for it."""
    config, second = fakes("--mood", "late:0.7", "--stubborn", base_port=21_200), tmp_path / "second"
    try:
        with Supervisor(config, folder) as one, Supervisor(config, second) as two:
            one.step()
            two.step()
            assert one.report()[0].port == two.report()[0].port
            until(one, lambda: two.step() or (one.settled() and two.settled()))
            assert {one.report()[0].restarts, two.report()[0].restarts} == {0, 1}
            assert "none of its own, listens on its port" in one.report()[0].trouble + two.report()[0].trouble
            answer(*two.endpoints()[0], "NEWGAME a b")
            until(two, lambda: one.step() or two.report()[0].games == 1)
            assert one.report()[0].games == 0
    finally:
        end_everything(second)


class Noted(NoMetrics):
    """Checks metrics, and keeps how often each was written, by name and daemon."""

    def __init__(self) -> None:
        self.written: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        super().count(name, amount, **tags)
        self.written[name, tags["daemon"]] += 1

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        super().gauge(name, value, **tags)
        self.written[name, tags["daemon"]] += 1


def test_one_that_is_killed_is_started_again_and_told_about(folder: Path) -> None:
    metrics = Noted()
    with Supervisor(fakes(), folder, metrics=metrics) as supervisor:
        until(supervisor, supervisor.settled)
        (pid,) = (each for each in marked_processes(MARK, mark_of(folder)) if each not in pids(supervisor))
        os.kill(pid, signal.SIGKILL)
        until(supervisor, lambda: supervisor.report()[0].restarts == 1 and supervisor.endpoints())
        trouble = supervisor.report()[0].trouble
        assert trouble.startswith("it was ended by SIGKILL")
        assert "fake daemon" in trouble  # its last words
        supervisor.stop()
    assert metrics.written["tamen_engine_restarts_total", "0"] == 1
    assert metrics.written["tamen_engine_busy_ratio", "0"] >= 2


@pytest.mark.parametrize(
    ("mood", "told"), [("hang", "no whole answer"), ("garbage", "not UTF-8"), ("half", "broke its protocol")]
)
def test_one_that_does_not_answer_properly_is_replaced_by_the_spare_and_started_again(
    mood: str, told: str, folder: Path
) -> None:
    with Supervisor(fakes(spares=1, answer_seconds=0.5), folder) as supervisor:
        until(supervisor, supervisor.settled)
        ((_, port),) = supervisor.endpoints()
        (folder / "0" / "mood").write_text(mood)
        until(supervisor, lambda: supervisor.endpoints() not in ([], [("127.0.0.1", port)]))
        (folder / "0" / "mood").unlink()
        until(supervisor, supervisor.settled)
        first = supervisor.report()[0]
        assert (first.restarts, first.serving) == (1, False)
        assert told in first.trouble
        supervisor.stop()


def test_one_that_always_crashes_is_set_aside(folder: Path) -> None:
    told: list[str] = []
    config = fakes("--mood", "crash", max_failures=2)
    with Supervisor(config, folder, tell=told.append) as supervisor:
        until(supervisor, supervisor.settled)
        (daemon,) = supervisor.report()
        assert (daemon.state, daemon.restarts) == ("aside", 2)
        assert "exit code 3; it told of OutOfMemoryError" in daemon.trouble
        assert "set aside after 3 failures" in told[-1]
        supervisor.stop()


def test_one_that_is_slow_to_start_is_waited_for(folder: Path) -> None:
    with Supervisor(fakes("--mood", "late:0.7"), folder) as supervisor:
        until(supervisor, supervisor.settled)
        assert supervisor.report()[0].restarts == 0
        supervisor.stop()


def test_one_that_never_answers_is_killed(folder: Path) -> None:
    config = fakes("--mood", "late:1000", start_seconds=0.5, max_failures=0)
    with Supervisor(config, folder) as supervisor:
        until(supervisor, supervisor.settled)
        assert "did not answer STATUS within 0.5 s of its start" in supervisor.report()[0].trouble
        assert nothing_left(folder)


def test_a_hanging_daemon_holds_nobody_up(folder: Path) -> None:
    with Supervisor(fakes(count=2, answer_seconds=30.0), folder) as supervisor:
        until(supervisor, supervisor.settled)
        (folder / "0" / "mood").write_text("hang")
        before = time.monotonic()
        os.kill(pids(supervisor)[1], signal.SIGKILL)
        until(supervisor, lambda: supervisor.report()[1].restarts == 1)
        assert time.monotonic() - before < 30.0
        supervisor.stop()


def test_a_daemon_whose_games_hang_is_started_again_and_only_for_that_life(folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        (_, port), (before,) = supervisor.endpoints()[0], pids(supervisor)
        complain(folder, port + 1)  # of none
        complain(folder, port)
        late = (folder / "0" / "complaint").read_bytes()
        until(supervisor, lambda: supervisor.report()[0].restarts == 1 and supervisor.endpoints())
        assert "games hang" in supervisor.report()[0].trouble
        (after,) = pids(supervisor)
        assert after != before
        (folder / "0" / "complaint").write_bytes(late)
        until(supervisor, lambda: not (folder / "0" / "complaint").exists())
        supervisor.step()
        assert pids(supervisor) == [after]
        supervisor.stop()


def test_games_are_counted_over_lives_and_business_is_told(folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        for _ in range(3):
            answer(*supervisor.endpoints()[0], "NEWGAME a b")
        (folder / "0" / "mood").write_text("busy")
        until(supervisor, lambda: supervisor.report()[0].active_games == 1)
        assert supervisor.report()[0].games == 3
        assert 0.0 < (supervisor.report()[0].busy_share or 0.0) < 1.0
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        until(supervisor, lambda: supervisor.report()[0].restarts == 1 and supervisor.endpoints())
        answer(*supervisor.endpoints()[0], "NEWGAME a b")
        until(supervisor, lambda: supervisor.report()[0].games == 4)
        supervisor.stop()


def test_the_next_supervisor_takes_over_what_runs(folder: Path) -> None:
    config = fakes(count=2, spares=1)
    with Supervisor(config, folder) as supervisor:
        until(supervisor, supervisor.settled)
        before, endpoints = pids(supervisor), supervisor.endpoints()
    with Supervisor(config, folder) as supervisor:
        assert supervisor.endpoints() == endpoints  # without having to ask first
        until(supervisor, supervisor.settled)
        assert pids(supervisor) == before
        supervisor.stop()
    assert nothing_left(folder)


def test_what_ended_meanwhile_or_is_not_wanted_is_not_taken_over(folder: Path) -> None:
    with Supervisor(fakes(count=3), folder) as supervisor:
        until(supervisor, supervisor.settled)
        before = pids(supervisor)
        os.kill(before[0], signal.SIGKILL)
    with Supervisor(fakes(count=2), folder) as supervisor:
        until(supervisor, lambda: supervisor.settled() and pids(supervisor)[0] != before[0])
        now = pids(supervisor)
        assert now[1:] == before[1:2]
        assert not set(marked_processes(MARK, mark_of(folder))) & {before[2]}
    with Supervisor(fakes("--mood", "well"), folder) as supervisor:  # another command
        until(supervisor, supervisor.settled)
        assert not set(pids(supervisor)) & set(now)
        supervisor.stop()
    assert nothing_left(folder)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"format": 1, "daemons": [{"number": -1}]}'])
def test_without_a_state_strays_are_killed_and_all_begins_anew(damage: bytes, folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        before = pids(supervisor)
    (folder / "state.json").write_bytes(damage)
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        assert not set(marked_processes(MARK, mark_of(folder))) & set(before)
        supervisor.stop()


@pytest.mark.parametrize("other", ["host", "boot", "namespace"])
def test_processes_of_elsewhere_are_not_taken_for_those_here(other: str, folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        before = pids(supervisor)
    text = json.loads((folder / "state.json").read_bytes())
    for record in (text["supervisor"], text["daemons"][0]["process"]):
        record[other] = "elsewhere"
    (folder / "state.json").write_text(json.dumps(text))
    state = read_state(folder)
    assert state is not None
    assert not state.is_supervised()
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        assert not set(pids(supervisor)) & set(before)
        supervisor.stop()
    assert nothing_left(folder)


def test_strays_of_a_daemon_that_is_taken_over_are_its_own(folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        life = json.loads((folder / "state.json").read_bytes())["daemons"][0]["life"]
    marks = {MARK: mark_of(folder)}
    own = start_alone(["sleep", "99"], engine="x", room=folder / "a", environment=marks | {LIFE_MARK: life})
    stray = start_alone(["sleep", "99"], engine="x", room=folder / "b", environment=marks | {LIFE_MARK: "x"})
    with Supervisor(fakes(), folder) as supervisor:
        assert own.poll() is None
        assert stray.wait(30.0) is not None
        supervisor.stop()
    assert nothing_left(folder)


def test_there_is_one_supervisor_of_a_folder(folder: Path) -> None:
    with Supervisor(fakes(), folder) as supervisor:
        with pytest.raises(UsageError, match="have a supervisor"):
            Supervisor(fakes(), folder)
        supervisor.stop()
    with Supervisor(fakes(), folder) as supervisor:
        supervisor.stop()


def test_a_state_that_cannot_be_written_is_told_and_daemons_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Supervisor(fakes(), folder, tell=told.append) as supervisor:
        monkeypatch.setattr("engines.supervisor.write_state", refuse)
        until(supervisor, supervisor.settled)
        assert any("No space left" in line for line in told)
        monkeypatch.undo()
        supervisor.stop()


def test_ending_everything_needs_no_supervisor(folder: Path) -> None:
    with Supervisor(fakes(count=2), folder) as supervisor:
        until(supervisor, supervisor.settled)
    assert end_everything(folder) == 2
    assert nothing_left(folder)
    assert end_everything(folder) == 0


def test_steps_do_not_wait(folder: Path) -> None:
    """A daemon that accepts and says nothing keeps a question open; the loop goes on beside it."""
    with Supervisor(fakes(), folder) as supervisor:
        until(supervisor, supervisor.settled)
        (folder / "0" / "mood").write_text("hang")
        stepped = threading.Event()

        def step() -> None:
            for _ in range(50):
                supervisor.step()
            stepped.set()

        thread = threading.Thread(target=step)
        thread.start()
        assert stepped.wait(30.0)
        thread.join()
        supervisor.stop()
