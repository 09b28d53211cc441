"""Samples of hands are the same whoever makes them and whenever, and each is as exact as it says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError, EvaluationError
from core.hands import BOARD_CARDS, Street
from core.messages import Reply, Request
from pipeline.contract import Stopped
from pipeline.executors import Processes
from pipeline.hand_recipe import Recipe, facts_of, group_of, memory_of
from pipeline.hand_samples import HandSamplesStep, audit, shard_tasks
from poker.batches import Stop
from poker.holdem import board_hands
from poker.sampling import Law
from poker.schedules import make_schedule
from poker.showdowns import values_of_showdowns
from poker.solver import Solver
from replay.hand_shards import HandShardAbout, hands_on, load_hand_info, read_hand_shard, write_hand_shard
from tests.pipeline.running_here import Here, Killed, context
from tests.poker.networks import Connect, always, few_rivers, shows

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
        tree = RECIPE.subgame.tree(float(rows["pot_half"][row]))
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


NETWORK = "0123abcd"


def of_street(street: Street, network: str | None = NETWORK, **others: Any) -> Recipe:
    """Return a recipe of small trees and few iterations."""
    law = Law(seed=6, cards=BOARD_CARDS[street], group=2, pots=((9000, 12_000),))
    settings: dict[str, Any] = {"bet_sizes": (), "stop": Stop(None, 20), "most_deals": 64} | others
    return replace(RECIPE, street=street, law=law, network=network, shard_groups=1, **settings)


STREETS = {
    "rivers": of_street("river", None),
    "ends of turns by rivers": of_street("turn_end", None),
    "ends of turns": of_street("turn_end"),
    "turns to the end": of_street("turn", None, stop=Stop(None, 5), later_bet_sizes=(1.0,)),
    "turns": of_street("turn"),
    "ends of flops": of_street("flop_end", most_deals=3),
    "flops": of_street("flop"),
    "ends before the flop": of_street("preflop_end", most_deals=2),
}
MADE = 3
"""In two shards."""


@pytest.mark.parametrize("name", STREETS)
def test_samples_of_every_street_are_made_and_audited(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = STREETS[name]
    connect = Connect(shows) if recipe.network else None
    with few_rivers(monkeypatch, 48):  # all of a turn; of what is dealt before some stand for all
        counts = HandSamplesStep("train", recipe, MADE, connect=connect).run({}, tmp_path, context())
        tasks = shard_tasks(recipe, "train", MADE, tmp_path, connect)
        assert_sound(recipe, counts, rows_of(tmp_path))
        rows = rows_of(tmp_path)
        drawn = [one for task in tasks for one in group_of(task.recipe, task.number)][:MADE]
        for row, situation in enumerate(drawn):
            order = np.argsort(board_hands(situation.board).numbers)
            assert tuple(rows["board"][row].tolist()) == situation.board
            assert rows["pot_half"][row] == situation.pot_half
            assert np.array_equal(rows["ranges"][row], situation.ranges[:, order])
            if name == "ends of turns":
                shown = values_of_showdowns(board_hands(situation.board), situation.masses[None])[0]
                error = np.abs(rows["values"][row] - shown[:, order]) * rows["ranges"][row]
                assert error.mean() < 1e-3

        assert list(audit(tasks, 1.0, seed=1)) == [(0, True), (1, True), (2, True)]
        path = tasks[0].path
        altered, info = read_hand_shard(path), load_hand_info(path)
        altered["values"][1, 0] *= -1
        write_hand_shard(path, altered, HandShardAbout(recipe.street, info.stack, info.bet_sizes, info.about))
        assert list(audit(tasks, 1.0, seed=1)) == [(0, True), (1, False), (2, True)]
    assert info.street == recipe.street
    assert_facts(recipe, dict(info.about))
    if recipe.network:
        other = shard_tasks(replace(recipe, network="another"), "train", MADE, tmp_path, connect)
        with pytest.raises(DataError, match="another network"):
            list(audit(other, 1.0, seed=1))


def assert_sound(recipe: Recipe, counts: dict[str, Any], rows: dict[str, np.ndarray]) -> None:
    hands = hands_on(recipe.street)
    assert (counts["samples"], counts["set_aside"], counts["shards"]) == (MADE, 0, 2)
    assert rows["number"].tolist() == [0, 1, 2]
    assert rows["ranges"].shape == rows["values"].shape == (MADE, 2, hands)
    assert rows["board"].shape == (MADE, BOARD_CARDS[recipe.street])
    if recipe.solves:
        assert np.isfinite(rows["exploitability"]).all()
        many = 48 if recipe.street == "turn_end" else 1
        assert rows["iterations"].tolist() == [many * recipe.stop.iterations] * MADE
        assert counts["mean_iterations"] == many * recipe.stop.iterations
    else:
        assert np.isnan(rows["exploitability"]).all()
        assert not rows["iterations"].any()
        assert counts["mean_iterations"] is counts["max_exploitability_pct"] is None
    won = (rows["values"].astype(np.float64) * rows["ranges"]).mean(2)
    assert np.abs(won.sum(1)).max() < 2e-3
    assert (np.abs(rows["values"]) * rows["ranges"].astype(np.float64)).mean() > 0.05


def assert_facts(recipe: Recipe, said: dict[str, Any]) -> None:
    assert said["set_aside"] == 0
    assert said.get("network") == recipe.network
    assert (said.get("variant") == "dcfr6") == ("most_iterations" in said) == recipe.solves
    assert said.get("later_bet_sizes") == (list(recipe.later_bet_sizes) if recipe.later_bet_sizes else None)
    assert said.get("most_deals") == (None if recipe.solves else recipe.most_deals)
    assert {"seed", "group", "pots"} <= set(said)
    assert memory_of(recipe) > 0


def test_a_recipe_is_told_from_one_that_differs_where_its_samples_would() -> None:
    recipe, turn = of_street("flop_end"), of_street("turn", None)
    pairs = [
        (recipe, replace(recipe, most_deals=10)),  # of 49 cards
        (recipe, replace(recipe, network="other")),
        (recipe, replace(recipe, law=replace(recipe.law, group=3))),
        (turn, replace(turn, later_bet_sizes=(1.0,))),
        (turn, replace(turn, stop=Stop(None, 21))),
        (turn, replace(turn, network=NETWORK)),
    ]
    for one, other in pairs:
        assert facts_of(one) != facts_of(other)


@pytest.mark.parametrize("name", ["ends of turns by rivers", "turns"])
def test_processes_that_ask_make_the_same_bytes(name: str, tmp_path: Path) -> None:
    recipe = STREETS[name]
    connect = Connect(shows) if recipe.network else None
    for folder, executor in (("a", Here()), ("b", None)):
        (tmp_path / folder).mkdir()
        step = HandSamplesStep("train", recipe, MADE, connect=connect)
        if executor is None:
            with Processes(2) as processes:
                step.run({}, tmp_path / folder, context(processes))  # pyright: ignore
        else:
            step.run({}, tmp_path / folder, context(executor))
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


def test_what_a_network_answers_goes_into_samples(tmp_path: Path) -> None:
    recipe = of_street("turn_end")
    connect = Connect(always(0.5, -0.5))
    HandSamplesStep("train", recipe, 2, connect=connect).run({}, tmp_path, context())
    values = rows_of(tmp_path)["values"].astype(np.float64)
    assert (values[:, 0] > 0.4).all()
    assert (values[:, 0] < 0.6).all()
    assert (values[:, 1] < -0.4).all()


def test_a_network_that_fails_is_an_error_and_leaves_no_shard(tmp_path: Path) -> None:
    def fails(request: Request) -> Reply:
        raise EvaluationError("no brain", why="this test wants it so", fix="none")

    step = HandSamplesStep("train", of_street("turn"), 2, connect=Connect(fails))
    with pytest.raises(EvaluationError, match="no brain"):
        step.run({}, tmp_path, context())
    assert not list(tmp_path.glob("*.npz"))


def test_samples_go_on_only_by_the_same_network() -> None:
    def settings(recipe: Recipe, samples: int = MADE) -> dict[str, Any]:
        return json.loads(json.dumps(HandSamplesStep("train", recipe, samples).settings))

    recipe = of_street("turn")
    step = HandSamplesStep("train", recipe, MADE)
    assert step.goes_on_from(settings(recipe))
    assert step.goes_on_from(settings(recipe, 2))
    assert not step.goes_on_from(settings(recipe, 4))
    for other in (replace(recipe, network="other"), replace(recipe, most_deals=5), of_street("turn_end")):
        assert not step.goes_on_from(settings(other))


def test_players_learn_at_once_where_leaves_are_asked_for() -> None:
    assert {name for name, recipe in STREETS.items() if recipe.schedule.simultaneous} == {"turns", "flops"}
    assert {name for name, recipe in STREETS.items() if not recipe.solves} == {
        "ends of turns",
        "ends of flops",
        "ends before the flop",
    }
