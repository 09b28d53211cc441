"""An export is skipped if nothing it hangs on has changed, and only then; every change is told."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control import export_cache
from control.database import Database
from control.export_cache import KEPT_DAYS, TABLES, TICK_NS, ExportCache, Source, Verdict
from core.errors import DataError, UsageError

DAY_NS = 86_400 * 10**9
SETTINGS = {"sample_every": 1, "max_games": None, "encoder": {"planes": 3}}


@dataclass
class Desk:
    """Two sources, an output, and a clock that may be set."""

    folder: Path
    cache: ExportCache
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    ahead_ns: int = 0

    def __post_init__(self) -> None:
        self.output = self.folder / "rows.bin"
        self.sources = {"a": 10, "b": 20}
        for name in self.sources:
            self.file(name).write_bytes(f"games of {name}".encode())

    def file(self, name: str) -> Path:
        return self.folder / name

    def look(self, *, force: bool = False) -> Verdict:
        sources = [Source(self.file(name), games) for name, games in self.sources.items()]
        return self.cache.look(self.output, sources, self.settings, force=force)

    def export(self) -> None:
        seen = self.look().seen
        self.output.write_bytes(b"rows" * 100)
        self.cache.record(seen, games=30, samples=400)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database = Database(tmp_path / "control" / "control.sqlite", TABLES)
    folder = tmp_path / "data"
    folder.mkdir()
    made = Desk(folder, ExportCache(database, clock_ns=lambda: time.time_ns() + made.ahead_ns))
    yield made
    database.close()


def cause(desk: Desk) -> str:
    return desk.look().cause


def test_an_export_that_was_never_noted_is_needed(desk: Desk) -> None:
    desk.output.write_bytes(b"from somewhere")
    assert desk.look().valid is False
    assert cause(desk) == "unknown"


def test_an_export_of_which_nothing_changed_is_valid_again_and_again(desk: Desk) -> None:
    desk.export()
    for _ in range(3):
        verdict = desk.look()
        assert (verdict.valid, verdict.cause, verdict.games, verdict.samples) == (True, "valid", 30, 400)
    desk.ahead_ns = 5 * DAY_NS
    assert desk.look().valid


def test_it_is_known_to_who_opens_the_file_later(desk: Desk, tmp_path: Path) -> None:
    desk.export()
    again = Database(tmp_path / "control" / "control.sqlite", TABLES)
    sources = [Source(desk.file(name), games) for name, games in reversed(desk.sources.items())]
    assert ExportCache(again).look(desk.output, sources, dict(reversed(SETTINGS.items()))).valid
    again.close()


def rewrite(desk: Desk) -> None:
    desk.file("a").write_bytes(b"games of x")  # of the same size


def rewrite_and_hide_it(desk: Desk) -> None:
    before = desk.file("a").stat()
    rewrite(desk)
    os.utime(desk.file("a"), ns=(before.st_atime_ns, before.st_mtime_ns))


def touch_into_the_past(desk: Desk) -> None:
    os.utime(desk.file("a"), ns=(0, 0))


def another_source(desk: Desk) -> None:
    desk.file("c").write_bytes(b"")
    desk.sources["c"] = 0


def alter_output(desk: Desk) -> None:
    desk.output.write_bytes(b"rows" * 99 + b"rots")


def alter_output_and_hide_it(desk: Desk) -> None:
    before = desk.output.stat()
    alter_output(desk)
    os.utime(desk.output, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[str, Callable[[Desk], object]]] = {
    "written": ("source changed", rewrite),
    "written, and its time put back": ("source changed", rewrite_and_hide_it),
    "dated back": ("source changed", touch_into_the_past),
    "more games": ("games", lambda desk: desk.sources.update(a=11)),
    "fewer games": ("games", lambda desk: desk.sources.update(a=9)),
    "uncounted": ("games", lambda desk: desk.sources.update(a=None)),  # pyright: ignore
    "removed": ("source removed", lambda desk: desk.sources.pop("a")),
    "added": ("source added", another_source),
    "setting": ("settings", lambda desk: desk.settings.update(sample_every=2)),
    "nested": ("settings", lambda desk: desk.settings.update(encoder={"planes": 4})),
    "new setting": ("settings", lambda desk: desk.settings.update(extra=None)),
    "no setting": ("settings", lambda desk: desk.settings.pop("max_games")),
    "output gone": ("output missing", lambda desk: desk.output.unlink()),
    "output cut": ("output altered", lambda desk: desk.output.write_bytes(b"rows" * 99)),
    "output altered": ("output altered", alter_output),
    "output altered, and its time put back": ("output altered", alter_output_and_hide_it),
}


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "long after"])
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found_and_told_and_an_export_mends_it(desk: Desk, name: str, settled: bool) -> None:
    expected, change = CHANGES[name]
    if settled:
        time.sleep(2 * TICK_NS / 1e9)
    desk.export()
    if settled:
        desk.ahead_ns = DAY_NS
        assert desk.look().valid
    change(desk)

    verdict = desk.look()
    assert (verdict.valid, verdict.cause) == (False, expected), verdict.reason
    desk.export()
    assert desk.look().valid


def test_the_reason_names_what_changed(desk: Desk) -> None:
    desk.export()
    desk.settings.update(sample_every=2, extra=True)
    assert desk.look().reason == "extra is true, was null; sample_every is 2, was 1"
    desk.settings = dict(SETTINGS)
    desk.sources["b"] = 25
    assert desk.look().reason.endswith("b has 25 games, had 20")


def test_force_asks_for_an_export_and_forgets_nothing(desk: Desk) -> None:
    assert desk.look(force=True).cause == "forced"
    desk.export()
    assert (desk.look(force=True).valid, desk.look(force=True).cause) == (False, "forced")
    assert desk.look().valid


def test_a_source_that_changes_while_it_is_exported_is_found_by_the_next_look(desk: Desk) -> None:
    seen = desk.look().seen
    rewrite(desk)
    desk.output.write_bytes(b"rows")
    desk.cache.record(seen, games=30, samples=1)
    assert cause(desk) == "source changed"


def say_its_times_are_the_same(desk: Desk, table: str, path: Path) -> None:
    """Make the record of a file fit the file, as if both writes had fallen into one tick of the clock."""
    (seen,) = desk.cache.look(desk.folder / "nothing", [Source(path)], {}).seen.sources
    column = "path" if table == "export_cache_sources" else "output"
    with desk.cache._database.write() as connection:
        connection.execute(
            f"UPDATE {table} SET signature = ? WHERE {column} = ?", (seen.signature, str(path))
        )


@pytest.mark.parametrize("settled", [False, True], ids=["just written", "long there"])
def test_a_source_written_in_the_very_tick_of_the_look_is_found(desk: Desk, settled: bool) -> None:
    desk.ahead_ns = settled * DAY_NS
    desk.export()
    rewrite(desk)
    say_its_times_are_the_same(desk, "export_cache_sources", desk.file("a"))
    assert cause(desk) == (
        "valid" if settled else "source changed"
    )  # one long there cannot have the same times


@pytest.mark.parametrize("settled", [False, True], ids=["just written", "long there"])
def test_an_output_altered_in_the_very_tick_it_was_noted_is_found(desk: Desk, settled: bool) -> None:
    desk.ahead_ns = settled * DAY_NS
    desk.export()
    alter_output(desk)
    say_its_times_are_the_same(desk, "export_cache", desk.output)
    assert cause(desk) == ("valid" if settled else "output altered")


def test_an_output_that_was_copied_back_is_valid_still(desk: Desk) -> None:
    desk.export()
    desk.ahead_ns = DAY_NS
    shutil.copyfile(desk.output, desk.file("copy"))
    desk.output.unlink()
    desk.file("copy").rename(desk.output)
    assert desk.look().valid


def test_folders_are_looked_at_with_all_that_is_in_them(desk: Desk) -> None:
    source, output = desk.folder / "games", desk.folder / "rows"
    for folder in (source / "deep", output):
        folder.mkdir(parents=True)
        (folder / "one").write_bytes(b"1")
    sources = [Source(source, 5)]
    desk.cache.record(desk.cache.look(output, sources, {}).seen, games=5, samples=1)
    assert desk.cache.look(output, sources, {}).valid

    (output / "one").rename(output / "two")
    assert desk.cache.look(output, sources, {}).cause == "output altered"
    (output / "two").rename(output / "one")
    assert desk.cache.look(output, sources, {}).valid
    (source / "deep" / "two").write_bytes(b"")
    assert desk.cache.look(output, sources, {}).cause == "source changed"


def test_a_file_that_goes_while_its_folder_is_looked_at_is_no_harm(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = desk.folder / "games"
    source.mkdir()
    for name in ("one", "two"):
        (source / name).write_bytes(b"1")
    listed = export_cache._files
    monkeypatch.setattr(export_cache, "_files", lambda path: [*listed(path), ("three", source / "three")])
    seen = desk.cache.look(desk.output, [Source(source)], {}).seen
    monkeypatch.undo()
    desk.output.write_bytes(b"rows")
    desk.cache.record(seen, games=1, samples=1)
    assert desk.cache.look(desk.output, [Source(source)], {}).valid

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(export_cache, "hash_source", gone)
        (source / "three").write_bytes(b"3")  # so its bytes are read
        seen = desk.cache.look(desk.output, [Source(source)], {}).seen
    desk.cache.record(seen, games=1, samples=1)
    assert desk.cache.look(desk.output, [Source(source)], {}).cause == "source changed"


def test_a_database_in_wal_mode_is_told_by_its_games(desk: Desk) -> None:
    path = desk.folder / "games.sqlite"
    games = sqlite3.connect(path)
    games.execute("PRAGMA journal_mode = WAL")
    games.execute("CREATE TABLE games (id)")
    games.commit()
    games.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    count = games.execute("SELECT count(*) FROM games").fetchone()[0]
    desk.cache.record(_made(desk, path, count), games=0, samples=0)
    before = path.stat().st_mtime_ns
    games.execute("INSERT INTO games VALUES (1)")
    games.commit()
    count = games.execute("SELECT count(*) FROM games").fetchone()[0]

    assert path.stat().st_mtime_ns == before
    assert desk.cache.look(desk.output, [Source(path, count)], {}).cause == "games"
    games.close()


def _made(desk: Desk, path: Path, count: int) -> Any:
    seen = desk.cache.look(desk.output, [Source(path, count)], {}).seen
    desk.output.write_bytes(b"")
    return seen


def test_exports_to_two_places_do_not_meet(desk: Desk) -> None:
    desk.export()
    desk.output = desk.folder / "other.bin"
    assert cause(desk) == "unknown"
    desk.settings["sample_every"] = 2
    desk.export()
    assert desk.look().valid
    desk.output, desk.settings = desk.folder / "rows.bin", dict(SETTINGS)
    assert desk.look().valid


def test_what_is_not_used_for_long_is_forgotten_and_its_file_left_alone(desk: Desk) -> None:
    desk.export()
    desk.ahead_ns = KEPT_DAYS * DAY_NS - DAY_NS
    assert desk.cache.prune() == 0
    assert desk.look().valid  # which is a use
    desk.ahead_ns += KEPT_DAYS * DAY_NS - DAY_NS
    assert desk.cache.prune() == 0
    desk.ahead_ns += 2 * DAY_NS
    assert desk.cache.prune() == 1
    assert cause(desk) == "unknown"
    assert desk.output.exists()
    assert desk.cache._database.read("SELECT * FROM export_cache_sources") == []


def test_a_clock_that_was_ahead_spoils_nothing(desk: Desk) -> None:
    desk.ahead_ns = 400 * DAY_NS
    desk.export()
    desk.ahead_ns = 0
    assert desk.look().valid
    assert desk.cache.prune() == 0


def test_bad_input_is_refused_and_told(desk: Desk) -> None:
    source = Source(desk.file("a"), 1)
    for sources in ([], [source, Source(desk.folder / "." / "a")], [Source(desk.folder / "none")]):
        with pytest.raises(UsageError):
            desk.cache.look(desk.output, sources, {})
    for settings in ({"x": float("nan")}, {"x": object()}, {"x": {1, 2}}):
        with pytest.raises(UsageError, match="cannot be compared"):
            desk.cache.look(desk.output, [source], settings)
    for output in (desk.folder / "rows.bin", desk.folder):
        with pytest.raises(UsageError, match="its own source"):
            desk.cache.look(output, [Source(desk.folder)], {})
    with pytest.raises(UsageError):
        Source(desk.file("a"), -1)


def test_an_export_that_is_not_there_cannot_be_noted(desk: Desk) -> None:
    seen = desk.look().seen
    with pytest.raises(DataError, match="no export at"):
        desk.cache.record(seen, games=1, samples=1)
    desk.output.write_bytes(b"")
    with pytest.raises(UsageError):
        desk.cache.record(seen, games=-1, samples=1)
    assert cause(desk) == "unknown"
