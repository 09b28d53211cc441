"""What has to be read, uploaded and deleted, as numbers: nothing is missing at any moment, nothing is done twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.mirror.plan import (
    GROWING_PIECE_BYTES,
    MANIFESTS_KEPT,
    PIECE_BYTES,
    UNSETTLED_BYTES,
    Known,
    Manifest,
    Piece,
    Span,
    Stat,
    garbage,
    spans_to_read,
    with_pieces,
)
from core.errors import DataError
from core.files import seal

KILO = 1 << 10
SIZES = st.integers(0, 3 * PIECE_BYTES) | st.sampled_from(
    [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, GROWING_PIECE_BYTES, 2 * GROWING_PIECE_BYTES]
)
STATS = st.dictionaries(
    st.sampled_from(["a", "b", "games/c", "log.txt"]),
    st.builds(Stat, SIZES, st.integers(1, 2), st.integers(1, 2), st.booleans()),
)


def read_all(spans: list[Span], version: str = "") -> dict[Span, Piece]:
    """Stand for reading: the digest says what was read."""
    return {span: Piece(f"{span.path}:{span.offset}:{version}", span.size) for span in spans}


def read(stats: dict[str, Stat], known: dict[str, Known] | None = None) -> dict[str, Known]:
    return with_pieces(stats, known or {}, read_all(spans_to_read(stats, known or {})))


@given(STATS)
def test_pieces_cover_each_file_from_end_to_end(stats: dict[str, Stat]) -> None:
    known = read(stats)

    assert {path: sum(piece.size for piece in file.pieces) for path, file in known.items()} == {
        path: stat.size for path, stat in stats.items()
    }
    for path, file in known.items():
        largest = GROWING_PIECE_BYTES if stats[path].grows else PIECE_BYTES
        assert all(piece.size == largest for piece in file.pieces[:-1])
        assert all(0 < piece.size <= largest for piece in file.pieces)


@given(STATS, STATS)
def test_only_what_may_have_changed_is_read_again(before: dict[str, Stat], after: dict[str, Stat]) -> None:
    known = read(before)
    spans = spans_to_read(after, known)
    then = with_pieces(after, known, read_all(spans, "again"))

    assert set(then) == set(after)
    for path, file in then.items():
        assert sum(piece.size for piece in file.pieces) == after[path].size
        if before.get(path) == after[path]:
            assert file == known[path]
        elif not after[path].grows:
            assert all(piece.digest.endswith("again") for piece in file.pieces)
    assert spans_to_read(after, then) == []


def test_of_a_file_that_grows_the_unsettled_end_is_read_again() -> None:
    log = Stat(3 * GROWING_PIECE_BYTES + KILO, 1, 1, grows=True)
    known = read({"log.txt": log})
    grown = {"log.txt": replace(log, size=log.size + KILO, modified_ns=2)}

    (again, last) = spans_to_read(grown, known)
    assert (again.offset, last.offset) == (2 * GROWING_PIECE_BYTES, 3 * GROWING_PIECE_BYTES)
    settled = read({"log.txt": replace(log, size=log.size + UNSETTLED_BYTES)})
    (last,) = spans_to_read({"log.txt": replace(log, size=log.size + 2 * UNSETTLED_BYTES)}, settled)
    assert last.offset == 3 * GROWING_PIECE_BYTES


@pytest.mark.parametrize("change", [{"inode": 2}, {"size": 2 * GROWING_PIECE_BYTES}])
def test_a_file_that_was_cut_or_replaced_is_read_whole(change: dict[str, int]) -> None:
    log = Stat(3 * GROWING_PIECE_BYTES, 1, 1, grows=True)
    now = {"log.txt": replace(log, **change)}

    assert spans_to_read(now, read({"log.txt": log})) == spans_to_read(now, {})


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[frozenset[int], int]]:
    """Rounds of a mirror: which contents the run has, and after how many operations its machine dies."""
    contents = st.frozensets(st.integers(0, 12))
    return draw(st.lists(st.tuples(contents, st.integers(0, 30)), min_size=1, max_size=8))


@given(steps())
def test_whenever_the_machine_dies_each_manifest_there_has_all_its_pieces(
    rounds: list[tuple[frozenset[int], int]],
) -> None:
    objects: set[Piece] = set()
    manifests: dict[int, Manifest] = {}
    for contents, dies_after in rounds:
        pieces = {str(content): (Piece(str(content), 1 + content),) for content in contents}
        number = max(manifests, default=-1) + 1
        manifest = Manifest(number, "run", "token", "host", 0.0, pieces)
        before = [manifests[n] for n in sorted(manifests)]
        kept = [*before, manifest][-MANIFESTS_KEPT:]
        operations = [
            *(("upload", piece) for piece in sorted(manifest.pieces() - objects)),
            ("manifest", manifest),
            *(("drop", n) for n in manifests if n < kept[0].number),
            *(("delete", piece) for piece in sorted(garbage(objects | manifest.pieces(), kept))),
        ]
        for kind, what in operations[:dies_after]:
            match what:
                case Manifest():
                    manifests[what.number] = what
                case Piece():
                    (objects.add if kind == "upload" else objects.discard)(what)
                case _:
                    del manifests[what]
            assert all(found.pieces() <= objects for found in manifests.values())
        if dies_after >= len(operations):
            assert objects == set().union(*(found.pieces() for found in manifests.values()))
            assert len(manifests) <= MANIFESTS_KEPT


FILES = {"config.yaml": (Piece("a1", 5),), "games/0.txt": (Piece("b2", 9), Piece("c3", 1)), "empty": ()}
MANIFEST = Manifest(17, "hex5", "token", "host", 1.5, FILES)


def test_a_manifest_comes_back_as_it_was() -> None:
    assert Manifest.decode(MANIFEST.encode(), source="it") == MANIFEST
    assert MANIFEST.total_bytes == 15


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_manifest_with_an_altered_byte_is_refused(place: int, change: int) -> None:
    data = bytearray(MANIFEST.encode())
    data[place % len(data)] ^= change
    with pytest.raises(DataError):
        Manifest.decode(bytes(data), source="it")
    with pytest.raises(DataError):
        Manifest.decode(bytes(data)[: place % len(data)], source="it")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\\b", "c:x", "a\0"])
def test_a_manifest_names_no_file_outside_of_the_run(path: str) -> None:
    foreign = replace(MANIFEST, files={path: (Piece("a1", 5),)})
    with pytest.raises(DataError, match="no manifest of a mirror"):
        Manifest.decode(foreign.encode(), source="it")


@pytest.mark.parametrize(
    "piece",
    [Piece("../x", 5), Piece("a1", 0), Piece("", 5), Piece("a1", PIECE_BYTES + 1), Piece("a1", 10**15)],
)
def test_a_manifest_names_no_foreign_object(piece: Piece) -> None:
    with pytest.raises(DataError, match="no manifest of a mirror"):
        Manifest.decode(replace(MANIFEST, files={"a": (piece,)}).encode(), source="it")
    with pytest.raises(DataError):
        Manifest.decode(seal(b"something else"), source="it")
