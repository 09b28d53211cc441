"""Every file that must survive a crash is written here.

A write goes to a temporary name beside the target, is fsynced, renamed over it, and the folder is fsynced:
after `kill -9` or power loss the target is the old file or the new one, never a torn one.
Sealed data carries its own length and digest, so damage is found when it is read.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.errors import DataError

_SEAL = b"tamen1\n"
_DIGEST_SIZE = 16


def digest(data: bytes) -> str:
    """Return the hexadecimal BLAKE2b-128 digest of `data`."""
    return hashlib.blake2b(data, digest_size=_DIGEST_SIZE).hexdigest()


def file_digest(path: Path) -> tuple[str, int]:
    """Return what `digest` says of a file, and how many bytes that are; it is never in memory whole. Raises OSError."""
    with path.open("rb") as file:
        hashed = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_SIZE))
        return hashed.hexdigest(), file.tell()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably and in one step. Raises OSError (a full disk, say) with the old file intact."""
    with open_atomic(path) as file:
        file.write(data)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file too large for memory: once the block has ended it is at `path`, durably and in one step.

    Raises:
        OSError: with the old file intact, as after any error of the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def seal(data: bytes) -> bytes:
    """Return `data` behind a header of magic, length and digest."""
    return _SEAL + len(data).to_bytes(8, "little") + bytes.fromhex(digest(data)) + data


def unseal(sealed: bytes, *, source: str) -> bytes:
    """Return what `seal` was given. Raises DataError naming `source` when a byte is missing, added or altered."""
    header = len(_SEAL) + 8 + _DIGEST_SIZE
    data = sealed[header:]
    length = int.from_bytes(sealed[len(_SEAL) : len(_SEAL) + 8], "little")
    if len(sealed) < header or not sealed.startswith(_SEAL):
        problem = "it does not begin with tamen's header"
    elif len(data) != length:
        problem = f"it holds {len(data)} bytes where its header says {length}"
    elif bytes.fromhex(digest(data)) != sealed[header - _DIGEST_SIZE : header]:
        problem = "its digest does not match its content"
    else:
        return data
    raise DataError(
        f"{source} is damaged", why=problem, fix="restore it from a copy, or delete it to go on without it"
    )


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
