"""Weights as files: what is written is read, and nothing else is."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open

from configs.schema import NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec, NetSpec
from core.errors import DataError
from core.messages import BoardSpec
from networks.build import build_net, load_into, new_net, to_weights
from networks.model_folder import WEIGHTS_FILE, model_card, save_model
from networks.weights import MAX_HEADER_BYTES, Weights, network_description, network_parts, safetensors_file

SPEC = BoardSpec(3, 3, goal_edges=True)
CONFIG = NetworkConfig(blocks=1, channels=2)
NETWORK = network_description(SPEC, CONFIG)

CARTPOLE = EnvironmentSpec((4,), "float32", ActionSpec("categorical", (2,), scalar=True))
UNBOUNDED = EnvironmentSpec(
    (3,), "float32", ActionSpec("gaussian", (2,), low=(-np.inf, -0.1), high=(1 / 3, np.inf))
)
IMAGES = EnvironmentSpec((4, 84, 84), "uint8", ActionSpec("categorical", (3, 2)))
ACTOR_CRITIC = network_description(UNBOUNDED, NetworkConfig(layers=(5, 4)))


def tiny_weights(version: int = 7) -> Weights:
    tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([0.5])}
    return Weights.pack(tensors, model="main", version=version, game="hex3", network=NETWORK)


def net_weights(seed: int = 1) -> Weights:
    return to_weights(new_net(SPEC, CONFIG, seed=seed), model="main", version=7, game="hex3")


DATA = tiny_weights().to_bytes()


def test_bytes_give_back_the_same_weights() -> None:
    weights = net_weights()
    found = Weights.from_bytes(weights.to_bytes(), source="here")
    assert (found.model, found.version, found.game) == ("main", 7, "hex3")
    assert found.network == weights.network
    assert found.digest == weights.digest
    assert found.tensors.keys() == weights.tensors.keys()
    assert all(np.array_equal(found.tensors[name], weights.tensors[name]) for name in weights.tensors)


def test_equal_weights_are_equal_bytes() -> None:
    assert net_weights().to_bytes() == net_weights().to_bytes()


_DTYPES = {"F32": np.float32, "F16": np.float16}
files = st.dictionaries(
    st.text('abc.é"', min_size=1, max_size=4),
    st.tuples(st.sampled_from(list(_DTYPES)), st.lists(st.integers(0, 3), max_size=3)),
    max_size=5,
)


@given(files, st.text(max_size=9))
def test_a_file_is_byte_for_byte_what_the_library_writes(
    files: dict[str, tuple[str, list[int]]], word: str
) -> None:
    tensors = {
        name: (code, np.arange(np.prod(shape), dtype=_DTYPES[code]).reshape(shape))
        for name, (code, shape) in files.items()
    }
    theirs = safetensors_numpy.save({name: array for name, (_, array) in tensors.items()}, {"tamen": word})
    assert safetensors_file(tensors, {"tamen": word}) == theirs


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(DATA)
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == {"a.weight", "b"}
        assert list(file.metadata()) == ["tamen"]


@given(position=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(position: int, bit: int) -> None:
    """Only white space and the spelling of the header's JSON may differ unnoticed."""
    damaged = bytearray(DATA)
    damaged[position] ^= 1 << bit
    try:
        found = Weights.from_bytes(bytes(damaged), source="here")
    except DataError:
        return
    assert found.to_bytes() == DATA


@given(length=st.integers(0, len(DATA) - 1))
@example(length=0)
@example(length=7)
@example(length=len(DATA) - 1)
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(DataError, match="here cannot be used"):
        Weights.from_bytes(DATA[:length], source="here")


@given(data=st.binary(max_size=200))
@example(data=(1 << 62).to_bytes(8, "little"))
@example(data=(2).to_bytes(8, "little") + b"{}")
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        Weights.from_bytes(data, source="here")


def test_a_header_beyond_its_bound_is_not_even_parsed() -> None:
    header = b"{" + b" " * MAX_HEADER_BYTES + b"}"
    with pytest.raises(DataError, match="longer than"):
        Weights.from_bytes(len(header).to_bytes(8, "little") + header, source="here")


