"""The part that is named is the one that the others wait for, and the advice can be followed."""

import re
from dataclasses import replace

import pytest

from cluster.monitoring.bottleneck import bottleneck
from cluster.monitoring.snapshot import ActorsPart, InferencePart, LearnerPart, RolloutPart, Snapshot
from configs.schema import RunConfig


def moment(
    search: float | None = None,
    wait: float | None = None,
    *,
    deliver: float | None = None,
    held: float | None = None,
    busy: float | None = None,
    rows: float | None = None,
    failing: float | None = None,
    waits: float | None = None,
    rollout: RolloutPart | None = None,
) -> Snapshot:
    return Snapshot(
        run="first",
        game="hex5",
        elapsed_seconds=60.0,
        rollout=rollout,
        learner=LearnerPart(data_wait_ratio=waits),
        actors=ActorsPart(search, wait, deliver, held),
        inference=InferencePart(busy_ratio=busy, mean_batch_rows=rows, failure_ratio=failing),
    )


ENVIRONMENTS = RolloutPart()
CASES = {
    "–": moment(),
    "brain": moment(0.3, 0.7, busy=0.95, rows=512),
    "batches": moment(0.3, 0.7, busy=0.95, rows=20),
    "round trip": moment(0.3, 0.7, busy=0.3, rows=512),
    "search": moment(0.95, 0.05, busy=0.3, rows=512),
    "learner": moment(0.2, 0.1, held=0.6, busy=0.2, rows=512, waits=0.05),
    "slack": moment(0.2, 0.1, held=0.6, busy=0.2, rows=512, waits=0.7),
    "replay": moment(0.5, 0.1, deliver=0.3, busy=0.2, rows=512),
    "none": moment(0.85, 0.15, busy=0.9, rows=512),
}


@pytest.mark.parametrize("name", CASES)
def test_the_culprit_is_named(name: str) -> None:
    assert bottleneck(CASES[name]).name == name


def test_a_learner_that_holds_back_outweighs_a_busy_brain() -> None:
    assert bottleneck(moment(0.2, 0.5, held=0.3, busy=0.99, rows=512)).name == "learner"


def test_partial_measurements_are_enough() -> None:
    assert bottleneck(moment(0.3, 0.7)).name == "round trip"
    assert bottleneck(moment(0.9, 0.1)).name == "search"


def test_every_key_it_advises_to_change_exists() -> None:
    advised = [
        key
        for moment in CASES.values()
        for one in (moment, replace(moment, rollout=ENVIRONMENTS))
        for key in re.findall(r"([a-z_]+)\.([a-z_]+)", bottleneck(one).advice)
    ]
    assert len(advised) >= 14
    for section, key in advised:
        assert key in type(getattr(RunConfig(game="hex5"), section)).model_fields


def test_of_environments_what_is_advised_has_an_effect_on_them() -> None:
    advice = {name: bottleneck(replace(one, rollout=ENVIRONMENTS)).advice for name, one in CASES.items()}
    assert "rollout.envs_per_group" in advice["batches"]
    assert "network.layers" in advice["brain"]
    assert "policy_gradient.epochs" in advice["learner"]
    assert advice["search"].startswith("actors step 95%")
    assert not [one for one in advice.values() if "games_per_group" in one or "channels" in one]


def test_a_brain_that_fails_is_not_to_be_made_larger() -> None:
    limit = bottleneck(moment(0.1, 0.9, busy=0.0, rows=20, failing=1.0))

    assert limit == ("brain", "100% of its requests fail: see the run's log.txt")
    assert bottleneck(moment(0.1, 0.9, busy=0.3, rows=512, failing=0.01)).name == "round trip"


def test_advice_gives_the_numbers_it_rests_on() -> None:
    assert bottleneck(CASES["brain"]).advice.startswith("actors wait 70%, it is busy 95%")
    assert "only 20 rows" in bottleneck(CASES["batches"]).advice
