"""The model registry: which models there are, where they came from, how strong they are, and who is champion.

It is `registry.sqlite` in the folder of runs, and beside it `models/<key>/<id>.safetensors`: the registry keeps a copy
of each file, not a reference, for runs drop old versions, and not a hard link, for what is altered through one name is
altered under both. A model is named by its id, "hex5_2p-v3", or by an alias of its key, "hex5_2p@champion".

Order is that of numbers, never of clocks. Nothing is ever deleted or renumbered.
"""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from control import lineage
from control.database import Database, Row
from control.keys import Key, parse_key
from control.lineage import Source
from control.model_cards import Elo, FileState, Match, Model, Move, Rating, Stage, card
from control.registry_tables import (
    ADD_MATCH,
    ADD_MODEL,
    ADD_RATING,
    ALIASES,
    SELECT_MODELS,
    TABLES,
    Alias,
    Change,
    canonical,
    checked_metrics,
    checked_moment,
    checked_text,
    match_of,
    model_of,
    no_such_model,
    rating_of_row,
    refused,
    stage_of,
)
from core.errors import DataError, UsageError
from core.files import digest, file_digest, open_atomic, sync_folder

FILE_NAME = "registry.sqlite"

_ID = re.compile(r"(.+)-v[1-9][0-9]{0,8}")
_CHUNK_BYTES = 1 << 20


