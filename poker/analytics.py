"""Analytics of play: on which streets decisions fall and how large bets are, in a JSON file that data generation reads.

Several programs have written such files, and each spelled some keys its own way; see `WEIGHT_KEYS` and `SIZE_KEYS`.
Keys of JSON are text, those of streets may also be numbers: all become places in tuples, preflop first.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from configs.words import did_you_mean
from core.errors import DataError, UsageError
from poker.acpc import STREETS

FLAT_KEYS = tuple(f"{street}_weight" for street in STREETS)
WEIGHT_KEYS = ("street_distribution", "street_weights", "street_sampling_weights", "street_probs")
"""Any of them may hold the weights by street, as may the four `FLAT_KEYS`; several must agree."""
SIZE_KEYS = ("bet_sizing_override", "bet_sizing")
INFORMATION_KEYS = ("name", "source", "notes", "bet_sizing_recommendation")
"""They say where the numbers are from, and change nothing. Recommended sizes are in chips, which fit one game only."""
KNOWN_KEYS = (
    *INFORMATION_KEYS,
    *FLAT_KEYS,
    *WEIGHT_KEYS,
    *SIZE_KEYS,
    "smoothing_alpha",
    "cfr_iterations",
)

DEFAULT_SMOOTHING = 0.12
DEFAULT_FLOOR = 0.05
LARGEST_WEIGHT = 1e6
LARGEST_SIZE = 50.0
LARGEST_FLOOR = 0.3
MOST_ITERATIONS = 1_000_000

_MAKE_ANEW = "make a file anew: tamen datagen analyze-hands LOGS --out FILE"
_STAMP = re.compile(r"analytics_([0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2})\.json")
_STAMP_FORM = "%Y-%m-%d_%H-%M-%S"
_AGREEMENT = 1e-6


@dataclass(frozen=True, slots=True)
class Analytics:
    """What an analytics file says.

    Attributes:
        weights: of the streets, preflop first, as they stand in the file: `street_weights` makes shares of them.
        smoothing: the part of a uniform distribution that is mixed in, 0 to 1.
        cfr_iterations: None where the file says nothing.
        sizes: of bets and raises on each street, preflop first, in parts of the pot after a call, ascending; none on
            streets of which the file says nothing.
        information: what stands under `INFORMATION_KEYS`.
        notes: what was understood otherwise than written, in sentences for a person.
    """

    weights: tuple[float, ...]
    smoothing: float
    cfr_iterations: int | None
    sizes: tuple[tuple[float, ...], ...]
    information: Mapping[str, Any]
    notes: tuple[str, ...]


def read_analytics(file: Path) -> Analytics:
    """Return what `file` says.

    Raises:
        UsageError: when it is not there, or a key or a value of it cannot be.
        DataError: when it is no JSON object.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file {file}", why=f"nothing has this name, seen from {Path.cwd()}", fix=_MAKE_ANEW
        ) from error
    except UnicodeDecodeError as error:
        raise _no_json(str(file), f"byte {error.start + 1} is not UTF-8") from error
    try:
        given = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _no_json(str(file), str(error)) from error
    if not isinstance(given, dict):
        raise _no_json(str(file), f"it holds {_shown(given)}, not names with values")
    return parse_analytics(given, source=str(file))


def parse_analytics(given: Mapping[Any, Any], *, source: str) -> Analytics:
    """Return what the settings `given`, of a file or otherwise, say; `source` names them in errors.

    Raises:
        UsageError: when a key or a value cannot be.
    """
    for key in given:
        if key not in KNOWN_KEYS:
            raise UsageError(
                f"{source}: there is no key {key!r}",
                why=f"the keys are {', '.join(KNOWN_KEYS)}",
                fix=did_you_mean(str(key), KNOWN_KEYS),
            )
    notes: list[str] = []
    smoothing = DEFAULT_SMOOTHING
    if "smoothing_alpha" in given:
        smoothing = _number(given["smoothing_alpha"], 0.0, 1.0, source=source, name="smoothing_alpha")
    else:
        notes.append(f"smoothing_alpha is not given: {DEFAULT_SMOOTHING} is taken")
    return Analytics(
        weights=_read_weights(given, source),
        smoothing=smoothing,
        cfr_iterations=_read_iterations(given, source, notes),
        sizes=_read_sizes(given, source, notes),
        information={key: given[key] for key in INFORMATION_KEYS if key in given},
        notes=tuple(notes),
    )


