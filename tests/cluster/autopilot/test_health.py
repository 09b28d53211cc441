"""`tamen health`: how training stands on one screen, its exit code, and who is told of alerts."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from cluster.autopilot.health import CONTROL_FILE, parse_command, run_command, tell_command
from cluster.cli.verbs import add_verb
from cluster.verbs.control import health
from control.alerts import ATTEMPTS, Change
from control.database import Database
from control.health import TABLES, HealthMonitor
from control.keys import Key
from core.errors import UsageError
from tests.cluster.commands import PATIENCE_SECONDS, Said, assert_three_lines, is_running

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
CHANGE = Change(7, 3, "opened", KEY, "failures", "critical", "3 trainings in a row have failed", 1.8e9)
PROGRAM = """
import typer
from cluster.verbs.control import health
from cluster.cli.verbs import add_verb
app = typer.Typer()
add_verb(app, health)
app()
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    app = typer.Typer(pretty_exceptions_enable=False)
    add_verb(app, health)

    def run_here(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            app([*arguments, "--runs", str(tmp_path)])
        written = capsys.readouterr()
        return Said(int(ended.value.code or 0), written.out, written.err)

    return run_here


@pytest.fixture
def monitor(tmp_path: Path) -> HealthMonitor:
    return HealthMonitor(Database(tmp_path / CONTROL_FILE, TABLES))


def fail(monitor: HealthMonitor, times: int, key: Key = KEY) -> None:
    for _ in range(times):
        monitor.record_training_complete(key, success=False, reason="no memory")


def python(code: str) -> str:
    """Return a command that runs `code`, as one types it."""
    return shlex.join([sys.executable, "-c", code])


def test_where_nothing_is_recorded_it_says_so_and_makes_no_file(
    run: Callable[..., Said], tmp_path: Path
) -> None:
    said = run()
    assert said.code == 0
    assert said.out.startswith("unknown: nothing is recorded yet")
    assert "tamen train --auto" in said.out
    assert json.loads(run("--json").out)["status"] == "unknown"
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_well_is_a_line_of_the_table(run: Callable[..., Said], monitor: HealthMonitor) -> None:
    monitor.record_data_update(KEY, 50_000)
    monitor.record_win_rate(KEY, 0.55)
    monitor.record_model(KEY, 15)
    monitor.record_training_complete(KEY, success=True)
    monitor.record_training_start(KEY, "second")
    said = run()
    assert said.code == 0
    first, _, line, *rest = said.out.splitlines()
    assert first.startswith("healthy: 1 key, 1 training; no alerts")
    assert line.split()[:8] == ["hex5_2p", "healthy", "second,", "0:00", "0", "15", "50,000", "55.0%"]
    assert rest == ["next: tamen health --watch"]


@pytest.mark.parametrize(("failures", "code", "status"), [(1, 0, "degraded"), (3, 3, "unhealthy")])
@pytest.mark.parametrize("how", [(), ("--json",), ("--prometheus",)])
def test_the_exit_code_is_3_when_something_is_critical(
    run: Callable[..., Said],
    monitor: HealthMonitor,
    failures: int,
    code: int,
    status: str,
    how: tuple[str, ...],
) -> None:
    fail(monitor, failures)
    said = run(*how)
    assert said.code == code
    if not how:
        assert said.out.startswith(status)
        assert f"{'critical' if code else 'warning '} hex5_2p: {failures} training" in said.out
        assert "tamen why hex5_2p" in said.out


def test_the_worst_comes_first(run: Callable[..., Said], monitor: HealthMonitor) -> None:
    monitor.record_model(Key("connect_four"), 1)
    monitor.record_win_rate(KEY, 0.1)
    fail(monitor, 3, OTHER)
    lines = run().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["tic_tac_toe_2p", "hex5_2p", "connect_four_2p"]
    assert [line.split()[0] for line in lines[5:7]] == ["critical", "warning"]


def test_json_has_what_was_recorded_and_the_alerts(run: Callable[..., Said], monitor: HealthMonitor) -> None:
    monitor.record_training_start(KEY, "first")
    fail(monitor, 3, OTHER)
    told = json.loads(run("--json").out.splitlines()[-1])
    assert told["status"] == "unhealthy"
    hex5, other = told["keys"]
    assert (hex5["key"], hex5["status"], hex5["training"]["run"]) == ("hex5_2p", "healthy", "first")
    assert hex5["training"]["pid"] == os.getpid()
    assert (other["failures"], other["last_failure"], other["training"]) == (3, "no memory", None)
    (alert,) = told["alerts"]
    assert (alert["key"], alert["kind"], alert["severity"]) == ("tic_tac_toe_2p", "failures", "critical")
    assert told["thresholds"]["stalled_training_hours"] == 4


def test_prometheus_text_is_what_its_parser_reads(run: Callable[..., Said], monitor: HealthMonitor) -> None:
    fail(monitor, 3)
    families = {family.name: family for family in text_string_to_metric_families(run("--prometheus").out)}
    assert families["tamen_training_alerts_critical"].samples[0].value == 1
    (failures,) = families["tamen_training_consecutive_failures"].samples
    assert (failures.labels, failures.value) == ({"key": "hex5_2p"}, 3)


def test_thresholds_that_are_set_are_kept_and_told(run: Callable[..., Said], monitor: HealthMonitor) -> None:
    fail(monitor, 3)
    assert run("failures_critical=5", "stale_model_hours=48").code == 0
    again = run()
    assert again.code == 0
    assert "thresholds: failures_critical=5 stale_model_hours=48" in again.out


def test_a_key_that_is_trained_no_longer_can_be_left_out(
    run: Callable[..., Said], monitor: HealthMonitor
) -> None:
    fail(monitor, 3)
    monitor.record_model(OTHER, 1)
    said = run("--forget", "hex5_2p")
    assert said.code == 0
    assert "hex5" not in said.out
    assert_three_lines(run("--forget", "hex5_2p"), code=2, mentions=["tic_tac_toe_2p"])


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("stale_model_hours=-1",), ["more than 0"]),
        (("min_win_rate=.nan",), ["at most 1"]),
        (("stale_hours=1",), ["stale_model_hours"]),
        (("--forget", "../hex5_2p"), ["not allowed"]),
        (("--prometheus", "--json"), ["do not go together"]),
        (("--prometheus", "--watch"), ["do not go together"]),
        (("--on-alert", "no-such-program --now"), ["no-such-program"]),
        (("--on-alert", "'open"), ["quotes"]),
        (("--on-alert", ""), ["empty"]),
    ],
)
def test_what_makes_no_sense_is_told_in_three_lines(
    run: Callable[..., Said], arguments: tuple[str, ...], mentions: list[str]
) -> None:
    assert_three_lines(run(*arguments), code=2, mentions=mentions)


