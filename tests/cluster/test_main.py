"""The help of the command, as a terminal of 80 columns shows it."""

import re
from pathlib import Path

import pytest
import typer.main

from cluster.main import app
from configs.names import preset_names
from tests.cluster.commands import assert_three_lines, run_here

Capsys = pytest.CaptureFixture[str]
VERBS = (
    "demo",
    "doctor",
    "train",
    "selfplay",
    "pipeline",
    "play",
    "match",
    "evaluate",
    "bench",
    "plan",
    "data",
    "datagen",
    "models",
    "why",
    "health",
    "locks",
    "solve",
    "status",
    "scale",
    "dashboard",
    "stop",
    "gtp",
)
NESTED = {
    "bench": ("inference", "selfplay", "search", "phases", "solve", "locks", "recovery", "engines"),
    "plan": ("capacity", "cluster", "games"),
    "engines": ("up", "status", "down", "play", "imitate", "bench"),
    "data": ("import", "stats", "check", "export"),
    "datagen": ("generate", "audit", "diagnose", "analyze-hands"),
    "models": ("list", "show", "promote", "rollback", "lineage"),
}


def helped(capsys: Capsys, *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        said = run_here(capsys, *arguments, "--help")
    assert (said.code, said.err) == (0, "")
    return said.out


def test_the_command_names_every_verb_in_a_line_that_is_not_cut(capsys: Capsys) -> None:
    lines = helped(capsys).splitlines()

    for verb in VERBS:
        assert any(re.match(rf"  {verb} +\w.*\.$", line) and not line.endswith("...") for line in lines), verb


@pytest.mark.parametrize(
    "words",
    [(verb,) for verb in VERBS if verb not in NESTED]
    + [(group, verb) for group, verbs in NESTED.items() for verb in verbs],
)
def test_every_verb_tells_of_each_option_and_of_debug(words: tuple[str, ...], capsys: Capsys) -> None:
    said = helped(capsys, *words)
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # pyright: ignore
    options = command.params

    assert all(option.help for option in options)
    assert re.search(r"--debug +show the traceback", said)
    assert "--no-" not in said.replace("--no-cleanup", "")
    assert max(map(len, said.splitlines())) <= 80


def test_the_presets_are_those_that_are_there(capsys: Capsys) -> None:
    said = " ".join(helped(capsys, "train").split())

    assert f"one of {', '.join(preset_names())}" in said


def test_a_word_that_is_no_verb_or_option_is_answered_with_the_nearest(capsys: Capsys) -> None:
    verb, option = run_here(capsys, "trian"), run_here(capsys, "train", "--minuts", 3)

    assert (verb.code, option.code) == (2, 2)
    assert "'train'" in verb.err
    assert "--minutes" in option.err


@pytest.mark.parametrize(
    "words", [("status",), ("status", "--auto"), ("why",), ("health",), ("locks",), ("models", "list")]
)
def test_a_file_in_place_of_the_folder_of_runs_is_told(
    words: tuple[str, ...], tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "file").write_text("no folder")
    said = run_here(capsys, *words, "--runs", tmp_path / "file")
    assert_three_lines(said, code=1, mentions=[str(tmp_path / "file"), "Not a directory"])
