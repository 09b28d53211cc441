"""The tables of the model registry, what their rows say, and the one way in which stages and aliases change."""

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from control.database import Row
from control.lineage import Source
from control.model_cards import Elo, Match, Model, Rating, Stage
from control.sequential import PairCounts
from core.errors import DataError, TamenError, UsageError

Alias: TypeAlias = Literal["latest", "candidate", "champion"]

ALIASES: tuple[Alias, ...] = get_args(Alias)
TRANSITIONS: Mapping[Stage, tuple[Stage, ...]] = {
    "development": ("staging", "archived", "rejected"),
    "staging": ("production", "development", "archived", "rejected"),
    "production": ("archived", "staging"),
    "archived": ("development",),
    "rejected": ("development",),
}
TABLES = """
CREATE TABLE IF NOT EXISTS models (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, version INTEGER NOT NULL, parent TEXT REFERENCES models (id),
    stage TEXT NOT NULL, created_at REAL NOT NULL, who TEXT NOT NULL, config TEXT NOT NULL, config_digest TEXT NOT NULL,
    metrics TEXT NOT NULL, sources TEXT NOT NULL, games INTEGER NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL, digest TEXT NOT NULL, UNIQUE (key, version), UNIQUE (key, digest, config_digest));
CREATE TABLE IF NOT EXISTS aliases (
    key TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL REFERENCES models (id), PRIMARY KEY (key, name));
CREATE INDEX IF NOT EXISTS aliases_of_model ON aliases (model);
CREATE TABLE IF NOT EXISTS moves (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL REFERENCES models (id), act TEXT NOT NULL,
    what TEXT NOT NULL, before TEXT, after TEXT, who TEXT NOT NULL, why TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS moves_of_key ON moves (key, what);
CREATE INDEX IF NOT EXISTS moves_of_model ON moves (model);
CREATE TABLE IF NOT EXISTS ratings (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL REFERENCES models (id), stage TEXT NOT NULL, rating REAL NOT NULL,
    low REAL NOT NULL, high REAL NOT NULL, games INTEGER NOT NULL, conditions TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS ratings_of_model ON ratings (model);
CREATE TABLE IF NOT EXISTS matches (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL REFERENCES models (id), opponent TEXT NOT NULL,
    p0 INTEGER NOT NULL, p1 INTEGER NOT NULL, p2 INTEGER NOT NULL, p3 INTEGER NOT NULL, p4 INTEGER NOT NULL,
    draws INTEGER NOT NULL, conditions TEXT NOT NULL, seed INTEGER NOT NULL, first_pair INTEGER NOT NULL,
    set_aside INTEGER NOT NULL, stage TEXT NOT NULL, played_at REAL NOT NULL,
    UNIQUE (model, opponent, conditions, seed, first_pair))
"""
SELECT_MODELS = """
SELECT models.*, ratings.rating, ratings.low, ratings.high, ratings.games AS rated_games,
    (SELECT group_concat(name) FROM aliases WHERE aliases.model = models.id) AS aliases
FROM models LEFT JOIN ratings ON ratings.number = (
    SELECT number FROM ratings WHERE model = models.id ORDER BY stage = 'production', number DESC LIMIT 1)
"""

ADD_MODEL = "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_MATCH = "INSERT INTO matches VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_RATING = "INSERT INTO ratings VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"

_LONGEST_TEXT = 4000
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999


class AliasMovedError(TamenError):
    """An alias names another model than who wanted to move it had seen: somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one act changes about the models of a key, in one transaction; each step is written down.

    Attributes:
        connection: in the transaction.
        key, act, who, why: what the history says of every step.
        at: seconds since 1970.
    """

    connection: sqlite3.Connection
    key: str
    act: str
    who: str
    why: str
    at: float

    def named(self, alias: Alias) -> str | None:
        """Return the id that an alias names; None for nobody."""
        row = self.connection.execute(
            "SELECT model FROM aliases WHERE key = ? AND name = ?", (self.key, alias)
        ).fetchone()
        return row["model"] if row else None

    def expect(self, alias: Alias, expected: str | None) -> None:
        """Raise AliasMovedError unless the alias names `expected`."""
        found = self.named(alias)
        if found != expected:
            raise AliasMovedError(
                f"{self.key}@{alias} was left as it is",
                why=f"it is {found or 'nobody'}, where {expected or 'nobody'} was expected: somebody else moved it",
                fix=f"look at `tamen models list {self.key}`, and decide again",
            )

    def lead(self, model_id: str, to: Stage) -> None:
        """Take a model from stage to stage on the shortest way that is allowed; nothing happens if it is there."""
        ways: list[list[Stage]] = [[stage_of(self.connection, model_id)]]
        while (way := ways.pop(0))[-1] != to:
            for stage in TRANSITIONS[way[-1]]:
                ways.append([*way, stage])
        for stage in way[1:]:
            self.stage(model_id, stage)

    def stage(self, model_id: str, to: Stage) -> None:
        """Put a model into another stage; who leaves staging is no candidate. Raises UsageError if it may not."""
        before = stage_of(self.connection, model_id)
        if to not in TRANSITIONS[before]:
            raise UsageError(
                f"{model_id} cannot go to {to}",
                why=f"it is in {before}, from where it may go to {', '.join(TRANSITIONS[before])}",
                fix=f"take it there first, with `tamen models promote {model_id} --to development`, say",
            )
        self.connection.execute("UPDATE models SET stage = ? WHERE id = ?", (to, model_id))
        self.write(model_id, "stage", before, to)
        if before == "staging" and self.named("candidate") == model_id:
            self.connection.execute("DELETE FROM aliases WHERE key = ? AND name = 'candidate'", (self.key,))
            self.write(model_id, "candidate", model_id, None)

    def point(self, alias: Alias, model_id: str) -> None:
        """Let an alias name a model."""
        before = self.named(alias)
        self.connection.execute("REPLACE INTO aliases VALUES (?, ?, ?)", (self.key, alias, model_id))
        self.write(model_id, alias, before, model_id)

    def write(self, model_id: str, what: str, before: str | None, after: str | None) -> None:
        """Add a line to the history."""
        self.connection.execute(
            "INSERT INTO moves VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.key, model_id, self.act, what, before, after, self.who, self.why, self.at),
        )


