"""What a board net computes, faster on a CPU in float32: the tower in compiled kernels, the heads as they are.

The outputs differ from the net's own by rounding, about 10⁻⁶. A position's tower does not depend on what stands beside
it in the batch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from networks.build import Net
from networks.tower import BoardNet
from networks.winograd_kernels import (
    ROWS_OF_TILES,
    Scratch,
    Tiling,
    TowerWeights,
    tower,
    transform_filters,
)
from networks.winograd_points import filter_transform
from networks.winograd_tiles import LANES

SCRATCH_BYTES = 400_000
"""Of the points before and after the products: with one layer's filters about what a core's own cache holds."""
_AIR = 16


Forward = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Computes what the `forward` of a net does."""


def fastest_forward(net: Net) -> Forward:
    """Return what evaluates a placed net fastest here, with the parameters that it has now."""
    return WinogradForward(net) if isinstance(net, BoardNet) and WinogradForward.can_compute(net) else net


def renew(forward: Forward) -> None:
    """Let a forward of `fastest_forward` compute with the parameters that its net has by now, in the memory it has."""
    if isinstance(forward, WinogradForward):
        forward.renew()


class WinogradForward:
    """Computes what `net` does, with the parameters that it has now; see `renew` when they change.

    Used by one thread at a time: it has scratch memory of its own.

    Args:
        net: on the CPU, in float32; see `can_compute`.
    """

    def __init__(self, net: BoardNet) -> None:
        self._net = net
        self._tiling = Tiling.of_board(net.spec.height, net.spec.width)
        self._channels = net.network["channels"]
        self._weights = _tower_weights(net, self._tiling, _room_for_filters(net, self._tiling))
        self._scratch = _scratch(self._tiling, self._channels)
        self._activations = torch.empty(0)

    @staticmethod
    def can_compute(net: BoardNet) -> bool:
        """Return whether the kernels have this net's number of channels, and it is on the CPU in float32."""
        parameter = next(net.parameters())
        on_cpu = parameter.device.type == "cpu" and parameter.dtype is torch.float32
        return on_cpu and net.network["channels"] % LANES == 0

    def renew(self) -> None:
        """Take the parameters that the net has now."""
        self._weights = _tower_weights(self._net, self._tiling, self._weights.filters)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `BoardNet.forward` returns for {"cells": int8 [B, H*W]}; without gradients."""
        cells = inputs["cells"]
        if len(cells) > len(self._activations):
            # Kept, for the first touch of fresh memory costs more than what is written to it.
            self._activations = torch.empty(
                len(cells), self._tiling.height, self._tiling.width, self._channels
            )
        activations = self._activations[: len(cells)]
        summaries = torch.empty(len(cells), 2 * self._channels)
        tower(
            cells.numpy(),
            self._tiling,
            self._weights,
            self._scratch,
            activations.numpy(),
            summaries.numpy(),
        )
        return {
            "policy": self._net.policy_head(activations.permute(0, 3, 1, 2), summaries),
            "value": self._net.value_head(summaries),
        }


def _tower_weights(net: BoardNet, tiling: Tiling, filters: np.ndarray) -> TowerWeights:
    """Return what the tower computes with; `filters` is memory for those, which are most of it."""
    blocks: list[Any] = list(net.blocks)
    with torch.no_grad():
        stem = net.stem.weight
        static = functional.conv2d(net.edges, stem[:, 2:], net.stem.bias, padding=1)[0].permute(1, 2, 0)
        layers = [layer for block in blocks for layer in (block.first, block.second)]
        biases = torch.stack([layer.bias for layer in layers])
        pooling = [block.pool is not None for block in blocks]
        for k in np.flatnonzero(pooling):
            biases[2 * k] += blocks[k].pool.bias
        pools = [block.pool.weight.t() for block in blocks if block.pool is not None]
        channels = biases.shape[1]
        _transform_filters(layers, tiling, filters)
        return TowerWeights(
            static=_array(static),
            stones=_array(stem[:, :2].permute(1, 2, 3, 0)),
            filters=filters,
            biases=_array(biases),
            pool_of_block=np.where(pooling, np.cumsum(pooling) - 1, -1),
            pools=_array(torch.stack(pools)) if pools else np.zeros((0, 2 * channels, channels), np.float32),
        )


def _room_for_filters(net: BoardNet, tiling: Tiling) -> np.ndarray:
    channels, blocks = net.network["channels"], net.network["blocks"]
    return np.empty(2 * blocks * tiling.num_points * channels * channels, np.float32)


def _transform_filters(layers: list[Any], tiling: Tiling, filters: np.ndarray) -> None:
    """Write the transformed filters of all layers, in the order of `TowerWeights.filters`."""
    down, across = _matrix(tiling.tile_height), _matrix(tiling.tile_width)
    for layer, transformed in zip(layers, np.split(filters, len(layers)), strict=True):
        transform_filters(layer.weight.detach().numpy(), down, across, transformed)


def _matrix(size: int) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in filter_transform(size)], np.float32)


def _scratch(tiling: Tiling, channels: int) -> Scratch:
    bytes_per_position = 2 * 4 * tiling.num_points * tiling.num_tiles * channels
    # A number of positions whose tiles are multiplied without a remainder.
    even = ROWS_OF_TILES // math.gcd(ROWS_OF_TILES, tiling.num_tiles)
    positions = max(1, round(SCRATCH_BYTES / bytes_per_position / even)) * even
    tiles = positions * tiling.num_tiles
    plane = tiles * channels + _AIR

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    return Scratch(
        x=zeros(positions * tiling.framed_cells * channels),
        y=zeros(positions * tiling.framed_cells * channels),
        before=zeros(tiling.num_points * plane),
        after=zeros(tiling.num_points * plane),
        biases=zeros(positions, channels),
        plane=plane,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.float().numpy())
