"""How runs stand, read from their folders alone."""

import json
from pathlib import Path

import pytest

from cluster.monitoring.sinks import RunLog
from cluster.monitoring.status import show_status
from cluster.run.machine_table import MachineStanding, StandingWriter
from cluster.run.run_folder import RunFolder, open_run, run_folder
from configs.scale import Scale
from core.errors import UsageError
from tests.cluster.tiny import tiny_config


def a_run(runs: Path, name: str, *, moments: list[tuple[float, int]] = ()) -> RunFolder:  # pyright: ignore
    """Return a run that logged its games at some times."""
    folder = run_folder(runs, name)
    open_run(folder, tiny_config()).release()
    for now, games in moments:
        log = RunLog(folder.root, clock=lambda now=now: now)
        log.append({"games/played": games, "learner/steps": 2 * games}, learner_steps=2 * games)
        log.close()
    return folder


def test_the_newest_numbers_of_a_run_are_told(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "first", moments=[(1000.0, 5), (2000.0, 8)])
    score = {"version": 3, "opponent": "random", "score": 0.9, "low": 0.8, "high": 1.0}
    folder.evaluations_file.write_text(json.dumps(score) + "\n" + json.dumps({"perfect_share": 0.5}) + "\n")
    (status,) = show_status("first", runs=tmp_path, quiet=True)

    assert status["run"] == "first"
    assert status["game"] == "tic_tac_toe"
    assert (status["games"], status["learner_steps"], status["written"]) == (8, 16, 2000.0)
    assert (status["strength"], status["perfect_share"]) == ({"random": 0.9}, 0.5)
    assert status["running"] is False
    json.dumps(status)


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.1, 0.9, "return 0.50 (0.10 to 0.90)"), (None, None, "return 0.50")]
)
def test_what_episodes_returned_is_told_with_its_interval(
    low: float | None,
    high: float | None,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = a_run(tmp_path, "first")
    line = {"version": 7, "seconds": 3.0, "episodes": 32, "mean_return": 0.5, "low": low, "high": high}
    folder.evaluations_file.write_text(json.dumps(line | {"mean_steps": 40.0}) + "\n")
    (status,) = show_status("first", runs=tmp_path, quiet=False)
    expected = {"mean_return": 0.5, "low": low, "high": high, "episodes": 32, "version": 7}
    assert status["evaluated_return"] == expected
    assert capsys.readouterr().out.splitlines()[-1].rstrip().endswith(told)


def test_a_run_that_has_a_driver_is_running(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "first")
    lock = open_run(folder, tiny_config())

    assert show_status("first", runs=tmp_path, quiet=True)[0]["running"] is True
    lock.release()
    assert show_status("first", runs=tmp_path, quiet=True)[0]["running"] is False


def test_all_runs_are_told_the_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path, "old", moments=[(1000.0, 5)])
    a_run(tmp_path, "new", moments=[(2000.0, 5)])
    a_run(tmp_path, "empty")
    found = show_status(None, runs=tmp_path, quiet=False)

    assert [status["run"] for status in found] == ["new", "old", "empty"]
    printed = capsys.readouterr().out
    assert printed.index("new") < printed.index("old") < printed.index("empty")
    assert "no games yet" in printed


def test_a_folder_without_runs_is_told_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_status(None, runs=tmp_path, quiet=False) == []
    assert "tamen train" in capsys.readouterr().out


def test_a_run_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    a_run(tmp_path, "first")
    with pytest.raises(UsageError, match=r"no run 'second'[\s\S]*holds first"):
        show_status("second", runs=tmp_path, quiet=True)


def test_a_machine_takes_one_line_whatever_its_labels_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = a_run(tmp_path, "one")
    labels = {"ray.io/market-type": "spot", "ray.io/node-group": "local.cluster.node"}
    far = {"cpus": 16, "gpus": 0, "labels": labels, "games_per_hour": 123456.0, "busy_share": 0.97}
    far |= {"actors": 16, "spares": 1}
    machines = tuple(
        MachineStanding.model_validate(far | {"node": f"{number:056x}", "host": "worker", "state": "playing"})
        for number in range(3)
    )
    StandingWriter(run).write(Scale(), 12, machines, effective_ratio=0.98)
    lock = open_run(run, tiny_config())
    try:
        (status,) = show_status("one", runs=tmp_path, quiet=False)
    finally:
        lock.release()
    _, *lines, meaning, told = capsys.readouterr().out.strip().split("machine", 1)[1].splitlines()

    assert [line.split()[0] for line in lines] == ["worker"] * 3
    assert all(" 16+1 " in line for line in lines)
    assert meaning.startswith("actors: that play + that wait")
    assert all(len(line) <= 80 for line in (*lines, meaning))
    assert "12 games were lost" in told
    assert status["games_lost"] == 12
