"""Which settings are tried in a sweep, how each experiment is called, and what came of all.

An experiment is a choice of values for settings, by their names: {"learner.learning_rate": 0.002}.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from configs.words import did_you_mean
from core.errors import UsageError

LONGEST_NAME = 60
HASH_DIGITS = 6

Value = bool | int | float | str
Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an experiment.

    Attributes:
        name: see `experiment_name`.
        values: of its settings.
        score: by which experiments are compared, the higher the better; None when it has none.
        counts: what it returned.
    """

    name: str
    values: dict[str, Value]
    score: float | None
    counts: dict[str, Any]


def grid(sweep: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """Return every combination of the values, the last setting changing fastest; one without any of an empty sweep.

    Raises:
        UsageError: when a setting has no values, or one twice.
    """
    for name, values in sweep.items():
        if not values or len(set(map(repr, values))) != len(values):
            raise UsageError(
                f"{name} cannot be swept over {list(values)}",
                why="there are no values" if not values else "a value is there twice",
                fix=f"give each value once, for example fit.sweep={{{name}: [1, 2]}}",
            )
    return [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]


def experiment_name(values: Values) -> str:
    """Return a name such as `br256-lr0.002`; equal values have equal names, others other ones.

    A label is the initials of the words of a setting. A name that would be long, or does not tell two settings apart,
    ends with a hash instead.
    """
    labels = {name: _label(name) for name in sorted(values)}
    name = "-".join(f"{label}{_text(values[setting])}" for setting, label in labels.items()) or "plain"
    distinct = len(set(labels.values())) == len(labels)
    plain = all(character.isalnum() or character in "-._" for character in name)
    if distinct and plain and len(name) <= LONGEST_NAME:
        return name
    canonical = json.dumps(dict(values), sort_keys=True)
    mark = hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()[:HASH_DIGITS]
    kept = "".join(character if character.isalnum() or character in "-._" else "_" for character in name)
    return f"{kept[: LONGEST_NAME - HASH_DIGITS - 1].rstrip('-')}-{mark}"


def run_grid(
    sweep: Mapping[str, Sequence[Value]], run: Callable[[str, dict[str, Value]], dict[str, Any]]
) -> list[Outcome]:
    """Run every experiment, one after another, and return what came of them, the best first.

    Args:
        sweep: values by setting.
        run: runs the experiment of a name and values and returns its counts; what was finished before it may return
            at once. What it raises ends the sweep.
    """
    outcomes: list[Outcome] = []
    for values in grid(sweep):
        name = experiment_name(values)
        counts = run(name, values)
        outcomes.append(Outcome(name, values, score_of(counts), counts))
    return ranked(outcomes)


def run_optuna(
    sweep: Mapping[str, Sequence[Value]],
    run: Callable[[str, dict[str, Value]], dict[str, Any]],
    *,
    trials: int,
    seed: int,
) -> list[Outcome]:
    """Let Optuna choose up to `trials` experiments by what came of those before; else like `run_grid`.

    Raises:
        UsageError: when Optuna is not installed.
    """
    grid(sweep)  # the same mistakes are none of Optuna's
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise UsageError(
            "Optuna is not installed",
            why="fit.sweep_method=optuna needs it",
            fix='install it with pip install -e ".[sweep]", or set fit.sweep_method=grid',
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    outcomes: dict[str, Outcome] = {}

    def objective(trial: Any) -> float:
        values = {name: trial.suggest_categorical(name, list(choices)) for name, choices in sweep.items()}
        name = experiment_name(values)
        if name not in outcomes:
            counts = run(name, values)
            outcomes[name] = Outcome(name, values, score_of(counts), counts)
        score = outcomes[name].score
        return float("-inf") if score is None else score

    study.optimize(objective, n_trials=trials)
    return ranked(list(outcomes.values()))


def score_of(counts: Mapping[str, Any]) -> float | None:
    """Return the mean of the shares of moves and of winners foretold; None when no game was kept apart."""
    report = counts.get("validation") or {}
    shares = [report.get(name) for name in ("policy_top1", "value_accuracy")]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes, the best first; those without a score come last."""
    return sorted(outcomes, key=lambda one: (one.score is None, -(one.score or 0.0)))


def check_settings(sweep: Mapping[str, Sequence[Value]], known: Sequence[str]) -> None:
    """Raise UsageError unless all settings of a sweep are among those that are `known`."""
    for name in sweep:
        if name not in known:
            raise UsageError(
                f"there is no setting {name!r} to sweep over",
                why="a sweep names settings with their section, such as learner.learning_rate",
                fix=did_you_mean(name, known),
            )


def table(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a line for each outcome, as plain JSON."""
    figures = ("policy_top1", "policy_top3", "value_accuracy", "value_accuracy_second_half", "value_mse")
    return [
        {
            "name": one.name,
            **one.values,
            "score": one.score,
            **{name: (one.counts.get("validation") or {}).get(name) for name in figures},
            "rows": one.counts.get("rows"),
            "seconds": one.counts.get("seconds"),
        }
        for one in outcomes
    ]


def _label(setting: str) -> str:
    words = setting.rpartition(".")[2].split("_")
    return words[0] if len(words) == 1 else "".join(word[0] for word in words)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short
