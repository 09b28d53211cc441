"""Processes use the registry at once, die in it, or find the disk full: nobody overtakes, nothing is half there."""

import errno
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.registry import ModelRegistry
from control.registry_tables import AliasMovedError
from core import files
from tests.control.registered import KEY, WHO, add, reign, weights


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ModelRegistry]:
    made = ModelRegistry(tmp_path / "runs")
    yield made
    made.close()


def race(runs: Path, file: Path, own: Path, ids: "multiprocessing.Queue[list[str]]") -> None:
    registry = ModelRegistry(runs)
    shared = registry.register(KEY, file, config={"lr": 0.1}, metrics={"loss": 1.0}, who=WHO)
    mine = registry.register(KEY, own, config={"lr": 0.1}, metrics={"loss": 1.0}, who=WHO)
    ids.put([shared, mine])


def register_for_ever(runs: Path, folder: Path) -> None:
    registry = ModelRegistry(runs)
    for number in itertools.count():
        file = weights(folder, b"%d in %s" % (number, folder.name.encode()) * 10_000)
        registry.register(KEY, file, config={}, metrics={}, who=WHO)


def seize(runs: Path, model: str, expected: str, won: "multiprocessing.Queue[str]") -> None:
    try:
        ModelRegistry(runs).promote(model, expected=expected, who=model, why="mine is better")
        won.put(model)
    except AliasMovedError:
        won.put("")


def test_processes_that_register_the_same_at_once_get_one_id(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ids: multiprocessing.Queue[list[str]] = context.Queue()
    shared = weights(tmp_path, b"shared")
    racers = [
        context.Process(target=race, args=(tmp_path / "runs", shared, weights(tmp_path, b"%d" % n), ids))
        for n in range(4)
    ]
    for each in racers:
        each.start()
    found = [ids.get(timeout=60) for _ in racers]
    for each in racers:
        each.join(60)
    assert len({same for same, _ in found}) == 1
    assert len({own for _, own in found}) == 4
    registry = ModelRegistry(tmp_path / "runs")
    assert sorted(model.version for model in registry.models()) == [1, 2, 3, 4, 5]
    assert [registry.get(model.id).id for model in registry.models()]
    assert not list(registry.folder.rglob("*.incoming"))


def test_of_two_that_would_replace_the_same_champion_one_wins(registry: ModelRegistry) -> None:
    first, *rivals = [add(registry, n) for n in range(3)]
    reign(registry, first)
    context = multiprocessing.get_context("spawn")
    won: multiprocessing.Queue[str] = context.Queue()
    racers = [context.Process(target=seize, args=(registry.folder, rival, first, won)) for rival in rivals]
    for each in racers:
        each.start()
    winners = [won.get(timeout=60) for _ in racers]
    for each in racers:
        each.join(60)
    (winner,) = [each for each in winners if each]
    assert registry.alias(KEY, "champion") == winner
    assert [model.id for model in registry.models(KEY, stage="production")] == [winner]
    assert registry.find(first).stage == "archived"


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_disk_that_fails_leaves_nothing_half_registered(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    first, real, calls = add(registry, 1), os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        add(registry, 2)
    assert [model.id for model in registry.models()] == [first]
    assert registry.alias(KEY, "latest") == first
    assert not list(registry.folder.rglob("*.incoming"))
    second = add(registry, 3)
    assert (second, registry.get(second).file.read_bytes()) == ("hex5_2p-v2", b"weights 3 of hex5_2p")


def test_who_is_killed_while_registering_leaves_only_whole_models(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    registry = ModelRegistry(tmp_path / "runs")
    luck = random.Random(7)
    for number in range(6):
        before = len(registry.models())
        folder = tmp_path / f"{number}"
        folder.mkdir()
        victim = context.Process(target=register_for_ever, args=(registry.folder, folder))
        victim.start()
        deadline = time.monotonic() + 60
        while len(registry.models()) < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(luck.random() * 0.02)
        victim.kill()
        victim.join(60)
        found = registry.models()
        assert [model.version for model in found] == list(range(1, len(found) + 1))
        assert registry.alias(KEY, "latest") == found[-1].id
        assert all(registry.get(model.id).id == model.id for model in found)
