"""The tower of a board net forwards and backwards, for training on a CPU: `winograd_kernels` and its adjoint.

A convolution by Winograd's minimal filtering, outputs = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, is linear in the filters g and in
the inputs d, so its gradients are exact and cost as many products each:

    products' gradient  dM = A dY Aᵀ
    filters' gradient   Gᵀ[Σ over tiles (Bᵀ d B) ⊙ dM]G
    inputs' gradient    B[dM ⊙ (G g Gᵀ)]Bᵀ, overlapping tiles added up

A group of positions goes through the tower at a time, forwards and later backwards. In between a record keeps what the
way back needs: what stood before every relu, and the pooled summaries. The points of a convolution's inputs are made
anew from that, which costs less than to write and read them: they are two and a half times as many.

Shapes as in `winograd_kernels`; `L` convolutions, two a block; `n` positions of a group.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from networks.winograd_kernels import (
    Tiling,
    TowerWeights,
    collect_tiles,
    multiply_point,
    spread_tiles,
    stem,
    summarise,
    take_out,
)
from networks.winograd_tiles import LANES, add_products, raise_tile, scatter_tile

TOGETHER = 2 * LANES
"""Output channels whose filters' gradients are added up together, where it divides them; else `LANES`."""


class Record(NamedTuple):
    """What a group of positions leaves behind on its way through the tower.

    Attributes:
        before: float32 [L, n · framed cells · C], what each convolution was given, before its relu.
        summaries: float32 [blocks, n, 2C], means and maxima of what each block was given; only of those that pool.
    """

    before: np.ndarray
    summaries: np.ndarray


class Workspace(NamedTuple):
    """Memory of one thread for one group.

    Attributes:
        points, raised, lowered: float32 flat [points · plane]: of inputs; of gradients by outputs; and of those by
            inputs, or of products.
        x, y: float32 flat [n · framed cells · C], with a frame of zeros.
        biases: float32 [n, C].
        plane: floats from one point to the next.
    """

    points: np.ndarray
    raised: np.ndarray
    lowered: np.ndarray
    x: np.ndarray
    y: np.ndarray
    biases: np.ndarray
    plane: int


class Gradients(NamedTuple):
    """Sums of gradients by what `TowerWeights` holds; `filters` float32 [L, points · C · C], inputs before outputs."""

    static: np.ndarray
    stones: np.ndarray
    filters: np.ndarray
    biases: np.ndarray
    pools: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def forward(cells, tiling: Tiling, weights: TowerWeights, record: Record, work: Workspace, activations):
    """Compute relu of the last block for one group, and fill its record.

    Args:
        cells: int8 [n, H*W].
        activations: float32 [n, H, W, C], written.
    """
    channels, n = weights.static.shape[2], cells.shape[0]
    per_layer = tiling.num_points * channels * channels
    used = n * tiling.framed_cells * channels
    x, products = work.x, work.lowered
    stem(cells, tiling, weights, x)
    for layer in range(2 * weights.pool_of_block.shape[0]):
        block, second = layer // 2, layer % 2 == 1
        for b in range(n):
            work.biases[b] = weights.biases[layer]
        if not second:
            record.before[layer, :used] = x[:used]
            pool = weights.pool_of_block[block]
            if pool >= 0:
                for b in range(n):
                    summary = record.summaries[block, b]
                    summarise(x, b, tiling, channels, summary)
                    _add_product(weights.pools[pool], summary, work.biases[b])
        points = work.points
        spread_tiles(record.before[layer], n, tiling, channels, points, work.plane)
        for point in range(tiling.num_points):
            at = layer * per_layer + point * channels * channels
            multiply_point(
                points,
                products,
                point * work.plane,
                n * tiling.num_tiles,
                weights.filters,
                at,
                channels,
            )
        target = x if second else record.before[layer + 1]
        collect_tiles(products, n, tiling, channels, work.plane, work.biases, target, second)
    for b in range(n):
        take_out(x, b, tiling, activations[b])


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    cells,
    tiling: Tiling,
    weights: TowerWeights,
    turned,
    record: Record,
    work: Workspace,
    activations,
    slopes,
    sums: Gradients,
):
    """Add the gradients of one group to `sums`.

    Args:
        cells, activations: as `forward` had and gave them.
        turned: as `TowerWeights.filters`, with inputs and outputs exchanged.
        slopes: float32 [n, H, W, C], the gradient by `activations`.
    """
    channels, n = weights.static.shape[2], cells.shape[0]
    gradient, inner = work.x, work.y
    _put_in(slopes, activations, tiling, gradient)
    for block in range(weights.pool_of_block.shape[0] - 1, -1, -1):
        first, second, pool = 2 * block, 2 * block + 1, weights.pool_of_block[block]
        _back_through(gradient, inner, n, second, tiling, weights, turned, record, work, sums)
        _mask(inner, record.before[second], n, tiling, channels)
        # Into the same memory, for that by the outputs is not needed once it is raised.
        _back_through(inner, inner, n, first, tiling, weights, turned, record, work, sums)
        if pool >= 0:
            for b in range(n):
                _back_through_pool(
                    inner,
                    b,
                    record.before[first],
                    record.summaries[block, b],
                    tiling,
                    work.biases[b],
                    weights.pools[pool],
                    sums.pools[pool],
                )
        _mask(inner, record.before[first], n, tiling, channels)
        _add(inner, gradient, n * tiling.framed_cells * channels)
    _back_through_stem(cells, gradient, tiling, sums)


