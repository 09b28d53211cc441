"""The inner steps of a tower's kernels, emitted as LLVM vectors of 8 channels.

numba does not turn loops over channels into vector instructions where arrays might overlap, so these are written down
instruction by instruction, once for each shape of tile. Arrays are flat float32; places in them are counted in numbers.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from networks.winograd_points import POINTS, Matrix, input_transform, output_transform

LANES = 8
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)
_MAY_FUSE = ("contract",)


def _spread_tile(typing, height, width, x, at, row, cell, points, to, plane):
    """Transform 8 channels of the inputs of one tile, relu first; each point goes to its plane.

    Args:
        height, width: of the tile, m of F(m, 3).
        x, at, row, cell: activations, where the tile's inputs begin, and the steps between rows and cells of it.
        points, to, plane: where the first point goes, and the step to the next.
    """

    def emit(context, builder, signature, args):
        height, width, _, at, row, cell, _, to, plane = args
        source, target = (_data(context, builder, signature, args, k) for k in (2, 6))
        zero = _splat(0.0)
        for tall, broad in _tile_shapes(builder, height, width):
            lines = []
            for i in range(tall):
                places = [_place(builder, at, (row, i), (cell, j)) for j in range(broad)]
                inputs = [_load(builder, source, place) for place in places]
                active = [builder.select(builder.fcmp_ordered(">", v, zero), v, zero) for v in inputs]
                lines.append(_to_points(builder, active))
            for j in range(broad):
                for i, value in enumerate(_to_points(builder, [line[j] for line in lines])):
                    _store(builder, value, target, _place(builder, to, (plane, i * broad + j)))
        return context.get_dummy_value()

    return types.void(height, width, x, at, row, cell, points, to, plane), emit


def _collect_tile(
    typing, height, width, products, at, plane, biases, bias_at, y, to, row, cell, rows, columns, add
):
    """Make 8 channels of the outputs of one tile from the products, and write those that are on the board.

    Args:
        height, width: of the tile.
        products, at, plane: the first point's product, and the step to the next.
        biases, bias_at: what is added to every output.
        y, to, row, cell: activations, where the tile's outputs begin, and the steps between rows and cells of it.
        rows, columns: of the board from the tile's beginning on; outputs beyond are dropped.
        add: whether outputs are added to what is there.
    """

    def emit(context, builder, signature, args):
        height, width, _, at, plane, _, bias_at, _, to, row, cell, rows, columns, add = args
        source, given, target = (_data(context, builder, signature, args, k) for k in (2, 5, 7))
        bias = _load(builder, given, bias_at)
        for tall, broad in _tile_shapes(builder, height, width):
            lines = []
            for i in range(tall):
                places = [_place(builder, at, (plane, i * broad + j)) for j in range(broad)]
                lines.append(_from_points(builder, [_load(builder, source, place) for place in places]))
            for j in range(broad - 2):
                for i, value in enumerate(_from_points(builder, [line[j] for line in lines])):
                    below = builder.icmp_signed("<", _INDEX(i), rows)
                    beside = builder.icmp_signed("<", _INDEX(j), columns)
                    with builder.if_then(builder.and_(below, beside)):
                        place = _place(builder, to, (row, i), (cell, j))
                        _put(builder, builder.fadd(value, bias), target, place, add)
        return context.get_dummy_value()

    given = (height, width, products, at, plane, biases, bias_at, y, to, row, cell, rows, columns, add)
    return types.void(*given), emit


def _raise_tile(typing, height, width, y, at, row, cell, points, to, plane):
    """Transform 8 channels of the gradient by one tile's outputs to that by its products: `collect_tile` backwards.

    Args:
        height, width: of the tile.
        y, at, row, cell: gradient, where the tile's outputs begin, and the steps between its rows and cells; zeros
            where the tile is beyond the board.
        points, to, plane: where the first point goes, and the step to the next.
    """

    def emit(context, builder, signature, args):
        height, width, _, at, row, cell, _, to, plane = args
        source, target = (_data(context, builder, signature, args, k) for k in (2, 6))
        for tall, broad in _tile_shapes(builder, height, width):
            lines = []
            for i in range(tall - 2):
                places = [_place(builder, at, (row, i), (cell, j)) for j in range(broad - 2)]
                lines.append(_to_products(builder, [_load(builder, source, place) for place in places]))
            for j in range(broad):
                for i, value in enumerate(_to_products(builder, [line[j] for line in lines])):
                    _store(builder, value, target, _place(builder, to, (plane, i * broad + j)))
        return context.get_dummy_value()

    return types.void(height, width, y, at, row, cell, points, to, plane), emit


def _scatter_tile(typing, height, width, points, at, plane, x, to, row, cell):
    """Add 8 channels of the gradient by the inputs of one tile to that of the board: `spread_tile` backwards, no relu.

    Args:
        height, width: of the tile.
        points, at, plane: gradient by the tile's points, where the first is, and the step to the next.
        x, to, row, cell: gradient, where the tile's inputs begin, and the steps between rows and cells of it.
    """

    def emit(context, builder, signature, args):
        height, width, _, at, plane, _, to, row, cell = args
        source, target = (_data(context, builder, signature, args, k) for k in (2, 5))
        for tall, broad in _tile_shapes(builder, height, width):
            lines = []
            for i in range(tall):
                places = [_place(builder, at, (plane, i * broad + j)) for j in range(broad)]
                lines.append(_from_inputs(builder, [_load(builder, source, place) for place in places]))
            for j in range(broad):
                for i, value in enumerate(_from_inputs(builder, [line[j] for line in lines])):
                    place = _place(builder, to, (row, i), (cell, j))
                    _store(builder, builder.fadd(value, _load(builder, target, place)), target, place)
        return context.get_dummy_value()

    return types.void(height, width, points, at, plane, x, to, row, cell), emit


def _add_products(typing, rows, vectors, x, x_at, y, y_at, tiles, sums, to, channels):
    """Add Σ over tiles of x [tiles, rows] transposed times y [tiles, 8 * vectors] to sums [rows, 8 * vectors].

    Args:
        rows, vectors: literal numbers; their product is the number of registers for sums.
        x, x_at, y, y_at: the first tile's; the next are `channels` on.
        tiles: their number.
        sums, to: where the first row is; the next is `channels` on.
    """

    def emit(context, builder, signature, args):
        _, _, _, x_at, _, y_at, tiles, _, to, channels = args
        left, right, target = (_data(context, builder, signature, args, k) for k in (2, 4, 7))
        down, across = range(rows.literal_value), range(vectors.literal_value)
        registers = [[cgutils.alloca_once(builder, _VECTOR) for _ in across] for _ in down]
        places = [
            [builder.add(_place(builder, to, (channels, r)), _INDEX(LANES * v)) for v in across] for r in down
        ]
        for r in down:
            for v in across:
                builder.store(_load(builder, target, places[r][v]), registers[r][v])
        with cgutils.for_range(builder, tiles) as loop:
            x_here, y_here = (_place(builder, at, (channels, loop.index)) for at in (x_at, y_at))
            columns = [_load(builder, right, builder.add(y_here, _INDEX(LANES * v))) for v in across]
            for r in down:
                one = builder.load(builder.gep(left, [builder.add(x_here, _INDEX(r))]))
                same = _broadcast(builder, one)
                for register, column in zip(registers[r], columns, strict=True):
                    term = builder.fmul(same, column, flags=_MAY_FUSE)
                    builder.store(builder.fadd(builder.load(register), term, flags=_MAY_FUSE), register)
        for r in down:
            for v in across:
                _store(builder, builder.load(registers[r][v]), target, places[r][v])
        return context.get_dummy_value()

    return types.void(rows, vectors, x, x_at, y, y_at, tiles, sums, to, channels), emit


def _multiply_tiles(typing, rows, vectors, points, at, filters, filters_at, products, to, channels):
    """Multiply `rows` tiles [rows, C] with filters [C, 8 * vectors]; the sums stay in registers.

    Args:
        rows, vectors: literal numbers; their product is the number of registers for sums, 12 of the 16 there are.
        points, at: the first tile's; the next is `channels` on.
        filters, filters_at: in one piece.
        products, to: the first tile's; the next is `channels` on.
    """

    def emit(context, builder, signature, args):
        _, _, _, at, _, filters_at, _, to, channels = args
        source, factors, target = (_data(context, builder, signature, args, k) for k in (2, 4, 6))
        across = range(vectors.literal_value)
        sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in across] for _ in range(rows.literal_value)]
        for register in (register for line in sums for register in line):
            builder.store(_splat(0.0), register)
        starts = [_place(builder, at, (channels, r)) for r in range(len(sums))]
        with cgutils.for_range(builder, channels) as loop:
            here = _place(builder, filters_at, (loop.index, LANES * len(across)))
            columns = [_load(builder, factors, builder.add(here, _INDEX(LANES * v))) for v in across]
            for line, start in zip(sums, starts, strict=True):
                one = builder.load(builder.gep(source, [builder.add(start, loop.index)]))
                same = _broadcast(builder, one)
                for register, column in zip(line, columns, strict=True):
                    term = builder.fmul(same, column, flags=_MAY_FUSE)
                    builder.store(builder.fadd(builder.load(register), term, flags=_MAY_FUSE), register)
        for r, line in enumerate(sums):
            for v, register in enumerate(line):
                place = builder.add(_place(builder, to, (channels, r)), _INDEX(LANES * v))
                _store(builder, builder.load(register), target, place)
        return context.get_dummy_value()

    return types.void(rows, vectors, points, at, filters, filters_at, products, to, channels), emit


def _add_vector(typing, x, at, y, y_at):
    """Add 8 numbers of y to x."""

    def emit(context, builder, signature, args):
        _, at, _, y_at = args
        target, source = (_data(context, builder, signature, args, k) for k in (0, 2))
        _store(builder, builder.fadd(_load(builder, target, at), _load(builder, source, y_at)), target, at)
        return context.get_dummy_value()

    return types.void(x, at, y, y_at), emit


def _sum_and_maximum(typing, x, at, row, cell, height, width, summary, sum_at, maximum_at):
    """Write the sum and the maximum over a board of relu of 8 channels.

    Args:
        x, at, row, cell: activations, where the board begins, and the steps between its rows and cells.
        height, width: of the board.
        summary, sum_at, maximum_at: where they go.
    """

    def emit(context, builder, signature, args):
        _, at, row, cell, height, width, _, sum_at, maximum_at = args
        source, target = (_data(context, builder, signature, args, k) for k in (0, 6))
        zero = _splat(0.0)
        total, highest = (cgutils.alloca_once(builder, _VECTOR) for _ in range(2))
        builder.store(zero, total)
        builder.store(zero, highest)
        with cgutils.for_range(builder, height) as down, cgutils.for_range(builder, width) as across:
            value = _load(builder, source, _place(builder, at, (row, down.index), (cell, across.index)))
            active = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
            builder.store(builder.fadd(builder.load(total), active), total)
            best = builder.load(highest)
            higher = builder.fcmp_ordered(">", active, best)
            builder.store(builder.select(higher, active, best), highest)
        _store(builder, builder.load(total), target, sum_at)
        _store(builder, builder.load(highest), target, maximum_at)
        return context.get_dummy_value()

    return types.void(x, at, row, cell, height, width, summary, sum_at, maximum_at), emit


# For kernels; to a type checker an intrinsic is a function with one argument more.
spread_tile: Any = intrinsic(_spread_tile)
collect_tile: Any = intrinsic(_collect_tile)
add_vector: Any = intrinsic(_add_vector)
sum_and_maximum: Any = intrinsic(_sum_and_maximum)
multiply_tiles: Any = intrinsic(prefer_literal=True)(_multiply_tiles)
raise_tile: Any = intrinsic(_raise_tile)
scatter_tile: Any = intrinsic(_scatter_tile)
add_products: Any = intrinsic(prefer_literal=True)(_add_products)


def _tile_shapes(builder: Any, height: Any, width: Any) -> Iterator[tuple[int, int]]:
    """Emit a branch for each shape of tile; what the caller emits for (m + 2, n + 2) runs for tiles of m × n."""
    for tall, broad in product(POINTS, repeat=2):
        is_tall = builder.icmp_signed("==", height, _INDEX(tall))
        is_broad = builder.icmp_signed("==", width, _INDEX(broad))
        with builder.if_then(builder.and_(is_tall, is_broad)):
            yield tall + 2, broad + 2


def _put(builder: Any, value: Any, base: Any, at: Any, add: Any) -> None:
    """Emit: store a vector, or `add` it to what is there."""
    with builder.if_else(add) as (adding, replacing):
        with adding:
            _store(builder, builder.fadd(value, _load(builder, base, at)), base, at)
        with replacing:
            _store(builder, value, base, at)


def _to_points(builder: Any, inputs: list[Any]) -> list[Any]:
    """Emit the input transform of a line."""
    return _at_points(builder, inputs, input_transform(len(inputs) - 2))


def _to_products(builder: Any, outputs: list[Any]) -> list[Any]:
    """Emit the output transform of a line backwards: values of the polynomial that has `outputs` for coefficients."""
    return _at_points(builder, outputs, tuple(zip(*output_transform(len(outputs)), strict=True)))


def _at_points(builder: Any, inputs: list[Any], matrix: Matrix) -> list[Any]:
    """Emit matrix · inputs; its rows of opposite points share their even and odd parts."""
    even, odd = range(0, len(inputs), 2), range(1, len(inputs), 2)
    values = []
    for row, point in zip(matrix[:-1], POINTS[len(matrix) - 2], strict=True):
        if point > 0:
            first = _combine(builder, [(row[k], inputs[k]) for k in even])
            second = _combine(builder, [(row[k], inputs[k]) for k in odd])
            values += [builder.fadd(first, second), builder.fsub(first, second)]
        elif point == 0:
            values.append(_combine(builder, list(zip(row, inputs, strict=True))))
    return [*values, _combine(builder, list(zip(matrix[-1], inputs, strict=True)))]


def _from_inputs(builder: Any, values: list[Any]) -> list[Any]:
    """Emit the input transform of a line backwards; opposite points' values meet in sums and differences."""
    matrix = input_transform(len(values) - 2)
    pairs = range(1, len(values) - 1, 2)
    sums = [builder.fadd(values[p], values[p + 1]) for p in pairs]
    differences = [builder.fsub(values[p], values[p + 1]) for p in pairs]
    outputs = []
    for k in range(len(values)):
        parts = sums if k % 2 == 0 else differences
        terms = [(matrix[p][k], part) for p, part in zip(pairs, parts, strict=True)]
        outputs.append(_combine(builder, [*terms, (matrix[0][k], values[0]), (matrix[-1][k], values[-1])]))
    return outputs