@pytest.mark.parametrize("metadata", [None, {"tamen": "[" * 10_000}, {"tamen": "{}"}, {"tamen": "7"}])
def test_a_safetensors_file_of_others_is_refused(metadata: dict[str, str] | None) -> None:
    data = safetensors_numpy.save({"a": np.zeros(2, np.float32)}, metadata=metadata)
    with pytest.raises(DataError, match="no metadata of ours"):
        Weights.from_bytes(data, source="here")


@pytest.mark.parametrize("change", [{"version": 8}, {"model": "other"}, {"game": "hex4"}, {"network": {}}])
def test_metadata_cannot_be_edited_unnoticed(change: dict[str, object]) -> None:
    edited = replace(tiny_weights(), **change).to_bytes()
    original_seal = DATA[DATA.index(b'seal\\":\\"') + 9 :][:32]
    place = edited.index(b'seal\\":\\"') + 9
    forged = edited[:place] + original_seal + edited[place + 32 :]
    with pytest.raises(DataError, match="seal"):
        Weights.from_bytes(forged, source="here")


def test_half_precision_tensors_are_refused() -> None:
    weights = tiny_weights()
    halved = {name: ("F16", tensor.astype(np.float16)) for name, tensor in weights.tensors.items()}
    with pytest.raises(DataError, match="not float32"):
        Weights.from_bytes(safetensors_file(halved, weights.metadata()), source="here")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_never_packed(bad: float) -> None:
    net = new_net(SPEC, CONFIG, seed=1)
    with torch.no_grad():
        net.stem.bias[1] = bad
    with pytest.raises(DataError, match=r"1 of 2 numbers of 'stem\.bias' are not finite"):
        to_weights(net, model="main", version=7, game="hex3")


def test_verify_notices_a_tensor_that_was_written_to() -> None:
    weights = tiny_weights()
    weights.verify()
    weights.tensors["b"][0] = 0.25
    with pytest.raises(DataError, match="do not match their digest"):
        weights.verify()


def test_the_digest_names_numbers_shapes_and_names_and_nothing_else() -> None:
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.ones(1, np.float32)}

    def digest_of(changed: dict[str, np.ndarray], version: int = 0) -> str:
        return Weights.pack(changed, model="m", version=version, game="g", network={}).digest

    original = digest_of(tensors)
    assert digest_of(dict(reversed(tensors.items())), version=9) == original
    assert digest_of({**tensors, "a": np.zeros((3, 2), np.float32)}) != original
    assert digest_of({**tensors, "a": np.full((2, 3), 1e-9, np.float32)}) != original
    assert digest_of({"c" if k == "b" else k: v for k, v in tensors.items()}) != original


def test_a_net_built_from_weights_computes_what_the_first_did() -> None:
    net = new_net(SPEC, CONFIG, seed=1)
    weights = Weights.from_bytes(to_weights(net, model="m", version=1, game="g").to_bytes(), source="here")
    again = build_net(weights)
    cells = torch.tensor([[1, -1, 0, 0, 1, 0, -1, 0, 0]], dtype=torch.int8)
    assert torch.equal(net({"cells": cells})["policy"], again({"cells": cells})["policy"])
    assert again.accepts(weights)


def test_read_only_arrays_load_without_a_word() -> None:
    weights = net_weights()
    for tensor in weights.tensors.values():
        tensor.flags.writeable = False
    net = new_net(SPEC, CONFIG, seed=2)
    load_into(net, weights)
    assert to_weights(net, model="main", version=7, game="hex3").digest == weights.digest


def test_weights_do_not_change_when_the_net_learns_on() -> None:
    net = new_net(SPEC, CONFIG, seed=1)
    weights = to_weights(net, model="m", version=1, game="g")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    weights.verify()


def test_weights_of_another_shape_leave_the_net_as_it_was() -> None:
    net = new_net(SPEC, CONFIG, seed=1)
    before = to_weights(net, model="m", version=0, game="g").digest
    wider = new_net(SPEC, NetworkConfig(blocks=1, channels=4), seed=1)
    with pytest.raises(DataError, match="differ in name or shape"):
        load_into(net, to_weights(wider, model="m", version=0, game="g"))
    assert to_weights(net, model="m", version=0, game="g").digest == before


