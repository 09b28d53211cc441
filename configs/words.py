"""Settings told to a person: their allowed values, and which one a wrong name may have meant."""

import difflib
import json
from collections.abc import Sequence
from typing import Any

from configs.schema import LARGEST, Section

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "names with values",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def allowed_values(section: type[Section], key: str) -> tuple[str, str]:
    """Return what the setting `key` of `section` may be, in words, and an example as one types it."""
    whole = section.model_json_schema()
    schema = whole["properties"][key]
    default = schema.get("default", "hex5")  # only the game has none
    words = _in_words(schema, whole.get("$defs", {}))
    return words, default if isinstance(default, str) else json.dumps(default)


def _in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        parts = definitions[schema["$ref"].rpartition("/")[2]]["properties"]
        return f"{{{', '.join(f'{name}: …' for name in parts)}}}"
    if "anyOf" in schema:
        return " or ".join(_in_words(each, definitions) for each in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    for whole, each in ((f"a list{_length(schema)}", "items"), ("{name: …}", "additionalProperties")):
        if isinstance(schema.get(each), dict):
            return f"{whole}, each of it {_in_words(schema[each], definitions)}"
    bounds = " and ".join(
        f"{words} {schema[bound]:g}"
        for bound, words in _BOUNDS.items()
        if schema.get(bound, LARGEST) != LARGEST  # which is no news
    )
    return f"{_KINDS[schema['type']]} ({bounds})" if bounds else _KINDS[schema["type"]]


def _length(schema: dict[str, Any]) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if most is None:
        return f" of at least {least}" if least else ""
    return f" of {least} to {most}" if least else f" of at most {most}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a question that names what `word` may stand for, or else an advice to choose."""
    near = nearest(word, known)
    return f"did you mean {' or '.join(near)}?" if near else "choose one of them"


def nearest(word: str, known: Sequence[str]) -> list[str]:
    """Return up to three of `known` that `word` misspells or abbreviates, the likeliest first.

    Of dotted names the last part counts as much as the whole: "learner.lr" and "lr" are learner.learning_rate.
    """
    parent, _, key = word.lower().rpartition(".")
    keys = {name: name.rpartition(".")[2] for name in known}
    same = [name for name in known if keys[name] == key]
    short = [name for name in known if _abbreviates(key, keys[name])]
    spelled = difflib.get_close_matches(word.lower(), dict.fromkeys(known), n=3)
    inside = [name for name in (*same, *short) if parent and name.startswith(f"{parent}.")]
    return list(dict.fromkeys(inside or same or spelled or short))[:3]


def _abbreviates(short: str, name: str) -> bool:
    """Whether `short` is the initials of `name`, a piece of it, or the beginnings of its words in order."""
    words, letters = name.split("_"), short.replace("_", "")
    if len(letters) < 3:
        return letters == "".join(word[0] for word in words)
    return letters in "".join(words) or _begins(letters, words)


def _begins(letters: str, words: Sequence[str]) -> bool:
    """Whether `letters` are beginnings of `words`, one after the other, a plural's s aside."""
    if not letters or letters == "s":
        return True
    if not words:
        return False
    return any(
        words[0].startswith(letters[:size]) and _begins(letters[size:], words[1:])
        for size in range(len(letters), 0, -1)
    )
