"""The allowed values of a setting, told to a person."""

import json
from typing import Any

from configs.schema import Section

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
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
    schema = section.model_json_schema()["properties"][key]
    default = schema.get("default", "hex5")  # only the game has none
    return _in_words(schema), default if isinstance(default, str) else json.dumps(default)


def _in_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_in_words, schema["anyOf"]))
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return f"a list, each of it {_in_words(schema['items'])}"
    bounds = " and ".join(f"{words} {schema[bound]:g}" for bound, words in _BOUNDS.items() if bound in schema)
    return f"{_KINDS[schema['type']]} ({bounds})" if bounds else _KINDS[schema["type"]]
