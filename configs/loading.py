"""From a preset and what was typed behind it to the configuration of a run, and back to text."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from configs.names import PRESETS_FOLDER, preset_names
from configs.plain_yaml import parse_yaml
from configs.schema import RunConfig, Section
from configs.words import allowed_values, did_you_mean
from core.errors import UsageError


def load(preset: str, overrides: Sequence[str] = (), size: Literal["cpu", "gpu"] = "cpu") -> RunConfig:
    """Return the configuration of a preset.

    Args:
        preset: a name from `preset_names`.
        overrides: texts such as "learner.batch_rows=256" or "evaluation.opponents=[random]"; the value is
            YAML, and the last one of a key counts.
        size: "gpu" puts what stands under `gpu:` in the preset over the rest of it.

    Raises:
        UsageError: for a preset, key or value that does not exist, with the nearest that does.
    """
    if preset not in preset_names():
        raise UsageError(
            f"there is no preset called {preset!r}",
            why=f"the presets are {', '.join(preset_names())}",
            fix=did_you_mean(preset, preset_names()),
        )
    settings = _read(PRESETS_FOLDER / f"{preset}.yaml")
    for_gpu = settings.pop("gpu", {})
    layers = [settings, for_gpu if size == "gpu" else {}, *map(_override, overrides)]
    merged: dict[str, Any] = {}
    for layer in layers:
        _check_keys(layer)
        merged = _merged(merged, layer)
    return _validated(merged)


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return `config` with some settings changed. Raises UsageError like `load`."""
    merged: dict[str, Any] = config.model_dump(mode="json")
    for layer in map(_override, overrides):
        _check_keys(layer)
        merged = _merged(merged, layer)
    return _validated(merged)


def load_file(path: Path) -> RunConfig:
    """Return the configuration in a file that holds what `dump` returned. Raises UsageError like `load`."""
    settings = _read(path)
    _check_keys(settings)
    return _validated(settings)


def dump(config: RunConfig) -> str:
    """Return every setting as YAML; `load_file` reads it back to an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def setting_names() -> list[str]:
    """Return the dotted name of every setting, in the order of the schema."""
    names = []
    for name in RunConfig.model_fields:
        section = _section(name)
        names += [name] if section is None else [f"{name}.{key}" for key in section.model_fields]
    return names


def _section(name: str) -> type[Section] | None:
    annotation = RunConfig.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read", why=str(error), fix="check the path, and that it is a YAML file"
        ) from error
    settings = parse_yaml(text, source=str(path))
    if not isinstance(settings, dict):
        raise UsageError(
            f"{path} holds no settings",
            why="its top level is not made of lines such as 'game: hex5'",
            fix="compare it with a file in configs/presets",
        )
    return settings


def _override(text: str) -> dict[str, Any]:
    """Return "section.key=value" as {section: {key: value}}."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(
            f"{text!r} is not a setting",
            why="a setting is written section.key=value",
            fix="write for example learner.batch_rows=256",
        )
    settings = parse_yaml(value, source=f"the value of {name}")
    for part in reversed(name.strip().split(".")):
        settings = {part: settings}
    return settings


def _check_keys(settings: Mapping[Any, Any]) -> None:
    """Raise UsageError at the first name in `settings` that the schema does not have."""
    for name, value in settings.items():
        if name not in RunConfig.model_fields:
            raise _no_such_setting(str(name), "a run", RunConfig.model_fields)
        section = _section(name)
        if section is None:
            continue
        if not isinstance(value, dict):
            raise UsageError(
                f"{name} = {value!r} is not allowed",
                why=f"{name} is a section with the settings {', '.join(section.model_fields)}",
                fix=f"write for example {name}.{next(iter(section.model_fields))}=…",
            )
        for key in value:
            if key not in section.model_fields:
                raise _no_such_setting(f"{name}.{key}", name, section.model_fields)


def _no_such_setting(name: str, parent: str, siblings: Iterable[str]) -> UsageError:
    known = setting_names() if "." in name else [*RunConfig.model_fields, *setting_names()]
    return UsageError(
        f"there is no setting called {name!r}",
        why=f"{parent} has {', '.join(siblings)}",
        fix=did_you_mean(name, known),
    )


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the settings of `above` in their place, section by section."""
    merged = dict(below)
    for name, value in above.items():
        both_sections = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merged[name] | value if both_sections else value
    return merged


def _validated(settings: Mapping[str, Any]) -> RunConfig:
    # By way of JSON, strictly: there a list may become a tuple, but `yes` no number and "3" neither.
    try:
        return RunConfig.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        raise _wrong_value(error, settings) from error


def _wrong_value(error: ValidationError, settings: Mapping[str, Any]) -> UsageError:
    """Return the first problem that pydantic found, in the words of the schema."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "value_error":
        why, *fix = first.get("ctx", {})["error"].args
        return UsageError(
            f"the settings of {place[0] if place else 'a run'} do not go together",
            why=why,
            fix=fix[0] if fix else "change one of them",
        )
    section = _section(place[0])
    name = ".".join(place[:2] if section else place[:1])
    if first["type"] == "missing":
        return UsageError(f"the setting {name} is missing", why="it has no default", fix=f"add {name}=…")
    value = settings[place[0]][place[1]] if section else settings[place[0]]
    allowed, example = allowed_values(section or RunConfig, name.rpartition(".")[2])
    return UsageError(
        f"{name} = {value!r} is not allowed",
        why=f"it must be {allowed}",
        fix=f"write {shlex.quote(f'{name}={example}')}",
    )
