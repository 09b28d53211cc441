"""Plain structures and arrays as bytes: msgpack, compressed by zstd, sealed with a digest.

A structure is made of None, bool, int, float, str, bytes, lists (tuples become lists), dicts with str keys
and numpy arrays. An array travels as its dtype's name, its shape and its raw little-endian bytes.

Bytes may come from a damaged disk or a foreign process, so decoding bounds every size before it allocates,
and raises nothing but DataError.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import zstandard

from core.errors import DataError
from core.files import seal, unseal

_ARRAY = 1
_COMPRESSION_LEVEL = 3
_DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "bool": np.dtype("bool"),
}
# Looked up, because numpy builds a dtype's name anew each time it is asked.
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_DIMENSIONS = 6
# msgpack makes room for a list before it reads its items: for at most this many, at each of its 1024 levels.
_MAX_ITEMS = 1 << 18


@dataclass(frozen=True, slots=True)
class Limits:
    """What `decode` accepts, and `encode` makes.

    Attributes:
        sealed_bytes: length of the bytes as they travel.
        plain_bytes: length after decompression.
        nesting: depth of lists and dicts inside each other.
    """

    sealed_bytes: int = 64 << 20
    plain_bytes: int = 256 << 20
    nesting: int = 8


LIMITS = Limits()


def encode(structure: Any, *, limits: Limits = LIMITS) -> bytes:
    """Return `structure` as sealed bytes.

    Raises:
        DataError: when it has more bytes than `limits` allow.
        ValueError: when it holds anything but what the module names, nests too deeply or has too long a list.
    """
    _check_plain(structure, limits.nesting)
    plain: bytes = msgpack.packb(structure, default=_pack_array)  # pyright: ignore[reportAssignmentType]
    sealed = seal(zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(plain))
    if len(plain) > limits.plain_bytes or len(sealed) > limits.sealed_bytes:
        raise DataError(
            f"a record of {len(plain)} bytes cannot be written",
            why=f"at most {limits.plain_bytes} bytes are allowed, {limits.sealed_bytes} when compressed",
            fix="make smaller chunks, e.g. with actors.chunk_rows=2048",
        )
    return sealed


def decode(data: bytes, *, source: str, limits: Limits = LIMITS) -> Any:
    """Return the structure that `encode` was given; its arrays are read-only.

    Args:
        data: as `encode` returned it.
        source: where it came from, for the error.
        limits: sizes beyond which nothing is read.

    Raises:
        DataError: when `data` is damaged, foreign or beyond `limits`.
    """
    if len(data) > limits.sealed_bytes:
        raise _damaged(source, f"it has {len(data)} bytes, at most {limits.sealed_bytes} are read")
    compressed = unseal(data, source=source)
    try:
        structure = msgpack.unpackb(
            _decompress(compressed, limits),
            ext_hook=_unpack_array,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
        _check_plain(structure, limits.nesting)
    except (
        zstandard.ZstdError,
        msgpack.UnpackException,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise _damaged(source, f"{type(error).__name__}: {error}") from error
    return structure


def encode_record(kind: str, version: int, fields: Mapping[str, Any]) -> bytes:
    """Return fields under a kind and a version that `decode_record` will ask for. Raises like `encode`."""
    return encode({"record": kind, "version": version, **fields})


def decode_record(data: bytes, kind: str, version: int, *, source: str) -> dict[str, Any]:
    """Return the fields of a record. Raises DataError as `decode`, and for another kind or version."""
    match decode(data, source=source):
        case {"record": str(found), "version": int(found_version), **fields} if found == kind:
            if found_version == version:
                return fields
            raise DataError(
                f"{source} is of another release",
                why=f"it is a {kind} of version {found_version}, this release reads version {version}",
                fix="read it with the release that wrote it",
            )
    raise DataError(
        f"{source} is not a {kind}", why="it holds something else", fix="check where it comes from"
    )


def _decompress(compressed: bytes, limits: Limits) -> bytes:
    # The library trusts the size that a frame declares over any maximum given to it, so look first.
    declared = zstandard.frame_content_size(compressed)
    if not 0 <= declared <= limits.plain_bytes:
        raise ValueError(f"it declares {declared} bytes of content, allowed are 0 to {limits.plain_bytes}")
    return zstandard.ZstdDecompressor().decompress(compressed, allow_extra_data=False)


def _pack_array(array: np.ndarray) -> msgpack.ExtType:
    native = array.dtype.newbyteorder("=")
    raw = array.astype(native.newbyteorder("<"), copy=False).tobytes()
    return msgpack.ExtType(_ARRAY, msgpack.packb([_NAMES[native], list(array.shape), raw]))


def _unpack_array(code: int, packed: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code}")
    parts = msgpack.unpackb(packed, max_array_len=_MAX_DIMENSIONS, max_map_len=0, max_ext_len=0)
    match parts:
        case [str(name), list(shape), bytes(raw)]:
            return _array(name, shape, raw)
    raise ValueError("an array is not [dtype, shape, bytes]")


def _array(name: str, shape: list[Any], raw: bytes) -> np.ndarray:
    if name not in _DTYPES:
        raise ValueError(f"dtype {name[:40]!r} is not allowed")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {shape} is not made of counts")
    dtype = _DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"{name}{shape} does not take {len(raw)} bytes")
    if name == "bool" and raw.translate(None, b"\0\1"):
        raise ValueError("a bool is neither 0 nor 1")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def _check_plain(value: Any, levels: int) -> None:
    """Raise ValueError unless `value` is of the module's kinds and nests at most `levels` deep."""
    match value:
        case dict() | list() | tuple():
            if levels == 0 or len(value) > _MAX_ITEMS:
                raise ValueError("it is nested too deeply, or a list is too long")
            if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
                raise ValueError("a key is not text")
            for item in value.values() if isinstance(value, dict) else value:
                _check_plain(item, levels - 1)
        case np.ndarray():
            if value.dtype.newbyteorder("=") not in _NAMES or value.ndim > _MAX_DIMENSIONS:
                raise ValueError(f"an array of {value.dtype}{list(value.shape)} is not allowed")
        case None | bool() | int() | float() | str() | bytes():
            return
        case _:
            raise ValueError(f"a {type(value).__name__} is not allowed")


def _damaged(source: str, why: str) -> DataError:
    return DataError(
        f"{source} cannot be read", why=why, fix="restore it from a copy, or delete it to go on without it"
    )