@njit(cache=True, nogil=True, error_model="numpy")
def _back_through(outputs, inputs, n, layer, tiling, weights, turned, record, work, sums):
    """Add to the filters' and biases' gradients of a layer, and write that by relu of its inputs to `inputs`."""
    channels = weights.static.shape[2]
    _raise_tiles(outputs, n, tiling, channels, work.raised, work.plane)
    _sum_tiles(work.raised, n, tiling, channels, work.plane, work.biases, sums.biases[layer])
    _multiply_back(n, layer, tiling, channels, turned, record, work, sums)
    inputs[: n * tiling.framed_cells * channels] = 0.0
    _scatter_tiles(work.lowered, n, tiling, channels, inputs, work.plane)


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply_back(n, layer, tiling, channels, turned, record, work, sums):
    per_layer, tiles = tiling.num_points * channels * channels, n * tiling.num_tiles
    points, total = work.points, sums.filters[layer]
    spread_tiles(record.before[layer], n, tiling, channels, points, work.plane)
    for point in range(tiling.num_points):
        at, matrix = point * work.plane, point * channels * channels
        if channels % TOGETHER == 0:
            for i in range(0, channels, 4):
                for o in range(0, channels, TOGETHER):
                    add_products(
                        4,
                        2,
                        points,
                        at + i,
                        work.raised,
                        at + o,
                        tiles,
                        total,
                        matrix + i * channels + o,
                        channels,
                    )
        else:
            for i in range(0, channels, 8):
                for o in range(0, channels, LANES):
                    add_products(
                        8,
                        1,
                        points,
                        at + i,
                        work.raised,
                        at + o,
                        tiles,
                        total,
                        matrix + i * channels + o,
                        channels,
                    )
        multiply_point(work.raised, work.lowered, at, tiles, turned, layer * per_layer + matrix, channels)


