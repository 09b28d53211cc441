"""Solved situations of hold'em at rest: what players hold on a board, and what it is worth to them.

    samples_0000.npz         the columns, uncompressed; numpy.load reads them
    samples_0000.npz.json    what they are: schema, street, count, size, digest, stack, bet_sizes, about

Files are written and checked as `replay.npz` says. Hands are those that the board does not block, in the order of their
numbers (`poker.cards`). Player 0 is to act. Shapes: `R` samples, `H` hands.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.hands import BOARD_CARDS, NUM_CARDS, STREETS, Street
from replay.npz import (
    damaged,
    is_whole,
    missing_columns,
    read_columns,
    shape_problems,
    sidecar_of,
    write_columns,
    wrong_rows,
)

HAND_SHARD_SCHEMA = 1

HAND_COLUMNS = {
    "board": np.dtype("uint8"),
    "pot_half": np.dtype("float32"),
    "ranges": np.dtype("float16"),
    "values": np.dtype("float16"),
    "exploitability": np.dtype("float32"),
    "iterations": np.dtype("int32"),
    "number": np.dtype("int64"),
}
"""Name and type of each column, all with R rows, in the order in which they are written.

    board: [R, cards], different cards from 0 to 51.
    pot_half: chips that each player has put in.
    ranges: [R, 2, H], masses of hands in units of the mean: a mean of 1 is a mass of 1 in all. It is these that were
        solved, and not what they were rounded from.
    values: [R, 2, H], counterfactual values of the average strategies, as `poker.solver` defines them, in units of
        pot_half. That of a hand whose own mass is 0 means nothing: strategies are averaged by mass.
    exploitability: that was left when the solver stopped, in parts of the whole pot; of the street alone, where a
        network said what its leaves are worth. NaN where nothing was solved.
    iterations: that the solver took; of the end of a turn over all rivers.
    number: of the sample, from which, with the seed, all else follows.
"""

_MEAN_ERROR = 1e-2
_ROUNDING = 1e-2


@dataclass(frozen=True, slots=True)
class HandShardAbout:
    """What a writer knows of its samples beside the columns.

    Attributes:
        street: of the boards.
        stack: chips that each player had at the beginning of the hand.
        bet_sizes: of bets and raises in parts of the pot, as in `poker.betting.Betting`.
        about: whatever else is to be said, such as the seed; what JSON can say.
    """

    street: Street
    stack: float
    bet_sizes: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandShardInfo:
    """What a sidecar says.

    Attributes:
        schema: version of the columns and of the sidecar.
        street, stack, bet_sizes, about: see `HandShardAbout`.
        count: R.
        size: bytes of the file of columns.
        digest: of that file, as `core.files.digest` makes it.
    """

    schema: int
    street: Street
    count: int
    size: int
    digest: str
    stack: float
    bet_sizes: tuple[float, ...]
    about: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Return the sidecar's text, the same for equal infos."""
        return (json.dumps(asdict(self), indent=1, allow_nan=False) + "\n").encode()


def hands_on(street: Street) -> int:
    """Return H, the hands that a board of the street does not block."""
    return comb(NUM_CARDS - BOARD_CARDS[street], 2)


def write_hand_shard(path: Path, rows: Mapping[str, np.ndarray], about: HandShardAbout) -> HandShardInfo:
    """Write columns and sidecar, durably; a shard that was there before is replaced.

    Args:
        path: of the columns.
        rows: the columns.
        about: what else is to be said of them.

    Raises:
        ValueError: when the samples are not sound, see `check_valid`, or JSON cannot say what `about` does.
        OSError: when it cannot be written; then there is no shard.
    """
    if problems := check_valid(rows, about):
        raise ValueError(f"samples of the {about.street} are not sound: {'; '.join(problems)}")
    facts = _plain(about.about)

    def say(size: int, digest: str) -> HandShardInfo:
        return HandShardInfo(
            schema=HAND_SHARD_SCHEMA,
            street=about.street,
            count=len(rows["number"]),
            size=size,
            digest=digest,
            stack=float(about.stack),
            bet_sizes=tuple(map(float, about.bet_sizes)),
            about=facts,
        )

    return write_columns(path, rows, HAND_COLUMNS, say)


def is_complete(path: Path) -> bool:
    """Say whether a shard is there, whole as far as its length tells; `read_hand_shard` looks at every byte."""
    return is_whole(path, load_hand_info)


