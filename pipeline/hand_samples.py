"""The step that makes samples of poker hands: situations drawn, solved and written as shards.

    samples_0000.npz …       shards, see `replay.hand_shards`, in the order of samples
    set_aside_0000.jsonl …   beside each: situations that were not solved exactly enough, with their seed and number

What is in a shard depends on the settings and its number alone: not on who makes it, nor on what was made before.
"""

import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, TypeVar

import numpy as np

from core.errors import DataError
from core.files import write_atomic
from core.hands import BOARD_CARDS, NUM_CARDS, Street
from core.messages import Steps, without_asking
from core.seeds import derive_seed
from inference_server.client import Client, drive_all
from pipeline.contract import Context
from pipeline.hand_recipe import IN_FLIGHT, Recipe, facts_of, group_of, values_of
from pipeline.running import remove_torn, run_left
from poker.batches import Solved
from poker.cards import card_name
from poker.holdem import board_hands
from replay.hand_shards import (
    HandShardAbout,
    is_complete,
    load_hand_info,
    read_hand_shard,
    write_hand_shard,
)

T = TypeVar("T")
Connect: TypeAlias = Callable[[], Client]
"""How a worker reaches who evaluates; it travels to the worker."""

TASK_SECONDS = 10.0
MOST_UNMEASURED = 10
AUDIT_TOLERANCE = 0.01
"""In units of `pot_half`, on average over hands. Networks round as their batches fall, and solvers make more of it."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Shard `number` of a recipe, up to sample `samples`, where it goes, and how to reach the network that is asked."""

    recipe: Recipe
    number: int
    samples: int
    path: Path
    connect: Connect | None = None


@dataclass(frozen=True, slots=True)
class ShardMade:
    """What a worker tells of a shard.

    Attributes:
        samples: in it.
        seconds: that it took, by the clock.
        cpu_seconds: of them on a processor; the others the worker waited.
        memory: most that the worker has held so far, in bytes.
        worker: its machine and process.
    """

    samples: int
    seconds: float
    cpu_seconds: float
    memory: int
    worker: str


class HandSamplesStep:
    """Makes `samples` samples; see `pipeline.contract.Step`.

    Args:
        name: of the step, such as "train"; from it and the recipe's seed comes that of its situations.
        recipe: how.
        samples: how many.
        connect: how a worker reaches who evaluates, where the recipe has a network.
        told: hears of each shard as it is made.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        samples: int,
        *,
        connect: Connect | None = None,
        told: Callable[[ShardMade], None] = lambda made: None,
    ) -> None:
        self.name = name
        self._recipe = recipe
        self._samples = samples
        self._connect = connect
        self._told = told

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
        tasks = shard_tasks(self._recipe, self.name, self._samples, folder, self._connect)
        left = [task for task in tasks if not _is_made(task)]
        seconds: list[float] = []

        def told(made: Sequence[ShardMade]) -> None:
            seconds.extend(each.seconds for each in made)
            for each in made:
                self._told(each)

        def run(some: Sequence[Sequence[ShardTask]], later: Sequence[Sequence[ShardTask]]) -> None:
            every = cut(tasks, 1)
            run_left(
                make_shards, every, some, context, unit="samples", later=later, size=_samples_of, told=told
            )

        # The first shards tell how long one takes, and with that how many make a task.
        workers = context.executor.workers
        first, rest = left[:workers], left[workers:]
        run(cut(first, 1), later=[rest])
        if rest:
            run(cut(rest, shards_together(seconds, len(rest), workers)), later=[])
        return _counts(tasks)


def shard_tasks(
    recipe: Recipe, name: str, samples: int, folder: Path, connect: Connect | None = None
) -> list[ShardTask]:
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
            connect,
        )
        for number in range(shards)
    ]


def shards_together(seconds: Sequence[float], left: int, workers: int) -> int:
    """Return of how many shards tasks are to be made.

    To give a task to a worker, and hear of it, takes some 10 ms on Ray. A task of `TASK_SECONDS` makes that less than
    1 %, but at least four tasks are left for each worker, lest some be idle at the end.

    Args:
        seconds: that the shards so far took; none where that is not known.
        left: shards to be made.
        workers: that make them.
    """
    even = max(1, left // (4 * workers))
    if not seconds:
        return min(MOST_UNMEASURED, even)
    return max(1, min(even, round(TASK_SECONDS / max(median(seconds), 1e-3))))


def cut(tasks: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return `tasks` in pieces of `size`, the last of them perhaps shorter."""
    return [tasks[first : first + size] for first in range(0, len(tasks), size)]


def make_shards(tasks: Sequence[ShardTask]) -> list[ShardMade]:
    """Write some shards; see `make_shard`."""
    return [make_shard(task) for task in tasks]


