"""`tamen pipeline` on real games: what it makes, what it leaves alone, and how it tells what it cannot do."""

import gzip
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pipeline_kills import kill_and_compare
from cluster.run.run_folder import RunFolder, lock_run
from configs.pipeline import PIPELINES
from tests.cluster.commands import Program, Said, assert_three_lines, run_here

SLICE = Path(__file__).parents[2] / "data" / "wolve_slice.trmph.gz"
SMALL = ("debug", "shuffle.buckets=3", "preprocess.chunk_games=100")

Capsys = pytest.CaptureFixture[str]


def lines_of_slice() -> list[str]:
    with gzip.open(SLICE, "rt") as file:
        return file.read().splitlines()


@pytest.fixture
def games(tmp_path: Path) -> Path:
    """A file of some 300 real games, with real dirt."""
    file = tmp_path / "games.trmph"
    file.write_text("".join(f"{line}\n" for line in lines_of_slice()[:300]))
    return file


def pipeline(capsys: Capsys, runs: Path, *words: object) -> Said:
    return run_here(capsys, "pipeline", *words, "--runs", runs)


def counts(said: Said) -> dict[str, Any]:
    assert said.code == 0, said
    return json.loads(said.out.splitlines()[-1])["counts"]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "step.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_files_of_games_become_shuffled_rows(games: Path, tmp_path: Path, capsys: Capsys) -> None:
    said = pipeline(capsys, tmp_path, *SMALL, "--data", games, "--to", "shuffle")
    assert said.code == 0, said
    manifest = json.loads((tmp_path / "debug" / "pipeline" / "shuffle" / "manifest.json").read_bytes())
    assert manifest["game"] == "hex10"
    assert manifest["rows"] > 30 * manifest["games"] > 30 * 200
    lines = said.out.splitlines()
    assert lines[0].startswith("debug: new pipeline in ")
    finished = [line.split()[0] for line in lines if " finished " in line or " deleted, nobody needs" in line]
    assert finished == ["preprocess:", "positions:", "shuffle:", "positions:"]
    assert lines[-1] == "next: tamen pipeline --name debug"
    log = (tmp_path / "debug" / "log.txt").read_text()
    assert "shuffle: finished" in log


def test_the_same_command_does_nothing_twice_and_needs_no_words(
    games: Path, tmp_path: Path, capsys: Capsys
) -> None:
    pipeline(capsys, tmp_path, *SMALL, "--data", games, "--to", "shuffle", "--name", "mine")
    tasks = (tmp_path / "mine" / "pipeline" / "tasks.jsonl").read_text()
    again = pipeline(capsys, tmp_path, "--name", "mine", "--to", "shuffle")
    assert again.out.count("finished before") == 3
    assert (tmp_path / "mine" / "pipeline" / "tasks.jsonl").read_text() == tasks
    config = PIPELINES.load_file(tmp_path / "mine" / "pipeline.yaml")
    assert (config.data, config.shuffle.buckets) == ((str(games),), 3)


def test_a_changed_setting_begins_where_it_matters(games: Path, tmp_path: Path, capsys: Capsys) -> None:
    pipeline(capsys, tmp_path, *SMALL, "--data", games, "--to", "shuffle", "--name", "mine")
    said = pipeline(capsys, tmp_path, "shuffle.buckets=5", "--name", "mine", "--to", "shuffle")
    assert said.code == 0, said
    assert "preprocess: finished before" in said.out
    assert "positions: finished (rows" in said.out
    assert "shuffle: begins anew, buckets: 3 -> 5; what was there is now shuffle.old" in said.out


def test_processes_and_ray_make_the_same_bytes(
    games: Path, tmp_path: Path, capsys: Capsys, local_ray: None
) -> None:
    words = ("--data", games, "--to", "shuffle", "--no-cleanup", "--json")
    made = []
    for name, options in [
        ("inline", ["workers=1"]),
        ("processes", ["workers=2"]),
        ("ray", ["workers=2", "--engine", "ray"]),
    ]:
        told = counts(pipeline(capsys, tmp_path, *SMALL, *words, "--name", name, *options))
        made.append((told, content(tmp_path / name / "pipeline" / "shuffle")))
    assert made[0] == made[1] == made[2]
    assert len(made[0][1]) > 6


@pytest.mark.system
def test_killed_at_random_moments_it_makes_the_same_bytes_and_does_nothing_twice(tmp_path: Path) -> None:
    result = kill_and_compare(lines_of_slice(), tmp_path, kills=2)
    assert result["kills"] == 2
    assert result["differing_files"] == []
    assert result["tasks_done_twice"] == 0


