"""The driver's loop around any engine: bounds, Ctrl-C, failures, and what is written down."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.monitoring.observer import Observer
from cluster.monitoring.sinks import RunLog, read_run_log
from cluster.monitoring.snapshot import GamesPart, LearnerPart, Snapshot
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder
from cluster.training.train import LastBoard, fitting_size, reached, resolve_config, run_engine, show_plan
from configs.schema import RunConfig
from core.errors import ClusterError, UsageError
from replay.rate_limiter import RateLimiter
from tests.cluster.fake_engine import FakeEngine
from tests.cluster.tiny import tiny_config, tiny_run
from tests.core.faults import files_no_larger_than, in_child


def drive(engine: FakeEngine, config: RunConfig, run: RunFolder) -> Snapshot | None:
    observer = Observer(run.name, config)
    return run_engine(engine, observer, config, run, plain=True, metrics_port=None)


def test_a_run_ends_at_its_bound_and_its_engine_is_stopped(tmp_path: Path) -> None:
    engine, config = FakeEngine(), tiny_config(stop__games=30)
    picture = drive(engine, config, tiny_run(tmp_path / "run", config))

    assert picture is not None
    assert picture.games.played == 30
    assert (engine.advances, engine.stopped) == (3, 1)


def test_the_last_moment_is_written_down_however_short_the_run_was(tmp_path: Path) -> None:
    config = tiny_config(stop__learner_steps=4)
    run = tiny_run(tmp_path / "run", config)
    drive(FakeEngine(), config, run)

    assert list(read_run_log(run.root))[-1]["learner/steps"] == 4
    assert "steps=4" in run.log_file.read_text().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_run_end_in_order(number: signal.Signals, tmp_path: Path) -> None:
    engine, config = FakeEngine(), tiny_config()
    engine.meanwhile = lambda advance: signal.raise_signal(number) if advance == 2 else None
    before = signal.getsignal(number)
    picture = drive(engine, config, tiny_run(tmp_path / "run", config))

    assert picture is not None
    assert (engine.advances, engine.stopped) == (2, 1)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_breaks_off_a_start(number: signal.Signals, tmp_path: Path) -> None:
    engine, config, begun = FakeEngine(), tiny_config(), []

    def start() -> None:
        signal.raise_signal(number)
        begun.append(True)

    engine.starting = start
    assert drive(engine, config, tiny_run(tmp_path / "run", config)) is None
    assert (begun, engine.advances, engine.stopped) == ([], 0, 1)


def test_the_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    config = tiny_config()
    run = tiny_run(tmp_path / "run", config)

    def interrupted_twice() -> None:
        engine = FakeEngine()
        engine.meanwhile = lambda advance: signal.raise_signal(signal.SIGINT)
        engine.stop = lambda: signal.raise_signal(signal.SIGINT)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            drive(engine, config, run)

    assert in_child(interrupted_twice) == 130


def test_an_engine_that_fails_is_stopped_and_its_error_reaches_the_person(tmp_path: Path) -> None:
    def fail(advance: int) -> None:
        raise ClusterError("the learner keeps failing", why="test", fix="none")

    engine, config = FakeEngine(), tiny_config()
    engine.meanwhile = fail
    with pytest.raises(ClusterError, match="keeps failing"):
        drive(engine, config, tiny_run(tmp_path / "run", config))

    assert engine.stopped == 1


def test_on_a_full_disk_a_run_goes_on_to_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.training.train.LOG_SECONDS", 0.0)
    engine, config = FakeEngine(), tiny_config(stop__games=100)
    run = tiny_run(tmp_path / "run", config)
    with files_no_larger_than(0):
        picture = drive(engine, config, run)

    assert picture is not None
    assert (picture.games.played, engine.stopped) == (100, 1)
    said = capsys.readouterr()
    assert said.out.count("metrics.jsonl cannot be written") == 1
    assert said.err == ""


def test_an_engine_is_stopped_though_the_numbers_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(RunLog):
        def close(self) -> None:
            super().close()
            raise OSError("no space left")

    monkeypatch.setattr("cluster.training.train.RunLog", Failing)
    engine, config = FakeEngine(), tiny_config(stop__games=10)
    with pytest.raises(OSError, match="no space"):
        drive(engine, config, tiny_run(tmp_path / "run", config))

    assert engine.stopped == 1


def test_what_ended_a_run_is_in_its_log_and_the_error_says_so(tmp_path: Path) -> None:
    engine, config = FakeEngine(), tiny_config()
    engine.failing_start = ClusterError("the learner cannot be made", why="test", fix="mend it")
    run = tiny_run(tmp_path / "run", config)
    with pytest.raises(ClusterError) as caught:
        drive(engine, config, run)

    assert caught.value.fix == f"mend it; what led to it is in {run.log_file}"
    logged = run.log_file.read_text()
    assert "the run ended: the learner cannot be made" in logged
    assert "Traceback" in logged

    engine.failing_start = UsageError("a wrong argument", why="test", fix="mend it")
    with pytest.raises(UsageError) as wrong:
        drive(engine, config, run)
    assert wrong.value.fix == "mend it"


class FakeRay:
    """Ray, as far as it knows where its logs are."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def get_runtime_context() -> Any:
        return SimpleNamespace(get_temp_dir=lambda: "/tmp/ray", get_session_name=lambda: "session_1")


def test_a_run_on_ray_logs_where_its_parts_leave_their_tracebacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())  # pyright: ignore
    config = tiny_config(stop__games=10)
    run = tiny_run(tmp_path / "run", config)
    drive(FakeEngine(), config, run)

    assert "/tmp/ray/session_1/logs" in run.log_file.read_text()


