"""YAML as people write settings: plain values only, no key twice, no aliases, nothing large or deep."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from core.errors import UsageError

MAX_CHARACTERS = 65_536
_MAX_DEPTH = 8


def parse_yaml(text: str, *, source: str) -> Any:
    """Return the value that `text` holds: dicts, lists, text, numbers, booleans and None.

    Raises:
        UsageError: naming `source` and the place, when it is not YAML of the kind above.
    """
    if len(text) > MAX_CHARACTERS:
        raise _unreadable(source, f"it has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    try:
        loader = _PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number or date that Python refuses
        raise _unreadable(source, " ".join(str(error).split())) from error


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases, which can make a small text huge, and with an end to nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or self.depth > _MAX_DEPTH:
            problem = "aliases are not allowed" if isinstance(event, yaml.AliasEvent) else "nested too deeply"
            raise ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
        mapping = super().construct_mapping(node, deep)
        if not all(isinstance(key, str) for key in mapping):
            raise ConstructorError(None, None, "a name is not text; put it in quotes", node.start_mark)
        return mapping


# YAML 1.1, which PyYAML reads, takes 1e-3 for text; YAML 1.2 and people take it for a number.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _unreadable(source: str, why: str) -> UsageError:
    return UsageError(
        f"{source} cannot be read", why=why, fix="write plain YAML, e.g. learner: {batch_rows: 512}"
    )
