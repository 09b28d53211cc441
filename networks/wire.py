"""How weights travel to those who compute with them: as a safetensors file, in 16 bits for who computes in 16.

What a server in bf16 or fp16 computes with is the same either way. Here filters and matrices are rounded to nearest,
ties to even, as it would round them itself; all else (biases, moments, scales) travels in float32, because some of it
stays float32 in a network that is cast. A server in fp32 is sent float32. Files keep float32 whatever was sent.

Needs no torch.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from core.errors import DataError
from networks.weights import MAX_HEADER_BYTES, Weights, read_identity, safetensors_file, tensors_digest

WireForm: TypeAlias = Literal["fp32", "bf16", "fp16"]
Content: TypeAlias = bytes | np.ndarray
"""Of a file: bytes, or uint8 [N], which may lie in shared memory."""

_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def to_wire(weights: Weights, form: WireForm) -> bytes:
    """Return `weights` as they travel to who computes in `form`.

    In 16 bits they carry a digest of their own: of the numbers that arrive. A tensor with a number that 16 bits cannot
    hold stays float32.
    """
    if form == "fp32":
        return weights.to_bytes()
    coded = {name: _coded(name, tensor, form) for name, tensor in weights.tensors.items()}
    tensors = {name: _widened(*one) for name, one in coded.items()}
    sent = Weights(
        weights.model, weights.version, weights.game, weights.network, tensors, tensors_digest(tensors)
    )
    return safetensors_file(coded, sent.metadata())


def checksum_of(data: Content) -> int:
    """Return what tells whether `data` arrived as it left: a CRC-32, a quarter of the work that the digest is."""
    return zlib.crc32(data.data if isinstance(data, np.ndarray) else data)


def from_wire(data: Content, *, source: str, checksum: int | None = None) -> Weights:
    """Return what `to_wire` or `Weights.to_bytes` wrote, its float32 tensors being parts of `data` where they lie.

    Without a checksum all that is wrong with the header is found here; whether the tensors are what the digest says is
    not looked at yet: `Weights.verify` does, which every host calls before it takes them.

    Args:
        data: content of a file; the tensors are read-only if it is.
        source: what to call it in an error.
        checksum: of `data`, by who sent it; `Weights.verify` then has nothing to do.

    Raises:
        DataError: when the header is damaged or foreign, the file is too short or too long for it, or does not fit its
            checksum.
    """
    if checksum is not None and checksum_of(data) != checksum:
        raise _damaged(source, "it does not match its checksum: it was changed on its way")
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(MAX_HEADER_BYTES, len(view) - 8):
        raise _damaged(
            source, f"its header is cut short, or longer than the {MAX_HEADER_BYTES} bytes allowed"
        )
    head = bytes(view[: 8 + length])
    identity = read_identity(head, source=source)
    try:
        tensors = _tensors(json.loads(head[8:]), view[8 + length :])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(source, f"its tensors are not as its header says ({error})") from error
    return Weights(tensors=tensors, **identity, checked=checksum is not None)


def _coded(name: str, tensor: np.ndarray, form: WireForm) -> tuple[str, np.ndarray]:
    """Return a tensor as it travels, with the name of its dtype in the file."""
    plain = np.asarray(tensor, "<f4", order="C")
    if not name.endswith(".weight") or plain.ndim < 2:
        return "F32", plain
    code, array = ("F16", _rounded_to_fp16(plain)) if form == "fp16" else ("BF16", _rounded_to_bf16(plain))
    return (code, array) if np.isfinite(_widened(code, array)).all() else ("F32", plain)


def _rounded_to_fp16(tensor: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # the caller looks for infinities
        return tensor.astype("<f2")


def _rounded_to_bf16(tensor: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32 numbers, rounded to nearest, ties to even, as uint16."""
    bits = tensor.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype("<u2")


def _widened(code: str, array: np.ndarray) -> np.ndarray:
    """Return an array of the file as float32, which holds each of its numbers exactly."""
    if code == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f4", copy=False)


def _tensors(header: Mapping[str, Any], body: memoryview) -> dict[str, np.ndarray]:
    """Return the tensors of a file by name. Raises KeyError, TypeError or ValueError unless they fill `body`."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    tensors, end = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(size) is int and size >= 0 for size in (*shape, first, last)):
            raise ValueError(f"{name!r} has a size that is none")
        count = math.prod(shape)
        if first != end or last - first != count * dtype.itemsize:
            raise ValueError(f"{name!r} does not lie where it should")
        array = np.ndarray(tuple(shape), dtype, body, first)
        tensors[name], end = _widened(entry["dtype"], array), last
    if end != len(body):
        raise ValueError(f"{len(body)} bytes where {end} belong")
    return tensors


def _damaged(source: str, why: str) -> DataError:
    return DataError(f"{source} cannot be used", why=why, fix="publish them again, or use another version")
