"""Which code a process runs, and how it is told from other code."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.on_ray.checkout import GAMES, LIBRARIES, Code, changed_since, code_here, difference


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
    assert [name for name, _ in ours.versions] == ["python", *LIBRARIES, *GAMES]
    theirs = replace(ours, versions=(("python", "3.11.99"), *ours.versions[1:]))

    assert difference(ours, ours) == ""
    assert difference(ours, theirs) == f"python 3.11.99 where here is {ours.versions[0][1]}"
    assert "other sources" in difference(ours, replace(theirs, digest="0"))


def with_version(code: Code, name: str, version: str) -> Code:
    return replace(code, versions=tuple((each, version if each == name else v) for each, v in code.versions))


@pytest.mark.parametrize("name", GAMES)
def test_packages_of_games_are_compared_where_both_have_them(name: str) -> None:
    here = with_version(code_here(), name, "1.0")
    missing, other = with_version(here, name, "-"), with_version(here, name, "2.0")

    assert difference(here, other) == f"{name} 2.0 where here is 1.0"
    assert difference(here, missing) == difference(missing, here) == ""


def test_sources_that_tell_of_other_libraries_are_other_sources() -> None:
    here = code_here()
    older = Code("0", (*here.versions[:3], ("tensorflow", "1.0")))

    assert difference(here, older) == f"other sources: their digest is 0, here it is {here.digest}"


def test_a_library_that_everything_needs_may_not_be_missing() -> None:
    here = code_here()
    assert difference(here, with_version(here, "numba", "-")).startswith("numba - where here is ")


def test_what_environments_come_from_is_known_by_the_names_of_its_distributions() -> None:
    versions = dict(code_here().versions)

    assert "-" not in {versions[name] for name in (*LIBRARIES, "gymnasium")}


def test_builds_for_other_devices_are_no_other_version() -> None:
    assert not any("+" in version for _, version in code_here().versions)


def test_a_checkout_that_has_changed_is_told_with_what_and_where(checkout: Path) -> None:
    began = code_here(checkout)
    assert changed_since(began, checkout) is None
    (checkout / "configs" / "presets" / "hex5.yaml").write_text("game: hex7\n")
    os.utime(checkout / "configs" / "presets" / "hex5.yaml", (2e9, 2e9))
    changed = changed_since(began, checkout)

    assert changed is not None
    assert str(checkout) in changed.what
    assert "changed last: configs/presets/hex5.yaml" in changed.why
    assert len(str(changed).splitlines()) == 3


def test_a_library_that_has_changed_is_other_code_too(checkout: Path) -> None:
    now = code_here(checkout)
    changed = changed_since(with_version(now, "numba", "0.1"), checkout)

    assert changed is not None
    assert f"numba is {dict(now.versions)['numba']}, it was 0.1" in changed.why
