"""Lines to and from an engine: cut wherever they may, bounded, strict, and never waited for beyond the deadline."""

import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from io import FileIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.errors import EngineFault, shown, unexpected
from engines.lines import MAX_LINE_BYTES, LineReader, LineWriter

TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)


def soon() -> float:
    return time.monotonic() + 20


def read_all(reader: LineReader) -> list[str]:
    """Read to the end."""
    return list(iter(lambda: reader.read_line(soon()), None))


def read_what_came(reader: LineReader) -> Iterator[str | None]:
    """Read the whole lines that are there; a part of one stays, to be read with its rest."""
    while reader.has_more():
        try:
            yield reader.read_line(time.monotonic())
        except EngineFault as fault:
            if fault.kind != "timeout":
                raise
            return


@pytest.fixture
def pipe() -> Iterator[tuple[int, FileIO]]:
    """The reading end of a pipe, and its writing end."""
    reading, writing = os.pipe()
    with FileIO(reading, "rb"), FileIO(writing, "wb") as file:
        yield reading, file


@given(
    st.lists(TEXTS, max_size=8), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(1, 40), max_size=20)
)
def test_lines_come_as_they_were_sent_however_they_are_cut(
    lines: list[str], end: str, cuts: list[int]
) -> None:
    data = "".join(line + end for line in lines).encode()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, read = LineReader(ours.fileno(), "echo"), []
        for size in [*cuts, len(data) + 1]:
            theirs.sendall(data[:size])
            data = data[size:]
            read += read_what_came(reader)
        theirs.shutdown(socket.SHUT_WR)
        read += read_all(reader)
    assert [line for line in read if line is not None] == lines


def test_a_line_of_the_greatest_length_is_read_and_a_longer_one_refused() -> None:
    for length, kind in ((MAX_LINE_BYTES, None), (MAX_LINE_BYTES + 1, "too long")):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender = threading.Thread(target=theirs.sendall, args=(b"x" * length + b"\n",))
            sender.start()
            reader = LineReader(ours.fileno(), "echo")
            if kind is None:
                assert reader.read_line(soon()) == "x" * length
            else:
                for _ in range(2):  # and stays so
                    with pytest.raises(EngineFault, match="does not end") as caught:
                        reader.read_line(soon())
                    assert caught.value.kind == kind
            sender.join(20)


def test_an_endless_line_is_refused_before_it_fills_the_memory(pipe: tuple[int, FileIO]) -> None:
    reading, writing = pipe
    reader = LineReader(reading, "talker")
    for _ in range(MAX_LINE_BYTES // 4096):
        writing.write(b"y" * 4096)
        assert list(read_what_came(reader)) == []
    writing.write(b"y")
    with pytest.raises(EngineFault, match="does not end"):
        reader.read_line(soon())


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        (b"ab\xff\xfe\n", "garbled", "byte 2"),
        (b"\xed\xa0\x80\n", "garbled", "byte 0"),  # half of a surrogate pair
        (b"whole\nhalf", "closed", "after b'half'"),
    ],
)
def test_what_is_wrong_with_the_bytes_is_told(
    pipe: tuple[int, FileIO], data: bytes, kind: str, told: str
) -> None:
    reading, writing = pipe
    writing.write(data)
    writing.close()
    with pytest.raises(EngineFault, match="gnugo") as caught:
        read_all(LineReader(reading, "gnugo"))
    assert caught.value.kind == kind
    assert told in caught.value.why


def test_silence_ends_at_the_deadline_and_what_comes_later_is_read(pipe: tuple[int, FileIO]) -> None:
    reading, writing = pipe
    reader = LineReader(reading, "sleeper")
    writing.write(b"begun ")
    with pytest.raises(EngineFault, match="in time") as caught:
        reader.read_line(time.monotonic() + 0.01)
    assert caught.value.kind == "timeout"
    assert "begun" in caught.value.why
    writing.write(b"and ended\n")
    assert reader.read_line(soon()) == "begun and ended"


def test_a_reset_is_no_clean_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours:
            ours.sendall(b"unread\n")
            theirs.close()  # with something unread: the peer gets a reset
            with pytest.raises(EngineFault) as caught:
                read_all(LineReader(ours.fileno(), "daemon"))
    assert caught.value.kind == "closed"


def test_lines_that_are_written_arrive_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = [f"{i} " + "z" * 10_000 for i in range(100)]
        writer = LineWriter(ours.fileno(), "echo")
        sender = threading.Thread(target=writer.write_lines, args=(lines, soon()))
        sender.start()
        reader = LineReader(theirs.fileno(), "us")
        assert [reader.read_line(soon()) for _ in lines] == lines
        sender.join(20)


@pytest.mark.parametrize("line", ["two\nlines", "a\rb", "é" * MAX_LINE_BYTES, "\ud800"])
def test_what_is_no_line_is_not_sent(pipe: tuple[int, FileIO], line: str) -> None:
    reading, writing = pipe
    with pytest.raises(UsageError, match="cannot be sent"):
        LineWriter(writing.fileno(), "echo").write_lines(["fine", line], soon())
    assert not LineReader(reading, "echo").has_more()


def test_an_engine_that_does_not_read_is_not_waited_for_for_ever(pipe: tuple[int, FileIO]) -> None:
    _, writing = pipe
    writer = LineWriter(writing.fileno(), "deaf")
    with pytest.raises(EngineFault, match="in time") as caught:
        writer.write_lines(["x" * 10_000] * 1000, time.monotonic() + 0.01)
    assert "does not read" in caught.value.why


def test_an_engine_that_is_gone_is_told() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb"), pytest.raises(EngineFault) as caught:
        LineWriter(writing, "gone").write_line("hello", soon())
    assert caught.value.kind == "closed"


def test_a_fault_keeps_its_kind_on_the_way_to_another_process() -> None:
    fault = unexpected("gnugo", "x" * 500, expected="a reply")
    again = pickle.loads(pickle.dumps(fault))
    assert (again.kind, again.engine, str(again)) == ("protocol", "gnugo", str(fault))
    assert len(again.why) < 300
    assert shown("\n") == r"'\n'"
    assert unexpected("gnugo", None, expected="a reply").kind == "closed"
