"""Which code a process runs, and how it is told from other code."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.checkout import LIBRARIES, code_here, difference


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in (
        ("games/__init__.py", ""),
        ("games/hex.py", "SIZE = 5\n"),
        ("configs/__init__.py", ""),
        ("configs/presets/hex5.yaml", "game: hex5\n"),
        ("tests/__init__.py", ""),
        ("tests/test_hex.py", ""),
        ("runs/hex5/config.yaml", ""),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "other"),
    [
        ("games/hex.py", "SIZE = 6\n", True),
        ("games/new.py", "", True),
        ("configs/presets/hex5.yaml", "game: hex7\n", True),
        ("tests/test_hex.py", "1\n", False),
        ("runs/hex5/config.yaml", "1\n", False),
        ("games/notes.txt", "1\n", False),
    ],
)
def test_what_plays_and_learns_makes_the_digest(checkout: Path, name: str, content: str, other: bool) -> None:
    before = code_here(checkout)
    assert code_here(checkout) == before
    (checkout / name).write_text(content)

    assert (code_here(checkout).digest != before.digest) is other


def test_a_file_that_is_renamed_or_cut_in_two_is_other_code(checkout: Path) -> None:
    before = code_here(checkout)
    (checkout / "games" / "hex.py").rename(checkout / "games" / "hexes.py")
    renamed = code_here(checkout)

    assert renamed.digest != before.digest


def test_other_versions_are_told_by_name(checkout: Path) -> None:
    ours = code_here(checkout)
    assert [name for name, _ in ours.versions] == ["python", *LIBRARIES]
    theirs = replace(ours, versions=(("python", "3.11.99"), *ours.versions[1:]))

    assert difference(ours, ours) == ""
    assert difference(ours, theirs) == f"python 3.11.99 where here is {ours.versions[0][1]}"
    assert "other sources" in difference(ours, replace(theirs, digest="0"))


def test_builds_for_other_devices_are_no_other_version() -> None:
    assert not any("+" in version for _, version in code_here().versions)
