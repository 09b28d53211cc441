"""What the pages of clusters tell a person to type: a shell can read it, and the programs know the options."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from ray.scripts.scripts import cli
from typer.main import get_command

from cluster.main import app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("cluster.md", "dashboards.md", "scale.md")
PROGRAMS: dict[str, Any] = {"ray": cli, "tamen": get_command(app)}
"""Commands of click, which typer has a copy of."""
BREAKS = {"--", "do", "then"}
"""Words behind which another command begins, besides those of which the shell makes one."""


def blocks() -> list[tuple[str, str]]:
    """Every block of commands, with its page."""
    found = []
    for name in PAGES:
        pattern = r"(?ms)^```(?:bash|sh)?\n(.*?)^```$"
        found += [(name, text) for text in re.findall(pattern, (DOCS / name).read_text())]
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands in a text, those in quotes too, without what they are piped to or written to."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();|&<>")
        words.whitespace_split = True
        for broken, group in groupby(words, lambda word: word in BREAKS or not word.strip("();|&<>")):
            if not broken:
                command = list(group)
                yield command
                for word in command:
                    if re.match(r"(ray|tamen) ", word):
                        yield from commands(word)


def left_over(words: list[str]) -> list[str]:
    """Return what the command of `ray` or `tamen` that words call does not take. Raises for an option it has not."""
    command, given = PROGRAMS[words[0]], words[1:]
    while hasattr(command, "commands"):
        command, given = command.commands[given[0]], given[1:]
    return command.make_parser(command.context_class(command)).parse_args(given)[1]


def test_there_are_five_commands_from_nothing_to_a_dashboard_on_each_kind_of_machines() -> None:
    ends = [text for _, text in blocks() if re.search(r"(?m)^(ray dashboard|kubectl port-forward) ", text)]
    assert len(ends) == 5
    for text in ends:
        lines = text.replace("\\\n", " ").replace("&&\n", "&& ").splitlines()
        assert len([line for line in lines if not line.startswith("pip ")]) == 5, text


@pytest.mark.parametrize(("page", "text"), blocks())
def test_it_can_be_pasted_into_a_shell(page: str, text: str) -> None:
    read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=30, check=False)
    assert (read.returncode, read.stderr) == (0, ""), page
    # What stands there for people, behind a command, would be given to it.
    assert [line for line in text.splitlines() if re.search(r"\S {3,}[^ \\#]", line)] == [], page


@pytest.mark.parametrize(("page", "text"), blocks())
def test_the_programs_know_what_they_are_given(page: str, text: str) -> None:
    for words in commands(text):
        if words[0] in PROGRAMS:
            assert left_over(words) == [], (page, words)


def test_an_option_that_is_no_more_would_be_found() -> None:
    told = list(
        commands("until true; do ray up --yes a.yaml && ray exec b.yaml 'tamen status --jason' >x; do :")
    )
    assert [words[0] for words in told] == ["until", "ray", "ray", "tamen", "x", ":"]
    assert left_over(told[2]) == []
    with pytest.raises(Exception, match="No such option: --jason"):
        left_over(told[3])
    assert left_over(["ray", "down", "a.yaml", "it", "ends"]) == ["it", "ends"]
