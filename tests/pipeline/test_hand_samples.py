"""Samples of hands are the same whoever makes them and whenever, and each is as exact as it says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from pipeline.contract import Stopped
from pipeline.executors import Processes
from pipeline.hand_samples import HandSamplesStep, Recipe, audit, shard_tasks
from poker.batches import Stop, tree_of
from poker.holdem import board_hands
from poker.sampling import Law
from poker.schedules import make_schedule
from poker.solver import Solver
from replay.hand_shards import HandShardAbout, load_hand_info, read_hand_shard, write_hand_shard
from tests.pipeline.running_here import Here, Killed, context

RECIPE = Recipe(
    law=Law(seed=5, group=6, pots=((7000, 19_950),)),
    stack=20_000.0,
    bet_sizes=(1.0,),
    variant="dcfr6",
    stop=Stop(target=0.005),
    shard_groups=2,
)
SAMPLES = 40  # four shards, the last of them with four


def run(folder: Path, executor=None, *, recipe: Recipe = RECIPE, samples: int = SAMPLES, **kwargs) -> dict:
    folder.mkdir(exist_ok=True)
    return HandSamplesStep("train", recipe, samples).run({}, folder, context(executor, **kwargs))


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    counts = run(folder)
    assert (counts["samples"], counts["set_aside"], counts["shards"]) == (SAMPLES, 0, 4)
    assert counts["max_exploitability_pct"] <= 0.5
    return folder


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    shards = [read_hand_shard(path) for path in sorted(folder.glob("*.npz"))]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def test_samples_come_in_the_order_of_their_numbers(whole: Path) -> None:
    rows = rows_of(whole)
    assert rows["number"].tolist() == list(range(SAMPLES))
    assert len({board.tobytes() for board in rows["board"]}) == 7
    assert (rows["pot_half"] >= 7000).all()
    assert load_hand_info(whole / "samples_0000.npz").about["variant"] == "dcfr6"


def test_a_sample_is_what_a_plain_solver_finds(whole: Path) -> None:
    rows = rows_of(whole)
    for row in (0, 17):
        board = tuple(rows["board"][row].tolist())
        hands = board_hands(board)
        order = np.argsort(hands.numbers)
        ranges, values = rows["ranges"][row].astype(np.float64) / 1081, rows["values"][row].astype(np.float64)
        tree = tree_of(RECIPE.betting, float(rows["pot_half"][row]))
        plain = Solver(tree, hands.hands, lanes=False)
        of_solver = np.empty_like(ranges)
        of_solver[:, order] = ranges
        plain.begin(0, tree, of_solver)
        plain.iterate(make_schedule("dcfr6"), int(rows["iterations"][row]))
        found = plain.values()[:, order, 0]
        # In float32 ties fall otherwise, so the plays are others, of which neither can win more than it is exploited.
        exploitability = 2 * (plain.exploitability()[0] / 2 + rows["exploitability"][row])
        assert abs(((found - values) * ranges).sum(1)).max() < exploitability + 1e-3
        assert plain.exploitability()[0] / 2 < 0.01


def test_processes_make_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    with Processes(2) as executor:
        run(tmp_path / "a", executor)
    assert files_in(tmp_path / "a") == files_in(whole)


def test_a_killed_step_goes_on_and_makes_nothing_twice(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "a", Here(order=lambda tasks: tasks[::-1], lives=2))
    executor = Here()
    run(tmp_path / "a", executor)
    assert len(executor.ran) == 2
    assert files_in(tmp_path / "a") == files_in(whole)


def test_a_step_stops_between_two_shards(tmp_path: Path) -> None:
    executor = Here()
    with pytest.raises(Stopped):
        run(tmp_path / "a", executor, should_stop=lambda: len(executor.ran) >= 1)
    assert len(list((tmp_path / "a").glob("*.npz"))) == 1


def test_more_samples_follow_those_that_are_there(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "a", samples=24)
    executor = Here()
    counts = run(tmp_path / "a", executor)
    assert (len(executor.ran), counts["samples"]) == (2, SAMPLES)
    assert files_in(tmp_path / "a") == files_in(whole)


def test_purposes_share_no_situation(whole: Path, tmp_path: Path) -> None:
    HandSamplesStep("validation", RECIPE, 12).run({}, tmp_path, context())
    own = {sample.tobytes() for sample in rows_of(whole)["ranges"]}
    assert not own & {sample.tobytes() for sample in rows_of(tmp_path)["ranges"]}


def test_what_is_not_exact_is_set_aside_with_its_number(tmp_path: Path) -> None:
    hurried = replace(RECIPE, stop=Stop(target=0.003, iterations=20))
    counts = run(tmp_path, recipe=hurried, samples=12)
    assert 0 < counts["set_aside"] < 12
    assert counts["samples"] + counts["set_aside"] == 12
    lines = [json.loads(line) for line in (tmp_path / "set_aside_0000.jsonl").read_text().splitlines()]
    kept = rows_of(tmp_path)["number"].tolist()
    assert sorted([*kept, *(line["number"] for line in lines)]) == list(range(12))
    assert all(line["exploitability_pct"] > 0.3 and len(line["board"]) == 10 for line in lines)
    executor = Here()
    run(tmp_path, executor, recipe=hurried, samples=12)
    assert executor.ran == []


def test_nothing_exact_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not one situation[\s\S]*raise most_iterations"):
        run(tmp_path, recipe=replace(RECIPE, stop=Stop(1e-9, 20)), samples=6)


def test_a_shard_of_which_nothing_is_exact_stops_nobody(tmp_path: Path) -> None:
    hurried = replace(RECIPE, stop=Stop(target=0.0003, iterations=20), shard_groups=1)
    counts = run(tmp_path, recipe=replace(hurried, law=replace(RECIPE.law, group=1)), samples=12)
    assert counts["shards"] == 12
    assert 0 < counts["samples"] < 12


def test_an_audit_finds_what_was_altered(whole: Path, tmp_path: Path) -> None:
    tasks = shard_tasks(RECIPE, "train", SAMPLES, whole)
    found = dict(audit(tasks, 0.2, seed=1))
    assert len(found) >= 6
    assert all(found.values())
    shutil.copytree(whole, tmp_path / "copy")
    path = tmp_path / "copy" / "samples_0001.npz"
    rows, info = read_hand_shard(path), load_hand_info(path)
    rows["values"][:, 0, 0] += np.float16(0.25)
    write_hand_shard(path, rows, HandShardAbout("river", info.stack, info.bet_sizes, info.about))
    found = dict(audit(shard_tasks(RECIPE, "train", SAMPLES, path.parent), 0.2, seed=1))
    assert {number // 12 for number, same in found.items() if not same} == {1}


def test_an_audit_misses_nothing_that_should_be_there(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another variant"):
        list(audit(shard_tasks(replace(RECIPE, variant="linear"), "train", SAMPLES, whole), 0.2, seed=1))
    shutil.copytree(whole, tmp_path / "copy")
    path = tmp_path / "copy" / "samples_0000.npz"
    rows, info = read_hand_shard(path), load_hand_info(path)
    fewer = {name: column[1:] for name, column in rows.items()}
    write_hand_shard(path, fewer, HandShardAbout("river", info.stack, info.bet_sizes, info.about))
    with pytest.raises(DataError, match="some are missing"):
        list(audit(shard_tasks(RECIPE, "train", SAMPLES, path.parent), 0.2, seed=1))
