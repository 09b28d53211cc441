import contextlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.errors import DataError
from core.files import seal, unseal
from replay.codec import Limits, decode, encode
from tests.replay.experience import a_chunk, same

DTYPES = ["bool", "int8", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64"]

arrays = hnp.arrays(
    dtype=st.sampled_from(DTYPES), shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | arrays
)
structures = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

SMALL = encode(
    {"name": "hex", "games": [1, 2.5, None, True], "cells": np.arange(6, dtype=np.int16).reshape(2, 3)}
)


def plain(data: bytes) -> bytes:
    """The msgpack inside encoded bytes."""
    return zstandard.ZstdDecompressor().decompress(unseal(data, source="a test"))


def encoded(msgpacked: bytes) -> bytes:
    """Any bytes behind an intact seal, as someone would send who means harm."""
    return seal(zstandard.ZstdCompressor().compress(msgpacked))


def an_array(*parts: Any) -> bytes:
    return encoded(msgpack.packb(msgpack.ExtType(1, msgpack.packb(list(parts)))))


def only_data_errors(data: bytes) -> None:
    with contextlib.suppress(DataError):
        decode(data, source="a test")


@given(structures)
def test_what_was_encoded_is_given_back(structure: Any) -> None:
    assert same(
        decode(encode(structure, limits=Limits(nesting=20)), source="a test", limits=Limits(nesting=20)),
        structure,
    )


def test_tuples_become_lists_and_order_in_memory_does_not_matter() -> None:
    big_endian = np.arange(6, dtype=">i4").reshape(2, 3).T
    decoded = decode(encode({"pair": (1, 2), "array": big_endian}), source="a test")
    assert decoded["pair"] == [1, 2]
    assert decoded["array"].dtype == np.dtype("int32")
    assert decoded["array"].tolist() == big_endian.tolist()


def test_decoded_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(encode(np.zeros(3)), source="a test")[0] = 1


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, {3}, 1j, np.float32(1), np.zeros(1, "complex64"), np.array(["a"]), np.zeros((1,) * 7)],
)
def test_what_could_not_be_read_again_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not allowed|not text"):
        encode([value])


def test_damage_names_its_source() -> None:
    with pytest.raises(DataError, match=r"run/00000003\.chunk is damaged"):
        decode(SMALL[:-1], source="run/00000003.chunk")
    with pytest.raises(DataError, match=r"run/00000003\.chunk cannot be read"):
        decode(encoded(b"\xc1"), source="run/00000003.chunk")


def test_every_truncation_is_found() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(DataError):
            decode(SMALL[:length], source="a test")


@given(st.integers(0, 8 * len(SMALL) - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    flipped = bytearray(SMALL)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DataError):
        decode(bytes(flipped), source="a test")


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_data_errors(data: bytes) -> None:
    only_data_errors(data)
    only_data_errors(seal(data))
    only_data_errors(encoded(data))


@settings(max_examples=200)
@given(st.data())
def test_a_record_altered_behind_an_intact_seal_raises_nothing_but_data_errors(data: st.DataObject) -> None:
    content = bytearray(plain(a_chunk().encode()))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "cut", "add"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 40))]
            case "add":
                content[place:place] = data.draw(st.binary(max_size=8))
        if not content:
            break
    only_data_errors(encoded(bytes(content)))


@given(st.binary(max_size=40), st.binary(max_size=40))
@example(b"", b"\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff")
def test_compressed_bytes_altered_behind_an_intact_seal_raise_nothing_but_data_errors(
    before: bytes, after: bytes
) -> None:
    frame = zstandard.ZstdCompressor().compress(plain(SMALL))
    for data in (before + frame, frame + after, frame[: len(after)] + before + frame[len(after) :], after):
        only_data_errors(seal(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encoded(b"\xdd\xff\xff\xff\xff"), "exceeds max_array_len"),
        (encoded(b"\xdf\xff\xff\xff\xff"), "exceeds max_map_len"),
        (encoded(b"\x91" * 5000), "StackError"),
        (encoded(b"\x91" * 9 + b"\x01"), "nested too deeply"),
        (encoded(b"\x81\x01\x02"), "not allowed for map key"),
        (encoded(b"\xd6\xff\0\0\0\0"), "Timestamp is not allowed"),
        (encoded(b"\xd4\x05a"), "unknown extension 5"),
        (encoded(b"\x01\x01"), "extra data"),
        (encoded(b"\xa1\xff"), "UnicodeDecodeError"),
        (an_array("object", [1], bytes(8)), "dtype 'object' is not allowed"),
        (an_array("<f4", [1], bytes(4)), "dtype '<f4' is not allowed"),
        (an_array("float32", [2], bytes(4)), "does not take 4 bytes"),
        (an_array("float32", [2**62, 4], b""), "does not take 0 bytes"),
        (an_array("float32", [0, 2**62, 2**62], b""), "ValueError"),
        (an_array("float32", [-1, -1], bytes(4)), "not made of counts"),
        (an_array("float32", [True], bytes(4)), "not made of counts"),
        (an_array("float32", [1] * 7, bytes(4)), "exceeds max_array_len"),
        (an_array("bool", [2], b"\1\2"), "neither 0 nor 1"),
        (an_array("float32", [1]), "not [dtype, shape, bytes]"),
        (seal(zstandard.ZstdCompressor(write_content_size=False).compress(b"\x01")), "declares -1 bytes"),
        (seal(zstandard.ZstdCompressor().compress(b"\x01") + b"more"), "ZstdError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_poisoned_record_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(DataError) as refusal:
        decode(data, source="a test")
    assert why in refusal.value.why


def test_a_small_file_cannot_ask_for_much_memory() -> None:
    bomb = encoded(bytes(1_000_000))
    assert len(bomb) < 1000
    with pytest.raises(DataError, match="declares 1000000 bytes of content"):
        decode(bomb, source="a test", limits=Limits(plain_bytes=999_999))


def test_sizes_are_bounded_on_both_ways_exactly() -> None:
    structure = ["some text"]
    fitting = Limits(
        sealed_bytes=len(encode(structure)), plain_bytes=len(plain(encode(structure))), nesting=1
    )
    assert decode(encode(structure, limits=fitting), source="a test", limits=fitting) == structure
    for tight in (
        Limits(sealed_bytes=fitting.sealed_bytes - 1),
        Limits(plain_bytes=fitting.plain_bytes - 1),
    ):
        with pytest.raises(DataError, match="cannot be written"):
            encode(structure, limits=tight)
        with pytest.raises(DataError):
            decode(encode(structure), source="a test", limits=tight)
    with pytest.raises(ValueError, match="nested too deeply"):
        encode([structure], limits=fitting)
