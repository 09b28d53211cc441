"""What a mirror of a run consists of, and what has to be read, written and deleted to bring it up to date.

    objects/<digest>               a piece of a file; never altered, and there once however many files hold it
    manifests/<number>.manifest    which pieces made up which files at one moment, and who wrote that

A manifest is written after all its pieces and deleted before any of them, so that each that is there can be restored
from. Nothing in here touches a disk or a network.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from core.errors import DataError
from replay.codec import decode_record, encode_record

OBJECTS, MANIFESTS = "objects", "manifests"
MANIFEST_VERSION = 1
MANIFESTS_KEPT = 3
"""The newest, and those to fall back on; a reader has as many rounds of time until its pieces may go."""
PIECE_BYTES = 8 << 20
GROWING_PIECE_BYTES = 1 << 20
"""Of a file that grows, the last piece is uploaded again each time."""
UNSETTLED_BYTES = 64 << 10
"""Of the end of a file that grows: a line that a full disk had cut may be gone, and another in its place."""


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Some bytes: their digest (see `core.files.digest`), and how many."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Stat:
    """A file at the moment of a look.

    Attributes:
        size: in bytes; of a file that grows all that counts, though there may be more by now.
        inode, modified_ns: tell whether it is still the same.
        grows: whether it only ever becomes longer.
    """

    size: int
    inode: int
    modified_ns: int
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file that has to be read: `size` bytes from `offset` on, which make one piece."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the pieces of a file were when it was read as `stat` describes."""

    stat: Stat
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run at one moment.

    Attributes:
        number: rises by one.
        run: what the run was called when it began.
        token: of the driver's life that wrote it.
        host: where that was.
        saved_at: seconds since 1970; what was on disk then is in it.
        files: pieces by path, relative to the run's folder, with "/".
    """

    number: int
    run: str
    token: str
    host: str
    saved_at: float
    files: Mapping[str, tuple[Piece, ...]]

    @property
    def total_bytes(self) -> int:
        return sum(piece.size for pieces in self.files.values() for piece in pieces)

    def pieces(self) -> set[Piece]:
        return {piece for pieces in self.files.values() for piece in pieces}

    def encode(self) -> bytes:
        """Return it as sealed bytes."""
        files = [
            [path, [[piece.digest, piece.size] for piece in pieces]] for path, pieces in self.files.items()
        ]
        return encode_record(
            "mirror manifest",
            MANIFEST_VERSION,
            {
                "number": self.number,
                "run": self.run,
                "token": self.token,
                "host": self.host,
                "saved_at": self.saved_at,
                "files": files,
            },
        )

    @staticmethod
    def decode(data: bytes, *, source: str) -> "Manifest":
        """Return what was encoded. Raises DataError when it is damaged, or names files outside of a run's folder."""
        match decode_record(data, "mirror manifest", MANIFEST_VERSION, source=source):
            case {
                "number": int(number),
                "run": str(run),
                "token": str(token),
                "host": str(host),
                "saved_at": float(saved_at),
                "files": list(listed),
            }:
                files = dict(_file(entry, source) for entry in listed)
                return Manifest(number, run, token, host, saved_at, files)
        raise _no_manifest(source, "its fields are not those of one")


def spans_to_read(stats: Mapping[str, Stat], known: Mapping[str, Known]) -> list[Span]:
    """Return what has to be read to know the pieces of all files, given those that are known from earlier."""
    spans = []
    for path, stat in stats.items():
        kept = _kept(stat, known.get(path))
        offset = sum(piece.size for piece in kept)
        length = GROWING_PIECE_BYTES if stat.grows else PIECE_BYTES
        while offset < stat.size:
            spans.append(Span(path, offset, min(length, stat.size - offset)))
            offset += length
    return spans


def with_pieces(
    stats: Mapping[str, Stat], known: Mapping[str, Known], read: Mapping[Span, Piece]
) -> dict[str, Known]:
    """Return the pieces of all files, once the spans have been read."""
    added: dict[str, list[Piece]] = {}
    for span, piece in sorted(read.items(), key=lambda entry: entry[0].offset):
        added.setdefault(span.path, []).append(piece)
    return {
        path: Known(stat, (*_kept(stat, known.get(path)), *added.get(path, ())))
        for path, stat in stats.items()
    }


def garbage(present: Iterable[Piece], kept: Sequence[Manifest]) -> set[Piece]:
    """Return the pieces that no manifest names any more."""
    return set(present).difference(*(manifest.pieces() for manifest in kept))


def _kept(stat: Stat, known: Known | None) -> tuple[Piece, ...]:
    """Return which of a file's first pieces need not be read again."""
    if known is None or known.stat.inode != stat.inode:
        return ()
    if known.stat == stat:
        return known.pieces
    if not stat.grows or stat.size < known.stat.size:
        return ()
    return known.pieces[: max(0, known.stat.size - UNSETTLED_BYTES) // GROWING_PIECE_BYTES]


def _file(entry: object, source: str) -> tuple[str, tuple[Piece, ...]]:
    match entry:
        case [str(path), list(pieces)] if _is_inside(path):
            return path, tuple(_piece(piece, source) for piece in pieces)
    raise _no_manifest(source, f"{str(entry)[:80]!r} is no file of a run")


def _piece(entry: object, source: str) -> Piece:
    match entry:
        case [str(digest), int(size)] if 0 < size <= PIECE_BYTES and digest.isalnum():
            return Piece(digest, size)
    raise _no_manifest(source, f"{str(entry)[:80]!r} is no piece of a file")


def _is_inside(path: str) -> bool:
    """Whether a path leads to a file below the folder that it is relative to, on any system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and path == "/".join(parts) and ".." not in parts and not set("\\:\0") & set(path)


def _no_manifest(source: str, why: str) -> DataError:
    return DataError(f"{source} is no manifest of a mirror", why=why, fix="restore from another manifest")