def test_an_engine_that_cannot_start_is_stopped_too(tmp_path: Path) -> None:
    engine, config = FakeEngine(), tiny_config()
    engine.failing_start = ClusterError("cannot start Ray", why="test", fix="none")
    with pytest.raises(ClusterError, match="cannot start"):
        drive(engine, config, tiny_run(tmp_path / "run", config))

    assert (engine.advances, engine.stopped) == (0, 1)


def test_what_the_engine_reports_is_in_the_log_and_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, config = FakeEngine(), tiny_config(stop__games=30)
    run = tiny_run(tmp_path / "run", config)
    observer = Observer("run", config)

    def two_die(advance: int) -> None:
        observer.note("a died")
        observer.note("b died")

    engine.meanwhile = two_die
    run_engine(engine, observer, config, run, plain=True, metrics_port=None)

    printed, logged = capsys.readouterr().out, run.log_file.read_text()
    assert printed.count("a died") == printed.count("b died") == 3
    assert logged.count("a died") == logged.count("b died") == 3


def test_numbers_are_served_while_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from urllib.request import urlopen

    engine, config = FakeEngine(), tiny_config(stop__games=30)
    served: list[str] = []

    def read(advance: int) -> None:
        address = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("metrics: "))
        served.append(address)

    def scrape(advance: int) -> None:
        if not served:
            read(advance)
        else:
            with urlopen(served[0].split()[1], timeout=10) as page:
                served.append(page.read().decode())

    engine.meanwhile = scrape
    run = tiny_run(tmp_path / "run", config)
    run_engine(engine, Observer("run", config), config, run, plain=True, metrics_port=0)

    assert served[0].startswith("metrics: http://127.0.0.1:")
    assert 'tamen_games_total{run="run"} 10.0' in served[-1]


def picture(*, seconds: float = 0.0, games: int | None = None, steps: int | None = None) -> Snapshot:
    return Snapshot(
        run="run",
        game="hex5",
        elapsed_seconds=seconds,
        games=GamesPart(played=games),
        learner=LearnerPart(steps=steps),
    )


@pytest.mark.parametrize(
    ("bound", "before", "after"),
    [
        ({"stop__minutes": 2}, picture(seconds=119.0, games=10**9), picture(seconds=120.0)),
        ({"stop__games": 5}, picture(seconds=1e9, games=4), picture(games=5)),
        ({"stop__learner_steps": 5}, picture(seconds=1e9, steps=4), picture(steps=6)),
        ({"stop__games": 5, "stop__learner_steps": 5}, picture(), picture(games=0, steps=5)),
    ],
)
def test_a_bound_is_reached_when_its_own_number_is(
    bound: dict[str, Any], before: Snapshot, after: Snapshot
) -> None:
    assert not reached(tiny_config(**bound), before)
    assert reached(tiny_config(**bound), after)


def test_a_run_without_bounds_never_reaches_one() -> None:
    assert not reached(tiny_config(), picture(seconds=1e12, games=10**12, steps=10**12))


def test_flags_win_over_settings() -> None:
    config = resolve_config(
        "tic_tac_toe", ["seed=1", "stop.games=7"], size="cpu", seed=2, minutes=3.0, games=None, steps=9
    )

    assert (config.seed, config.stop.minutes) == (2, 3.0)
    assert (config.stop.games, config.stop.learner_steps) == (7, 9)
    with pytest.raises(UsageError, match="no preset"):
        resolve_config("tic_tac", [], size="cpu")


def test_the_plan_is_the_configuration_and_who_takes_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_plan(tiny_config(stop__games=1030, stop__minutes=1.5), RunFolder(tmp_path / "run"), size="gpu")
    printed = capsys.readouterr().out

    assert "game: tic_tac_toe" in printed
    assert "× learner" in printed
    assert "# run: new run in" in printed
    assert "; stops after 1.5 min, at 1,030 games, or at Ctrl-C" in printed
    assert "# size: gpu" in printed

    show_plan(tiny_config(), RunFolder(tmp_path / "run"), size="cpu")
    assert "; goes on until Ctrl-C" in capsys.readouterr().out


def test_the_size_fits_the_machine_unless_it_is_given() -> None:
    small, large = Machine(cpus=2, gpus=0), Machine(cpus=2, gpus=1)

    assert (fitting_size("auto", small), fitting_size("auto", large)) == ("cpu", "gpu")
    assert (fitting_size("gpu", small), fitting_size("cpu", large)) == ("gpu", "cpu")


def test_no_batch_that_settings_allow_is_refused_by_the_replay() -> None:
    config = tiny_config(replay__samples_per_insert_slack_rows=100, learner__batch_rows=200)

    RateLimiter.of(config.replay).check_sample(200)
    with pytest.raises(UsageError, match=r"learner\.batch_rows=201"):
        tiny_config(replay__samples_per_insert_slack_rows=100, learner__batch_rows=201)


def test_the_last_board_is_the_end_of_the_newest_game() -> None:
    boards = LastBoard("tic_tac_toe")

    assert boards.of({}) is None
    assert boards.of({"replay": {"newest_actions": []}}) is None
    assert boards.of({"replay": {"newest_actions": [4, 0]}}) == "   a b c\n1  o · ·\n2  · x ·\n3  · · ·"
    assert boards.of({"replay": {"newest_actions": [8]}}) == "   a b c\n1  · · ·\n2  · · ·\n3  · · x"
