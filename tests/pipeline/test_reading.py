"""Lines come out of files of every kind, and what cannot be read is told."""

import gzip
import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UsageError
from pipeline import reading
from pipeline.reading import Line, LineReader, Piece, Rejection, Trouble, cut_into_pieces, find_files

LINES = [f"#5,a{number}" for number in range(1, 6)]


def lines_of(piece: Piece) -> list[tuple[int, str]]:
    return [(found.number, found.text) for found in LineReader(piece) if isinstance(found, Line)]


def rejections_of(path: Path) -> list[Rejection]:
    return [found for found in LineReader(Piece(str(path))) if isinstance(found, Rejection)]


def write(path: Path, data: bytes) -> Piece:
    path.write_bytes(data)
    return Piece(str(path))


def test_headers_and_blank_lines_are_no_lines_but_count_in_numbers(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf# Model: x\r\n\r\n#5,a1b2 b\r\n   \n#\n<<<<\n#5,a1"
    assert lines_of(write(tmp_path / "a.trmph", data)) == [(3, "#5,a1b2 b"), (6, "<<<<"), (7, "#5,a1")]


def test_packed_files_are_known_by_their_content(tmp_path: Path) -> None:
    piece = write(tmp_path / "packed.trmph", gzip.compress(b"#5,a1\n#5,a2\n") + gzip.compress(b"#5,a3\n"))
    assert lines_of(piece) == [(1, "#5,a1"), (2, "#5,a2"), (3, "#5,a3")]


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_file_is_told(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"") if packed else b"")
    assert rejections_of(tmp_path / "a") == [
        Rejection(str(tmp_path / "a"), 0, Trouble.EMPTY, "it holds nothing", "")
    ]


def test_what_is_no_text_is_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    piece = write(tmp_path / "a", b"#5,a1\n\0\x01\x02\n#5,\xff\xfe\n#5,a2\n")
    assert lines_of(piece) == [(1, "#5,a1"), (4, "#5,a2")]
    first, second = rejections_of(tmp_path / "a")
    assert (first.line, first.reason, first.detail) == (2, Trouble.NOT_TEXT, "it holds zero bytes")
    assert (second.line, second.detail, second.text) == (3, "byte 4 is not UTF-8", "#5,\\xff\\xfe")


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_10_mb_is_passed_over_in_little_memory(tmp_path: Path, packed: bool) -> None:
    data = b"#5,a1\n#5," + b"a1" * 5_000_000 + b"\n#5,a2\n"
    longest = 0

    class Watched(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal longest
            line = super().readline(size)
            longest = max(longest, len(line))
            return line

    reader = LineReader(Piece("a"), lambda _: Watched(gzip.compress(data) if packed else data))
    first, too_long, last = reader
    assert (first, last) == (Line(1, "#5,a1"), Line(3, "#5,a2"))
    assert isinstance(too_long, Rejection)
    assert (too_long.line, too_long.reason) == (2, Trouble.TOO_LONG)
    assert too_long.detail == "10,000,004 bytes; at most 262,144 are read"
    assert len(too_long.text) == 80
    assert longest <= 1 << 20


def test_of_a_packed_file_cut_short_whole_lines_are_read(tmp_path: Path) -> None:
    text = b"".join(b"#5,a%d # %d\n" % (number % 5 + 1, number**3) for number in range(2000))
    piece = write(tmp_path / "a.gz", gzip.compress(text)[:-2000])
    found = list(LineReader(piece))
    assert isinstance(found[-1], Rejection)
    assert (found[-1].line, found[-1].reason) == (0, Trouble.CUT_SHORT)
    assert found[-1].detail == f"the packed file ends before its end, after line {len(found) - 1}"
    whole = text.decode().splitlines()[: len(found) - 1]
    assert [line.text for line in found[:-1]] == whole
    assert len(whole) > 100


def test_a_damaged_packed_file_is_told(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"#5,a1\n"))
    data[-6] ^= 1  # of the checksum
    (tmp_path / "a").write_bytes(data)
    (rejection,) = rejections_of(tmp_path / "a")
    assert (rejection.line, rejection.reason) == (0, Trouble.UNREADABLE)
    assert "CRC" in rejection.detail


