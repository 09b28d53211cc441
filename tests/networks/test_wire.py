"""Weights on their way: what arrives is what a server would have rounded itself, and damage is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch

from configs.schema import NetworkConfig
from core.errors import DataError
from core.messages import BoardSpec
from networks.build import new_net, to_weights
from networks.weights import Weights, network_description
from networks.wire import WireForm, checksum_of, from_wire, to_wire

SPEC = BoardSpec(3, 3)
CONFIG = NetworkConfig(blocks=1, channels=2)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
HALVES: tuple[WireForm, ...] = ("bf16", "fp16")
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def some_weights(matrix: np.ndarray | None = None) -> Weights:
    tensors = {
        "a.weight": np.array([[0.1, -2.5e-5], [3.0, 1 / 3]], np.float32) if matrix is None else matrix,
        "a.bias": np.array([0.1, 1 / 3, 7.0], np.float32),
        "mean": np.array([[1234.5678]], np.float32),
        "scale": np.array(1 / 3, np.float32),
        "nothing.weight": np.zeros((0, 4), np.float32),
    }
    return Weights.pack(
        tensors, model="main", version=7, game="hex3", network=network_description(SPEC, CONFIG)
    )


DATA = some_weights().to_bytes()


def assert_same(found: Weights, expected: Weights) -> None:
    assert (found.model, found.version, found.game) == (expected.model, expected.version, expected.game)
    assert found.network == expected.network
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(found.tensors[name], tensor)


def test_in_fp32_the_file_itself_travels() -> None:
    assert to_wire(some_weights(), "fp32") == DATA
    found = from_wire(DATA, source="here")
    assert_same(found, some_weights())
    assert found.digest == some_weights().digest
    found.verify()


def test_what_lies_in_shared_memory_is_read_where_it_lies() -> None:
    shared = np.frombuffer(DATA, np.uint8)
    found = from_wire(shared, source="here")
    assert_same(found, some_weights())
    assert all(np.shares_memory(tensor, shared) for tensor in found.tensors.values() if tensor.size)
    assert not any(tensor.flags.writeable for tensor in found.tensors.values())


@pytest.mark.parametrize("form", HALVES)
@given(values=st.lists(numbers, min_size=4, max_size=4))
@example(values=[65520.0, 0.0, 1.0, -1.0])
@example(values=[3.4e38, 0.0, 1.0, -1.0])
@example(values=[1.00390625, 1.01171875, 1e-8, -0.0])
def test_numbers_arrive_as_torch_would_round_them(form: WireForm, values: list[float]) -> None:
    matrix = np.array(values, np.float32).reshape(2, 2)
    found = from_wire(to_wire(some_weights(matrix), form), source="here")
    rounded = torch.from_numpy(matrix).to(DTYPES[form])
    arrived = torch.from_numpy(found.tensors["a.weight"].copy())
    assert torch.equal(arrived.to(DTYPES[form]), rounded)
    if rounded.isfinite().all():
        assert torch.equal(arrived, rounded.float())
    else:
        np.testing.assert_array_equal(arrived.numpy(), matrix)
    found.verify()


@pytest.mark.parametrize("form", HALVES)
def test_only_filters_and_matrices_travel_in_16_bits(form: WireForm) -> None:
    weights = some_weights()
    found = from_wire(to_wire(weights, form), source="here")
    changed = {n for n, t in found.tensors.items() if not np.array_equal(t, weights.tensors[n])}
    assert changed == {"a.weight"}
    assert found.digest != weights.digest
    assert to_wire(found, form) == to_wire(weights, form)


@pytest.mark.parametrize("form", HALVES)
def test_a_net_travels_in_about_half_the_bytes_and_other_programs_can_read_it(form: WireForm) -> None:
    net = new_net(BoardSpec(5, 5), NetworkConfig(blocks=2, channels=32), seed=1)
    weights = to_weights(net, model="main", version=1, game="hex5")
    data = to_wire(weights, form)
    assert len(data) < 0.6 * len(weights.to_bytes())
    for name, tensor in safetensors_torch.load(data).items():
        expected = torch.from_numpy(weights.tensors[name].copy())
        torch.testing.assert_close(tensor, expected.to(tensor.dtype), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["fp32", *HALVES])
def test_a_flipped_bit_is_found_or_changes_nothing(form: WireForm) -> None:
    data = to_wire(some_weights(), form)
    expected = from_wire(data, source="here")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        try:
            found = from_wire(bytes(damaged), source="here")
            found.verify()
        except DataError:
            continue
        assert_same(found, expected)
        assert position < len(data) - 4, (
            "only white space and the spelling of the header may differ unnoticed"
        )


@given(length=st.integers(0, len(DATA) - 1))
@example(length=0)
@example(length=7)
@example(length=len(DATA) - 1)
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(DataError, match="here cannot be used"):
        from_wire(DATA[:length], source="here")


@given(data=st.binary(max_size=200))
@example(data=(1 << 62).to_bytes(8, "little"))
@example(data=(2).to_bytes(8, "little") + b"{}")
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        from_wire(data, source="here")


def with_header(change: tuple[bytes, bytes]) -> bytes:
    """Return a file whose header tells something else of its tensors; its seal covers only who it is."""
    length = int.from_bytes(DATA[:8], "little")
    header = DATA[8 : 8 + length].replace(*change)
    assert header != DATA[8 : 8 + length]
    return len(header).to_bytes(8, "little") + header + DATA[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        (b'"shape":[2,2]', b'"shape":[2,3]'),
        (b'"shape":[2,2]', b'"shape":[-2,-2]'),
        (b'"shape":[2,2]', b'"shape":[2.0,2]'),
        (b'"shape":[2,2]', b'"shape":"22"'),
        (b'"shape":[0,4]', b'"shape":[0,99999999999999999999999]'),
        (b'"dtype":"F32","shape":[2,2]', b'"dtype":"F64","shape":[2,1]'),
        (b'"data_offsets"', b'"offsets"'),
        (b'"data_offsets":[', b'"data_offsets":[0,'),
        (b'"data_offsets":[', b'"data_offsets":[9'),
    ],
)
def test_tensors_that_are_not_as_the_header_says_are_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(DataError, match="its tensors are not as its header says"):
        from_wire(with_header(change), source="here")


def test_what_came_with_a_checksum_that_fits_need_not_be_digested_again() -> None:
    data = to_wire(some_weights(), "bf16")
    from_wire(data, source="here", checksum=checksum_of(data)).verify()
    forged = replace(some_weights(), digest="0" * 32).to_bytes()
    from_wire(forged, source="here", checksum=checksum_of(forged)).verify()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(DataError, match="checksum"):
            from_wire(bytes(damaged), source="here", checksum=checksum_of(data))


def test_a_wrong_digest_is_found_by_verify_alone() -> None:
    forged = from_wire(replace(some_weights(), digest="0" * 32).to_bytes(), source="here")
    with pytest.raises(DataError, match="do not match their digest"):
        forged.verify()