def make_shard(task: ShardTask) -> ShardMade:
    """Write a shard and what was set aside.

    Raises:
        OSError: when it cannot be written.
        DataError: when what came of the situations cannot be.
        EvaluationError: when the network that is asked does not answer.
    """
    began, began_cpu = time.perf_counter(), time.thread_time()
    recipe, law = task.recipe, task.recipe.law
    solved = sorted(_solve(task), key=lambda each: each.situation.number)
    kept = [each for each in solved if each.exact]
    lines = [json.dumps(_in_words(each, law.seed)) + "\n" for each in solved if not each.exact]
    write_atomic(_set_aside(task.path), "".join(lines).encode())
    about = HandShardAbout(
        recipe.street, recipe.stack, recipe.bet_sizes, facts_of(recipe) | {"set_aside": len(lines)}
    )
    try:
        info = write_hand_shard(task.path, columns(kept, recipe.street), about)
    except ValueError as error:
        raise DataError(
            f"shard {task.number} of the {recipe.street} cannot be written",
            why=str(error),
            fix="look at the network that was asked, or solve in lanes; this should not happen",
        ) from error
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds, cpu_seconds = time.perf_counter() - began, time.thread_time() - began_cpu
    return ShardMade(info.count, seconds, cpu_seconds, memory, f"{platform.node()}:{os.getpid()}")


def _samples_of(tasks: Sequence[ShardTask]) -> int:
    return sum(task.samples - task.number * task.recipe.shard_samples for task in tasks)


def columns(solved: list[Solved], street: Street) -> dict[str, np.ndarray]:
    """Return the columns of `replay.hand_shards`."""
    order = [np.argsort(board_hands(each.situation.board).numbers) for each in solved]
    pairs = list(zip(solved, order, strict=True))
    cards = BOARD_CARDS[street]
    hands = comb(NUM_CARDS - cards, 2)
    ranges = [each.situation.ranges[:, own] for each, own in pairs]
    values = [each.values[:, own] for each, own in pairs]
    return {
        "board": np.array([each.situation.board for each in solved], np.uint8).reshape(len(solved), cards),
        "pot_half": np.array([each.situation.pot_half for each in solved], np.float32),
        "ranges": np.array(ranges, np.float16).reshape(-1, 2, hands),
        "values": np.array(values, np.float16).reshape(-1, 2, hands),
        "exploitability": np.array([each.exploitability for each in solved], np.float32),
        "iterations": np.array([each.iterations for each in solved], np.int32),
        "number": np.array([each.situation.number for each in solved], np.int64),
    }


def audit(tasks: list[ShardTask], share: float, seed: int) -> Iterator[tuple[int, bool]]:
    """Solve a `share` of samples at rest again, and yield (number, whether all its bytes came out the same).

    Where a network says what hands are worth, or torch solves them, values may be `AUDIT_TOLERANCE` off.

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
            situation = group_of(task.recipe, number // group)[number % group]
            ((again,),) = _driven([values_of(task.recipe, [situation])], task)
            yield number, _agrees({name: column[row] for name, column in rows.items()}, again, task.recipe)


def _solve(task: ShardTask) -> Iterator[Solved]:
    recipe, group = task.recipe, task.recipe.law.group
    first = task.number * recipe.shard_groups
    computations = (
        values_of(recipe, group_of(recipe, number)[: task.samples - number * group])
        for number in range(first, first + recipe.shard_groups)
        if number * group < task.samples
    )
    for solved in _driven(computations, task):
        yield from solved


def _driven(computations: Iterable[Steps[T]], task: ShardTask) -> Iterator[T]:
    """Run computations to their ends, and yield what they return."""
    if task.connect is None:
        return map(without_asking, computations)
    return drive_all(computations, task.connect(), together=IN_FLIGHT)


def _agrees(sample: Mapping[str, np.ndarray], again: Solved, recipe: Recipe) -> bool:
    found = {name: column[0] for name, column in columns([again], recipe.street).items()}
    if recipe.network is None and recipe.solver == "lanes":
        return all(found[name].tobytes() == sample[name].tobytes() for name in found)
    same = all(found[name].tobytes() == sample[name].tobytes() for name in ("board", "pot_half", "ranges"))
    error = np.abs(found["values"].astype(np.float64) - sample["values"])
    off = (error * sample["ranges"].astype(np.float64)).mean(1)
    return same and bool((off < AUDIT_TOLERANCE).all())


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
    exploitability, iterations = np.zeros(0), np.zeros(0)
    for task in tasks:
        rows = read_hand_shard(task.path)
        exploitability = np.append(exploitability, rows["exploitability"])
        iterations = np.append(iterations, rows["iterations"])
    infos = [load_hand_info(task.path) for task in tasks]
    if tasks and not len(exploitability):
        raise DataError(
            "not one situation was solved exactly enough",
            why=f"after {tasks[0].recipe.stop.iterations:,} iterations none had come to the target",
            fix="raise most_iterations, or target_pct",
        )
    played = np.isfinite(exploitability)
    return {
        "samples": len(exploitability),
        "set_aside": sum(int(info.about.get("set_aside", 0)) for info in infos),
        "shards": len(tasks),
        "mean_iterations": float(iterations.mean()) if played.any() else None,
        "mean_exploitability_pct": 100 * float(exploitability[played].mean()) if played.any() else None,
        "max_exploitability_pct": 100 * float(exploitability[played].max()) if played.any() else None,
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
