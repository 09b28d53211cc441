"""The step that makes samples of poker hands: situations drawn, solved and written as shards.

    samples_0000.npz …       shards, see `replay.hand_shards`, in the order of samples
    set_aside_0000.jsonl …   beside each: situations that were not solved exactly enough, with their seed and number

What is in a shard depends on the settings and its number alone: not on who makes it, nor on what was made before.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.files import write_atomic
from core.seeds import derive_seed
from pipeline.contract import Context
from pipeline.running import remove_torn, run_left
from poker.batches import Solved, Stop, solve_group, tree_of
from poker.betting import Betting
from poker.cards import NUM_CARDS, card_name
from poker.holdem import board_hands
from poker.program import compile_tree
from poker.rows import LANES
from poker.sampling import Law, Situation, draw_group
from poker.schedules import make_schedule
from replay.hand_shards import (
    BOARD_CARDS,
    HandShardAbout,
    is_complete,
    load_hand_info,
    read_hand_shard,
    write_hand_shard,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How samples are made.

    Attributes:
        law: by which situations are drawn.
        stack: what each player had at the beginning of the hand, in chips.
        bet_sizes: see `poker.betting.Betting`.
        variant: of CFR, one of `poker.schedules.VARIANTS`.
        stop: when a situation is done.
        shard_groups: groups of situations to a shard.
    """

    law: Law
    stack: float
    bet_sizes: tuple[float, ...]
    variant: str
    stop: Stop
    shard_groups: int

    @property
    def betting(self) -> Betting:
        return Betting(self.stack, self.bet_sizes)

    @property
    def shard_samples(self) -> int:
        return self.shard_groups * self.law.group


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Shard `number` of a recipe, up to sample `samples`, and where it goes."""

    recipe: Recipe
    number: int
    samples: int
    path: Path


class HandSamplesStep:
    """Makes `samples` samples; see `pipeline.contract.Step`.

    Args:
        name: of the step, such as "train"; from it and the recipe's seed comes that of its situations.
        recipe: how.
        samples: how many.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, name: str, recipe: Recipe, samples: int) -> None:
        self.name = name
        self._recipe = recipe
        self._samples = samples

    @property
    def settings(self) -> dict[str, Any]:
        return {"samples": self._samples, **asdict(self._recipe)}

    def goes_on_from(self, settings: Mapping[str, Any]) -> bool:
        """Whether what was made under `settings` may stay: more samples follow those that are there."""
        own = json.loads(json.dumps(self.settings))
        return settings.get("samples", 0) <= self._samples and {**settings, "samples": self._samples} == own

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return {"samples", "set_aside", "shards", "mean_iterations", …}. Raises what the contract says."""
        remove_torn(folder)
        tasks = shard_tasks(self._recipe, self.name, self._samples, folder)
        left = [task for task in tasks if not _is_made(task)]
        run_left(make_shard, tasks, left, context, unit="shards")
        return _counts(tasks)


def shard_tasks(recipe: Recipe, name: str, samples: int, folder: Path) -> list[ShardTask]:
    """Return the tasks that make `samples` samples for a purpose called `name`."""
    seed = derive_seed(recipe.law.seed, "hand samples", name)
    own = replace(recipe, law=replace(recipe.law, seed=seed))
    shards = -(-samples // recipe.shard_samples)
    return [
        ShardTask(
            own,
            number,
            min(samples, (number + 1) * recipe.shard_samples),
            folder / f"samples_{number:04d}.npz",
        )
        for number in range(shards)
    ]


def make_shard(task: ShardTask) -> int:
    """Write a shard and what was set aside, and return how many samples it has.

    Raises:
        OSError: when it cannot be written.
    """
    recipe, law = task.recipe, task.recipe.law
    solved = sorted(_solve(task), key=lambda each: each.situation.number)
    kept = [each for each in solved if each.exact]
    lines = [json.dumps(_in_words(each, law.seed)) + "\n" for each in solved if not each.exact]
    write_atomic(_set_aside(task.path), "".join(lines).encode())
    about = HandShardAbout(
        "river", recipe.stack, recipe.bet_sizes, facts_of(recipe) | {"set_aside": len(lines)}
    )
    return write_hand_shard(task.path, columns(kept), about).count


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a sidecar says of a recipe, with which, and its numbers, its samples can be made again."""
    return {
        "seed": recipe.law.seed,
        "group": recipe.law.group,
        "pots": [list(interval) for interval in recipe.law.pots],
        "variant": recipe.variant,
        "target": recipe.stop.target,
        "most_iterations": recipe.stop.iterations,
    }


def memory_of(recipe: Recipe) -> int:
    """Return bytes that a worker needs for the largest tree of the law.

    Raises:
        UsageError: when that has too many actions.
    """
    least = min(low for low, _ in recipe.law.pots)
    compiled = compile_tree(tree_of(recipe.betting, least))
    return (2 * compiled.actions + compiled.slots) * comb(NUM_CARDS - recipe.law.cards, 2) * 4 * LANES


