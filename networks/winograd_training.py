"""A board net whose tower is trained in compiled kernels on a CPU in float32; see `winograd_gradients`."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.build import Net
from networks.tower import BoardNet
from networks.winograd import WinogradForward
from networks.winograd_gradients import Gradients, Record, Workspace, backward, forward
from networks.winograd_kernels import Tiling, TowerWeights, transform_filters
from networks.winograd_points import filter_transform

GROUP_POSITIONS = 12
"""Positions that go through the tower together: enough that a layer's filters, which are read once for each group, cost
little beside the products, and few enough for a core's cache."""
_AIR = 16


def fastest_trainable(net: Net) -> nn.Module:
    """Return what to call instead of a placed net in training: its parameters are trained, its outputs are its own."""
    return WinogradNet(net) if isinstance(net, BoardNet) and WinogradForward.can_compute(net) else net


class WinogradNet(nn.Module):
    """Computes what `net` does, with gradients, by as many threads as torch has when it is made.

    A forward has to be followed by its backward before the next, unless gradients are off.

    Args:
        net: on the CPU, in float32; its parameters are this module's.
    """

    def __init__(self, net: BoardNet) -> None:
        super().__init__()
        self.net = net
        self._kernels = _Kernels(net)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `BoardNet.forward` returns; outputs and gradients differ from its own by rounding."""
        net: Any = self.net
        stem, blocks = net.stem.weight, list(net.blocks)
        static = functional.conv2d(net.edges, stem[:, 2:], net.stem.bias, padding=1)[0].permute(1, 2, 0)
        stones = stem[:, :2].permute(1, 2, 3, 0)
        layers = [layer for block in blocks for layer in (block.first, block.second)]
        pool_biases = [bias for block in blocks for bias in (block.pool.bias if block.pool else 0.0, 0.0)]
        biases = torch.stack([layer.bias + more for layer, more in zip(layers, pool_biases, strict=True)])
        pools = [block.pool.weight.t() for block in blocks if block.pool is not None]
        taps = torch.stack([layer.weight for layer in layers])
        stacked = torch.stack(pools) if pools else biases.new_zeros(0, 2 * biases.shape[1], biases.shape[1])
        x = _Tower.apply(self._kernels, inputs["cells"], static, stones, taps, biases, stacked)
        assert isinstance(x, Tensor)
        return net.heads(x.permute(0, 3, 1, 2))


class _Tower(torch.autograd.Function):
    """relu of the last block, [B, H, W, C]."""

    @staticmethod
    def forward(ctx: Any, kernels: "_Kernels", cells: Tensor, *parameters: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        activations = kernels.forward(cells.numpy(), [each.detach() for each in parameters])
        ctx.kernels, ctx.cells = kernels, cells
        ctx.turn = kernels.turn
        ctx.save_for_backward(activations)
        return activations

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.turn != ctx.kernels.turn:
            raise RuntimeError("a forward of the same net came before this backward")
        (activations,) = ctx.saved_tensors
        gradients = ctx.kernels.backward(ctx.cells.numpy(), activations.numpy(), slopes.contiguous().numpy())
        return (None, None, *gradients)


class _Kernels:
    """Memory of the kernels, and their threads."""

    def __init__(self, net: BoardNet) -> None:
        self._tiling = Tiling.of_board(net.spec.height, net.spec.width)
        self._channels: int = net.network["channels"]
        self._blocks: int = net.network["blocks"]
        pooling = np.array([block.pool is not None for block in net.blocks])  # pyright: ignore
        self._pool_of_block = np.where(pooling, np.cumsum(pooling) - 1, -1)
        tiles = GROUP_POSITIONS * self._tiling.num_tiles
        self._plane = tiles * self._channels + _AIR
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._work = [self._new_workspace() for _ in range(self._threads)]
        self._sums = [self._new_sums() for _ in range(self._threads)]
        self._records: list[Record] = []
        filters = 2 * self._blocks * self._tiling.num_points * self._channels**2
        self._filters, self._turned = np.empty(filters, np.float32), np.empty(filters, np.float32)
        self._weights: TowerWeights | None = None
        self.turn = 0

    def forward(self, cells: np.ndarray, parameters: Sequence[Tensor]) -> Tensor:
        """Return relu of the last block, float32 [B, H, W, C]; `parameters` in the order of `TowerWeights`."""
        static, stones, taps, biases, pools = (each.numpy() for each in parameters)
        self.turn += 1
        self._transform(taps, self._filters)
        self._transform(taps.swapaxes(1, 2), self._turned)
        arrays = (np.ascontiguousarray(each) for each in (static, stones, biases, pools))
        static, stones, biases, pools = arrays
        self._weights = weights = TowerWeights(
            static, stones, self._filters, biases, self._pool_of_block, pools
        )
        groups = _groups(len(cells), self._threads)
        wanted = sum(map(len, groups))
        self._records += [self._new_record() for _ in range(wanted - len(self._records))]
        activations = torch.empty(len(cells), self._tiling.height, self._tiling.width, self._channels)
        made = activations.numpy()

        def run(thread: int) -> None:
            for number, rows in groups[thread]:
                record, work = self._records[number], self._work[thread]
                forward(cells[rows], self._tiling, weights, record, work, made[rows])

        self._on_all_threads(run)
        return activations

    def backward(self, cells: np.ndarray, activations: np.ndarray, slopes: np.ndarray) -> list[Tensor]:
        """Return the gradients by `parameters` of the last forward."""
        groups, weights = _groups(len(cells), self._threads), self._weights
        assert weights is not None

        def run(thread: int) -> None:
            sums = self._sums[thread]
            for array in sums:
                array[:] = 0.0
            for number, rows in groups[thread]:
                record, work = self._records[number], self._work[thread]
                backward(
                    cells[rows],
                    self._tiling,
                    weights,
                    self._turned,
                    record,
                    work,
                    activations[rows],
                    slopes[rows],
                    sums,
                )

        self._on_all_threads(run)
        total = [torch.from_numpy(sum(parts[1:], parts[0])) for parts in zip(*self._sums, strict=True)]
        static, stones, filters, biases, pools = (each.clone() for each in total)
        return [static, stones, self._taps(filters), biases, pools]

    def _taps(self, filters: Tensor) -> Tensor:
        """Return the gradient by taps [L, C, C, 3, 3] from that by the filters at the points."""
        points, channels = self._tiling.num_points, self._channels
        down, across = (
            torch.from_numpy(_matrix(size)) for size in (self._tiling.tile_height, self._tiling.tile_width)
        )
        taps = torch.kron(down, across).t() @ filters.view(-1, points, channels * channels)
        return taps.view(-1, 3, 3, channels, channels).permute(0, 4, 3, 1, 2)

    def _transform(self, taps: np.ndarray, filters: np.ndarray) -> None:
        down, across = _matrix(self._tiling.tile_height), _matrix(self._tiling.tile_width)
        layers = np.split(filters, len(taps))

        def run(thread: int) -> None:
            for layer in _share(len(taps), thread, self._threads):
                transform_filters(taps[layer], down, across, layers[layer])

        self._on_all_threads(run)

    def _on_all_threads(self, run: Callable[[int], None]) -> None:
        if self._pool is None:
            run(0)
        else:
            list(self._pool.map(run, range(self._threads)))

    def _new_workspace(self) -> Workspace:
        plane, framed = self._plane, GROUP_POSITIONS * self._tiling.framed_cells * self._channels
        points = self._tiling.num_points * plane
        return Workspace(
            _zeros(points),
            _zeros(points),
            _zeros(points),
            _zeros(framed),
            _zeros(framed),
            _zeros(GROUP_POSITIONS, self._channels),
            plane,
        )

    def _new_record(self) -> Record:
        layers, framed = 2 * self._blocks, GROUP_POSITIONS * self._tiling.framed_cells * self._channels
        return Record(
            before=_zeros(layers, framed),
            summaries=_zeros(self._blocks, GROUP_POSITIONS, 2 * self._channels),
        )

    def _new_sums(self) -> Gradients:
        channels, layers = self._channels, 2 * self._blocks
        return Gradients(
            static=_zeros(self._tiling.height, self._tiling.width, channels),
            stones=_zeros(2, 3, 3, channels),
            filters=_zeros(layers, self._tiling.num_points * channels * channels),
            biases=_zeros(layers, channels),
            pools=_zeros(int(self._pool_of_block.max(initial=-1)) + 1, 2 * channels, channels),
        )


def _groups(rows: int, threads: int) -> list[list[tuple[int, slice]]]:
    """Return for each thread its groups of positions, with their numbers: equal shares of the rows."""
    numbers = itertools.count()
    shares = [_share(rows, thread, threads) for thread in range(threads)]
    return [
        [
            (next(numbers), slice(start, min(start + GROUP_POSITIONS, share.stop)))
            for start in range(share.start, share.stop, GROUP_POSITIONS)
        ]
        for share in shares
    ]


def _share(count: int, thread: int, threads: int) -> range:
    """Return which of `count` things a thread does: always the same, so that sums come out bit for bit."""
    return range(count * thread // threads, count * (thread + 1) // threads)


def _matrix(size: int) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in filter_transform(size)], np.float32)


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)
