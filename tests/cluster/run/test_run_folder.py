"""A run's folder has one writer at a time, and goes on with nothing that does not fit it."""

import os
from pathlib import Path

import pytest

from cluster.run.run_folder import (
    RunFolder,
    changed_settings,
    check_run,
    named_runs,
    nearest_run,
    open_run,
    run_folder,
    run_names,
)
from core.errors import UsageError
from tests.cluster.tiny import tiny_config


def test_a_new_run_remembers_its_configuration(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "first")
    assert not folder.exists()
    config = tiny_config(seed=7)
    open_run(folder, config).release()

    assert folder.exists()
    assert folder.name == "first"
    assert folder.config() == config


def test_the_files_of_a_run_lie_inside_it(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "first")
    paths = [folder.config_file, folder.log_file, folder.games, folder.checkpoints, folder.models]

    assert len(set(paths)) == len(paths)
    assert all(path.parent == folder.root for path in [*paths, folder.evaluations_file])


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "-x", "x" * 65, "ä"])
def test_a_name_that_is_no_plain_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run name"):
        run_folder(tmp_path, name)


def test_runs_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        open_run(run_folder(tmp_path, name), tiny_config()).release()
    (tmp_path / "no run").mkdir()

    assert run_names(tmp_path) == ["a", "b"]
    assert run_names(tmp_path / "nowhere") == []


def test_a_run_has_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "first")
    lock = open_run(folder, tiny_config())
    with pytest.raises(UsageError, match="another process"):
        open_run(RunFolder(folder.root), tiny_config())
    lock.release()

    open_run(folder, tiny_config()).release()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"game": "hex3"}, "game=hex3"),
        ({"network__blocks": 2}, "network.blocks=2"),
        ({"network__channels": 4}, "network.channels=4"),
        ({"network__soft_policy": "true"}, "network.soft_policy=True"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused_and_changes_nothing(
    changed: dict[str, object], what: str, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path, "first")
    open_run(folder, tiny_config()).release()
    with pytest.raises(UsageError, match=f"cannot go on with {what}"):
        open_run(folder, tiny_config(**changed))

    assert folder.config() == tiny_config()
    open_run(folder, tiny_config()).release()


def test_a_run_keeps_the_name_that_it_began_with_wherever_it_is_moved(tmp_path: Path) -> None:
    first = run_folder(tmp_path, "first")
    open_run(first, tiny_config()).release()
    first.root.rename(tmp_path / "moved")
    moved = run_folder(tmp_path, "moved")
    open_run(moved, tiny_config()).release()

    assert (moved.name, moved.typed) == ("first", "moved")
    assert (first.name, first.exists()) == ("first", False)


def test_a_check_refuses_what_opening_would_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(tmp_path / "runs", "first")
    check_run(folder, tiny_config())
    assert list(tmp_path.iterdir()) == []

    lock = open_run(folder, tiny_config())
    with pytest.raises(UsageError, match="another process"):
        check_run(folder, tiny_config())
    lock.release()
    check_run(folder, tiny_config())
    with pytest.raises(UsageError, match="cannot go on with game=hex3"):
        check_run(folder, tiny_config(game="hex3"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError):
        check_run(folder, tiny_config())


def test_who_names_a_run_that_is_not_there_is_told_which_are(tmp_path: Path) -> None:
    assert named_runs(tmp_path) == f"no runs in {tmp_path}"
    assert "tamen train" in nearest_run("first", tmp_path)
    for number in range(14):
        open_run(run_folder(tmp_path, f"first-{number:02}"), tiny_config()).release()

    assert "first-00, first-01" in named_runs(tmp_path)
    assert named_runs(tmp_path).endswith("and 2 more")
    assert nearest_run("frist-03", tmp_path).startswith("did you mean first-03 or ")
    assert nearest_run("zzz", tmp_path).startswith("name one of them")


def test_everything_else_may_change_between_lives_and_is_told(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "first")
    before, after = tiny_config(), tiny_config(search__simulations=9, learner__batch_rows=16, stop__games=3)
    open_run(folder, before).release()
    open_run(folder, after).release()

    assert folder.config() == after
    assert changed_settings(before, after) == ["search.simulations: 4 -> 9", "learner.batch_rows: 32 -> 16"]
    assert changed_settings(after, after) == []


def test_who_cannot_look_into_the_folder_is_told_what_the_run_is_called(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new")
    open_run(folder, tiny_config()).release()
    moved = RunFolder(folder.root.rename(tmp_path / "moved"))

    assert RunFolder(moved.root, called=moved.name).name == moved.name == "new"
    assert RunFolder(tmp_path / "elsewhere", called="new").name == "new"
