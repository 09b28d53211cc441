"""What has happened to each key, as far as decisions need it: its data, models, results, and when it was trained.

There is one row a key, and at most `RESULTS_KEPT` results of each: it does not grow with time. Times are seconds since
1970, by the clock of who writes. Who reads treats those that are still to come as of now.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from configs.control import RecentConfig
from control.curriculum import HALF_LIVES, KeyFacts, MatchResult, checked_number, recent_results
from control.database import Database, Row, readable
from control.fencing import Fence
from control.keys import Key, parse_key
from control.locks import FencingToken
from core.errors import DataError

TABLES = """
CREATE TABLE IF NOT EXISTS journal_keys (
    key TEXT PRIMARY KEY,
    games INTEGER NOT NULL DEFAULT 0,
    games_trained_on INTEGER NOT NULL DEFAULT 0,
    moves_per_game REAL,
    models INTEGER NOT NULL DEFAULT 0,
    last_trained REAL,
    last_attempt REAL,
    failures INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    began REAL,
    began_games INTEGER,
    seen REAL
);
CREATE TABLE IF NOT EXISTS journal_results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    match TEXT,
    time REAL NOT NULL,
    wins INTEGER NOT NULL,
    draws INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    elo REAL,
    UNIQUE (key, match)
);
CREATE INDEX IF NOT EXISTS journal_results_by_time ON journal_results (key, time);
CREATE TABLE IF NOT EXISTS journal_settings (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    text TEXT NOT NULL
);
"""
RESULTS_KEPT = 1000
"""Of each key, the newest."""
SILENT_SECONDS = 30.0
"""Who has not been seen for so long trains no more, as far as the limit goes."""


@dataclass(frozen=True, slots=True)
class Running:
    """A training that is under way: who makes it, since when, and when he was last seen."""

    owner: str
    began: float
    seen: float


class Journal:
    """The one in a database that was opened with `TABLES`; several processes may write to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_data(self, key: Key, games: int, *, moves_per_game: float | None = None) -> None:
        """Note how many games there are of a key, and how long they are on average if that was counted.

        Where they are fewer than were trained on, those that come from now on are new.
        """
        checked_number("games", games, whole=True)
        if moves_per_game is not None:
            checked_number("moves_per_game", moves_per_game)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO journal_keys (key, games, moves_per_game) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE"
                " SET games = ?2, moves_per_game = coalesce(?3, moves_per_game),"
                " games_trained_on = min(games_trained_on, ?2), began_games = min(began_games, ?2)",
                (str(key), games, moves_per_game),
            )

    def record_models(self, key: Key, models: int) -> None:
        """Note how many models a key has."""
        checked_number("models", models, whole=True)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO journal_keys (key, models) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET models = ?2",
                (str(key), models),
            )

    def record_result(self, key: Key, result: MatchResult, *, match: str | None = None) -> bool:
        """Note games that a key's model has played; return whether they are new.

        Args:
            match: what they are known by: a match that is recorded again, as after a restart, counts once.
        """
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO journal_keys (key) VALUES (?)", (str(key),))
            added = connection.execute(
                "INSERT INTO journal_results (key, match, time, wins, draws, losses, elo)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, match) DO NOTHING",
                (str(key), match, result.time, result.wins, result.draws, result.losses, result.elo),
            ).rowcount
            connection.execute(
                "DELETE FROM journal_results WHERE key = ?1 AND number <= (SELECT number FROM journal_results"
                " WHERE key = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                (str(key), RESULTS_KEPT),
            )
        return added > 0

    def start_training(
        self,
        key: Key,
        *,
        owner: str,
        most: int,
        now: float,
        silent_seconds: float = SILENT_SECONDS,
        token: FencingToken | None = None,
    ) -> bool:
        """Note that `owner` begins or goes on with the training of a key, unless `most` others are trained already.

        Who calls this holds the lock of the key: he takes over what another has left unfinished, with the games that
        were there when it was begun. Looking and noting are one transaction: the limit holds among all processes.

        Raises:
            LockLostError: when the lock with this token is another's by now.
        """
        checked_number("now", now)
        with self._database.write() as connection:
            if token is not None:
                Fence(self._database).check(connection, token)
            others = connection.execute(
                "SELECT count(*) FROM journal_keys WHERE key != ? AND owner IS NOT NULL AND seen BETWEEN ? AND ?",
                (str(key), now - silent_seconds, now + silent_seconds),
            ).fetchone()[0]
            if others >= most:
                return False
            connection.execute("INSERT OR IGNORE INTO journal_keys (key) VALUES (?)", (str(key),))
            connection.execute(
                "UPDATE journal_keys SET owner = ?2, seen = ?3, began_games = coalesce(began_games, games),"
                # To go on with one whose owner died is no new attempt, after which a failure before would count anew.
                " last_attempt = CASE WHEN began IS NULL THEN ?3 ELSE last_attempt END, began = coalesce(began, ?3)"
                " WHERE key = ?1",
                (str(key), owner, now),
            )
        return True

    def beat(self, key: Key, *, owner: str, now: float) -> bool:
        """Note that `owner` still trains a key; return whether the training is his."""
        checked_number("now", now)
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE journal_keys SET seen = ? WHERE key = ? AND owner = ?", (now, str(key), owner)
            )
            return changed.rowcount > 0

    def end_training(self, key: Key, *, owner: str, success: bool, now: float) -> bool:
        """Note how the training of a key ended; return whether it was `owner`'s, else nothing is noted.

        After a success the games that were there when it began are trained on.
        """
        checked_number("now", now)
        trained = ", games_trained_on = began_games, last_trained = ?3, failures = 0"
        outcome = trained if success else ", failures = failures + 1"
        with self._database.write() as connection:
            changed = connection.execute(
                f"UPDATE journal_keys SET last_attempt = ?3 {outcome},"  # noqa: S608 - no text from outside
                " owner = NULL, began = NULL, began_games = NULL, seen = NULL WHERE key = ?1 AND owner = ?2",
                (str(key), owner, now),
            )
            return changed.rowcount > 0

    def pause_training(self, key: Key, *, owner: str, now: float, failed: bool = False) -> bool:
        """Note that `owner` leaves a training that somebody goes on with later; return whether it was his.

        Args:
            failed: it counts as a failure, after which some time has to pass.
        """
        checked_number("now", now)
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE journal_keys SET owner = NULL, seen = NULL, failures = failures + ?3,"
                " last_attempt = CASE WHEN ?3 THEN ?4 ELSE last_attempt END WHERE key = ?1 AND owner = ?2",
                (str(key), owner, int(failed), now),
            )
            return changed.rowcount > 0

    def running(self, *, now: float, silent_seconds: float = SILENT_SECONDS) -> dict[Key, Running]:
        """Return what is trained, by key, without those whose owner has fallen silent.

        One that was seen in the future, by a clock that is far ahead, may have been silent for as long.
        """
        rows = self._database.read("SELECT key, owner, began, seen FROM journal_keys WHERE owner IS NOT NULL")
        return {
            parse_key(row["key"]): Running(row["owner"], row["began"], row["seen"])
            for row in rows
            if row["seen"] is not None and abs(now - row["seen"]) <= silent_seconds
        }

    def facts(
        self, settings: RecentConfig, *, now: float, keys: Collection[Key] | None = None
    ) -> dict[Key, KeyFacts]:
        """Return what is known of `keys`, or of all keys, in their order; of one that was never noted, nothing yet."""
        checked_number("now", now)
        oldest = now - 60 * HALF_LIVES * settings.half_life_minutes
        rows = self._database.read("SELECT * FROM journal_keys")
        if keys is None or len(keys) > 1:
            found = self._database.read(
                "SELECT * FROM journal_results WHERE time >= ? ORDER BY key, time", (oldest,)
            )
        else:
            found = self._database.read(
                "SELECT * FROM journal_results WHERE time >= ? AND key = ? ORDER BY time",
                (oldest, str(next(iter(keys), ""))),
            )
        with readable("keys"):
            known = {parse_key(row["key"]): row for row in rows}
        with readable("results"):
            results = {key: [_result(row) for row in group] for key, group in groupby(found, _key_of)}
        facts = {}
        for key in sorted(known) if keys is None else keys:
            with readable(str(key)):
                facts[key] = _facts(known.get(key), results.get(str(key), []), settings, now)
        return facts

    def forget(self, key: Key) -> None:
        """Remove all that is known of a key."""
        with self._database.write() as connection:
            for table in ("journal_keys", "journal_results"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (str(key),))  # noqa: S608 - ours

    def save_settings(self, settings: Mapping[str, Any]) -> None:
        """Note by which settings is decided, plain JSON, so that who explains decisions uses the same."""
        text = json.dumps(settings, allow_nan=False)
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO journal_settings VALUES (1, ?)", (text,))

    def settings(self) -> dict[str, Any] | None:
        """Return what `save_settings` was given last, None if nothing.

        Raises:
            DataError: when it is damaged.
        """
        rows = self._database.read("SELECT text FROM journal_settings")
        if not rows:
            return None
        try:
            settings = json.loads(rows[0]["text"])
        except ValueError:
            settings = None
        if not isinstance(settings, dict):
            raise DataError(
                f"the settings in {self._database.path} are damaged",
                why="they are no JSON object",
                fix="start what decides once more: it notes them",
            )
        return settings


def _key_of(row: Row) -> str:
    return row["key"]


def _result(row: Row) -> MatchResult:
    return MatchResult(row["time"], row["wins"], row["draws"], row["losses"], row["elo"])


def _facts(row: Row | None, results: list[MatchResult], settings: RecentConfig, now: float) -> KeyFacts:
    if row is None:
        return KeyFacts()
    return KeyFacts(
        games=row["games"],
        games_trained_on=row["games_trained_on"],
        models=row["models"],
        last_trained=row["last_trained"],
        last_attempt=row["last_attempt"],
        failures=row["failures"],
        moves_per_game=row["moves_per_game"],
        recent=recent_results(results, settings, now=now),
    )
