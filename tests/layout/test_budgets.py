"""A file is read in one sitting, a function on one screen."""

import ast
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 60
MAIN_LOOPS = ("actors/selfplay.py", "learner/loop.py", "inference_server/server.py")

EXCEPTIONS: dict[str, str] = {}
"""What may be longer ("path" or "path:function"), and the reason."""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef, *, docstring: bool) -> int:
    """Lines from `def` to the end, with or without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if not docstring and ast.get_docstring(function) is not None:
        text = function.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def too_long(sources: dict[str, ast.Module]) -> dict[str, int]:
    """Lines of each function over budget; a main loop has to fit with its docstring."""
    measured = {
        f"{path}:{function.name}": length(function, docstring=path in MAIN_LOOPS)
        for path, tree in sources.items()
        for function in functions(tree)
    }
    return {name: lines for name, lines in measured.items() if lines > FUNCTION_LINES}


def test_no_file_is_longer_than_one_sitting(
    root: Path, sources: dict[str, ast.Module], test_sources: dict[str, ast.Module]
) -> None:
    lines = {path: len((root / path).read_text().splitlines()) for path in sources | test_sources}
    assert {path: n for path, n in lines.items() if n > FILE_LINES and path not in EXCEPTIONS} == {}


def test_no_function_is_longer_than_a_screen(sources: dict[str, ast.Module]) -> None:
    assert {name: n for name, n in too_long(sources).items() if name not in EXCEPTIONS} == {}


def test_no_exception_outlives_its_need(root: Path, sources: dict[str, ast.Module]) -> None:
    lines = {path: len((root / path).read_text().splitlines()) for path in sources}
    needed = {path for path, n in lines.items() if n > FILE_LINES} | too_long(sources).keys()
    assert set(EXCEPTIONS) <= needed


def test_a_long_function_is_found_and_its_docstring_is_free_outside_main_loops() -> None:
    body = "\n".join(f"    x = {i}" for i in range(58))
    tree = ast.parse(f'def f():\n    """One.\n\n    Two.\n    """\n{body}')
    assert too_long({"core/a.py": tree}) == {}
    assert too_long({"learner/loop.py": tree}) == {"learner/loop.py:f": 63}
    assert too_long({"core/a.py": ast.parse(f"def f():\n{body}\n{body}")}) == {"core/a.py:f": 117}
