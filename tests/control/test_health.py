"""Whether training goes well: told by what was recorded, whoever looks and whatever was restarted in between."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.health import HEALTH, HealthConfig
from control.database import Database
from control.health import TABLES, HealthMonitor, HealthReport
from control.health_rules import HOUR, KeyRecord
from control.keys import Key
from core.errors import DataError, TamenError, UsageError
from core.processes import Process, this_process

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
YEAR = 365 * 24 * HOUR
PATIENCE_SECONDS = 60


class Times:
    """A wall clock that anybody may set, and a clock that only goes on."""

    def __init__(self, wall: float = 1.8e9) -> None:
        self.wall = wall
        self.clock = 1000.0

    def pass_by(self, hours: float) -> None:
        self.wall += hours * HOUR
        self.clock += hours * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sqlite"


@pytest.fixture
def times() -> Times:
    return Times()


def look(path: Path, times: Times, process: Callable[[], Process] = this_process) -> HealthMonitor:
    """Return a new monitor of the file, as after a restart."""
    return HealthMonitor(
        Database(path, TABLES), wall_clock=lambda: times.wall, clock=lambda: times.clock, process=process
    )


@pytest.fixture
def monitor(path: Path, times: Times) -> HealthMonitor:
    return look(path, times)


def alerts_of(report: HealthReport) -> dict[str, str]:
    """Return the kinds of the open alerts, and how severe each is."""
    return {alert.kind: alert.severity for alert in report.active_alerts}


def record_of(report: HealthReport, key: Key = KEY) -> KeyRecord:
    (found,) = [each.record for each in report.keys if each.record.key == key]
    return found


def test_where_nothing_is_recorded_health_is_unknown(monitor: HealthMonitor) -> None:
    report = monitor.report()
    assert (report.status, report.keys, report.active_alerts) == ("unknown", (), ())


def test_a_key_of_which_all_is_well_is_healthy(monitor: HealthMonitor) -> None:
    monitor.record_data_update(KEY, 50_000)
    monitor.record_win_rate(KEY, 0.55)
    monitor.record_model(KEY, 15)
    monitor.record_training_start(KEY, "first")
    monitor.record_training_complete(KEY, success=True)
    report = monitor.report()
    assert (report.status, report.active_alerts) == ("healthy", ())
    record = record_of(report)
    assert (record.games, record.win_rate, record.models) == (50_000, 0.55, 15)


# Each at its bound and just beyond.
RULES: tuple[tuple[str, str, str, Callable[[HealthMonitor], None], float], ...] = (
    ("stalled_training", "critical", "unhealthy", lambda m: m.record_training_start(KEY, "first"), 4.0),
    ("stale_model", "warning", "degraded", lambda m: m.record_training_complete(KEY, success=True), 24.0),
    ("stale_data", "warning", "degraded", lambda m: m.record_data_update(KEY, 10), 12.0),
)


@pytest.mark.parametrize(("kind", "severity", "status", "event", "hours"), RULES, ids=[r[0] for r in RULES])
def test_an_age_is_told_once_it_is_beyond_its_threshold(
    monitor: HealthMonitor,
    times: Times,
    kind: str,
    severity: str,
    status: str,
    event: Callable[[HealthMonitor], None],
    hours: float,
) -> None:
    event(monitor)
    times.pass_by(hours)
    assert monitor.report().status == "healthy"
    times.pass_by(0.001)
    report = monitor.report()
    assert (report.status, alerts_of(report)) == (status, {kind: severity})


def test_a_win_rate_is_low_below_its_threshold_and_recovers(monitor: HealthMonitor) -> None:
    monitor.record_win_rate(KEY, 0.35)
    assert alerts_of(monitor.report()) == {}
    monitor.record_win_rate(KEY, 0.349)
    assert alerts_of(monitor.report()) == {"low_win_rate": "warning"}
    monitor.record_win_rate(KEY, 0.4)
    assert monitor.report().status == "healthy"


def test_failures_in_a_row_escalate_while_they_are_unresolved_and_success_resolves_them(
    monitor: HealthMonitor,
) -> None:
    seen = []
    for _ in range(4):
        monitor.record_training_complete(KEY, success=False, reason="no memory")
        (alert,) = monitor.report().active_alerts
        seen.append((alert.number, alert.severity, alert.opened))
    first = seen[0]
    assert seen == [(first[0], each, first[2]) for each in ("warning", "warning", "critical", "critical")]
    assert (
        "4 trainings in a row have failed, the last: no memory" in monitor.report().active_alerts[0].message
    )

    monitor.record_training_complete(KEY, success=True)
    assert monitor.report().status == "healthy"
    (resolved,) = monitor.alerts.history(KEY)
    assert (resolved.number, resolved.resolved) == (first[0], first[2])


@pytest.mark.parametrize("success", [True, False])
def test_an_alert_of_a_stalled_training_ends_with_it(
    monitor: HealthMonitor, times: Times, success: bool
) -> None:
    monitor.record_training_start(KEY, "first")
    times.pass_by(5)
    assert alerts_of(monitor.report()) == {"stalled_training": "critical"}
    monitor.record_training_complete(KEY, success=success)
    assert "stalled_training" not in alerts_of(monitor.report())
    assert monitor.report().keys[0].running_seconds is None


def test_only_success_sets_the_time_of_the_last_success(monitor: HealthMonitor, times: Times) -> None:
    monitor.record_training_complete(KEY, success=False)
    assert record_of(monitor.report()).last_success is None
    monitor.record_training_complete(KEY, success=True)
    succeeded = times.wall
    times.pass_by(1)
    monitor.record_training_complete(KEY, success=False)
    assert record_of(monitor.report()).last_success == succeeded


def test_a_key_whose_training_never_begins_is_told(monitor: HealthMonitor, times: Times) -> None:
    monitor.record_data_update(KEY, 10)
    times.pass_by(25)
    monitor.record_data_update(KEY, 20)
    assert alerts_of(monitor.report()) == {"stale_model": "warning"}


def test_data_is_new_only_when_there_is_more_of_it(monitor: HealthMonitor, times: Times) -> None:
    monitor.record_data_update(KEY, 100)
    monitor.record_model(KEY, 1)
    for _ in range(13):
        times.pass_by(1)
        monitor.record_data_update(KEY, 100)
    assert alerts_of(monitor.report()) == {"stale_data": "warning"}
    monitor.record_data_update(KEY, 40)
    assert alerts_of(monitor.report()) == {"stale_data": "warning"}
    monitor.record_data_update(KEY, 41)
    assert alerts_of(monitor.report()) == {}


def test_running_trainings_and_alerts_survive_a_restart(path: Path, times: Times) -> None:
    before = look(path, times)
    before.record_training_start(KEY, "first")
    before.record_win_rate(OTHER, 0.1)
    times.pass_by(5)
    told = before.report()

    after = look(path, times).report()
    assert after == told
    assert alerts_of(after) == {"stalled_training": "critical", "low_win_rate": "warning"}
    assert [key.running_seconds for key in after.keys] == [5 * HOUR, None]


def _look_from_elsewhere(path: Path, answers: "multiprocessing.Queue[object]") -> None:
    report = HealthMonitor(Database(path, TABLES)).report()
    answers.put((report.status, report.keys, report.active_alerts))


def test_another_process_sees_the_same(path: Path) -> None:
    monitor = HealthMonitor(Database(path, TABLES))
    monitor.record_training_start(KEY, "first")
    for _ in range(3):
        monitor.record_training_complete(OTHER, success=False)
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[object] = context.Queue()
    other = context.Process(target=_look_from_elsewhere, args=(path, answers))
    other.start()
    status, keys, alerts = answers.get(timeout=PATIENCE_SECONDS)  # pyright: ignore[reportGeneralTypeIssues]
    other.join(PATIENCE_SECONDS)

    here = monitor.report()
    assert status == here.status == "unhealthy"
    assert [key.record for key in keys] == [key.record for key in here.keys]
    assert [alert.number for alert in alerts] == [alert.number for alert in here.active_alerts]
    running = {str(key.record.key): key.running_seconds for key in keys}
    assert running[str(KEY)] is not None
    assert running[str(OTHER)] is None


def _fail(path: Path) -> None:
    monitor = HealthMonitor(Database(path, TABLES))
    for _ in range(25):
        monitor.record_training_complete(KEY, success=False)
        monitor.report()


def test_no_event_of_several_processes_is_lost_and_there_is_one_alert(path: Path) -> None:
    monitor = HealthMonitor(Database(path, TABLES))
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_fail, args=(path,)) for _ in range(4)]
    for each in others:
        each.start()
    for each in others:
        each.join(2 * PATIENCE_SECONDS)
    assert [each.exitcode for each in others] == [0] * 4
    report = monitor.report()
    assert record_of(report).failures == 100
    assert [change.happened for change in monitor.alerts.pending("all")] == ["escalated"]
    assert alerts_of(report) == {"failures": "critical"}
    assert monitor.alerts.history() == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def identity_of(process: subprocess.Popen[bytes]) -> Process:
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return replace(this_process(), pid=process.pid, started=int(stat[19]))


def test_a_training_whose_process_was_killed_has_failed(
    monitor: HealthMonitor, times: Times, sleeper: subprocess.Popen[bytes]
) -> None:
    monitor.record_training_start(KEY, "first", process=identity_of(sleeper))
    os.kill(sleeper.pid, signal.SIGSTOP)  # held up is not gone
    assert monitor.report().keys[0].running_seconds == 0
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has looked at its end yet
    report = monitor.report()
    assert (report.keys[0].running_seconds, record_of(report).failures) == (None, 1)
    assert f"process {sleeper.pid} of run first is gone" in report.active_alerts[0].message

    sleeper.wait(PATIENCE_SECONDS)
    assert monitor.record_training_complete(KEY, success=False, run="first") is False
    assert record_of(monitor.report()).failures == 1


def test_a_training_on_another_host_is_not_given_up_but_stalls(
    path: Path, times: Times, monitor: HealthMonitor
) -> None:
    far = replace(this_process(), host="far", boot="another", pid=2**22)
    look(path, times, lambda: far).record_training_start(KEY, "first")
    times.pass_by(5)
    assert alerts_of(monitor.report()) == {"stalled_training": "critical"}


@pytest.mark.parametrize("jump", [-YEAR, -HOUR, 6 * HOUR, YEAR])
def test_setting_the_clock_does_not_change_how_long_a_training_runs(
    monitor: HealthMonitor, times: Times, jump: float
) -> None:
    monitor.record_training_start(KEY, "first")
    times.pass_by(3)
    times.wall += jump
    report = monitor.report()
    assert report.keys[0].running_seconds == 3 * HOUR
    assert "stalled_training" not in alerts_of(report)
    times.pass_by(1.5)
    assert alerts_of(monitor.report())["stalled_training"] == "critical"


def test_a_start_from_the_future_counts_as_now_and_is_said(
    path: Path, times: Times, monitor: HealthMonitor
) -> None:
    far = replace(this_process(), host="far", boot="another")
    look(path, Times(times.wall + YEAR), lambda: far).record_training_start(KEY, "first")
    report = monitor.report()
    assert report.keys[0].running_seconds == 0
    assert "8760.0 h ahead count as now" in record_of(report).note
    assert "8760.0 h ahead" in record_of(look(path, times).report()).note  # to all who look
    times.pass_by(4.5)
    assert alerts_of(monitor.report()) == {"stalled_training": "critical"}
    monitor.record_training_complete(KEY, success=True)
    assert record_of(monitor.report()).note == ""


def test_what_was_recorded_in_the_future_grows_old_from_now_on(
    path: Path, times: Times, monitor: HealthMonitor
) -> None:
    ahead = look(path, Times(times.wall + YEAR))
    ahead.record_data_update(KEY, 10)
    ahead.record_training_complete(KEY, success=True)
    assert monitor.report().status == "healthy"
    times.pass_by(25)
    assert alerts_of(monitor.report()) == {"stale_model": "warning", "stale_data": "warning"}


def test_a_start_that_is_told_twice_is_one(monitor: HealthMonitor, times: Times) -> None:
    monitor.record_training_start(KEY, "first")
    times.pass_by(1)
    monitor.record_training_start(KEY, "first")
    (key,) = monitor.report().keys
    assert (key.running_seconds, key.record.failures) == (HOUR, 0)


def test_a_training_that_another_takes_the_place_of_has_failed_and_ends_no_other(
    monitor: HealthMonitor,
) -> None:
    monitor.record_training_start(KEY, "first")
    monitor.record_training_start(KEY, "second")
    assert record_of(monitor.report()).failures == 1
    assert monitor.record_training_complete(KEY, success=True, run="first") is False
    record = record_of(monitor.report())
    assert record.training is not None
    assert (record.training.run, record.failures, record.last_success) == ("second", 1, None)
    assert monitor.record_training_complete(KEY, success=True, run="second") is True
    assert record_of(monitor.report()).failures == 0


def test_a_key_is_judged_by_itself(monitor: HealthMonitor) -> None:
    for _ in range(3):
        monitor.record_training_complete(KEY, success=False)
    monitor.record_win_rate(OTHER, 0.1)
    report = monitor.report()
    assert {str(key.record.key): key.status for key in report.keys} == {
        "hex5_2p": "unhealthy",
        "tic_tac_toe_2p": "degraded",
    }
    assert [alert.severity for alert in report.active_alerts] == ["critical", "warning"]
    assert report.summary == "2 keys, 0 training; 1 critical and 1 warning"
    monitor.record_training_complete(KEY, success=True)
    assert alerts_of(monitor.report()) == {"low_win_rate": "warning"}


def test_a_forgotten_key_is_gone_with_its_alerts(monitor: HealthMonitor) -> None:
    monitor.record_win_rate(KEY, 0.1)
    assert monitor.forget(KEY) is True
    assert monitor.report().status == "unknown"
    assert [alert.kind for alert in monitor.alerts.history(KEY)] == ["low_win_rate"]
    assert monitor.forget(KEY) is False


def test_all_who_look_judge_by_the_same_thresholds(path: Path, times: Times, monitor: HealthMonitor) -> None:
    monitor.record_training_start(KEY, "first")
    times.pass_by(2)
    assert monitor.report().status == "healthy"
    changed = HEALTH.override(monitor.thresholds, ["stalled_training_hours=1", "failures_critical=1"])
    look(path, times).set_thresholds(changed)
    assert monitor.report().status == "unhealthy"
    monitor.record_training_complete(KEY, success=False)
    assert alerts_of(monitor.report()) == {"failures": "critical"}
    monitor.set_thresholds(HealthConfig())
    assert alerts_of(monitor.report()) == {"failures": "warning"}


def test_thresholds_of_another_version_are_said_to_be_so(path: Path, monitor: HealthMonitor) -> None:
    monitor.set_thresholds(HealthConfig())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE health_thresholds SET config = '{\"from_tomorrow\": 1}'")
        connection.commit()
    with pytest.raises(DataError, match="another version"):
        monitor.report()


@pytest.mark.parametrize(
    "event",
    [
        lambda m: m.record_win_rate(KEY, float("nan")),
        lambda m: m.record_win_rate(KEY, -0.01),
        lambda m: m.record_win_rate(KEY, 1.01),
        lambda m: m.record_data_update(KEY, -1),
        lambda m: m.record_data_update(KEY, 1.5),
        lambda m: m.record_data_update(KEY, 2**63),
        lambda m: m.record_model(KEY, -1),
        lambda m: m.record_model(KEY, "many"),
        lambda m: m.record_training_start(KEY, "../run"),
        lambda m: m.record_training_complete(KEY, success=True, run=""),
        lambda m: m.record_training_start(Key("../hex5"), "first"),
        lambda m: m.record_data_update(Key("hex5", 0), 1),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    monitor: HealthMonitor, event: Callable[[HealthMonitor], None]
) -> None:
    with pytest.raises(UsageError) as told:
        event(monitor)
    assert isinstance(told.value, TamenError)
    assert monitor.report().status == "unknown"


def test_a_reason_moves_no_cursor(monitor: HealthMonitor) -> None:
    monitor.record_training_complete(KEY, success=False, reason="loss\nis \x1b[2Jnan" + "!" * 1000)
    reason = record_of(monitor.report()).last_failure
    assert reason.startswith("loss is [2Jnan!!!")
    assert reason.isprintable()
    assert len(reason) == 200


def test_a_look_that_finds_nothing_new_writes_nothing(
    path: Path, times: Times, monitor: HealthMonitor
) -> None:
    monitor.record_training_start(KEY, "first")
    monitor.record_win_rate(KEY, 0.1)

    with closing(sqlite3.connect(path)) as onlooker:

        def written() -> int:
            return onlooker.execute("PRAGMA data_version").fetchone()[0]

        before = written()
        times.pass_by(1)
        monitor.report()
        assert written() == before
        times.pass_by(4)
        monitor.report()
        assert written() != before


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("end"), st.booleans()),
        st.tuples(st.just("start"), st.sampled_from("abc")),
        st.tuples(st.just("win_rate"), st.floats(0, 1)),
        st.tuples(st.just("pass"), st.floats(0, 30)),
        st.tuples(st.just("jump"), st.floats(-100, 100)),
        st.tuples(st.just("look"), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(EVENTS)
def test_whatever_happens_alerts_are_what_the_rules_say(events: list[tuple[str, object]]) -> None:
    times, failures, rate, started = Times(), 0, None, None
    with tempfile.TemporaryDirectory() as folder:
        monitor = look(Path(folder) / "control.sqlite", times)
        monitor.record_model(KEY, 1)
        for name, value in events:
            match name, value:
                case "end", bool():
                    monitor.record_training_complete(KEY, success=value)
                    failures, started = 0 if value else failures + 1, None
                case "start", str() if started is None or started[0] != value:
                    monitor.record_training_start(KEY, value)
                    failures, started = failures + (started is not None), (value, times.clock)
                case "win_rate", float():
                    monitor.record_win_rate(KEY, value)
                    rate = value
                case "pass", float():
                    times.pass_by(value)
                case "jump", float():
                    times.wall += value * HOUR
                case "look", _:
                    monitor.report()
                case "restart", _:
                    monitor = look(Path(folder) / "control.sqlite", times)
        told = alerts_of(monitor.report())
        running = None if started is None else times.clock - started[1]
        assert told.get("failures") == (None if not failures else "warning" if failures < 3 else "critical")
        assert ("low_win_rate" in told) == (rate is not None and rate < 0.35)
        assert ("stalled_training" in told) == (running is not None and running > 4 * HOUR)
        alerts = monitor.report().active_alerts
        assert len({alert.kind for alert in alerts}) == len(alerts)
