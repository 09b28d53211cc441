"""`tamen data`: what is in files of games is told, in a table and in JSON, and bad files end in an exit code."""

import errno
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import files
from pipeline import reading
from pipeline.reading import LineReader, Piece, Rejection
from tests.cluster.commands import Said, assert_three_lines, run_here

SLICE = Path(__file__).resolve().parents[2] / "data" / "wolve_slice.trmph.gz"
GAMES = ["#3,b1a1b2a2b3 b", "#3,a1b2 b", "#3,a1b2", "#3,a2swapc1c3 r"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the folder of runs be another than that of the checkout, also where a test takes its own patches back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def last_json(said: Said) -> Any:
    return json.loads(said.out.splitlines()[-1])


def test_import_tells_the_same_in_a_table_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_here(capsys, "data", "import", SLICE, "--out", tmp_path / "games")
    assert shown.code == 0, shown
    told = run_here(capsys, "data", "import", SLICE, "--json")
    counts = last_json(told)
    numbers = {"lines": 1998, "games": 1691, "duplicates": 304, "rejected": 3, "unfinished": 17}
    for name, number in numbers.items():
        assert counts[name] == number
        assert f"{name} " in shown.out
        assert f"{number:,}" in shown.out
    assert (counts["lengths"]["min"], counts["lengths"]["max"]) == (21, 71)
    assert "21–71" in shown.out
    assert "tamen pipeline --data" in shown.out
    assert last_json(run_here(capsys, "data", "stats", tmp_path / "games", "--json")) == counts


def test_the_same_import_is_done_once_and_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "a.trmph", *GAMES), tmp_path / "out"
    first = run_here(capsys, "data", "import", source, "--out", out, "--json")
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert run_here(capsys, "data", "import", source, "--out", out, "--json") == first
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    other = run_here(capsys, "data", "import", source, "--out", out, "--chunk-games", "1")
    assert_three_lines(other, code=2, mentions=[f"{out} is not free", "other files or settings"])
    foreign = run_here(capsys, "data", "import", source, "--out", tmp_path)
    assert_three_lines(foreign, code=2, mentions=["something else is in it"])


def test_check_tells_where_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.trmph", "# header", *GAMES, "#3,a1a1", "?", "#3,c3 b", "#3,c3 r")
    said = run_here(capsys, "data", "check", source)
    assert said.code == 1
    assert said.out.splitlines() == [
        f"{source}:6: repeated cell: move 2, a1, was taken by move 1",
        f"{source}:7: not a game: it is neither .trmph (#5,c3b2 b), nor a link of HexWorld, nor SGF",
        f"{source}:8: winners disagree: the same moves are won by blue in {source}:8 and by red in {source}:9,"
        " and by no chain",
        f"{source}:9: winners disagree: the same moves are won by blue in {source}:8 and by red in {source}:9,"
        " and by no chain",
        "8 lines, 3 games, 1 duplicates, 4 rejected",
    ]
    assert last_json(run_here(capsys, "data", "check", source, "--json"))["rejected"] == 4
    sound = run_here(capsys, "data", "check", write(tmp_path / "b.trmph", *GAMES))
    assert (sound.code, sound.out) == (0, "4 lines, 3 games, 1 duplicates, 0 rejected\n")
    swapped = write(tmp_path / "c.trmph", "#3,a2a2c3")
    assert run_here(capsys, "data", "check", swapped).code == 1
    assert run_here(capsys, "data", "check", swapped, "--repeated-cell", "swap").code == 0


@pytest.mark.parametrize("form", ["trmph", "hexworld", "sgf"])
def test_exported_games_are_imported_as_they_were(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.trmph", *GAMES)
    assert run_here(capsys, "data", "import", source, "--out", tmp_path / "first").code == 0
    there = tmp_path / "there.txt.gz"
    said = run_here(capsys, "data", "export", tmp_path / "first", "--form", form, "--out", there, "--json")
    told = {"form": form, "games": 3, "cached": False, "out": str(there), "files_set_aside": []}
    assert last_json(said) == {**told, "reason": f"no export to {there} was noted"}
    assert run_here(capsys, "data", "import", there, "--out", tmp_path / "second").code == 0
    first, second = ((tmp_path / name / "hex3_000.trmph").read_text() for name in ("first", "second"))
    assert first == second == "#3,b1a1b2a2b3 b\n#3,a1b2 b\n#3,a2a3c3 b\n"


def test_files_that_are_not_cleaned_are_exported_cleaned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.trmph", *GAMES[:3])
    said = run_here(capsys, "data", "export", source, "--form", "hexworld", "--out", tmp_path / "b.txt")
    assert (said.code, said.out) == (0, f"2 games in {tmp_path / 'b.txt'}\n")
    assert (tmp_path / "b.txt").read_text().splitlines() == [
        "https://hexworld.org/board/#3,b1a1b2a2b3 b",
        "https://hexworld.org/board/#3,a1b2 b",
    ]


def test_games_are_exported_again_only_when_something_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "a.trmph", *GAMES[:3]), tmp_path / "b.txt"

    def export(*options: str) -> Said:
        return run_here(capsys, "data", "export", source, "--out", out, *options)

    assert export().code == 0
    before = out.stat().st_mtime_ns
    said = export()
    assert (said.code, said.out.splitlines()) == (
        0,
        ["nothing to do: source, settings and output are as they were", f"2 games in {out}"],
    )
    assert out.stat().st_mtime_ns == before
    assert last_json(export("--json"))["cached"] is True

    assert export("--force").out.startswith("made again: it was asked for\n")
    assert export("--form", "sgf").out.startswith('made again: form is "sgf", was "trmph"\n')
    write(source, *GAMES)
    said = export("--form", "sgf")
    assert said.out.splitlines() == [f"made again: {source} was written since", f"3 games in {out}"]
    out.unlink()
    assert export("--form", "sgf").out.startswith(f"made again: {out} is gone\n")
    assert len(out.read_text().splitlines()) == 3