def load_hand_info(path: Path) -> HandShardInfo:
    """Return what the sidecar of the shard at `path` says. Raises DataError."""
    sidecar = sidecar_of(path)
    try:
        return hand_info_from_json(sidecar.read_bytes(), source=str(sidecar))
    except OSError as error:
        raise damaged(sidecar, str(error)) from error


def hand_info_from_json(data: bytes, *, source: str) -> HandShardInfo:
    """Return what a sidecar says. Raises DataError naming `source`."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(source, str(error)) from error
    match said:
        case {"schema": int(schema)} if schema != HAND_SHARD_SCHEMA:
            raise DataError(
                f"{source} is of another release",
                why=f"its samples have schema {schema}, this release reads schema {HAND_SHARD_SCHEMA}",
                fix="generate the samples anew, or read them with the release that wrote them",
            )
        case {
            "schema": int(schema),
            "street": str(street),
            "count": int(count),
            "size": int(size),
            "digest": str(digest),
            "stack": int() | float() as stack,
            "bet_sizes": list(sizes),
            "about": dict(about),
        } if street in STREETS and all(isinstance(one, int | float) for one in sizes):
            bet_sizes = tuple(map(float, sizes))
            return HandShardInfo(schema, street, count, size, digest, float(stack), bet_sizes, about)
    raise damaged(source, f"it is no object of {', '.join(HandShardInfo.__dataclass_fields__)}")


def read_hand_shard(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a shard. Raises DataError when a byte is missing, added or altered, or it is foreign."""
    info = load_hand_info(path)
    rows = read_columns(path, info, HAND_COLUMNS)
    problems = _shape_problems(rows, info.street) or (
        [f"it holds {len(rows['number'])} samples instead of {info.count}"]
        if len(rows["number"]) != info.count
        else []
    )
    if problems:
        raise damaged(path, "; ".join(problems))
    return rows


def check_valid(rows: Mapping[str, np.ndarray], about: HandShardAbout) -> list[str]:
    """Return what is wrong with samples, in words; nothing if they are sound."""
    if problems := _shape_problems(rows, about.street):
        return problems
    board, pot_half, ranges = np.sort(rows["board"], axis=1), rows["pot_half"], rows["ranges"]
    exploitability = rows["exploitability"]
    unsolved = np.isnan(exploitability) & about.street.endswith("_end")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        means = ranges.mean(axis=2, dtype=np.float32)
        largest = np.abs(rows["values"]).max(axis=(1, 2)).astype(np.float32)
        most = about.stack / pot_half * (1 + _ROUNDING)
        tests = {
            f"a card is not from 0 to {NUM_CARDS - 1}": (board >= NUM_CARDS).any(axis=1),
            "a card is on the board twice": (np.diff(board, axis=1) == 0).any(axis=1),
            f"pot_half is not between 0 and the stack of {about.stack:g}": ~(
                (pot_half > 0) & (pot_half < about.stack)
            ),
            "a range holds what is not finite and at least 0": ~_all(np.isfinite(ranges) & (ranges >= 0)),
            "a range has no mass": (means == 0).any(axis=1),
            "a range is not in units of its mean": ((means != 0) & (np.abs(means - 1) > _MEAN_ERROR)).any(
                axis=1
            ),
            "a value is not finite": ~_all(np.isfinite(rows["values"])),
            "a value is more than a stack": largest > most,
            "exploitability is not finite and at least 0": ~(
                np.isfinite(exploitability) & (exploitability >= 0) | unsolved
            ),
            "iterations is below 0": rows["iterations"] < 0,
        }
    return wrong_rows(tests)


def _all(good: np.ndarray) -> np.ndarray:
    return np.logical_and.reduce(good, axis=(1, 2))


def _shape_problems(rows: Mapping[str, np.ndarray], street: Street) -> list[str]:
    if missing := missing_columns(rows, HAND_COLUMNS):
        return missing
    count, hands = len(rows["number"]), hands_on(street)
    shapes = {
        "board": (count, BOARD_CARDS[street]),
        "ranges": (count, 2, hands),
        "values": (count, 2, hands),
    }
    return shape_problems(
        rows, {name: (dtype, shapes.get(name, (count,))) for name, dtype in HAND_COLUMNS.items()}
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as they will be read. Raises ValueError when JSON cannot say them."""
    try:
        return json.loads(json.dumps(dict(facts), allow_nan=False))
    except TypeError as error:
        raise ValueError(f"JSON cannot say {dict(facts)}: {error}") from error
