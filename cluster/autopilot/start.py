"""`tamen train --auto`: an autopilot is begun and kept going, or what it would do is shown."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from actors.players import parse_player
from cluster.autopilot.guard import begin
from cluster.autopilot.loop import TABLES, Asked
from cluster.autopilot.stages import config_of
from cluster.autopilot.status import results_since
from cluster.cli.addresses import cluster_to_join
from cluster.cli.terminal import console, whole
from control.autopilot import check_keys, shares_of_a_round
from control.curriculum import KeyFacts, weigh
from control.database import CONTROL_FILE, Database
from control.journal import Journal
from control.keys import parse_key
from control.locks import parse_setting
from control.promotion import PromotionRules
from control.registry import ModelRegistry
from control.rollback import RollbackRules
from control.trainings import Trainings
from control.triggers import decide_all
from core.errors import UsageError


def go_round(
    words: Sequence[str],
    refused: Mapping[str, Any],
    *,
    runs: Path,
    minutes: float | None,
    address: str | None,
    dry_run: bool,
    plain: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """`tamen train --auto WORDS`: keys, and settings with a "=" in them. Return the trainings that ended, or the plan.

    Raises:
        UsageError: when one of the options is given that say nothing here, or a word is neither.
        TamenError: when it cannot go on; what was finished is kept.
    """
    given = [option for option, value in refused.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} says nothing to the autopilot",
            why="it goes round over keys until its time is over, or Ctrl-C",
            fix="leave it out; --minutes bounds its time",
        )
    began = time.time()
    asked = Asked(
        runs=runs.resolve(),
        keys=tuple(word for word in words if "=" not in word),
        settings=tuple(word for word in words if "=" in word),
        ends=None if minutes is None else began + 60 * minutes,
        address=cluster_to_join(address),
        plain=plain,
        quiet=as_json,
    )
    _check(asked)
    if dry_run:
        return _plan(asked, quiet=as_json)
    with (
        contextlib.closing(Database(asked.runs / CONTROL_FILE, TABLES)),
        contextlib.closing(ModelRegistry(asked.runs)),
    ):
        pass  # a file that is damaged or foreign is told before anything is begun
    begin(asked)
    with contextlib.closing(Database(asked.runs / CONTROL_FILE, TABLES)) as database:
        results = [each for each in results_since(Trainings(database), began) if each["key"] in asked.keys]
    if not as_json:
        promoted = sum(result["promoted"] for result in results)
        target = console()
        target.print(f"{len(results)} trainings, {promoted} champions", markup=False)
        target.print(f"next: tamen status --auto, tamen models list, tamen why {asked.keys[0]}", markup=False)
    return results


def _check(asked: Asked) -> None:
    """Raise UsageError when what is asked for cannot be."""
    config, keys = asked.config, [parse_key(key) for key in asked.keys]
    check_keys(keys)
    for key in keys:
        config_of(key, [])
    PromotionRules.of(config.promotion)
    RollbackRules.of(config.promotion)
    for opponent in config.promotion.ladder:
        if parse_player(opponent).kind == "model":
            raise UsageError(
                f"promotion.ladder cannot have {opponent!r}",
                why="whoever is on the ladder plays the same for ever, and models come and go",
                fix="name a player such as random or mcts:100",
            )
    parse_setting(config.autopilot.locks)
    if config.autopilot.locks == "ray" and asked.address is None:
        raise UsageError(
            "Ray cannot keep the locks",
            why="a Ray of its own ends with each stage",
            fix="start one with `ray start --head` and add --address auto; or leave out autopilot.locks=ray",
        )


def _plan(asked: Asked, *, quiet: bool) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, what an autopilot would do first; nothing is written."""
    config, keys = asked.config, tuple(asked.configs())
    file, now = asked.runs / CONTROL_FILE, time.time()
    facts, running = {key: KeyFacts() for key in keys}, ()
    if file.exists():
        with contextlib.closing(Database(file, TABLES)) as database:
            journal = Journal(database)
            facts, running = journal.facts(config.recent, now=now, keys=keys), journal.running(now=now)
    decisions = decide_all(facts, running, config.triggers, now=now)
    weights = {key: weigh(known, config.curriculum, now=now) for key, known in facts.items()}
    played = shares_of_a_round(weights, config.autopilot)
    plan: list[dict[str, Any]] = [
        {
            "key": str(key),
            "games": facts[key].games,
            "models": facts[key].models,
            "games_a_round": played[key],
            "train_now": decisions[key].should_train,
            "reason": decisions[key].reason,
        }
        for key in keys
    ]
    if not quiet:
        table = Table(box=None, pad_edge=False)
        for heading in ("key", "games", "models", "a round", "first"):
            table.add_column(heading, justify="left" if heading in ("key", "first") else "right")
        for each in plan:
            first = "train: " if each["train_now"] else "play: "
            counts = (whole(each[name]) for name in ("games", "models", "games_a_round"))
            table.add_row(each["key"], *counts, first + each["reason"])
        target = console()
        target.print(table)
        target.print("nothing was begun; leave out --dry-run to begin", markup=False)
    return plan
