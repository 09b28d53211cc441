"""Networks from weights and weights from networks."""

from typing import TypeAlias

import numpy as np
import torch

from configs.schema import NetworkConfig
from core.environments import NetSpec
from core.errors import DataError
from core.hands import HandValueSpec
from core.messages import BoardSpec
from networks.actor_critic import ActorCritic
from networks.hand_values import HandValueNet
from networks.tower import BoardNet
from networks.weights import Weights, network_parts

Net: TypeAlias = BoardNet | ActorCritic | HandValueNet


def new_net(spec: NetSpec, config: NetworkConfig, *, seed: int) -> Net:
    """Return an untrained net on the CPU in float32; the same seed gives the same weights."""
    if isinstance(spec, BoardSpec):
        return BoardNet(spec, config, seed=seed)
    if isinstance(spec, HandValueSpec):
        return HandValueNet(spec, config, seed=seed)
    return ActorCritic(spec, config, seed=seed)


def build_net(weights: Weights) -> Net:
    """Return the net that `weights` are of, on the CPU in float32, holding them.

    Raises:
        DataError: when the description or a tensor is none that this program knows.
    """
    net = new_net(*network_parts(weights.network), seed=0)
    load_into(net, weights)
    return net


def load_into(net: Net, weights: Weights) -> None:
    """Copy `weights` into a net, whatever its device, dtype and board size; nothing is rebuilt or recompiled.

    Raises:
        DataError: when a name or shape differs; the net is then as it was.
    """
    own = net.state_dict()
    wrong = sorted(own.keys() ^ weights.tensors.keys())
    wrong += [
        f"{name} {tuple(tensor.shape)} for {weights.tensors[name].shape}"
        for name, tensor in own.items()
        if name in weights.tensors and tuple(tensor.shape) != weights.tensors[name].shape
    ]
    if wrong:
        raise DataError(
            f"weights {weights.model!r} version {weights.version} do not fit the network",
            why=f"{len(wrong)} of its tensors differ in name or shape: {', '.join(wrong[:4])}",
            fix="use the kind of game and the sizes under `network` that they were trained with",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            # The copy: arrays that came out of a message are read-only, which torch does not know.
            tensor.copy_(torch.from_numpy(weights.tensors[name].copy()))


def to_weights(net: Net, *, model: str, version: int, game: str) -> Weights:
    """Return a copy of a net's parameters and persistent buffers as weights.

    Raises:
        DataError: when a number is not finite.
    """
    state = {name: tensor.float().cpu().numpy() for name, tensor in net.state_dict().items()}
    tensors = {name: np.array(array, order="C") for name, array in state.items()}
    return Weights.pack(tensors, model=model, version=version, game=game, network=net.network)