def street_weights(
    analytics: Analytics, *, floor: float = DEFAULT_FLOOR, smoothing: float | None = None
) -> tuple[float, ...]:
    """Return the share of each street, preflop first; they sum to 1.

    The weights are made shares and mixed with a uniform distribution, `smoothing` (default: what the file says) parts
    of it. Then flop, turn and river get at least `floor` each, at the cost of the others in proportion: where that
    brings another one below the floor, it is raised too, so that the floor holds for the shares as they are returned.

    Raises:
        UsageError: when `floor` or `smoothing` is out of its range.
    """
    floor = _number(floor, 0.0, LARGEST_FLOOR, source="street weights", name="floor")
    alpha = analytics.smoothing if smoothing is None else smoothing
    alpha = _number(alpha, 0.0, 1.0, source="street weights", name="smoothing")
    shares = [(1 - alpha) * share + alpha / len(STREETS) for share in _shares(analytics.weights)]
    raised: set[int] = set()
    while low := {street for street in range(1, len(STREETS)) if shares[street] < floor}:
        raised |= low
        rest = sum(shares[street] for street in range(len(STREETS)) if street not in raised)
        scale = (1 - floor * len(raised)) / rest
        shares = [floor if street in raised else scale * share for street, share in enumerate(shares)]
    return tuple(shares)


def newest_analytics(folder: Path) -> Path:
    """Return the file with the latest stamp in its name, `analytics_YYYY-MM-DD_HH-MM-SS.json`, in `folder`.

    When a file was written or copied says nothing of its age, and files called otherwise are none.

    Raises:
        UsageError: when there is none.
    """
    stamped = [(stamp, file) for file in folder.glob("analytics_*.json") if (stamp := _stamp(file))]
    if not stamped:
        raise UsageError(
            f"there are no analytics in {folder}",
            why="no file there is called analytics_YYYY-MM-DD_HH-MM-SS.json"
            if folder.is_dir()
            else "there is no such folder",
            fix=f"name a file, or make one: tamen datagen analyze-hands LOGS --out {folder}",
        )
    return max(stamped)[1]


def analytics_name(made: datetime) -> str:
    """Return the name, without .json, of analytics made at this time."""
    return f"analytics_{made.strftime(_STAMP_FORM)}"


def _stamp(file: Path) -> datetime | None:
    match = _STAMP.fullmatch(file.name)
    if match is None or not file.is_file():
        return None
    try:
        return datetime.strptime(match[1], _STAMP_FORM)
    except ValueError:
        return None


def _read_weights(given: Mapping[Any, Any], source: str) -> tuple[float, ...]:
    found: dict[str, tuple[float, ...]] = {}
    for key in WEIGHT_KEYS:
        if key in given:
            by_street = _by_street(given[key], source, key)
            missing = [name for street, name in enumerate(STREETS) if street not in by_street]
            if missing:
                raise _missing(source, [f"{key}.{name}" for name in missing])
            values = [by_street[street] for street in range(len(STREETS))]
            found[key] = _weights(values, [f"{key}.{name}" for name in STREETS], source)
    if flat := [key for key in FLAT_KEYS if key in given]:
        if len(flat) < len(STREETS):
            raise _missing(source, [key for key in FLAT_KEYS if key not in given])
        found["/".join(FLAT_KEYS)] = _weights([given[key] for key in FLAT_KEYS], FLAT_KEYS, source)
    if not found:
        raise UsageError(
            f"{source}: there are no weights of the streets",
            why=f"they are the four keys {', '.join(FLAT_KEYS)}, or one of {', '.join(WEIGHT_KEYS)}",
            fix=_MAKE_ANEW,
        )
    (first, weights), *others = found.items()
    for key, other in others:
        pairs = zip(_shares(weights), _shares(other), strict=True)
        if any(abs(one - another) > _AGREEMENT for one, another in pairs):
            raise UsageError(
                f"{source}: {first} and {key} contradict each other",
                why=f"as shares they are {_percents(weights)} and {_percents(other)}, preflop first",
                fix="keep the one that is meant",
            )
    return weights


def _weights(values: Sequence[Any], names: Sequence[str], source: str) -> tuple[float, ...]:
    weights = tuple(
        _number(value, 0.0, LARGEST_WEIGHT, source=source, name=name)
        for value, name in zip(values, names, strict=True)
    )
    if sum(weights) == 0:
        raise UsageError(
            f"{source}: {', '.join(names)} are all 0",
            why="at least one street must have a weight above 0",
            fix="give the streets weights, such as 0.2, 0.35, 0.25 and 0.2",
        )
    return weights


