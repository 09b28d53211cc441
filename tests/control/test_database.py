"""The file that the control plane remembers in: shared, whole, and refused when it is foreign or damaged."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from control.database import Database
from core.errors import DataError

TABLES = "CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, number INTEGER NOT NULL);"
WRITERS, TIMES = 4, 50


def add(path: Path) -> None:
    database = Database(path, TABLES)
    for _ in range(TIMES):
        with database.write() as connection:
            (number,) = connection.execute("SELECT number FROM counts").fetchone()
            connection.execute("UPDATE counts SET number = ?", (number + 1,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "control.sqlite"


def begun(path: Path) -> Database:
    database = Database(path, TABLES)
    with database.write() as connection:
        connection.execute("INSERT INTO counts VALUES ('a', 0)")
    return database


def test_no_write_of_several_processes_is_lost(path: Path) -> None:
    database = begun(path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add, args=(path,)) for _ in range(WRITERS)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
    assert [each.exitcode for each in writers] == [0] * WRITERS
    assert [tuple(row) for row in database.read("SELECT * FROM counts")] == [("a", WRITERS * TIMES)]


def test_a_write_that_raises_leaves_nothing(path: Path) -> None:
    database = begun(path)

    def fail() -> None:
        with database.write() as connection:
            connection.execute("UPDATE counts SET number = 7")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert database.read("SELECT number FROM counts")[0]["number"] == 0


def test_it_is_there_when_opened_again(path: Path) -> None:
    begun(path).close()
    assert Database(path, TABLES).read("SELECT name FROM counts")[0]["name"] == "a"


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE theirs (x)")
    theirs.commit()
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="not this program's"):
        Database(path, TABLES)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"not a database at all, just some text" * 100, None])
def test_a_damaged_file_is_said_to_be_so(path: Path, damage: bytes | None) -> None:
    begun(path).close()
    whole = path.read_bytes()
    path.write_bytes(damage or whole[:100] + b"\xff" * (len(whole) - 100))
    with pytest.raises(DataError, match="damaged"):
        Database(path, TABLES).read("SELECT * FROM counts")


def test_one_of_a_newer_format_is_no_stranger_s(path: Path) -> None:
    begun(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(DataError, match="written by another version") as refusal:
        Database(path, TABLES)
    assert "format 99" in refusal.value.why
    assert "use that version" in refusal.value.fix


def test_a_folder_in_its_place_is_called_no_file(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be used") as refusal:
        Database(path, TABLES)
    assert refusal.value.why == "it is no file"


def test_a_table_of_another_version_is_called_that(path: Path) -> None:
    database = begun(path)
    with pytest.raises(DataError, match="has not the tables") as refusal:
        database.read("SELECT missing FROM counts")
    assert "no such column: missing: another version" in refusal.value.why
