"""The examples in the documentation run as they stand."""

import doctest
from pathlib import Path

import pytest

DOCS = sorted(
    path for path in (Path(__file__).parents[2] / "docs").glob("*.md") if ">>> " in path.read_text()
)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_examples_say_what_they_give(path: Path) -> None:
    failed, tried = doctest.testfile(str(path), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


def test_there_are_some() -> None:
    assert DOCS