def _read_iterations(given: Mapping[Any, Any], source: str, notes: list[str]) -> int | None:
    if "cfr_iterations" not in given:
        notes.append("cfr_iterations is not given: the profile decides")
        return None
    iterations = given["cfr_iterations"]
    if (
        not isinstance(iterations, int)
        or isinstance(iterations, bool)
        or not 1 <= iterations <= MOST_ITERATIONS
    ):
        raise UsageError(
            f"{source}: cfr_iterations is {_shown(iterations)}",
            why=f"it is a whole number from 1 to {MOST_ITERATIONS:,}",
            fix="put such a number there, for example 2000",
        )
    return iterations


def _read_sizes(given: Mapping[Any, Any], source: str, notes: list[str]) -> tuple[tuple[float, ...], ...]:
    found: dict[str, tuple[tuple[float, ...], ...]] = {}
    for key in SIZE_KEYS:
        if key in given:
            by_street = _by_street(given[key], source, key)
            found[key] = tuple(
                _street_sizes(by_street[street], source, f"{key}.{name}", notes)
                if street in by_street
                else ()
                for street, name in enumerate(STREETS)
            )
    if not found:
        notes.append("no bet sizes are given: the profile decides")
        return ((),) * len(STREETS)
    (first, sizes), *others = found.items()
    for key, other in others:
        if other != sizes:
            raise UsageError(
                f"{source}: {first} and {key} contradict each other",
                why=f"they are {_shown(given[first])} and {_shown(given[key])}",
                fix="keep the one that is meant",
            )
    if without := [name for name, each in zip(STREETS[1:], sizes[1:], strict=True) if not each]:
        notes.append(f"no bet sizes are given for {', '.join(without)}: the profile decides")
    return sizes


def _street_sizes(given: Any, source: str, name: str, notes: list[str]) -> tuple[float, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise UsageError(
            f"{source}: {name} is {_shown(given)}",
            why="the bet sizes of a street are a list of one or more numbers",
            fix="put a list there, for example [0.5, 1.0, 2.0], or leave the street out",
        )
    sizes = [
        _number(size, 0.0, LARGEST_SIZE, source=source, name=f"{name}[{place}]", above=True)
        for place, size in enumerate(given)
    ]
    once = tuple(sorted(set(sizes)))
    if len(once) < len(sizes):
        twice = ", ".join(f"{size:g}" for size in once if sizes.count(size) > 1)
        notes.append(f"{name} has {twice} more than once: {len(once)} of {len(sizes)} sizes are left")
    return once


def _by_street(given: Any, source: str, key: str) -> dict[int, Any]:
    """Return the values by the number of their street; keys may be names or numbers, also as text."""
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{source}: {key} is {_shown(given)}",
            why="it has a value for each street, by its name or number",
            fix='write for example {"1": …, "2": …, "3": …}',
        )
    found: dict[int, Any] = {}
    numbers = {str(street): street for street in range(len(STREETS))}
    for name, value in given.items():
        word = str(name)
        street = STREETS.index(word) if word in STREETS else numbers.get(word)
        if street is None:
            raise UsageError(
                f"{source}: {key} has a street {name!r}",
                why=f"the streets are {', '.join(STREETS)}, or 0 to {len(STREETS) - 1}",
                fix=did_you_mean(word, STREETS),
            )
        if street in found and found[street] != value:
            raise UsageError(
                f"{source}: {key} has the {STREETS[street]} twice",
                why=f"it is {_shown(found[street])} and {_shown(value)}",
                fix="keep the one that is meant",
            )
        found[street] = value
    return found


def _number(
    value: Any, lowest: float, highest: float, *, source: str, name: str, above: bool = False
) -> float:
    """Return `value` where it is a number from `lowest`, or `above` it, to `highest`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= highest or (above and value == lowest):
        bounds = f"above {lowest:g} and at most {highest:,g}" if above else f"from {lowest:g} to {highest:,g}"
        raise UsageError(
            f"{source}: {name} is {_shown(value)}",
            why=f"it is a number {bounds}",
            fix="put such a number there",
        )
    return float(value)


def _shares(weights: Sequence[float]) -> tuple[float, ...]:
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def _percents(weights: Sequence[float]) -> str:
    return ", ".join(f"{share:.2%}" for share in _shares(weights))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _missing(source: str, names: Sequence[str]) -> UsageError:
    return UsageError(
        f"{source}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} missing",
        why="each street has a weight, and what is not said is not guessed",
        fix="add it, 0 where the street is not wanted" if len(names) == 1 else "add them, 0 where not wanted",
    )


def _no_json(source: str, problem: str) -> DataError:
    return DataError(f"{source} is no analytics file", why=problem, fix=_MAKE_ANEW)