def stage_of(connection: sqlite3.Connection, model_id: str) -> Stage:
    """Return the stage of a model. Raises UsageError when there is no such model."""
    row = connection.execute("SELECT stage FROM models WHERE id = ?", (model_id,)).fetchone()
    if row is None:
        raise no_such_model(model_id, "none has that id")
    if row["stage"] not in TRANSITIONS:
        raise _damaged(model_id, f"its stage is {row['stage']!r}")
    return row["stage"]


def no_such_model(name: str, why: str) -> UsageError:
    return UsageError(
        f"there is no model {name!r}",
        why=f"{why}; a model is named by id or alias, such as hex5_2p-v3 or hex5_2p@champion",
        fix="see which there are with `tamen models list`",
    )


def model_of(row: Row, folder: Path) -> Model:
    """Return what a row of SELECT_MODELS says; files lie below `folder`. Raises DataError when it is damaged."""
    try:
        sources = tuple(Source(*each) for each in json.loads(row["sources"]))
        config, metrics = json.loads(row["config"]), json.loads(row["metrics"])
    except (ValueError, TypeError) as error:
        raise _damaged(row["id"], f"{type(error).__name__}: {error}") from error
    rated = row["rating"] is not None
    return Model(
        **{name: row[name] for name in ("id", "key", "version", "parent", "stage", "created_at", "who")},
        **{name: row[name] for name in ("games", "bytes", "digest")},
        config=config,
        metrics=metrics,
        sources=sources,
        elo=Elo(row["rating"], row["low"], row["high"], row["rated_games"]) if rated else None,
        file=folder / row["file"],
        aliases=tuple(sorted((row["aliases"] or "").split(","))) if row["aliases"] else (),
    )


def rating_of_row(row: Row) -> Rating:
    """Return what a row of ratings says."""
    elo = Elo(row["rating"], row["low"], row["high"], row["games"])
    return Rating(elo, row["stage"], row["conditions"])


def match_of(row: Row) -> Match:
    """Return what a row of matches says."""
    counts = (row["p0"], row["p1"], row["p2"], row["p3"], row["p4"])
    names = ("model", "opponent", "draws", "conditions", "seed", "first_pair", "set_aside", "played_at")
    return Match(pairs=PairCounts(counts), **{name: row[name] for name in names})


def checked_text(text: str, what: str) -> str:
    """Return `text` as one line. Raises UsageError when nothing is in it, or too much."""
    line = " ".join(text.split())
    if not 0 < len(line) <= _LONGEST_TEXT or not line.isprintable():
        raise refused(
            f"{what} {line[:40]!r}",
            f"it is written into the history, and has 1 to {_LONGEST_TEXT} printable characters",
            "say it in a sentence",
        )
    return line


def checked_moment(at: float) -> float:
    """Return a moment that can be shown. Raises UsageError when it is not between 1970 and the year 9999."""
    if not (math.isfinite(at) and 0 <= at <= _LAST_MOMENT):
        raise refused(
            f"moment {at!r}", "it is in seconds since 1970, up to the year 9999", "see to the clock"
        )
    return float(at)


def checked_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return `metrics` as they are written down. Raises UsageError when one is not a finite number."""
    for name, value in metrics.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise refused(
                f"metric {name}={value!r}",
                "it is not a finite number, so nothing can be compared with it",
                "look for what made it so, or leave it out",
            )
    return {name: float(value) for name, value in metrics.items()}


def canonical(values: Mapping[str, Any]) -> str:
    """Return `values` as JSON, the same text for the same values. Raises UsageError when JSON cannot say them."""
    try:
        text = json.dumps(dict(values), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(
            "the configuration", f"JSON cannot say it: {error}", "give plain finite values with names"
        ) from error
    if json.loads(text) != values:
        raise refused(
            "the configuration", "JSON changes it", "give lists for tuples, and names that are text"
        )
    return text


def refused(what: str, why: str, fix: str) -> UsageError:
    return UsageError(f"{what} is refused", why=why, fix=fix)


def _damaged(model_id: str, why: str) -> DataError:
    return DataError(
        f"the registry's record of {model_id} is damaged", why=why, fix="bring back a copy of the registry"
    )
