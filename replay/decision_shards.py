"""Decisions of games that somebody else's program played, as training rows at rest: one folder of shards.

    decisions_000000.npz         the columns, uncompressed; numpy.load reads them
    decisions_000000.npz.json    what they are: schema, source, observation, sizes, the games, what was lost, digest

Files are written and checked as `replay.npz` says. `DecisionWriter` adds games, each once, and one writer at a time;
`read_decisions` reads all there are. Which games are kept apart to judge by is `replay.splitting`'s to say.

Shapes: `R` rows, `F` numbers to see, `S` slots that a choice is one of.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError, UsageError
from core.files import digest
from replay.npz import (
    damaged,
    missing_columns,
    read_columns,
    shape_problems,
    sidecar_of,
    write_columns,
    wrong_rows,
)
from replay.records import VALUE_LIMIT

DECISION_SCHEMA = 1

DECISION_COLUMNS = {
    "vector": np.dtype("float16"),
    "mask": np.dtype("bool"),
    "choice": np.dtype("int64"),
    "outcome": np.dtype("float32"),
    "value_weight": np.dtype("float32"),
    "kind": np.dtype("int16"),
    "game": np.dtype("uint64"),
    "ply": np.dtype("int32"),
}
"""Name and type of each column, all with R rows, in the order in which they are written.

    vector: [R, F], what the player who chose could see.
    mask: [R, S], the slots that could be chosen.
    choice: the slot that was.
    outcome: of the game, from the view of that player, in [-1, 1].
    value_weight: of the outcome; 0 where it is not known.
    kind: of decision, a number that the source gives it.
    game: number of the game; a copy has the same.
    ply: number of the row within its game, from 0.
"""

_NAME = re.compile(r"decisions_(\d{6,})\.npz")


@dataclass(frozen=True, slots=True)
class DecisionAbout:
    """What all rows of a folder have in common.

    Attributes:
        source: the program that was watched, for people.
        observation: version of what the numbers to see mean.
        features, slots: F and S.
    """

    source: str
    observation: int
    features: int
    slots: int


@dataclass(frozen=True, slots=True)
class DecisionInfo:
    """What a sidecar says.

    Attributes:
        schema: version of the columns and of the sidecar.
        about: see `DecisionAbout`.
        rows: R.
        games: their numbers, those without a row too.
        counts: what was lost on the way to these rows, by name.
        size: bytes of the file of columns.
        digest: of that file, as `core.files.digest` makes it.
    """

    schema: int
    about: DecisionAbout
    rows: int
    games: tuple[int, ...]
    counts: Mapping[str, int]
    size: int
    digest: str

    def to_json(self) -> bytes:
        """Return the sidecar's text, the same for equal infos."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True, eq=False)
class DecisionSet:
    """All that a folder holds.

    Attributes:
        about: see there.
        columns: of all rows.
        games: how many were kept.
        counts: what was lost, by name.
        digest: of all rows; equal for equal folders wherever they lie.
    """

    about: DecisionAbout
    columns: Mapping[str, np.ndarray]
    games: int
    counts: Mapping[str, int]
    digest: str