class ModelRegistry:
    """The registry in the folder `runs`; it is made if it is not there. Several processes may use it at once.

    Args:
        runs: folder of the runs.
        clock: seconds since 1970, only to be written down.

    Raises:
        DataError: when its database is damaged, or one of another program.
    """

    def __init__(self, runs: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = runs.absolute()
        self._clock = clock
        self._database = Database(self.folder / FILE_NAME, TABLES)

    def close(self) -> None:
        self._database.close()

    def register(
        self,
        key: Key,
        file: Path,
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, float],
        who: str,
        why: str = "registered",
        sources: Sequence[Source] = (),
        parent: str | None = None,
        games: int = 0,
        elo: Elo | None = None,
    ) -> str:
        """Take a trained model in and return its id; it is @latest of its key, in development.

        The same file with the same configuration is registered once: who does it again, or at the same moment, gets the
        same id, and what was said first stands. If the copy is gone or altered meanwhile, that puts it back.

        Args:
            key: what it plays.
            file: its weights.
            config: what it was trained with; survives JSON.
            metrics: numbers that came of it.
            sources: the data, from `control.lineage.hash_source`.
            parent: id of the model that it was made of.
            games: so many games were in that data.
            elo: its first rating.

        Raises:
            UsageError: when an argument cannot be, such as a metric that is not finite or a parent of another key.
            OSError: when the file cannot be read, or copied.
        """
        name = str(parse_key(str(key)))
        settings, numbers = canonical(config), canonical(checked_metrics(metrics))
        if type(games) is not int or not 0 <= games < 2**63:
            raise refused(f"games={games!r}", "it is a whole number from 0", "count the games in the data")
        listed = json.dumps([[source.path, source.bytes, source.digest] for source in sources])
        who, why, now = checked_text(who, "who"), checked_text(why, "why"), self._now()
        with (
            _copied(file, self.folder / "models" / name) as (copy, content, size),
            self._database.write() as connection,
        ):
            known = connection.execute(
                "SELECT id, file, bytes, modified_ns FROM models WHERE key = ? AND digest = ? AND config_digest = ?",
                (name, content, digest(settings.encode())),
            ).fetchone()
            if known is not None:
                self._put_back(connection, known, copy)
                return known["id"]
            _check_same_key(connection, name, parent, "parent")
            last = connection.execute("SELECT max(version) FROM models WHERE key = ?", (name,)).fetchone()[0]
            version = (last or 0) + 1
            model_id = f"{name}-v{version}"
            place = Path("models", name, f"{model_id}.safetensors")
            # Before the row is committed: after a crash there is a file too many, which the next one replaces.
            stamp = _place(copy, self.folder / place)
            row = (model_id, name, version, parent, "development", now, who)
            row += (settings, digest(settings.encode()), numbers, listed, games)
            row += (place.as_posix(), size, stamp, content)
            connection.execute(ADD_MODEL, row)
            change = Change(connection, name, "register", who, why, now)
            change.write(model_id, "stage", None, "development")
            change.point("latest", model_id)
            if elo is not None:
                _add_rating(connection, model_id, elo, "", now)
        return model_id

    def get(self, name: str) -> Model:
        """Return the model that `name` means, an id or "<key>@<alias>", after every byte of its file was checked.

        Raises:
            UsageError: when there is none.
            DataError: naming the id, when its file is gone or altered.
        """
        model = self.find(name)
        state = self.file_state(model, thorough=True)
        if state != "ok":
            raise DataError(
                f"the file of {model.id} is {state}",
                why=f"{model.file} "
                + ("is not there" if state == "gone" else f"has not the digest {model.digest}"),
                fix="bring back a copy of it, or register the same model again, which puts it back",
            )
        return model

    def find(self, name: str) -> Model:
        """Return what `get` does, whatever became of the file. Raises UsageError when there is no such model."""
        key, _, alias = name.partition("@")
        if alias:
            parse_key(key)
            aliases = "SELECT model FROM aliases WHERE key = ? AND name = ?"
            found = [row["model"] for row in self._database.read(aliases, (key, alias))]
            known = "no model has that name yet"
            why = known if alias in ALIASES else f"the names are @{', @'.join(ALIASES)}"
        else:
            found, why = [name], "none has that id"
        rows = self._database.read(SELECT_MODELS + "WHERE id = ?", found) if found else []
        if not rows:
            raise no_such_model(name, why)
        return model_of(rows[0], self.folder)

    def models(self, key: Key | None = None, *, stage: Stage | None = None) -> list[Model]:
        """Return all models, or those of a key or in a stage; by key, the oldest first. Files are not looked at."""
        where, terms = _terms(**{"models.key": None if key is None else str(key), "models.stage": stage})
        query = f"{SELECT_MODELS} WHERE {where} ORDER BY models.key, version"
        rows = self._database.read(query, tuple(terms.values()))
        return [model_of(row, self.folder) for row in rows]

    def alias(self, key: Key, name: Alias) -> str | None:
        """Return the id that an alias of a key names now; None for nobody."""
        rows = self._database.read("SELECT model FROM aliases WHERE key = ? AND name = ?", (str(key), name))
        return rows[0]["model"] if rows else None

    def file_state(self, model: Model, *, thorough: bool = False) -> FileState:
        """Return whether the file of a model is as it was registered.

        Of a file with the size and time of change that it was left with, nothing more is read unless `thorough`.
        """
        row = self._database.read("SELECT file, bytes, modified_ns FROM models WHERE id = ?", (model.id,))[0]
        if not thorough and self._as_left(row):
            return "ok"
        try:
            return "ok" if file_digest(model.file)[0] == model.digest else "altered"
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except IsADirectoryError:
            return "altered"

    def propose(self, model_id: str, *, expected: str | None, who: str, why: str) -> None:
        """Make a model @candidate of its key and put it in staging, if @candidate is `expected` now.

        Raises:
            AliasMovedError: when it is another, and not this one either.
            UsageError: when the model is neither in development nor in staging.
        """
        with self._changing(model_id, "propose", who, why) as change:
            if change.named("candidate") == model_id:
                return
            change.expect("candidate", expected)
            _check_free(change.connection, model_id)
            change.lead(model_id, "staging")
            change.point("candidate", model_id)

    def promote(self, model_id: str, *, expected: str | None, who: str, why: str) -> None:
        """Make a model @champion of its key, if @champion is `expected` now. It passes through staging.

        The champion before is archived. What is champion already stays so, so the call may be repeated.

        Raises:
            AliasMovedError: when another is champion: somebody else was faster.
            UsageError: when the model is neither in development nor in staging.
            DataError: when its file is gone or altered.
        """
        self.get(model_id)
        with self._changing(model_id, "promote", who, why) as change:
            champion = change.named("champion")
            if champion == model_id:
                return
            change.expect("champion", expected)
            _check_free(change.connection, model_id)
            if champion is not None:
                change.stage(champion, "archived")
            change.lead(model_id, "production")
            change.point("champion", model_id)

    def rollback(self, key: Key, *, expected: str, who: str, why: str) -> str:
        """Make the champion before this one @champion again and archive this one; return who is champion now.

        Rolled back twice it goes two champions back. Who comes back passes through development and staging.

        Raises:
            AliasMovedError: when `expected` is not champion.
            UsageError: when there was none before.
            DataError: when the file of the one before is gone or altered.
        """
        before = self.champion_before(key)
        if before is None:
            raise UsageError(
                f"{key} cannot be rolled back",
                why=f"its champion is {self.alias(key, 'champion') or 'nobody'}, and there was none before",
                fix=f"promote another with `tamen models promote ID`; see `tamen models list {key}`",
            )
        self.get(before)
        with self._changing(before, "rollback", who, why) as change:
            change.expect("champion", expected)
            change.stage(expected, "archived")
            change.lead(before, "production")
            change.point("champion", before)
        return before

    def set_stage(self, model_id: str, stage: Stage, *, who: str, why: str) -> None:
        """Put a model aside or take it back: into development, archived or rejected. Where it is it may stay.

        Raises:
            UsageError: when that move is not allowed, it is champion, or the stage is one with an alias.
        """
        if stage not in ("development", "archived", "rejected"):
            raise refused(f"stage {stage!r}", "an alias goes with it", "use propose, promote or rollback")
        with self._changing(model_id, "set stage", who, why) as change:
            if change.named("champion") == model_id:
                raise UsageError(
                    f"{model_id} cannot be put into {stage}",
                    why="it is champion of its key",
                    fix="promote another first, or roll back",
                )
            if stage_of(change.connection, model_id) != stage:
                change.stage(model_id, stage)

    def champion_before(self, key: Key) -> str | None:
        """Return who would be champion after a rollback; None for nobody. Who was rejected since is passed over."""
        reigns: list[str] = []
        for move in self.history(key):
            if move.what == "champion" and move.after is not None:
                if move.act == "rollback":
                    while reigns and reigns[-1] != move.after:
                        reigns.pop()
                else:
                    reigns.append(move.after)
        rejected = {model.id for model in self.models(key, stage="rejected")}
        return next((model_id for model_id in reversed(reigns[:-1]) if model_id not in rejected), None)

    def reign(self, key: Key) -> tuple[int, str | None]:
        """Return how many times @champion of a key has been set so far, and whom it names; (0, None) before."""
        rows = self._database.read(
            "SELECT count(*) AS times, (SELECT model FROM aliases WHERE key = ?1 AND name = 'champion') AS model"
            " FROM moves WHERE key = ?1 AND what = 'champion'",
            (str(key),),
        )
        return rows[0]["times"], rows[0]["model"]

    def rate(self, model_id: str, elo: Elo, *, conditions: str) -> None:
        """Write down a new rating of a model; older ones stay.

        Raises:
            UsageError: when there is no such model, or nothing in `conditions`.
        """
        conditions = checked_text(conditions, "conditions")
        with self._database.write() as connection:
            _add_rating(connection, model_id, elo, conditions, self._now())

    def ratings(self, model_id: str) -> list[Rating]:
        """Return all ratings of a model, the oldest first."""
        rows = self._database.read("SELECT * FROM ratings WHERE model = ? ORDER BY number", (model_id,))
        return [rating_of_row(row) for row in rows]

    def record(self, match: Match) -> None:
        """Write down games that were played, with the stage that the model is in. The same ones again change nothing.

        Raises:
            UsageError: when one of the two is not registered, or of another key.
            DataError: when the same conditions, seed and first pair are there with another result.
        """
        opponent = checked_text(match.opponent, "opponent")
        conditions = checked_text(match.conditions, "conditions")
        games = (match.model, opponent, *match.pairs.counts, match.draws, conditions)
        games += (match.seed, match.first_pair, match.set_aside)
        played_at = checked_moment(match.played_at)
        with self._database.write() as connection:
            stage = stage_of(connection, match.model)
            if _ID.fullmatch(opponent):
                _check_same_key(connection, _key_of(match.model), opponent, "opponent")
            there = connection.execute(
                "SELECT * FROM matches WHERE model = ? AND opponent = ? AND conditions = ? AND seed = ?"
                " AND first_pair = ?",
                (match.model, opponent, conditions, match.seed, match.first_pair),
            ).fetchone()
            if there is None:
                connection.execute(ADD_MATCH, (*games, stage, played_at))
            elif tuple(there)[1:-2] != games:
                raise DataError(
                    f"games of {match.model} against {opponent} are recorded otherwise",
                    why=f"with seed {match.seed} from pair {match.first_pair} on pairs went "
                    f"{match_of(there).pairs.counts}, now {match.pairs.counts}",
                    fix="give other games another seed or first pair",
                )

    def matches(
        self,
        model_id: str,
        opponent: str | None = None,
        *,
        conditions: str | None = None,
        stage: Stage | None = None,
    ) -> list[Match]:
        """Return the games of a model in the order of their recording.

        Args:
            opponent, conditions: only those against it, and under these.
            stage: only those that it played while it was in this stage.
        """
        where, terms = _terms(model=model_id, opponent=opponent, conditions=conditions, stage=stage)
        query = f"SELECT * FROM matches WHERE {where} ORDER BY number"  # noqa: S608 - names of our own columns
        return [match_of(row) for row in self._database.read(query, tuple(terms.values()))]

    def next_pair(self, model_id: str, opponent: str, seed: int, conditions: str) -> int:
        """Return the number of the first opening of a seed that the two have not been given yet."""
        found = self.matches(model_id, opponent, conditions=conditions)
        played = [match for match in found if match.seed == seed]
        return max((match.first_pair + match.pairs.pairs + match.set_aside for match in played), default=0)

    def history(self, key: Key | None = None, *, model: str | None = None) -> list[Move]:
        """Return all that happened, or happened to a key or a model, the first thing first."""
        where, terms = _terms(key=None if key is None else str(key), model=model)
        rows = self._database.read(
            f"SELECT * FROM moves WHERE {where} ORDER BY number",  # noqa: S608 - names of our own columns
            tuple(terms.values()),
        )
        return [Move(*row) for row in rows]

    def parents(self, key: Key) -> dict[str, str | None]:
        """Return the parent of each model of a key, the oldest first."""
        rows = self._database.read(
            "SELECT id, parent FROM models WHERE key = ? ORDER BY version", (str(key),)
        )
        return {row["id"]: row["parent"] for row in rows}

    def card(self, name: str) -> str:
        """Return the page of a model as Markdown. Raises UsageError when there is no such model."""
        model = self.find(name)
        parents = self.parents(parse_key(model.key))
        return card(
            model,
            file=self.file_state(model, thorough=True),
            ancestors=lineage.ancestors(parents, model.id),
            descendants=lineage.descendants(parents, model.id),
            matches=self.matches(model.id),
            moves=self.history(model=model.id),
            now=self._clock(),
        )

    def _now(self) -> float:
        return checked_moment(self._clock())

    def _as_left(self, row: Row) -> bool:
        try:
            found = (self.folder / row["file"]).stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (row["bytes"], row["modified_ns"])

    def _put_back(self, connection: Connection, known: Row, copy: Path) -> None:
        """Replace the file of a model by a copy that has its digest, if it is not as it was left."""
        if not self._as_left(known):
            stamp = _place(copy, self.folder / known["file"])
            connection.execute("UPDATE models SET modified_ns = ? WHERE id = ?", (stamp, known["id"]))

    @contextmanager
    def _changing(self, model_id: str, act: str, who: str, why: str) -> Iterator[Change]:
        who, why = checked_text(who, "who"), checked_text(why, "why")
        with self._database.write() as connection:
            stage_of(connection, model_id)
            yield Change(connection, _key_of(model_id), act, who, why, self._now())


