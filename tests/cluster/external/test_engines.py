"""`tamen engines up | status | down`: engines go on after the command, are told about, and leave nothing behind."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.external.engines import (
    bring_up,
    engines_folder,
    engines_names,
    resolve_engines,
    show_engines,
    take_down,
)
from cluster.external.games import local_engines
from configs.engines import EnginesConfig
from core.errors import ClusterError, UsageError
from engines.supervised import read_state
from tests.engines.supervising import PATIENCE_SECONDS, fakes, nothing_left

NAME = "engines"


def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def in_another_thread(work: Callable[[], dict[str, Any]]) -> Iterator["Future[dict[str, Any]]"]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in engines_names(tmp_path):
        take_down(tmp_path, name, quiet=True)


@pytest.fixture
def folder(runs: Path) -> Path:
    return engines_folder(runs, NAME)


def pids(found: dict[str, Any]) -> list[int]:
    return [daemon["pid"] for daemon in found["daemons"]]


@pytest.mark.system
class TestEngines:
    """Whole programs, as the verbs start and end them."""

    def test_engines_go_on_after_the_command_until_they_are_taken_down(
        self, runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        up = bring_up(fakes(count=2, spares=1), runs, quiet=False)
        assert (up["serving"], up["count"], len(up["endpoints"])) == (2, 2, 2)
        (seen,) = show_engines(runs, None, quiet=False)
        assert pids(seen) == pids(up)
        printed = capsys.readouterr().out
        assert "2 of 2 daemons serve" in printed
        assert "spare" in printed
        assert [each["ended"] for each in take_down(runs, NAME, quiet=True)] == [3]
        assert nothing_left(folder)
        (gone,) = show_engines(runs, None, quiet=False)
        assert not gone["up"]
        assert f"tamen engines up {folder}/config.yaml" in capsys.readouterr().out

    def test_up_again_changes_what_has_changed_and_leaves_the_rest(self, runs: Path) -> None:
        before = bring_up(fakes(count=2), runs, quiet=True)
        after = bring_up(fakes(count=3), runs, quiet=True)
        assert pids(after)[:2] == pids(before)
        assert after["serving"] == 3
        other = bring_up(fakes("--mood", "well", count=1), runs, quiet=True)
        assert not set(pids(other)) & set(pids(after))

    def test_after_its_supervisor_was_killed_the_engines_are_taken_over(
        self, runs: Path, folder: Path
    ) -> None:
        before = bring_up(fakes(), runs, quiet=True)
        state = read_state(folder)
        assert state is not None
        os.kill(state.supervisor.pid, signal.SIGKILL)
        until(lambda: not state.is_supervised())
        (alone,) = show_engines(runs, NAME, quiet=True)
        assert (alone["up"], alone["supervised"], alone["serving"]) == (True, False, 1)
        assert pids(bring_up(fakes(), runs, quiet=True)) == pids(before)
        assert take_down(runs, NAME, quiet=True)[0]["ended"] == 1
        assert nothing_left(folder)

    def test_engines_nobody_supervises_are_taken_down_too(self, runs: Path, folder: Path) -> None:
        bring_up(fakes(count=2), runs, quiet=True)
        state = read_state(folder)
        assert state is not None
        os.kill(state.supervisor.pid, signal.SIGKILL)
        until(lambda: not state.is_supervised())
        assert [each["ended"] for each in take_down(runs, NAME, quiet=True)] == [2]
        assert nothing_left(folder)

    def test_engines_nobody_takes_over_end(
        self, runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bring_up(fakes(orphan_seconds=1.0), runs, quiet=True)
        state = read_state(folder)
        assert state is not None
        os.kill(state.supervisor.pid, signal.SIGKILL)
        assert nothing_left(folder)
        (ended,) = show_engines(runs, NAME, quiet=False)
        assert (ended["up"], ended["serving"], ended["endpoints"], pids(ended)) == (True, 0, [], [None])
        assert "0 of 1 daemons serve" in (printed := capsys.readouterr().out)
        assert f"they have ended; clear up with: tamen engines down {NAME}" in printed
        assert [each["ended"] for each in take_down(runs, NAME, quiet=True)] == [0]
        assert not show_engines(runs, NAME, quiet=True)[0]["up"]

    def test_engines_that_do_not_come_up_are_told_and_nothing_is_left(
        self, runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ClusterError) as caught:
            bring_up(fakes("--mood", "crash", max_failures=1), runs, quiet=False)
        assert "exit code 3" in caught.value.why
        assert "OutOfMemoryError" in capsys.readouterr().err
        assert nothing_left(folder)

    def test_one_command_at_a_time_brings_them_up(self, runs: Path) -> None:
        with in_another_thread(lambda: bring_up(fakes("--mood", "late:3"), runs, quiet=True)) as first:
            until(lambda: engines_names(runs))
            with pytest.raises(UsageError, match="are being brought up"):
                bring_up(fakes(), runs, quiet=True)
            assert first.result(PATIENCE_SECONDS)["serving"] == 1

    @pytest.mark.parametrize(
        ("number", "words"), [(signal.SIGKILL, "was killed"), (signal.SIGTERM, "taken down before")]
    )
    def test_what_becomes_of_the_supervisor_meanwhile_is_told(
        self, runs: Path, folder: Path, number: signal.Signals, words: str
    ) -> None:
        with in_another_thread(lambda: bring_up(fakes("--mood", "late:30"), runs, quiet=True)) as first:
            until(lambda: (state := read_state(folder)) is not None and state.daemons)
            state = read_state(folder)
            assert state is not None
            os.kill(state.supervisor.pid, number)
            with pytest.raises(ClusterError, match=words):
                first.result(PATIENCE_SECONDS)
        take_down(runs, NAME, quiet=True)
        assert nothing_left(folder)

    def test_engines_of_games_that_are_played_are_left_to_these(self, runs: Path, folder: Path) -> None:
        with local_engines(fakes(), runs):
            assert engines_names(runs) == [NAME]
            for work in (
                lambda: take_down(runs, None, quiet=True),
                lambda: bring_up(fakes(), runs, quiet=True),
            ):
                with pytest.raises(UsageError, match="those of games that are being played"):
                    work()
        assert nothing_left(folder)

    def test_engines_of_a_cluster_are_not_touched_from_beside_it(self, runs: Path, folder: Path) -> None:
        bring_up(fakes(), runs, quiet=True)
        text = (folder / "state.json").read_text()
        state = read_state(folder)
        assert state is not None
        os.kill(state.supervisor.pid, signal.SIGSTOP)  # it must not write its own over this
        (folder / "state.json").write_text(text.replace('"service"', '"actor"'))
        with pytest.raises(UsageError, match="those of a Ray cluster"):
            take_down(runs, NAME, quiet=True)
        (folder / "state.json").write_text(text)
        os.kill(state.supervisor.pid, signal.SIGCONT)

    def test_what_is_not_there_is_told(self, runs: Path) -> None:
        assert show_engines(runs, None, quiet=True) == []
        for work in (show_engines, take_down):
            with pytest.raises(UsageError, match="none were brought up"):
                work(runs, "other", quiet=True)
            with pytest.raises(UsageError, match="not allowed"):
                work(runs, "../x", quiet=True)

    def test_the_verbs_tell_programs_and_exit_with_codes(
        self, runs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from typer.testing import CliRunner

        from cluster.verbs.engines import engines as app

        command = list(fakes().engine.command)
        run = CliRunner().invoke
        up = run(app, ["up", "--json", "--runs", str(runs), "upkeep.check_seconds=0.2", "--", *command])
        assert up.exit_code == 0, up.output
        assert json.loads(up.output.splitlines()[-1])[0]["supervised"]
        assert run(app, ["status", "--runs", str(runs)]).exit_code == 0
        state = read_state(engines_folder(runs, NAME))
        assert state is not None
        os.kill(state.supervisor.pid, signal.SIGKILL)
        until(lambda: not state.is_supervised())
        assert run(app, ["status", "--runs", str(runs)]).exit_code == 3
        down = run(app, ["down", "--json", "--runs", str(runs)])
        assert json.loads(down.output.splitlines()[-1])[0]["ended"] >= 1
        assert run(app, ["status", "--runs", str(runs)]).exit_code == 0
        assert run(app, ["up", "--runs", str(runs)]).exit_code == 2
        assert run(app, ["down", "nobody", "--runs", str(runs)]).exit_code == 2


class TestWords:
    """What is typed behind `up`."""

    def test_settings_come_before_a_command(self) -> None:
        words = ["engine.count=3", "java.preset=none", "./daemon", "-p", "{port}", "a.b=it's"]
        config = resolve_engines(words)
        assert config.engine.count == 3
        assert config.engine.command == ("./daemon", "-p", "{port}", "a.b=it's")

    def test_a_jar_and_settings(self) -> None:
        config = resolve_engines(["games/forge.jar", "java.memory_mb=2000"])
        assert (config.engine.jar, config.java.memory_mb) == ("games/forge.jar", 2000)

    def test_a_file_and_settings_over_it(self, tmp_path: Path) -> None:
        (tmp_path / "e.yaml").write_text("engine: {command: [d, '{port}'], count: 2, spares: 1}")
        config = resolve_engines([str(tmp_path / "e.yaml"), "engine.count=5"])
        assert (config.engine.count, config.engine.spares) == (5, 1)

    def test_nothing_is_no_program(self) -> None:
        assert resolve_engines([]) == EnginesConfig()

    def test_a_file_and_a_command_are_too_much(self) -> None:
        with pytest.raises(UsageError, match="both given"):
            resolve_engines(["a.jar", "./daemon"])

    def test_a_wrong_setting_is_told(self) -> None:
        with pytest.raises(UsageError, match=r"engine\.count"):
            resolve_engines(["engine.cout=3", sys.executable])
