"""What was appended is read again, whatever happens to the end of the file or to a line of it."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from engines import journal
from engines.journal import Journal, read_journal

ENTRIES = [{"game": number, "why": "a \u2028 line\nbreak"} for number in range(5)]


def written(path: Path, entries: list[dict[str, Any]]) -> bytes:
    with Journal(path) as opened:
        assert list(opened.entries()) == []
        opened.append(entries)
    return path.read_bytes()


def test_entries_come_back_and_each_line_is_json(tmp_path: Path) -> None:
    path = tmp_path / "games.jsonl"
    data = written(path, ENTRIES)
    assert list(read_journal(path)) == ENTRIES
    assert [json.loads(line)["game"] for line in data.splitlines()] == [0, 1, 2, 3, 4]


@given(cut=st.integers(0, 400))
def test_a_torn_end_is_cut_off_and_what_is_appended_then_is_sound(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "games.jsonl"
    data = written(path, ENTRIES)
    path.write_bytes(data[:cut])
    whole = data[:cut].count(b"\n")
    with Journal(path) as opened:
        assert list(opened.entries()) == ENTRIES[:whole]
        opened.append([{"game": 9}])
    assert list(read_journal(path)) == [*ENTRIES[:whole], {"game": 9}]


@given(place=st.integers(0, 10_000), flipped=st.integers(1, 255))
def test_a_damaged_byte_costs_the_lines_it_is_in(
    place: int, flipped: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "games.jsonl"
    data = bytearray(written(path, ENTRIES))
    place %= len(data)
    line = data[:place].count(b"\n")
    is_end = data[place] == ord("\n")
    data[place] ^= flipped
    path.write_bytes(data)
    lost = {line, line + 1} if is_end else {line}
    with Journal(path) as opened:
        found = list(opened.entries())
        assert found == [entry for number, entry in enumerate(ENTRIES) if number not in lost]
        assert opened.damaged >= 1


def test_reading_begins_where_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "games.jsonl"
    with Journal(path) as opened:
        opened.append(ENTRIES[:2])
        start = opened.end
        opened.append(ENTRIES[2:])
    with Journal(path) as opened:
        assert list(opened.entries(start)) == ENTRIES[2:]


def test_only_one_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "games.jsonl"
    with Journal(path), pytest.raises(UsageError, match="in use"):
        Journal(path)
    with Journal(path) as opened:
        opened.append(ENTRIES)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "games.jsonl"

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with Journal(path) as opened:
        opened.append(ENTRIES[:1])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_room)
            with pytest.raises(OSError, match="no space"):
                opened.append(ENTRIES[1:])
        opened.append(ENTRIES[4:])
    assert list(read_journal(path)) == [ENTRIES[0], ENTRIES[4]]


def test_an_entry_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "games.jsonl") as opened, pytest.raises(DataError, match="is not written"):
        opened.append([{"why": "x" * journal.MOST_LINE_BYTES}])
    assert not (tmp_path / "games.jsonl").read_bytes()
