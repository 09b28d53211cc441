"""One version of a network's weights as an immutable object and as a safetensors file. Needs no torch.

The file is plain safetensors, readable by any program that knows the format. Its metadata has one key,
"tamen", with a JSON object of model, version, game, network, digest and seal. (One key, because the library
writes several in an order of its own, and equal weights shall be equal bytes.) The digest covers the names,
shapes and numbers of all tensors, so it names what the net computes; the seal covers the rest of what the
metadata says.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import le
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from configs.schema import NetworkConfig
from core.environments import ActionSpec, EnvironmentSpec, NetSpec
from core.errors import DataError
from core.files import digest
from core.hands import HandValueSpec
from core.messages import BoardSpec

METADATA_KEY = "tamen"
MAX_HEADER_BYTES = 1 << 20
_IDENTITY = ("model", "version", "game", "network", "digest")


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """All parameters of a network, and the buffers that belong to them, at one moment of its training.

    Attributes:
        model: the name it is published under.
        version: 0 for the untrained net, one more with each publication.
        game: name of the game it was trained on.
        network: plain description of the architecture and of what it is for; see `network_description`.
        tensors: float32 arrays by the names that the torch module gives them; not to be written to.
        digest: of `tensors`, 32 hexadecimal digits.
        checked: whether they came with a checksum that fits, by who had them right; `verify` then takes no digest.
    """

    model: str
    version: int
    game: str
    network: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    digest: str
    checked: bool = False

    @staticmethod
    def pack(
        tensors: Mapping[str, np.ndarray], *, model: str, version: int, game: str, network: Mapping[str, Any]
    ) -> "Weights":
        """Return float32 `tensors` as weights, with their digest.

        Raises:
            DataError: when a number is NaN or infinite: such weights must never be published or saved.
        """
        for name, tensor in tensors.items():
            bad = np.count_nonzero(~np.isfinite(tensor))
            if bad:
                raise DataError(
                    f"weights {model!r} version {version} are refused",
                    why=f"{bad} of {tensor.size} numbers of {name!r} are not finite",
                    fix="go back to the last checkpoint; if it happens again, lower learner.learning_rate",
                )
        return Weights(model, version, game, network, tensors, tensors_digest(tensors))

    def verify(self) -> None:
        """Raise DataError unless the tensors are what the digest says, or known to be."""
        if not self.checked and tensors_digest(self.tensors) != self.digest:
            raise _damaged(
                f"weights {self.model!r} version {self.version}", "the tensors do not match their digest"
            )

    def to_bytes(self) -> bytes:
        """Return the content of a safetensors file; equal weights give equal bytes."""
        arrays = {name: np.asarray(tensor, "<f4", order="C") for name, tensor in self.tensors.items()}
        return safetensors_file({name: ("F32", array) for name, array in arrays.items()}, self.metadata())

    def metadata(self) -> dict[str, str]:
        """Return what the header of their file says beside the tensors."""
        identity = {name: getattr(self, name) for name in _IDENTITY}
        return {METADATA_KEY: _canonical(identity | {"seal": digest(_canonical(identity).encode())})}

    @staticmethod
    def from_bytes(data: bytes, *, source: str) -> "Weights":
        """Return what `to_bytes` wrote.

        Args:
            data: content of the file.
            source: what to call it in an error.

        Raises:
            DataError: when a byte is missing or altered, or the file is no weights of ours.
        """
        if len(data) < 8 or int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
            raise _damaged(
                source, f"its header is cut short, or longer than the {MAX_HEADER_BYTES} bytes allowed"
            )
        try:
            tensors = safetensors_numpy.load(data)
        except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype that numpy does not have
            raise _damaged(source, f"safetensors says {error}") from error
        identity = read_identity(data, source=source)
        weights = Weights(tensors=tensors, **identity)
        if any(tensor.dtype != np.float32 for tensor in tensors.values()):
            raise _damaged(source, "a tensor is not float32")
        if tensors_digest(tensors) != weights.digest:
            raise _damaged(source, "the tensors do not match their digest")
        return weights


def safetensors_file(tensors: Mapping[str, tuple[str, np.ndarray]], metadata: dict[str, str]) -> bytes:
    """Return the content of a safetensors file, as the library writes it, which takes 15 times as long: 15 ms of 10 MB.

    Args:
        tensors: (dtype as files call it, contiguous array of its bits) by name.
        metadata: of its header.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    in_order = sorted(tensors.items(), key=lambda item: (-item[1][1].itemsize, item[0]))
    end = 0
    for name, (dtype, array) in in_order:
        first, end = end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.data for _, (_, array) in in_order)])


def network_description(spec: NetSpec, config: NetworkConfig) -> dict[str, Any]:
    """Return what, with the tensors, makes the same network again; survives JSON unchanged."""
    if isinstance(spec, BoardSpec):
        return {
            "kind": "board tower",
            "blocks": config.blocks,
            "channels": config.channels,
            **({"soft_policy": True} if config.soft_policy else {}),
            "board": asdict(spec),
        }
    if isinstance(spec, HandValueSpec):
        return {"kind": "hand values", "layers": list(config.layers), "hands": asdict(spec)}
    return {
        "kind": "actor critic",
        "layers": list(config.layers),
        "environment": {
            "observation_shape": list(spec.observation_shape),
            "observation_dtype": spec.observation_dtype,
            "actions": {
                "kind": spec.actions.kind,
                "sizes": list(spec.actions.sizes),
                "low": [_bound(x) for x in spec.actions.low],
                "high": [_bound(x) for x in spec.actions.high],
                "scalar": spec.actions.scalar,
            },
            **({"masked": True} if spec.masked else {}),
        },
    }


def network_parts(network: Mapping[str, Any]) -> tuple[NetSpec, NetworkConfig]:
    """Return what a description is of and the configuration. Raises DataError when it is none."""
    try:
        if network["kind"] == "actor critic":
            spec, config = _environment(network["environment"]), NetworkConfig(layers=network["layers"])
        elif network["kind"] == "hand values":
            spec, config = HandValueSpec(**network["hands"]), NetworkConfig(layers=network["layers"])
        else:
            spec = BoardSpec(**network["board"])
            size = {name: network[name] for name in ("blocks", "channels")}
            config = NetworkConfig(**size, soft_policy=network.get("soft_policy", False))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("the description of a network", f"{type(error).__name__}: {error}") from error
    if network_description(spec, config) != network:
        raise _damaged("the description of a network", f"{dict(network)} is none that this program knows")
    return spec, config


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the digest of names, shapes and numbers, whatever the order of the mapping."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], dtype="<f4", order="C")
        total.update(json.dumps([name, tensor.shape]).encode())
        total.update(tensor.reshape(-1).data)
    return total.hexdigest()


def read_identity(data: bytes, *, source: str) -> dict[str, Any]:
    """Return what the header of a file says beside the tensors, without its seal.

    Args:
        data: the file, or as much of it as holds the header.
        source: what to call it in an error.

    Raises:
        DataError: when it is none of ours, or does not fit its seal.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][METADATA_KEY])
        identity = {name: metadata[name] for name in _IDENTITY}
        sealed = metadata["seal"] == digest(_canonical(identity).encode())
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(source, f"it has no metadata of ours ({type(error).__name__})") from error
    if not sealed:
        raise _damaged(source, "its metadata do not match their seal")
    return identity


def _bound(x: float) -> float | str:
    """Return a bound as JSON can say it, which has no infinity."""
    return x if math.isfinite(x) else str(x)


def _environment(fields: Mapping[str, Any]) -> EnvironmentSpec:
    """Return the environment of a description. Raises KeyError, TypeError or ValueError when it is none."""
    found = fields["actions"]
    actions = ActionSpec(
        kind=found["kind"],
        sizes=tuple(found["sizes"]),
        low=tuple(float(x) for x in found["low"]),
        high=tuple(float(x) for x in found["high"]),
        scalar=found["scalar"],
    )
    shape, masked = tuple(fields["observation_shape"]), fields.get("masked", False)
    spec = EnvironmentSpec(shape, fields["observation_dtype"], actions, masked)
    if spec.observation_dtype not in ("float32", "uint8"):
        raise ValueError(f"observations of {spec.observation_dtype!r}")
    if not all(isinstance(size, int) and size > 0 for size in (*spec.observation_shape, *actions.sizes)):
        raise ValueError(f"sizes {spec.observation_shape} of observations and {actions.sizes} of actions")
    if not _is_sound(actions):
        raise ValueError(f"{actions} cannot be")
    if masked and not _has_room_for_a_mask(spec):
        raise ValueError(f"{shape} {spec.observation_dtype} of observations holds no mask of {actions}")
    return spec


def _is_sound(actions: ActionSpec) -> bool:
    if actions.kind == "categorical":
        return bool(actions.sizes) and not actions.low and not actions.high
    bounds_fit = (len(actions.low),) == (len(actions.high),) == actions.sizes
    return actions.kind == "gaussian" and bounds_fit and all(map(le, actions.low, actions.high))


def _has_room_for_a_mask(spec: EnvironmentSpec) -> bool:
    is_row = len(spec.observation_shape) == 1 and spec.observation_dtype == "float32"
    return is_row and spec.actions.kind == "categorical" and spec.seen_shape[0] > 0


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _damaged(source: str, why: str) -> DataError:
    return DataError(
        f"{source} cannot be used", why=why, fix="restore it from a copy, or use another version"
    )