class DecisionWriter:
    """Adds games to a folder. Games since the last full shard are in memory until `flush`.

    Args:
        folder: for the shards; what is there already is gone on with.
        about: of all rows.
        shard_rows: after so many a shard is written.

    Attributes:
        games: in the folder or on their way to it.
        duplicates: games that were there already and were not taken again.

    Raises:
        UsageError: when rows of another kind are there.
        DataError: when a sidecar is damaged.
    """

    def __init__(self, folder: Path, about: DecisionAbout, *, shard_rows: int = 16_384) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._about = about
        self._shard_rows = shard_rows
        infos = {path: load_decision_info(path) for path in decision_files(folder)}
        _refuse_others(folder, about, [info.about for info in infos.values()])
        self._known = {game for info in infos.values() for game in info.games}
        self._next = 1 + max((_number(path) for path in infos), default=-1)
        self._begin()
        self.duplicates = 0

    @property
    def games(self) -> int:
        return len(self._known)

    def __contains__(self, game: int) -> bool:
        return game in self._known

    def add(self, game: int, columns: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> bool:
        """Take a game, unless it is there already; return whether it was taken.

        Args:
            game: its number.
            columns: its rows, `DECISION_COLUMNS`.
            counts: what was lost on the way to them.

        Raises:
            ValueError: when the rows are not sound, see `check_valid`; nothing is taken.
            OSError: when a full shard cannot be written; its rows stay, for another try.
        """
        if game in self._known:
            self.duplicates += 1
            return False
        problems = check_valid(columns, self._about)
        if not problems and (columns["game"] != np.uint64(game)).any():
            problems = [f"a row is of another game than {game}"]
        if problems:
            raise ValueError(f"rows of a game are not sound: {'; '.join(problems)}")
        self._known.add(game)
        self._games.append(game)
        self._waiting.append(columns)
        self._counts.update(counts)
        self._rows += len(columns["game"])
        if self._rows >= self._shard_rows:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what waits, durably. Raises OSError when it cannot be written; it then waits on."""
        if not self._games:
            return
        rows = {
            name: np.concatenate([columns[name] for columns in self._waiting]) for name in DECISION_COLUMNS
        }

        def say(size: int, digest: str) -> DecisionInfo:
            games, counts = tuple(self._games), dict(sorted(self._counts.items()))
            return DecisionInfo(DECISION_SCHEMA, self._about, self._rows, games, counts, size, digest)

        write_columns(self._folder / f"decisions_{self._next:06}.npz", rows, DECISION_COLUMNS, say)
        self._next += 1
        self._begin()

    def _begin(self) -> None:
        """Begin a shard."""
        self._games: list[int] = []
        self._waiting: list[Mapping[str, np.ndarray]] = []
        self._counts: Counter[str] = Counter()
        self._rows = 0


def decision_files(folder: Path) -> list[Path]:
    """Return the shards of a folder, the oldest first. One is there when its sidecar is."""
    found = [path for path in folder.glob("decisions_*.npz") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if sidecar_of(path).exists()), key=_number)


def load_decision_info(path: Path) -> DecisionInfo:
    """Return what the sidecar of the shard at `path` says. Raises DataError."""
    sidecar = sidecar_of(path)
    try:
        said = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(sidecar, str(error)) from error
    match said:
        case {"schema": int(schema)} if schema != DECISION_SCHEMA:
            raise DataError(
                f"{sidecar} is of another release",
                why=f"its rows have schema {schema}, this release reads schema {DECISION_SCHEMA}",
                fix="record the games once more, or read them with the release that wrote them",
            )
        case {
            "schema": int(schema),
            "about": {
                "source": str(source),
                "observation": int(observation),
                "features": int(features),
                "slots": int(slots),
            },
            "rows": int(rows),
            "games": list(games),
            "counts": dict(counts),
            "size": int(size),
            "digest": str(found),
        } if all(type(number) is int for number in (*games, *counts.values())):
            about = DecisionAbout(source, observation, features, slots)
            return DecisionInfo(schema, about, rows, tuple(games), counts, size, found)
    raise damaged(sidecar, f"it is no object of {', '.join(DecisionInfo.__dataclass_fields__)}")


def read_decision_shard(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a shard. Raises DataError when a byte is missing, added or altered, or it is foreign."""
    info = load_decision_info(path)
    rows = read_columns(path, info, DECISION_COLUMNS)
    problems = check_valid(rows, info.about)
    if not problems and len(rows["game"]) != info.rows:
        problems = [f"it holds {len(rows['game'])} rows instead of {info.rows}"]
    if not problems and not set(rows["game"].tolist()) <= set(info.games):
        problems = ["it holds rows of games that its sidecar does not name"]
    if problems:
        raise damaged(path, "; ".join(problems))
    return rows


def read_decisions(folder: Path) -> DecisionSet:
    """Return all that a folder holds; it lies in memory, as many bytes as its files have.

    Raises:
        UsageError: when nothing is there, or rows of several kinds.
        DataError: when a shard is damaged, or two hold one game.
    """
    files = decision_files(folder)
    infos = [load_decision_info(path) for path in files]
    if not infos:
        raise UsageError(
            f"{folder} holds no decisions",
            why="it has no file decisions_000000.npz with its .json",
            fix="record games of an engine first, or name another folder",
        )
    about = infos[0].about
    _refuse_others(folder, about, [info.about for info in infos])
    games = [game for info in infos for game in info.games]
    if len(set(games)) != len(games):
        raise damaged(folder, "two of its shards hold the same game")
    shards = [read_decision_shard(path) for path in files]
    columns = {name: np.concatenate([shard[name] for shard in shards]) for name in DECISION_COLUMNS}
    counts = sum((Counter(info.counts) for info in infos), Counter())
    return DecisionSet(about, columns, len(games), counts, _digest(infos))


def decisions_digest(folder: Path) -> str:
    """Return the digest of all rows of a folder, see `DecisionSet`, without reading them. Raises DataError."""
    return _digest([load_decision_info(path) for path in decision_files(folder)])


def check_valid(rows: Mapping[str, np.ndarray], about: DecisionAbout) -> list[str]:
    """Return what is wrong with rows, in words; nothing if they are sound."""
    if missing := missing_columns(rows, DECISION_COLUMNS):
        return missing
    count = len(rows["game"])
    wide = {"vector": (count, about.features), "mask": (count, about.slots)}
    shapes = {name: (dtype, wide.get(name, (count,))) for name, dtype in DECISION_COLUMNS.items()}
    if problems := shape_problems(rows, shapes):
        return problems
    choice, mask, weight = rows["choice"], rows["mask"], rows["value_weight"]
    is_slot = (choice >= 0) & (choice < about.slots)
    allowed = mask[np.arange(count), np.where(is_slot, choice, 0)]
    with np.errstate(invalid="ignore"):
        tests = {
            "a number to see is not finite": ~np.isfinite(rows["vector"]).all(axis=1),
            "the choice is not among what could be chosen": ~(is_slot & allowed),
            "outcome is not from -1 to 1": ~(np.abs(rows["outcome"]) <= VALUE_LIMIT),
            "value_weight is not finite and at least 0": ~(np.isfinite(weight) & (weight >= 0)),
            "kind is below 0": rows["kind"] < 0,
            "ply is below 0": rows["ply"] < 0,
        }
    return wrong_rows(tests)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("decisions_").removesuffix(".npz"))


def _digest(infos: Sequence[DecisionInfo]) -> str:
    return digest("".join(info.digest for info in infos).encode())


def _refuse_others(folder: Path, about: DecisionAbout, found: list[DecisionAbout]) -> None:
    other = next((one for one in found if one != about), None)
    if other is not None:
        raise UsageError(
            f"{folder} holds decisions of another kind",
            why=f"there are those of {_in_words(other)} and of {_in_words(about)}",
            fix="give each kind a folder of its own",
        )


def _in_words(about: DecisionAbout) -> str:
    return (
        f"{about.source} (observation {about.observation} of {about.features} numbers, {about.slots} slots)"
    )