def test_what_was_not_read_whole_is_not_noted_and_is_told_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games, out = tmp_path / "games", tmp_path / "b.txt"
    games.mkdir()
    write(games / "a.trmph", *GAMES)
    (games / "empty.trmph").touch()
    for _ in range(2):
        said = run_here(capsys, "data", "export", games, "--out", out)
        assert said.code == 1
        assert "nothing to do" not in said.out
        assert "empty.trmph: empty file" in said.out
    # Of a folder that is clean it is known what was set aside: the export is whole, and is told as what it is.
    assert run_here(capsys, "data", "import", games, "--out", tmp_path / "clean").code == 1
    for cached in (False, True):
        said = run_here(capsys, "data", "export", tmp_path / "clean", "--out", out, "--json")
        assert said.code == 1
        assert last_json(said)["cached"] is cached
        assert last_json(said)["files_set_aside"][0]["reason"] == "empty file"


BAD_EXPORTS = {
    "no source": (["none.trmph", "--out", "b.txt"], 2, ["there is no source", "none.trmph"]),
    "into a folder": (["a.trmph", "--out", "folder"], 2, ["folder is a folder"]),
    "onto itself": (["a.trmph", "--out", "a.trmph"], 2, ["lies in its own source"]),
    "into its source": (["folder", "--out", "folder/b.txt"], 2, ["lies in its own source"]),
    "several": (["a.trmph", "folder", "--out", "b.txt"], 2, ["2 paths", "tamen data import"]),
    "settings of rows": (["a.trmph", "--out", "b.txt", "--max-games", "3"], 2, ["--max-games says nothing"]),
    "damaged notes": (["a.trmph", "--out", "b.txt", "--runs", "bad"], 1, ["control.sqlite is damaged"]),
}


@pytest.mark.parametrize("name", BAD_EXPORTS)
def test_a_bad_export_is_told_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.trmph", *GAMES)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.trmph", *GAMES)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "control.sqlite").write_bytes(b"no database" * 1000)
    arguments, code, mentions = BAD_EXPORTS[name]
    assert_three_lines(run_here(capsys, "data", "export", *arguments), code=code, mentions=mentions)
    assert not (tmp_path / "b.txt").exists()
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a.trmph"]
    assert (tmp_path / "a.trmph").read_text().splitlines() == GAMES


def test_a_file_that_cannot_be_read_whole_ends_in_1_and_the_rest_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.trmph", *GAMES)
    (tmp_path / "short.trmph.gz").write_bytes(gzip.compress(b"#3,c1\n#3,c2\n")[:-4])
    (tmp_path / "empty.trmph").touch()
    said = run_here(capsys, "data", "import", tmp_path)
    assert said.code == 1
    assert f"{tmp_path / 'empty.trmph'}: empty file: it holds nothing" in said.out
    assert f"{tmp_path / 'short.trmph.gz'}: file cut short" in said.out
    assert last_json(run_here(capsys, "data", "import", tmp_path, "--json"))["games"] == 5
    assert run_here(capsys, "data", "import", good).code == 0


def test_a_file_without_permission_ends_in_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as root, whom no permission stops.
    good, secret = write(tmp_path / "a.trmph", *GAMES), write(tmp_path / "b.trmph", *GAMES)
    plain = LineReader._raw_lines

    def raw_lines(self: LineReader) -> Any:
        if self._piece == Piece(str(secret)):
            yield Rejection(str(secret), 0, reading.Trouble.UNREADABLE, os.strerror(errno.EACCES), "")
        else:
            yield from plain(self)

    monkeypatch.setattr(LineReader, "_raw_lines", raw_lines)
    said = run_here(capsys, "data", "import", good, secret)
    assert said.code == 1
    assert f"{secret}: file cannot be read: Permission denied" in said.out


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"# nothing\n\n", "only headers and blank lines"),
        (b"#99,a1b2 b\n", "1 × board size not played"),
        (b"\0\1\2\3" * 999, "1 × not text"),
    ],
)
def test_files_without_a_game_are_an_error(
    content: bytes, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.trmph").write_bytes(content)
    said = run_here(capsys, "data", "import", tmp_path / "a.trmph", "--json")
    assert_three_lines(said, code=1, mentions=["there is not one game", why, "tamen data check"])


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(tmp_path / "a.trmph", *GAMES), tmp_path / "out"
    real, writes = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    said = run_here(capsys, "data", "import", source, "--out", out)
    assert_three_lines(said, code=1, mentions=["could not be read or written", "No space left on device"])
    assert not list(out.rglob("*.tmp"))
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    assert run_here(capsys, "data", "import", source, "--out", out).code == 0
    monkeypatch.setattr(files.os, "fsync", full)
    said = run_here(capsys, "data", "export", out, "--out", tmp_path / "b.trmph")
    assert_three_lines(said, code=1, mentions=["No space left on device"])
    assert {file.name for file in tmp_path.iterdir()} == {"a.trmph", "out", ".b.trmph.lock"}


def test_what_is_not_there_or_no_manifest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run_here(capsys, "data", "import", tmp_path / "no.trmph")
    assert_three_lines(said, code=2, mentions=["there is no file or folder"])
    (tmp_path / "manifest.json").write_text("{}")
    said = run_here(capsys, "data", "stats", tmp_path)
    assert_three_lines(said, code=1, mentions=["is no manifest of cleaned games", "KeyError"])