def _from_points(builder: Any, products: list[Any]) -> list[Any]:
    """Emit the output transform of a line: output k is Σ point^k · product, the last has infinity's too."""
    size = len(products) - 2
    points = [float(point) for point in POINTS[size] if point > 0]
    pairs = [(products[1 + 2 * p], products[2 + 2 * p]) for p in range(len(points))]
    sums = [builder.fadd(plus, minus) for plus, minus in pairs]
    differences = [builder.fsub(plus, minus) for plus, minus in pairs]
    outputs = []
    for k in range(size):
        parts = sums if k % 2 == 0 else differences
        terms = [(point**k, part) for point, part in zip(points, parts, strict=True)]
        terms += [(1.0, products[0])] if k == 0 else []
        terms += [(1.0, products[-1])] if k == size - 1 else []
        outputs.append(_combine(builder, terms))
    return outputs


def _combine(builder: Any, terms: list[tuple[Any, Any]]) -> Any:
    """Emit the sum of factor · value over `terms`; factors are constants, and those that are 0 cost nothing."""
    total = None
    for factor, value in terms:
        if factor == 0:
            continue
        term = value if factor == 1 else builder.fmul(_splat(float(factor)), value, flags=_MAY_FUSE)
        total = term if total is None else builder.fadd(total, term, flags=_MAY_FUSE)
    return total


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    """Return the address of the first element of the array that is argument `k`."""
    return context.make_array(signature.args[k])(context, builder, args[k]).data


def _place(builder: Any, start: Any, *steps: tuple[Any, Any]) -> Any:
    """Emit start + Σ step · count; a count is a number, a step was computed before."""
    for step, count in steps:
        start = builder.add(start, builder.mul(step, _INDEX(count) if isinstance(count, int) else count))
    return start


def _load(builder: Any, base: Any, at: Any) -> Any:
    value = builder.load(builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer()))
    value.align = 4
    return value


def _store(builder: Any, value: Any, base: Any, at: Any) -> None:
    builder.store(value, builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer()), align=4)


def _splat(number: float) -> Any:
    return ir.Constant(_VECTOR, [number] * LANES)


def _broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )
