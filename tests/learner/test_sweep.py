"""Sweeps try what they should, under names that people can read."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from learner.sweep import (
    LONGEST_NAME,
    Value,
    check_settings,
    experiment_name,
    grid,
    run_grid,
    run_optuna,
    table,
)

SWEEP = {"learner.learning_rate": (0.001, 0.002), "network.blocks": (3, 4, 5)}


def test_a_grid_is_every_combination_in_order() -> None:
    experiments = grid(SWEEP)
    assert len(experiments) == 6
    assert experiments[0] == {"learner.learning_rate": 0.001, "network.blocks": 3}
    assert experiments[1] == {"learner.learning_rate": 0.001, "network.blocks": 4}
    assert grid({}) == [{}]


def test_a_setting_without_values_or_with_one_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="there are no values"):
        grid({"network.blocks": ()})
    with pytest.raises(UsageError, match="a value is there twice"):
        grid({"network.blocks": (3, 3)})


def test_names_are_readable() -> None:
    assert experiment_name({"learner.learning_rate": 0.002, "learner.batch_rows": 256}) == "br256-lr0.002"
    assert experiment_name({"network.blocks": 5, "fit.half_turns": True}) == "hton-blocks5"
    assert experiment_name({}) == "plain"


numbers = st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9)
experiments = st.lists(
    st.sampled_from(["learner.batch_rows", "fit.bad_rows", "network.blocks", "learner.clip_norm"]),
    unique=True,
).flatmap(lambda names: st.tuples(*[st.fixed_dictionaries(dict.fromkeys(names, numbers)) for _ in range(2)]))


@given(pair=experiments)
def test_names_of_a_sweep_tell_its_experiments_apart(pair: tuple[dict[str, Value], ...]) -> None:
    one, other = pair
    assert (experiment_name(one) == experiment_name(other)) == (one == other)


@given(text=st.text(max_size=200), number=numbers)
def test_names_can_be_folders(text: str, number: float) -> None:
    name = experiment_name({"network.precision": text, "learner.clip_norm": number})
    assert 0 < len(name) <= LONGEST_NAME
    assert all(character.isalnum() or character in "-._" for character in name)


def test_settings_that_there_are_not_are_refused() -> None:
    with pytest.raises(UsageError, match=r"network\.blocks"):
        check_settings({"network.block": (1,)}, ["network.blocks", "network.channels"])
    check_settings(SWEEP, list(SWEEP))


def run(name: str, chosen: dict[str, Value]) -> dict[str, Any]:
    found = 0.5 + 0.1 * float(chosen["network.blocks"]) * float(chosen["learner.learning_rate"])
    return {"validation": {"policy_top1": found, "value_accuracy": found}, "rows": 10, "finished": True}


def test_outcomes_come_best_first() -> None:
    outcomes = run_grid(SWEEP, run)
    assert len(outcomes) == 6
    assert outcomes[0].name == "lr0.002-blocks5"
    lines = table(outcomes)
    assert lines[0]["network.blocks"] == 5
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)


def test_what_an_experiment_raises_ends_the_sweep() -> None:
    ran = []

    def stopped(name: str, chosen: dict[str, Value]) -> dict[str, Any]:
        ran.append(name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return {"validation": None}

    with pytest.raises(KeyboardInterrupt):
        run_grid(SWEEP, stopped)
    assert len(ran) == 2


def test_without_optuna_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match="Optuna is not installed"):
        run_optuna(SWEEP, run, trials=3, seed=1)


class FakeStudy:
    """Optuna as far as it is used: takes the values of a list in turn."""

    def __init__(self) -> None:
        self.trials = 0
        self.scores: list[float] = []
        self.stopped = False

    def suggest_categorical(self, name: str, choices: list[Value]) -> Value:
        return choices[self.trials % len(choices)]

    def stop(self) -> None:
        self.stopped = True

    def optimize(self, objective: Any, *, n_trials: int) -> None:
        for _ in range(n_trials):
            trial = SimpleNamespace(suggest_categorical=self.suggest_categorical, study=self)
            self.scores.append(objective(trial))
            self.trials += 1
            if self.stopped:
                break


def test_optuna_is_told_scores_and_runs_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    study = FakeStudy()
    fake = SimpleNamespace(
        logging=SimpleNamespace(WARNING=30, set_verbosity=lambda level: None),
        samplers=SimpleNamespace(TPESampler=lambda seed: None),
        create_study=lambda direction, sampler: study,
    )
    monkeypatch.setitem(sys.modules, "optuna", fake)
    ran = []

    def counted(name: str, chosen: dict[str, Value]) -> dict[str, Any]:
        ran.append(name)
        return run(name, chosen)

    outcomes = run_optuna(SWEEP, counted, trials=9, seed=1)
    assert len(study.scores) == 9
    assert len(ran) == len(set(ran)) == len(outcomes) == 6
    assert study.scores[0] == study.scores[6]
    assert outcomes[0].score == max(study.scores)
