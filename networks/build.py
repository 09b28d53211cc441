"""Networks from weights and weights from networks."""

import numpy as np
import torch

from configs.schema import NetworkConfig
from core.errors import DataError
from core.messages import BoardSpec
from networks.tower import BoardNet
from networks.weights import Weights, network_parts


def new_board_net(spec: BoardSpec, config: NetworkConfig, *, seed: int) -> BoardNet:
    """Return an untrained net on the CPU in float32; the same seed gives the same weights."""
    return BoardNet(spec, config, seed=seed)


def build_board_net(weights: Weights) -> BoardNet:
    """Return the net that `weights` are of, on the CPU in float32, holding them.

    Raises:
        DataError: when the description or a tensor is not that of a board net.
    """
    net = BoardNet(*network_parts(weights.network))
    load_into(net, weights)
    return net


def load_into(net: BoardNet, weights: Weights) -> None:
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
            why=f"{len(wrong)} of its parameters differ in name or shape: {', '.join(wrong[:4])}",
            fix="use the game kind, network.blocks and network.channels that they were trained with",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            # The copy: arrays that came out of a message are read-only, which torch does not know.
            tensor.copy_(torch.from_numpy(weights.tensors[name].copy()))


def to_weights(net: BoardNet, *, model: str, version: int, game: str) -> Weights:
    """Return a copy of a net's parameters as weights. Raises DataError when one is not finite."""
    state = {name: tensor.float().cpu().numpy() for name, tensor in net.state_dict().items()}
    tensors = {name: np.array(array, order="C") for name, array in state.items()}
    return Weights.pack(tensors, model=model, version=version, game=game, network=net.network)