@pytest.mark.soak
def test_killed_twenty_times_it_makes_the_same_bytes_and_does_nothing_twice(tmp_path: Path) -> None:
    result = kill_and_compare(lines_of_slice(), tmp_path, kills=20, seed=1)
    assert (result["kills"], result["differing_files"], result["tasks_done_twice"]) == (20, [], 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_between_two_tasks_and_it_goes_on(
    number: signal.Signals, tmp_path: Path, capsys: Capsys
) -> None:
    settings = ("preprocess.chunk_games=40", "shuffle.buckets=40", "workers=1")
    words = ("pipeline", "debug", *settings, "--data", SLICE, "--to", "shuffle", "--runs", tmp_path / "runs")
    program = Program(tmp_path / "out.txt", *words)
    tasks = tmp_path / "runs" / "debug" / "pipeline" / "tasks.jsonl"
    try:
        program.until(lambda: tasks.exists() and len(tasks.read_text().splitlines()) > 3, "tasks were done")
        program.send(number)
        assert program.wait() == 130
    finally:
        program.end()
    assert (
        "stopped; what was done is kept, and `tamen pipeline --name debug` goes on from here" in program.said
    )
    assert "Traceback" not in program.said
    assert pipeline(capsys, tmp_path / "runs", "--to", "shuffle", "--name", "debug").code == 0
    done = [json.loads(line)["task"] for line in tasks.read_text().splitlines()]
    assert len(done) == len(set(done))


def test_a_plan_tells_steps_and_estimates_and_leaves_nothing(
    games: Path, tmp_path: Path, capsys: Capsys
) -> None:
    said = pipeline(capsys, tmp_path / "runs", "--data", games, "--dry-run")
    assert said.code == 0, said
    assert "chunk_games: 10000" in said.out
    assert "# positions   run       not done before" in said.out
    planned = json.loads(pipeline(capsys, tmp_path / "runs", "--data", games, "--dry-run", "--json").out)
    estimate = planned["estimate"]
    assert (estimate["files"], estimate["board"]) == (1, 10)
    assert 250 <= estimate["games"] <= 300
    assert 30 <= estimate["rows"] / estimate["games"] <= 50
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        ((), ["there is nothing to make a model from", "--data FILES"]),
        (("--data", "nowhere.trmph"), ["nowhere.trmph"]),
        (("--data", SLICE, "--from", "shuffel"), ["there is no step 'shuffel'", "did you mean shuffle?"]),
        (("--data", SLICE, "--from", "shuffle"), ["cannot run without positions", "has not been run"]),
        (("--data", SLICE, "--from", "shuffle", "--to", "positions"), ["there is nothing"]),
        (("--data", SLICE, "--to", "selfplay"), ["nothing can be played"]),
        (("--data", SLICE, "--model", "nobody"), ["there is no run 'nobody'"]),
        (("snowflak", "--data", SLICE), ["did you mean snowflake?"]),
        (("hex", "shuffle.bucket=1", "--data", SLICE), ["did you mean shuffle.buckets?"]),
        (("--data", SLICE, "--name", "../x"), ["'../x'"]),
        (("positions.symmetries=true", "--data", SLICE), ["learnt twice", "set positions.symmetries=false"]),
        (("fit.sources=[{path: nowhere}]", "--data", SLICE), ["nowhere is no folder of shuffled rows"]),
        (("learner.value_mix=0.5", "--data", SLICE), ["learner.value_mix"]),
    ],
)
def test_nonsense_is_refused_before_anything_is_made(
    words: tuple[object, ...], mentions: list[str], tmp_path: Path, capsys: Capsys
) -> None:
    assert_three_lines(pipeline(capsys, tmp_path / "runs", *words), code=2, mentions=mentions)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_kind_or_of_another_process_is_left_alone(
    games: Path, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "played").mkdir()
    (tmp_path / "played" / "config.yaml").write_text("game: hex5\n")
    said = pipeline(capsys, tmp_path, "--data", games, "--name", "played")
    assert_three_lines(said, code=2, mentions=["was not begun by `tamen pipeline`"])
    lock = lock_run(RunFolder(tmp_path / "busy"))
    said = pipeline(capsys, tmp_path, "--data", games, "--name", "busy")
    lock.release()
    assert_three_lines(said, code=2, mentions=["is being written by another process"])


def test_a_file_that_cannot_be_read_whole_is_told_and_the_rest_is_used(
    games: Path, tmp_path: Path, capsys: Capsys
) -> None:
    short = tmp_path / "short.trmph.gz"
    short.write_bytes(SLICE.read_bytes()[:5000])
    (tmp_path / "empty.trmph").touch()
    data = [word for path in (short, tmp_path / "empty.trmph", games) for word in ("--data", path)]
    said = pipeline(capsys, tmp_path / "runs", *SMALL, *data, "--to", "shuffle")
    assert (said.code, said.err) == (1, "")
    assert "short.trmph.gz was not read to its end: file cut short" in said.out
    assert "empty.trmph was not read to its end: empty file" in said.out
    assert "shuffle: finished" in said.out
    said = pipeline(capsys, tmp_path / "runs", "--data", tmp_path / "empty.trmph", "--name", "nothing")
    assert_three_lines(said, code=1, mentions=["positions: ", "no games"])


def test_an_error_names_its_step_and_the_log(games: Path, tmp_path: Path, capsys: Capsys) -> None:
    pipeline(capsys, tmp_path, *SMALL, "--data", games, "--to", "positions")
    shard = next((tmp_path / "debug" / "pipeline" / "positions").glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-9])
    said = pipeline(capsys, tmp_path, "--to", "shuffle", "--name", "debug")
    assert_three_lines(said, code=1, mentions=["shuffle: ", shard.name, "log.txt"])
    assert "Traceback" in (tmp_path / "debug" / "log.txt").read_text()