def columns(solved: list[Solved]) -> dict[str, np.ndarray]:
    """Return the columns of `replay.hand_shards`."""
    order = [np.argsort(board_hands(each.situation.board).numbers) for each in solved]
    pairs = list(zip(solved, order, strict=True))
    hands = comb(NUM_CARDS - BOARD_CARDS["river"], 2)
    ranges = [each.situation.ranges[:, own] for each, own in pairs]
    values = [each.values[:, own] for each, own in pairs]
    return {
        "board": np.array([each.situation.board for each in solved], np.uint8).reshape(
            -1, BOARD_CARDS["river"]
        ),
        "pot_half": np.array([each.situation.pot_half for each in solved], np.float32),
        "ranges": np.array(ranges, np.float16).reshape(-1, 2, hands),
        "values": np.array(values, np.float16).reshape(-1, 2, hands),
        "exploitability": np.array([each.exploitability for each in solved], np.float32),
        "iterations": np.array([each.iterations for each in solved], np.int32),
        "number": np.array([each.situation.number for each in solved], np.int64),
    }


def audit(tasks: list[ShardTask], share: float, seed: int) -> Iterator[tuple[int, bool]]:
    """Solve a `share` of samples at rest again, and yield (number, whether all its bytes came out the same).

    Raises:
        DataError: when a shard is missing, damaged, of another recipe, or lacks a sample that was not set aside.
    """
    rng = np.random.default_rng(seed)
    for task in tasks:
        rows = read_hand_shard(task.path)
        _check_whole(task, rows["number"])
        count = len(rows["number"])
        chosen = rng.choice(count, min(count, max(1, round(share * count))), replace=False)
        group = task.recipe.law.group
        for row in sorted(chosen.tolist()):
            number = int(rows["number"][row])
            situations = _group(task.recipe, number // group)
            (again,) = _solve_some(task.recipe, [situations[number % group]])
            found = columns([again])
            yield number, all(found[name][0].tobytes() == rows[name][row].tobytes() for name in found)


def _solve(task: ShardTask) -> Iterator[Solved]:
    recipe, group = task.recipe, task.recipe.law.group
    for number in range(task.number * recipe.shard_groups, (task.number + 1) * recipe.shard_groups):
        if number * group < task.samples:
            yield from _solve_some(recipe, _group(recipe, number)[: task.samples - number * group])


def _solve_some(recipe: Recipe, situations: list[Situation]) -> Iterator[Solved]:
    return solve_group(situations, recipe.betting, make_schedule(recipe.variant), recipe.stop)


def _group(recipe: Recipe, number: int) -> list[Situation]:
    return draw_group(recipe.law, number, lambda pot_half: form_of(recipe.betting, pot_half))


@lru_cache(maxsize=1 << 15)
def form_of(betting: Betting, pot_half: int) -> bytes:
    """Return what a tree looks like, whatever its stakes."""
    return compile_tree(tree_of(betting, pot_half)).programs[0].code.tobytes()


def _check_whole(task: ShardTask, numbers: np.ndarray) -> None:
    """Raise DataError unless a shard is of its recipe, and each of its situations is in it or set aside, once."""
    said = load_hand_info(task.path).about
    wanted = facts_of(task.recipe)
    foreign = [name for name, value in wanted.items() if said.get(name) != value]
    lines = _set_aside(task.path).read_text().splitlines()
    found = sorted([*numbers.tolist(), *(json.loads(line)["number"] for line in lines)])
    first = task.number * task.recipe.shard_samples
    if foreign or found != list(range(first, task.samples)):
        raise DataError(
            f"{task.path} is not what it should be",
            why=f"it was made with another {', '.join(foreign)}"
            if foreign
            else f"of situations {first} to {task.samples - 1} some are missing, or there twice",
            fix="delete it and its sidecar, and run the same `tamen datagen generate` again",
        )


def _is_made(task: ShardTask) -> bool:
    """Whether the shard is there, with as many situations as it is to have."""
    if not is_complete(task.path):
        return False
    info = load_hand_info(task.path)
    first = task.number * task.recipe.shard_samples
    return info.count + int(info.about.get("set_aside", 0)) == task.samples - first


def _counts(tasks: list[ShardTask]) -> dict[str, Any]:
    rows = [read_hand_shard(task.path) for task in tasks]
    exploitability = np.concatenate([each["exploitability"] for each in rows]) if rows else np.zeros(0)
    iterations = np.concatenate([each["iterations"] for each in rows]) if rows else np.zeros(0)
    infos = [load_hand_info(task.path) for task in tasks]
    if tasks and not len(exploitability):
        raise DataError(
            "not one situation was solved exactly enough",
            why=f"after {tasks[0].recipe.stop.iterations:,} iterations none had come to the target",
            fix="raise most_iterations, or target_pct",
        )
    return {
        "samples": len(exploitability),
        "set_aside": sum(int(info.about.get("set_aside", 0)) for info in infos),
        "shards": len(tasks),
        "mean_iterations": float(iterations.mean()) if len(iterations) else None,
        "mean_exploitability_pct": 100 * float(exploitability.mean()) if len(iterations) else None,
        "max_exploitability_pct": 100 * float(exploitability.max()) if len(iterations) else None,
    }


def _set_aside(path: Path) -> Path:
    return path.with_name(path.name.replace("samples_", "set_aside_").replace(".npz", ".jsonl"))


def _in_words(each: Solved, seed: int) -> dict[str, Any]:
    situation = each.situation
    return {
        "seed": seed,
        "number": situation.number,
        "board": "".join(map(card_name, situation.board)),
        "pot_half": situation.pot_half,
        "exploitability_pct": 100 * each.exploitability,
        "iterations": each.iterations,
    }