@njit(cache=True, nogil=True, error_model="numpy")
def _raise_tiles(y, n, tiling, channels, points, plane):
    """Transform the gradient by the outputs of all tiles; beyond the board it is zero."""
    height, width = tiling.tile_height, tiling.tile_width
    row = (width * tiling.columns + 2) * channels
    tile = 0
    for b in range(n):
        for i in range(tiling.rows):
            for j in range(tiling.columns):
                at = b * tiling.framed_cells * channels + (i * height + 1) * row + (j * width + 1) * channels
                for c in range(0, channels, LANES):
                    raise_tile(height, width, y, at + c, row, channels, points, tile * channels + c, plane)
                tile += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter_tiles(points, n, tiling, channels, x, plane):
    """Add the gradient by the inputs of all tiles, which overlap, to x; what falls on the frame has no meaning."""
    height, width = tiling.tile_height, tiling.tile_width
    row = (width * tiling.columns + 2) * channels
    tile = 0
    for b in range(n):
        for i in range(tiling.rows):
            for j in range(tiling.columns):
                to = b * tiling.framed_cells * channels + i * height * row + j * width * channels
                for c in range(0, channels, LANES):
                    scatter_tile(height, width, points, tile * channels + c, plane, x, to + c, row, channels)
                tile += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _mask(gradient, before, n, tiling, channels):
    """Turn the gradient by relu(before) into that by `before`; the frame becomes zero, as `before` is there."""
    for k in range(n * tiling.framed_cells * channels):
        gradient[k] = gradient[k] if before[k] > 0 else np.float32(0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _add(x, y, size):
    for k in range(size):
        y[k] += x[k]


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_tiles(raised, n, tiling, channels, plane, biases, total):
    """Write the sum over the cells of each position of a gradient to `biases` [n, C], and add that to `total` [C].

    The value of a tile's polynomial at the point 1 of both directions is the sum of the tile.
    """
    start = ((tiling.tile_width + 2) + 1) * plane
    for b in range(n):
        biases[b] = 0.0
        for tile in range(b * tiling.num_tiles, (b + 1) * tiling.num_tiles):
            at = start + tile * channels
            for c in range(channels):
                biases[b, c] += raised[at + c]
        for c in range(channels):
            total[c] += biases[b, c]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_product(matrix, summary, bias):
    """Add summary [2C] times matrix [2C, C] to bias [C]."""
    for k in range(matrix.shape[0]):
        line = matrix[k]
        for c in range(line.shape[0]):
            bias[c] += summary[k] * line[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _back_through_pool(gradient, b, before, summary, tiling, slope, matrix, total):
    """Add what position `b`'s bias owes to the pooled summary, by `slope` [C], to the gradients.

    Of equal maxima the first cell has it all.
    """
    channels = matrix.shape[1]
    wide = tiling.tile_width * tiling.columns + 2
    for k in range(2 * channels):
        for c in range(channels):
            total[k, c] += summary[k] * slope[c]
    by_mean, by_maximum = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for k in range(channels):
        first, second = np.float32(0.0), np.float32(0.0)
        for c in range(channels):
            first += matrix[k, c] * slope[c]
            second += matrix[channels + k, c] * slope[c]
        by_mean[k] = first / np.float32(tiling.height * tiling.width)
        by_maximum[k] = second
    for i in range(tiling.height):
        at = (b * tiling.framed_cells + (i + 1) * wide + 1) * channels
        for j in range(tiling.width):
            start = at + j * channels
            for c in range(channels):
                share = by_mean[c]
                if before[start + c] == summary[channels + c]:
                    share += by_maximum[c]
                    by_maximum[c] = 0.0
                gradient[start + c] += share


@njit(cache=True, nogil=True, error_model="numpy")
def _put_in(slopes, activations, tiling, gradient):
    """Write the gradient by the last block's outputs, before the relu, and a frame of zeros around it."""
    n, height, width, channels = activations.shape
    wide = tiling.tile_width * tiling.columns + 2
    gradient[: n * tiling.framed_cells * channels] = 0.0
    for b in range(n):
        for i in range(height):
            at = (b * tiling.framed_cells + (i + 1) * wide + 1) * channels
            row, active = slopes[b, i].ravel(), activations[b, i].ravel()
            for k in range(width * channels):
                gradient[at + k] = row[k] if active[k] > 0 else np.float32(0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _back_through_stem(cells, gradient, tiling, sums):
    """Add the gradients by the stem's answer to an empty board and to each stone."""
    height, width, channels = sums.static.shape
    wide = tiling.tile_width * tiling.columns + 2
    for b in range(cells.shape[0]):
        origin = (b * tiling.framed_cells + wide + 1) * channels
        for i in range(height):
            row, start = sums.static[i].ravel(), origin + i * wide * channels
            for k in range(width * channels):
                row[k] += gradient[start + k]
        for cell in range(height * width):
            stone = cells[b, cell]
            if stone != 0:
                taps = sums.stones[0 if stone > 0 else 1]
                for p in range(3):
                    for q in range(3):
                        i, j = cell // width + 1 - p, cell % width + 1 - q
                        if 0 <= i < height and 0 <= j < width:
                            at = origin + (i * wide + j) * channels
                            tap, slope = taps[p, q], gradient[at : at + channels]
                            for c in range(channels):
                                tap[c] += slope[c]
