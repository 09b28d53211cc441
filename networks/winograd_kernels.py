"""The tower of a board net on a CPU in float32, in compiled kernels: 3×3 convolutions by Winograd's minimal filtering.

Lavin and Gray 2015 (arXiv 1509.09308): a tile of outputs of m×m cells comes from (m+2)² products a pair of channels
instead of 9m², between a transform of the (m+2)×(m+2) inputs around it and one of the products. Here m is 4 or 6.
For all tiles together the products of one of the (m+2)² points are a matrix product [tiles, C] × [C, C].

A few positions at a time go through the whole tower, so that what lies between two layers stays in the processor's
cache.

Shapes: `n` positions of a group, `T` tiles of them, `C` channels, `H`, `W` height and width of the board. Activations
are flat [n, m·rows + 2, m·columns + 2, C]: a frame of zeros, which convolutions see beyond the board, and the tiles.
Points are flat [points, plane]: `plane` is T·C and some air, for planes a power of two apart would share cache lines.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from networks.winograd_points import POINTS
from networks.winograd_tiles import (
    LANES,
    add_vector,
    collect_tile,
    multiply_tiles,
    spread_tile,
    sum_and_maximum,
)


class Tiling(NamedTuple):
    """How tiles of `tile_height` × `tile_width` cells, `rows` × `columns` of them, cover a board.

    Attributes:
        num_points: products a tile and pair of channels, (tile_height + 2) · (tile_width + 2).
        framed_cells: cells of a position with its frame.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    rows: int
    columns: int
    num_tiles: int
    num_points: int
    framed_cells: int

    @staticmethod
    def of_board(height: int, width: int) -> "Tiling":
        """Return the tiling of a board that takes the fewest products."""
        (tile_height, rows), (tile_width, columns) = _cover(height), _cover(width)
        return Tiling(
            height,
            width,
            tile_height,
            tile_width,
            rows,
            columns,
            num_tiles=rows * columns,
            num_points=(tile_height + 2) * (tile_width + 2),
            framed_cells=(tile_height * rows + 2) * (tile_width * columns + 2),
        )


