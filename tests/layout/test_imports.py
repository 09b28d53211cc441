"""How modules are imported, and what is never called: nothing that turns data into code."""

import ast
from collections.abc import Iterator

import pytest

CODE_LOADERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
CODE_RUNNERS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}

HARMLESS = {"pickle.UnpicklingError"}
"""What torch.load(weights_only=True) raises on a foreign file; it loads nothing itself."""


def import_offences(tree: ast.Module, packages: tuple[str, ...]) -> Iterator[str]:
    """Names such as `replay` and `learner` are natural names of variables, so no import may bind them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in packages:
                    yield f"line {node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"line {node.lineno}: relative import"
            if node.names[0].name == "*":
                yield f"line {node.lineno}: from {node.module} import *"


def danger_offences(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (f"line {node.lineno}: import of {name}" for name in dangerous_names(node))
        elif isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {problem}" for problem in call_problems(node))


def dangerous_names(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name.split(".")[0] in CODE_LOADERS}
    module = node.module or ""
    names = {f"{module}.{alias.name}" for alias in node.names}
    return names - HARMLESS if module.split(".")[0] in CODE_LOADERS else names & CODE_RUNNERS


def call_problems(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in CODE_RUNNERS:
        yield f"call of {name}"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if keywords.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if keywords.get("shell", "False") != "False":
        yield "shell"


def test_our_packages_are_imported_by_name_and_from(
    sources: dict[str, ast.Module], test_sources: dict[str, ast.Module], packages: tuple[str, ...]
) -> None:
    everything = (sources | test_sources).items()
    assert [
        f"{path} {offence}" for path, tree in everything for offence in import_offences(tree, packages)
    ] == []


def test_no_data_becomes_code(sources: dict[str, ast.Module]) -> None:
    assert [f"{path} {offence}" for path, tree in sources.items() for offence in danger_offences(tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import replay",
        "import replay.buffer as b",
        "from replay.buffer import *",
        "from . import x",
        "from .x import y",
    ],
)
def test_a_bad_import_is_found(line: str) -> None:
    assert list(import_offences(ast.parse(line), ("replay",)))


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from pickle import UnpicklingError, loads",
        "import ray.cloudpickle, dill.source",
        "from yaml import load",
        "eval('1')",
        "os.system('true')",
        "yaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_a_dangerous_line_is_found(line: str) -> None:
    assert list(danger_offences(ast.parse(line)))


def test_plain_lines_pass() -> None:
    tree = ast.parse(
        "from replay.buffer import ReplayBuffer\ntorch.load(path, weights_only=True)\nnp.load(path)"
    )
    assert list(import_offences(tree, ("replay",))) == []
    assert list(danger_offences(tree)) == []
