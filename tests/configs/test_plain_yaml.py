import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.plain_yaml import MAX_CHARACTERS, parse_yaml
from core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E4", 20000.0),
        ("-1.5e+2", -150.0),
        ("0.25", 0.25),
        ("3", 3),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("", None),
        ("e5", "e5"),
        ("mcts:64", "mcts:64"),
        ("[random, mcts:64]", ["random", "mcts:64"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_plain_values_are_what_people_mean(text: str, value: object) -> None:
    parsed = parse_yaml(text, source="a test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{a: 1, a: 2}", "'a' stands twice"),
        ("a: 1\nb: {c: 1, c: 2}", "'c' stands twice"),
        ("[&x 1, *x]", "aliases are not allowed"),
        ("[" * 30 + "]" * 30, "nested too deeply"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("{1: 2}", "a name is not text"),
        ("on: 2", "a name is not text"),
        ("a: [", "expected the node content"),
        ("a\0", "special characters are not allowed"),
        ("9" * 5000, "4300 digits"),
        ("x" * (MAX_CHARACTERS + 1), "at most 65536 are read"),
    ],
)
def test_anything_else_is_refused_with_its_source(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=r"presets/mine\.yaml cannot be read") as refusal:
        parse_yaml(text, source="presets/mine.yaml")
    assert why in refusal.value.why


def test_the_longest_text_is_still_read() -> None:
    assert parse_yaml("x" * MAX_CHARACTERS, source="a test") == "x" * MAX_CHARACTERS


@given(st.text(alphabet="[]{}&*!:-,?|>'\"#%@ \n\tab1e.<", max_size=60))
def test_no_text_raises_anything_but_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_yaml(text, source="a test")
