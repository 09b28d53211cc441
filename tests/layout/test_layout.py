"""Our packages have plain names at the top level, so it must be certain that it is ours that are imported."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path


def test_every_folder_with_an_init_is_declared(
    root: Path, declared: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    # setuptools would not install another, and an editable install would not notice.
    files = [
        *root.glob("*/__init__.py"),
        *(file for name in packages for file in root.glob(f"{name}/**/__init__.py")),
    ]
    assert {file.parent.relative_to(root).as_posix().replace("/", ".") for file in files} == set(declared)


def test_every_folder_of_sources_has_an_init(root: Path, packages: tuple[str, ...]) -> None:
    folders = {file.parent for name in packages for file in root.glob(f"{name}/**/*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_other_distribution_owns_one_of_our_names(packages: tuple[str, ...]) -> None:
    owners = packages_distributions()
    foreign = {name: owners[name] for name in packages if set(owners.get(name, [])) - {"tamen"}}
    assert foreign == {}


def test_every_package_resolves_inside_this_checkout(
    root: Path, declared: tuple[str, ...], tmp_path: Path
) -> None:
    # From another folder and without pytest's path, as the console command does it.
    code = f"import importlib.util as u; [print(u.find_spec(name).origin) for name in {declared!r}]"
    found = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.split() == [str(root / name.replace(".", "/") / "__init__.py") for name in declared]


def test_the_import_rules_cover_every_package(root: Path, packages: tuple[str, ...]) -> None:
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    layers = " | ".join(tools["importlinter"]["contracts"][0]["layers"]).split(" | ")
    assert (
        set(layers)
        == set(tools["importlinter"]["root_packages"])
        == set(tools["pyright"]["include"])
        == set(packages)
    )


def test_tests_are_no_package(root: Path) -> None:
    assert list((root / "tests").rglob("__init__.py")) == []
