"""From a preset and what was typed behind it to a configuration, and back to text."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import ValidationError

from configs.names import PRESETS_FOLDER, preset_names
from configs.plain_yaml import parse_yaml
from configs.schema import RunConfig, Section
from configs.words import allowed_values, did_you_mean
from core.errors import UsageError

Config = TypeVar("Config", bound=Section)


class Kind(Generic[Config]):
    """A kind of configuration: how its presets and files are read, and how it is written.

    Args:
        schema: whose fields are settings, or sections of settings.
        presets: folder of its presets.
        whole: what it configures, in words.
    """

    def __init__(self, schema: type[Config], presets: Path, *, whole: str) -> None:
        self._schema = schema
        self._presets = presets
        self._whole = whole

    def load(self, preset: str, overrides: Sequence[str] = (), size: Literal["cpu", "gpu"] = "cpu") -> Config:
        """Return the configuration of a preset.

        Args:
            preset: a name from `preset_names`.
            overrides: texts such as "learner.batch_rows=256" or "evaluation.opponents=[random]"; the value is
                YAML, and the last one of a key counts.
            size: "gpu" puts what stands under `gpu:` in the preset over the rest of it.

        Raises:
            UsageError: for a preset, key or value that does not exist, with the nearest that does.
        """
        known = preset_names(self._presets)
        if preset not in known:
            raise UsageError(
                f"there is no preset called {preset!r}",
                why=f"the presets are {', '.join(known)}",
                fix=did_you_mean(preset, known),
            )
        settings = self._read(self._presets / f"{preset}.yaml")
        for_gpu = settings.pop("gpu", {})
        return self._over({}, [settings, for_gpu if size == "gpu" else {}, *map(_override, overrides)])

    def override(self, config: Config, overrides: Sequence[str]) -> Config:
        """Return `config` with some settings changed. Raises UsageError like `load`."""
        return self._over(config.model_dump(mode="json"), map(_override, overrides))

    def load_file(self, path: Path) -> Config:
        """Return the configuration in a file that holds what `dump` returned. Raises UsageError like `load`."""
        return self._over({}, [self._read(path)])

    def setting_names(self) -> list[str]:
        """Return the dotted name of every setting, in the order of the schema."""
        names = []
        for name in self._schema.model_fields:
            section = self._section(name)
            names += [name] if section is None else [f"{name}.{key}" for key in section.model_fields]
        return names

    def _section(self, name: str) -> type[Section] | None:
        annotation = self._schema.model_fields[name].annotation
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None

    def _read(self, path: Path) -> dict[str, Any]:
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
                fix=f"compare it with a file in configs/{self._presets.name}",
            )
        return settings

    def _over(self, below: Mapping[str, Any], layers: Iterable[Mapping[str, Any]]) -> Config:
        """Return the configuration of `below` with each of `layers` over it."""
        merged = dict(below)
        for layer in layers:
            self._check_keys(layer)
            merged = _merged(merged, layer)
        return self._validated(merged)

    def _check_keys(self, settings: Mapping[Any, Any]) -> None:
        """Raise UsageError at the first name in `settings` that the schema does not have."""
        for name, value in settings.items():
            if name not in self._schema.model_fields:
                raise self._no_such_setting(str(name), self._whole, self._schema.model_fields)
            section = self._section(name)
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
                    raise self._no_such_setting(f"{name}.{key}", name, section.model_fields)

    def _no_such_setting(self, name: str, parent: str, siblings: Iterable[str]) -> UsageError:
        names = self.setting_names()
        return UsageError(
            f"there is no setting called {name!r}",
            why=f"{parent} has {', '.join(siblings)}",
            fix=did_you_mean(name, names if "." in name else [*self._schema.model_fields, *names]),
        )

    def _validated(self, settings: Mapping[str, Any]) -> Config:
        # By way of JSON, strictly: there a list may become a tuple, but `yes` no number and "3" neither.
        try:
            return self._schema.model_validate_json(json.dumps(settings, default=str), strict=True)
        except ValidationError as error:
            raise self._wrong_value(error, settings) from error

    def _wrong_value(self, error: ValidationError, settings: Mapping[str, Any]) -> UsageError:
        """Return the first problem that pydantic found, in the words of the schema."""
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "value_error":
            why, *fix = first.get("ctx", {})["error"].args
            return UsageError(
                f"the settings of {place[0] if place else self._whole} do not go together",
                why=why,
                fix=fix[0] if fix else "change one of them",
            )
        section = self._section(place[0])
        name = ".".join(place[:2] if section else place[:1])
        if first["type"] == "missing" and len(place) == 1:
            return UsageError(f"the setting {name} is missing", why="it has no default", fix=f"add {name}=…")
        value = settings[place[0]][place[1]] if section else settings[place[0]]
        allowed, example = allowed_values(section or self._schema, name.rpartition(".")[2])
        return UsageError(
            f"{name} = {value!r} is not allowed",
            why=f"it must be {allowed}",
            fix=f"write {shlex.quote(f'{name}={example}')}",
        )


RUNS = Kind(RunConfig, PRESETS_FOLDER, whole="a run")
load, override, load_file, setting_names = RUNS.load, RUNS.override, RUNS.load_file, RUNS.setting_names


def dump(config: Section) -> str:
    """Return every setting as YAML; `load_file` reads it back to an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class _Entry(dict[str, Any]):
    """An entry of a setting that is a mapping; the other entries stay."""


def _override(text: str) -> dict[str, Any]:
    """Return "section.key=value" as {section: {key: value}}, and "section.key.entry=value" with an `_Entry` inside."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(
            f"{text!r} is not a setting",
            why="a setting is written section.key=value",
            fix="write for example learner.batch_rows=256",
        )
    settings = parse_yaml(value, source=f"the value of {name}")
    names = name.strip().split(".")
    for depth, part in reversed(list(enumerate(names))):
        settings = {part: settings} if depth < 2 else _Entry({part: settings})
    return settings


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the settings of `above` in their place, section by section."""
    merged = dict(below)
    for name, value in above.items():
        held = merged.get(name)
        both_sections = isinstance(value, dict) and isinstance(held, dict)
        merged[name] = _with_entries(held, value) if both_sections else value
    return merged


def _with_entries(below: Any, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with the settings of another in their place, of which `_Entry`s take only their own."""
    merged = dict(below)
    for key, value in section.items():
        held = merged.get(key)
        merged[key] = held | value if isinstance(value, _Entry) and isinstance(held, dict) else value
    return merged