@pytest.mark.parametrize(
    "network",
    [{}, {**NETWORK, "kind": "transformer"}, {**NETWORK, "blocks": 0}, {**NETWORK, "board": {"height": 3}}],
)
def test_a_description_that_is_not_ours_is_refused(network: dict[str, object]) -> None:
    with pytest.raises(DataError, match="description of a network"):
        network_parts(network)


def altered(*path: str, to: object) -> dict[str, Any]:
    """Return the description of an actor critic with one thing in it changed."""
    network = json.loads(json.dumps(ACTOR_CRITIC))
    place = network
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return network


@pytest.mark.parametrize(
    "network",
    [
        altered("layers", to=[]),
        altered("layers", to=[0]),
        altered("layers", to="64"),
        altered("blocks", to=3),
        altered("environment", to=None),
        altered("environment", "observation_shape", to=[0]),
        altered("environment", "observation_dtype", to="object"),
        altered("environment", "actions", "kind", to="quantum"),
        altered("environment", "actions", "kind", to="categorical"),
        altered("environment", "actions", "sizes", to=[2, 2]),
        altered("environment", "actions", "sizes", to=["2"]),
        altered("environment", "actions", "low", to=[]),
        altered("environment", "actions", "low", to=[2.0, 0.0]),
        altered("environment", "actions", "high", to=["nan", "inf"]),
        altered("environment", "actions", "high", to=["0.5", "inf"]),
        altered("environment", "actions", "colour", to="red"),
    ],
)
def test_a_description_of_no_environment_is_refused(network: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="description of a network"):
        network_parts(network)


@pytest.mark.parametrize("spec", [SPEC, CARTPOLE, UNBOUNDED, IMAGES])
def test_a_description_survives_strict_json_and_gives_back_its_parts(spec: NetSpec) -> None:
    config = NetworkConfig(blocks=2, channels=8) if spec is SPEC else NetworkConfig(layers=(7,))
    network = network_description(spec, config)
    read = json.loads(json.dumps(network, allow_nan=False))
    assert read == network
    assert network_parts(read) == (spec, config)


def test_a_single_number_keeps_its_shape() -> None:
    scalar = Weights.pack(
        {"scale": np.array(2.5, np.float32)}, model="m", version=1, game="g", network=NETWORK
    )
    found = Weights.from_bytes(scalar.to_bytes(), source="here")
    assert found.tensors["scale"].shape == ()
    assert found.digest == scalar.digest


def test_a_model_folder_gives_back_its_weights(tmp_path: Path) -> None:
    weights = net_weights()
    save_model(tmp_path / "m", weights, facts={"rating": "120 ± 30"})
    saved = (tmp_path / "m" / WEIGHTS_FILE).read_bytes()
    assert Weights.from_bytes(saved, source="a model folder").digest == weights.digest
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_a_model_card_tells_what_it_is_and_cannot_be_broken_by_a_fact() -> None:
    card = model_card(net_weights(), {"rating": "120 | 130\n# not a heading"})
    assert "# main" in card
    assert "3 × 3" in card
    assert "| rating | 120 \\| 130 # not a heading |" in card


@pytest.mark.parametrize(
    ("spec", "sentences"),
    [
        (SPEC, ["plays hex3", "| board | 3 × 3 |", "int8 [B, 9]", "1 blocks × 2 channels"]),
        (
            CARTPOLE,
            [
                "acts in hex3",
                "| actions | one of 2 |",
                "float32 [B, 4]",
                "logit",
                "layers of 64 and 64 units",
            ],
        ),
        (
            UNBOUNDED,
            ["| actions | 2 real numbers |", "float32 [B, 3]", "float32 [B, 4], the mean", "deviation"],
        ),
        (IMAGES, ["| actions | one of 3 and one of 2 |", "uint8 [B, 4, 84, 84]", "float32 [B, 5]"]),
    ],
)
def test_a_model_card_tells_what_the_model_takes_and_gives(spec: NetSpec, sentences: list[str]) -> None:
    weights = to_weights(new_net(spec, CONFIG, seed=1), model="main", version=7, game="hex3")
    card = model_card(weights, {})
    assert [sentence for sentence in sentences if sentence not in card] == []


def test_weights_need_no_torch() -> None:
    program = "import sys, networks.model_folder; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60, check=False).returncode == 0