def _cover(side: int) -> tuple[int, int]:
    """Return (size of a tile, number of tiles); of equals the smaller size, whose rounding errors are smaller."""
    covers = [(size, -(-side // size)) for size in sorted(POINTS)]
    return min(covers, key=lambda cover: (cover[0] + 2) * cover[1])


class TowerWeights(NamedTuple):
    """What the tower computes with, in the order in which the kernels read it.

    Attributes:
        static: float32 [H, W, C], the stem's answer to an empty board, its bias included.
        stones: float32 [2, 3, 3, C], what an own and another's stone add to the stem, by tap.
        filters: float32 flat [convolutions, points, C / width, C, width], the width being `LANES_TOGETHER` or `LANES`.
        biases: float32 [convolutions, C]; those of a block that pools include the bias of its pool.
        pool_of_block: int64 [blocks], index into `pools`, -1 for a block that does not pool.
        pools: float32 [number of pools, 2C, C].
    """

    static: np.ndarray
    stones: np.ndarray
    filters: np.ndarray
    biases: np.ndarray
    pool_of_block: np.ndarray
    pools: np.ndarray


class Scratch(NamedTuple):
    """Memory of one group: activations twice, points before and after the products, and a bias a position."""

    x: np.ndarray
    y: np.ndarray
    before: np.ndarray
    after: np.ndarray
    biases: np.ndarray
    plane: int


ROWS_OF_TILES = 12
"""Tiles are multiplied 12 or 6 at a time; scratch memory is a multiple of it."""


LANES_TOGETHER = 2 * LANES
"""Output channels that are computed together, where it divides them; else `LANES`."""
INPUTS_TOGETHER = 4 * LANES
"""Input channels whose filters are transformed together, likewise."""


@njit(cache=True, nogil=True, error_model="numpy")
def transform_filters(taps, down, across, filters):
    """Write the filters of one layer at the points of a tile.

    Args:
        taps: float32 [C, C, 3, 3], outputs first; in any order in memory.
        down, across: float32 [height + 2, 3] and [width + 2, 3], the transforms of a tile's columns and rows.
        filters: float32 flat [points, C / width, C, width] as in `TowerWeights`; written.
    """
    channels = taps.shape[0]
    width = LANES_TOGETHER if channels % LANES_TOGETHER == 0 else LANES
    inputs = INPUTS_TOGETHER if channels % INPUTS_TOGETHER == 0 else LANES
    # A few lines at a time: those of all points are a power of two apart and share cache lines.
    size = inputs * width
    given, half = np.empty((3, 3, size), np.float32), np.empty((3, size), np.float32)
    for block in range(channels // width):
        for start in range(0, channels, inputs):
            for lane in range(width):
                for i in range(inputs):
                    for r in range(3):
                        for s in range(3):
                            given[r, s, i * width + lane] = taps[block * width + lane, start + i, r, s]
            for a in range(down.shape[0]):
                for s in range(3):
                    _combine(down[a], given[0, s], given[1, s], given[2, s], half[s])
                for b in range(across.shape[0]):
                    point = a * across.shape[0] + b
                    at = ((point * (channels // width) + block) * channels + start) * width
                    _combine(across[b], half[0], half[1], half[2], filters[at : at + size])


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(factors, x, y, z, result):
    """Write the sum of three lines, each times its factor."""
    first, second, third = factors[0], factors[1], factors[2]
    for k in range(len(result)):
        result[k] = first * x[k] + second * y[k] + third * z[k]


@njit(cache=True, nogil=True, error_model="numpy")
def tower(cells, tiling, weights, scratch, activations, summaries):
    """Compute the activations behind the last block, and their summary.

    Args:
        cells: int8 [B, H*W], 1 own stone, -1 the other's, 0 empty.
        tiling: of the board.
        weights: of the net.
        scratch: its size decides how many positions go through the tower together.
        activations: float32 [B, H, W, C], written: relu of the last block.
        summaries: float32 [B, 2C], written: mean and maximum of `activations` over the board.
    """
    channels = weights.static.shape[2]
    group = scratch.biases.shape[0]
    for start in range(0, cells.shape[0], group):
        n = min(group, cells.shape[0] - start)
        stem(cells[start : start + n], tiling, weights, scratch.x)
        for block in range(weights.pool_of_block.shape[0]):
            pool = weights.pool_of_block[block]
            for b in range(n):
                scratch.biases[b] = weights.biases[2 * block]
                if pool >= 0:
                    add_pooled(scratch.x, b, tiling, weights.pools[pool], scratch.biases[b])
            _convolve(scratch.x, scratch.y, n, tiling, weights, 2 * block, scratch, False)
            for b in range(n):
                scratch.biases[b] = weights.biases[2 * block + 1]
            _convolve(scratch.y, scratch.x, n, tiling, weights, 2 * block + 1, scratch, True)
        for b in range(n):
            summarise(scratch.x, b, tiling, channels, summaries[start + b])
            take_out(scratch.x, b, tiling, activations[start + b])


@njit(cache=True, nogil=True, error_model="numpy")
def _convolve(x, y, n, tiling, weights, layer, scratch, add):
    """Write relu(x) convolved with the filters of `layer`, plus the scratch's biases, to y; or `add` it to y."""
    channels, plane = weights.static.shape[2], scratch.plane
    spread_tiles(x, n, tiling, channels, scratch.before, plane)
    depth_of_filters = tiling.num_points * channels * channels
    for point in range(tiling.num_points):
        multiply_point(
            scratch.before,
            scratch.after,
            point * plane,
            n * tiling.num_tiles,
            weights.filters,
            layer * depth_of_filters + point * channels * channels,
            channels,
        )
    collect_tiles(scratch.after, n, tiling, channels, plane, scratch.biases, y, add)


@njit(cache=True, nogil=True, error_model="numpy")
def spread_tiles(x, n, tiling, channels, points, plane):
    """Transform the inputs of all tiles."""
    height, width = tiling.tile_height, tiling.tile_width
    row = (width * tiling.columns + 2) * channels
    tile = 0
    for b in range(n):
        for i in range(tiling.rows):
            for j in range(tiling.columns):
                at = b * tiling.framed_cells * channels + i * height * row + j * width * channels
                for c in range(0, channels, LANES):
                    to = tile * channels + c
                    spread_tile(height, width, x, at + c, row, channels, points, to, plane)
                tile += 1


@njit(cache=True, nogil=True, error_model="numpy")
def multiply_point(points, products, at, num_tiles, filters, filters_at, channels):
    """Multiply [T, C] at `at` of `points` with the filters [C, C] of this point; a few tiles too many do no harm."""
    if channels % LANES_TOGETHER == 0:
        for c in range(0, channels, LANES_TOGETHER):
            for here in range(at, at + num_tiles * channels, 6 * channels):
                multiply_tiles(
                    6, 2, points, here, filters, filters_at + c * channels, products, here + c, channels
                )
    else:
        for c in range(0, channels, LANES):
            for here in range(at, at + num_tiles * channels, 12 * channels):
                multiply_tiles(
                    12, 1, points, here, filters, filters_at + c * channels, products, here + c, channels
                )


@njit(cache=True, nogil=True, error_model="numpy")
def collect_tiles(products, n, tiling, channels, plane, biases, y, add):
    """Make the outputs of all tiles."""
    height, width = tiling.tile_height, tiling.tile_width
    row = (width * tiling.columns + 2) * channels
    flat_biases = biases.ravel()
    tile = 0
    for b in range(n):
        for i in range(tiling.rows):
            for j in range(tiling.columns):
                to = b * tiling.framed_cells * channels + (i * height + 1) * row + (j * width + 1) * channels
                rows, columns = tiling.height - i * height, tiling.width - j * width
                for c in range(0, channels, LANES):
                    at, bias = tile * channels + c, b * channels + c
                    collect_tile(
                        height,
                        width,
                        products,
                        at,
                        plane,
                        flat_biases,
                        bias,
                        y,
                        to + c,
                        row,
                        channels,
                        rows,
                        columns,
                        add,
                    )
                tile += 1


@njit(cache=True, nogil=True, error_model="numpy")
def stem(cells, tiling, weights, x):
    """Write the stem's output: that of an empty board, and what each stone adds to the cells around it."""
    height, width, channels = weights.static.shape
    wide = tiling.tile_width * tiling.columns + 2
    for b in range(cells.shape[0]):
        origin = (b * tiling.framed_cells + wide + 1) * channels
        for i in range(height):
            at = origin + i * wide * channels
            x[at : at + width * channels] = weights.static[i].ravel()
        for cell in range(height * width):
            stone = cells[b, cell]
            if stone != 0:
                taps = weights.stones[0 if stone > 0 else 1].ravel()
                # Tap (p, q) of the filter at a cell sees the cell's neighbour at (p - 1, q - 1).
                for p in range(3):
                    for q in range(3):
                        i, j = cell // width + 1 - p, cell % width + 1 - q
                        if 0 <= i < height and 0 <= j < width:
                            at = origin + (i * wide + j) * channels
                            for c in range(0, channels, LANES):
                                add_vector(x, at + c, taps, (3 * p + q) * channels + c)


@njit(cache=True, nogil=True, error_model="numpy")
def summarise(x, b, tiling, channels, summary):
    """Write mean and maximum over the board of relu(x) of position `b` to `summary` [2C]."""
    wide = tiling.tile_width * tiling.columns + 2
    origin = (b * tiling.framed_cells + wide + 1) * channels
    for c in range(0, channels, LANES):
        sum_and_maximum(
            x, origin + c, wide * channels, channels, tiling.height, tiling.width, summary, c, channels + c
        )
    share = np.float32(1.0 / (tiling.height * tiling.width))
    for c in range(channels):
        summary[c] *= share


@njit(cache=True, nogil=True, error_model="numpy")
def add_pooled(x, b, tiling, matrix, bias):
    """Add the summary of position `b` times `matrix` [2C, C] to `bias` [C]."""
    channels = matrix.shape[1]
    summary = np.empty(2 * channels, np.float32)
    summarise(x, b, tiling, channels, summary)
    for k in range(2 * channels):
        for c in range(channels):
            bias[c] += summary[k] * matrix[k, c]


@njit(cache=True, nogil=True, error_model="numpy")
def take_out(x, b, tiling, activations):
    """Write relu(x) of position `b` without its frame to `activations` [H, W, C]."""
    height, width, channels = activations.shape
    wide = tiling.tile_width * tiling.columns + 2
    for i in range(height):
        at = (b * tiling.framed_cells + (i + 1) * wide + 1) * channels
        row = activations[i].ravel()
        for k in range(width * channels):
            row[k] = max(x[at + k], np.float32(0.0))