def _key_of(model_id: str) -> str:
    return model_id.rpartition("-v")[0]


def _terms(**wanted: str | None) -> tuple[str, dict[str, str]]:
    """Return a condition of what is wanted, which holds of all when nothing is, and its values."""
    given = {column: value for column, value in wanted.items() if value is not None}
    return " AND ".join(f"{column} = ?" for column in given) or "1", given


def _add_rating(connection: Connection, model_id: str, elo: Elo, conditions: str, at: float) -> None:
    row = (model_id, stage_of(connection, model_id), elo.rating, elo.low, elo.high, elo.games, conditions, at)
    connection.execute(ADD_RATING, row)


def _check_free(connection: Connection, model_id: str) -> None:
    if (stage := stage_of(connection, model_id)) not in ("development", "staging"):
        raise UsageError(
            f"{model_id} cannot be promoted",
            why=f"it is in {stage}",
            fix="take another"
            if stage == "production"
            else f"take it back first: tamen models promote {model_id} --to development",
        )


def _check_same_key(connection: Connection, key: str, model_id: str | None, what: str) -> None:
    if model_id is None:
        return
    row = connection.execute("SELECT key FROM models WHERE id = ?", (model_id,)).fetchone()
    if row is None or row["key"] != key:
        raise UsageError(
            f"{model_id!r} cannot be {what} of a model of {key}",
            why="it is not registered" if row is None else f"it is of {row['key']}",
            fix=f"name a registered model of {key}: `tamen models list {key}` shows them",
        )


@contextmanager
def _copied(file: Path, folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Give a durable copy of `file` in `folder`, its digest and its size; what is left of it is deleted."""
    copy = folder / f"{uuid.uuid4().hex}.incoming"
    total, size = hashlib.blake2b(digest_size=16), 0
    try:
        with file.open("rb") as source, open_atomic(copy) as target:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                total.update(chunk)
                size += len(chunk)
        yield copy, total.hexdigest(), size
    finally:
        copy.unlink(missing_ok=True)


def _place(copy: Path, path: Path) -> int:
    """Let the copy be at `path`, durably and in one step, and return when it was changed last, in ns."""
    os.replace(copy, path)
    sync_folder(path.parent)
    return path.stat().st_mtime_ns