def test_a_file_without_permission_is_told() -> None:
    def closed(file: str) -> BinaryIO:
        raise PermissionError(13, "Permission denied", file)

    assert list(LineReader(Piece("secret"), closed)) == [
        Rejection("secret", 0, Trouble.UNREADABLE, "Permission denied", "")
    ]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([b"", b"#5,a1", b"# header", b"x" * 30, b"#5,b2c3 b"]), max_size=12),
    st.booleans(),
    st.integers(1, 40),
)
def test_pieces_hold_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, piece_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("pieces") / "a.trmph"
    whole = write(path, b"\n".join(lines) + b"\n" * ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LONGEST_LINE_BYTES", 20)
        together: list[Line | Rejection] = []
        passed = 0
        for piece in cut_into_pieces(str(path), piece_bytes=piece_bytes):
            reader = LineReader(piece)
            for found in reader:
                number = passed + (found.number if isinstance(found, Line) else found.line)
                is_line = isinstance(found, Line)
                together.append(
                    Line(number, found.text) if is_line else Rejection(str(path), number, *told(found))
                )
            passed += reader.lines_passed
        alone = LineReader(whole)
        assert together == list(alone)
        assert passed == alone.lines_passed


def told(rejection: Rejection) -> tuple[str, str, str]:
    return rejection.reason, rejection.detail, rejection.text


def test_only_what_can_be_cut_is_cut(tmp_path: Path) -> None:
    text = b"#5,a1\n" * 100
    for name, data, pieces in (("a", text, 6), ("b.sgf", text, 1), ("c", gzip.compress(text * 999), 1)):
        write(tmp_path / name, data)
        assert len(cut_into_pieces(str(tmp_path / name), piece_bytes=100)) == pieces
    assert cut_into_pieces("nowhere") == [Piece("nowhere")]


def test_games_of_an_sgf_file_may_stand_on_many_lines(tmp_path: Path) -> None:
    data = b"(;GM[11]C[two (\n\\] lines]\n;B[a1]\n)\n\n(;GM[11];B[a2])(;GM[11]\n;B[a3])\nnothing\n"
    assert lines_of(write(tmp_path / "a.sgf", data)) == [
        (1, "(;GM[11]C[two (\n\\] lines]\n;B[a1]\n)"),
        (6, "(;GM[11];B[a2])"),
        (6, "(;GM[11]\n;B[a3])"),
        (8, "nothing"),
    ]


def test_a_game_without_an_end_does_not_swallow_the_next(tmp_path: Path) -> None:
    piece = write(tmp_path / "a.sgf", b"(;GM[11];B[a1]\n(;GM[11];B[a2])\n(;B[a3])\n")
    found = list(LineReader(piece))
    assert isinstance(found[0], Rejection)
    assert (found[0].line, found[0].detail) == (1, "the game that begins here does not end")
    assert found[1:] == [Line(2, "(;GM[11];B[a2])"), Line(3, "(;B[a3])")]


def test_a_file_of_games_without_an_end_is_not_read_again_from_each_of_them(tmp_path: Path) -> None:
    lines = 40_000
    piece = write(tmp_path / "a.sgf", b"(;\n" * lines + b"(;GM[11];B[a2])\n")
    found = list(LineReader(piece))
    assert 10 < len(found) < 40
    assert all(isinstance(each, Rejection) for each in found)
    assert found[2].detail == "the game that begins here does not end; 3 lines more are passed over with it"


def test_folders_are_searched_to_the_bottom_in_order(tmp_path: Path) -> None:
    for name in ("b.trmph", "worker_1/a.trmph.gz", "worker_0/a.sgf", "worker_0/log.txt", ".hidden.trmph"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "named.txt").touch()
    found = find_files([str(tmp_path / "named.txt"), str(tmp_path), "s3://bucket/a.trmph"])
    names = [os.path.relpath(file, tmp_path) for file in found[:-1]]
    assert names == ["named.txt", "b.trmph", "worker_0/a.sgf", "worker_1/a.trmph.gz"]
    assert found[-1] == "s3://bucket/a.trmph"


def test_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        find_files([str(tmp_path / "no")])
    with pytest.raises(UsageError, match=r"no files of games[\s\S]*\.trmph"):
        find_files([str(tmp_path)])