def test_what_is_refused_leaves_no_file(run: Callable[..., Said], tmp_path: Path) -> None:
    assert_three_lines(run("stale_model_hours=-1"), code=2, mentions=["more than 0"])
    assert_three_lines(run("--forget", "hex5_2p"), code=2, mentions=["nothing is recorded"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", ["win_rate = 'x'", "training = '{'", "training = '{}'", "training = '[]'", "key = '../x'"]
)
def test_a_record_that_was_changed_to_nonsense_is_told_in_three_lines(
    run: Callable[..., Said], monitor: HealthMonitor, tmp_path: Path, change: str
) -> None:
    monitor.record_training_start(KEY, "first")
    with Database(tmp_path / CONTROL_FILE, TABLES).write() as connection:
        connection.execute(f"UPDATE health_keys SET {change}")
    assert_three_lines(run(), code=1, mentions=["cannot be read"])


def test_a_file_of_another_program_is_refused(run: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / CONTROL_FILE).write_text("no database, but some text that is long enough to be read" * 20)
    assert_three_lines(run(), code=1, mentions=["damaged"])


def test_a_command_is_told_of_each_change_once_as_json(
    run: Callable[..., Said], monitor: HealthMonitor, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    command = python(f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read())")
    run("--on-alert", command)
    fail(monitor, 3)
    run()  # another who looks takes nothing away
    run("--on-alert", command)
    run("--on-alert", command)
    monitor.record_training_complete(KEY, success=True)
    run("--on-alert", command)

    told = [json.loads(line) for line in heard.read_text().splitlines()]
    assert [(each["happened"], each["severity"]) for each in told] == [
        ("opened", "warning"),
        ("escalated", "critical"),
        ("resolved", "critical"),
    ]
    assert {(each["key"], each["kind"]) for each in told} == {("hex5_2p", "failures")}


def test_a_command_has_no_shell(tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert parse_command(f"echo '$(touch {made})' ; touch {made}")[-3:] == [";", "touch", str(made)]
    assert run_command(parse_command(f"echo '$(touch {made})' ; touch {made}"), CHANGE) is None
    assert not made.exists()
    with pytest.raises(UsageError):
        parse_command("cd /tmp")  # of a shell alone


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit('no\\nnetwork')", "exit code 1: no network"),
        ("raise SystemExit(4)", "exit code 4"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
def test_why_a_command_failed_is_told(code: str, why: str) -> None:
    assert run_command(parse_command(python(code)), CHANGE) == why


def test_a_program_that_has_gone_has_failed(tmp_path: Path) -> None:
    assert "No such file" in (run_command([str(tmp_path / "gone")], CHANGE) or "")


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = f"sleep 600 & echo $! > {child}; sleep 600"
    assert run_command(["sh", "-c", script], CHANGE, seconds=2.0) == "it took more than 2 s"
    until(lambda: not _is_there(int(child.read_text())), "the end of its child")


def _is_there(pid: int) -> bool:
    try:
        return is_running(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def test_a_command_that_fails_is_tried_again_then_given_up_and_all_is_told(
    run: Callable[..., Said], monitor: HealthMonitor
) -> None:
    fail(monitor, 3)
    command = python("raise SystemExit('no network')")
    for attempt in range(1, ATTEMPTS + 1):
        said = run("--on-alert", command)
        assert f"--on-alert failed {attempt} time" in said.out
        assert "no network" in said.out
    told = json.loads(run("--on-alert", command, "--json").out)["on_alert"]
    assert (told["failures"], told["given_up"]) == (ATTEMPTS, 1)
    assert told["last_failure"] == "exit code 1: no network"
    assert said.code == 3


def test_after_a_failure_the_rest_waits(monitor: HealthMonitor, tmp_path: Path) -> None:
    fail(monitor, 1)
    heard = tmp_path / "heard"
    code = f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read()); raise SystemExit(1)"
    command = parse_command(python(code))
    tell_command(monitor.alerts, command)
    fail(monitor, 2)
    heard.unlink()
    tell_command(monitor.alerts, command)
    assert [json.loads(line)["happened"] for line in heard.read_text().splitlines()] == ["opened"]


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come to pass"
        time.sleep(0.05)


class Watch:
    """`tamen health --watch` as a program of its own."""

    def __init__(self, runs: Path, *arguments: str) -> None:
        self._output = runs / "said"
        command = [sys.executable, "-c", PROGRAM, "--watch", "--runs", str(runs), *arguments]
        with self._output.open("w") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[3]
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def says(self, text: str, times: int = 1) -> None:
        until(lambda: self.said.count(text) >= times or self._process.poll() is not None, text)
        assert self.said.count(text) >= times, self.said

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def test_a_watch_tells_what_changes_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with Watch(tmp_path, "--every", "0.5") as watch:
        watch.says("unknown: nothing")
        monitor = HealthMonitor(Database(tmp_path / CONTROL_FILE, TABLES))  # begun after the watch
        monitor.record_model(KEY, 1)
        watch.says("healthy: 1 key")
        fail(monitor, 3)
        watch.says("unhealthy: 1 key")
        monitor.record_win_rate(OTHER, 0.1)
        watch.says("1 critical and 1 warning")
        assert watch.stop() == 3
        assert "Traceback" not in watch.said
        assert watch.said.count("unknown: nothing") == 1


def test_a_watch_ends_soon_however_seldom_it_looks(tmp_path: Path) -> None:
    with Watch(tmp_path, "--every", "3600") as watch:
        watch.says("unknown: nothing")
        assert watch.stop() == 0


def test_a_watch_in_json_is_an_object_a_line(tmp_path: Path, monitor: HealthMonitor) -> None:
    monitor.record_model(KEY, 1)
    with Watch(tmp_path, "--every", "0.5", "--json") as watch:
        watch.says('"status"', times=4)
        watch.stop()
        assert {json.loads(line)["status"] for line in watch.said.splitlines()} == {"healthy"}
