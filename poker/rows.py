"""Rows of numbers in compiled kernels: sixteen of float32 as one vector, or one of float64.

numba does not turn loops over an axis of lanes into vector instructions, for it cannot know that arrays do not
overlap. So a row is a type of its own, which is loaded from a row of an array, calculated with, and stored: one
instruction each where the processor has vectors of this width, two where they are half as wide.

The same kernel is compiled for arrays float32 [n, LANES], whose lanes are as many situations side by side, and for
float64 [n], which is one situation in plain numbers. Nothing is fused or reordered unless `fma` says so: equal inputs
give equal bytes on every machine.
"""

import operator
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_FMA = f"llvm.fma.v{LANES}f32"
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = ir.IntType(32)
_HAS_MXCSR = platform.machine().lower() in ("x86_64", "amd64")
_DENORMALS_ARE_ZEROS, _FLUSH_TO_ZERO = 1 << 6, 1 << 15


class RowType(types.Type):
    """numba's type of a row of float32."""

    def __init__(self) -> None:
        super().__init__(name=f"Row({LANES} x float32)")


ROW = RowType()


@register_model(RowType)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def load(x: Any, i: Any) -> Any:
    """Row i of x."""
    raise NotImplementedError


def store(x: Any, i: Any, value: Any) -> None:
    """Make `value` row i of x."""
    raise NotImplementedError


def same(x: Any, number: Any) -> Any:
    """A row, as x has them, of one number."""
    raise NotImplementedError


def fma(a: Any, b: Any, c: Any) -> Any:
    """Product of a and b, plus c, rounded once in float32."""
    raise NotImplementedError


def maximum(a: Any, b: Any) -> Any:
    """The greater of each."""
    raise NotImplementedError


def where_positive(test: Any, yes: Any, no: Any) -> Any:
    """`yes` where `test` is above 0, `no` elsewhere."""
    raise NotImplementedError


def without_denormals() -> Any:
    """Have this thread take numbers below 1.2e-38 for 0, and return what `restore` takes to end that.

    Intel's processors take over a hundred cycles for one of them, and vectors of iterations without number have some.
    Does nothing where there is no MXCSR.
    """
    raise NotImplementedError


def restore(state: Any) -> None:
    """Have this thread compute as before `without_denormals`."""
    raise NotImplementedError


def _emit_load(typing, x, i):
    def emit(context, builder, signature, args):
        value = builder.load(_address(context, builder, signature, args))
        value.align = 4
        return value

    return ROW(x, i), emit


def _emit_store(typing, x, i, value):
    def emit(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature, args), align=4)
        return context.get_dummy_value()

    return types.void(x, i, value), emit


def _emit_splat(typing, number):
    def emit(context, builder, signature, args):
        scalar = context.cast(builder, args[0], signature.args[0], types.float32)
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, lanes)

    return ROW(number), emit


def _emit_fma(typing, a, b, c):
    def emit(context, builder, signature, args):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, _FMA), args)

    return ROW(a, b, c), emit


def _emit_maximum(typing, a, b):
    def emit(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return ROW(a, b), emit


def _emit_where_positive(typing, test, yes, no):
    def emit(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], args[2])

    return ROW(test, yes, no), emit


def _emit_without_denormals(typing):
    def emit(context, builder, signature, args):
        if not _HAS_MXCSR:
            return _INT(0)
        place = cgutils.alloca_once(builder, _INT)
        _call_on_mxcsr(builder, "stmxcsr", place)
        state = builder.load(place)
        builder.store(builder.or_(state, _INT(_DENORMALS_ARE_ZEROS | _FLUSH_TO_ZERO)), place)
        _call_on_mxcsr(builder, "ldmxcsr", place)
        return state

    return types.int32(), emit


def _emit_restore(typing, state):
    def emit(context, builder, signature, args):
        if _HAS_MXCSR:
            place = cgutils.alloca_once_value(builder, args[0])
            _call_on_mxcsr(builder, "ldmxcsr", place)
        return context.get_dummy_value()

    return types.void(types.int32), emit


def _call_on_mxcsr(builder: Any, name: str, place: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(place, pointer)])


# To a type checker an intrinsic is a function with one argument more.
_load: Any = intrinsic(_emit_load)
_store: Any = intrinsic(_emit_store)
_splat: Any = intrinsic(_emit_splat)
_fma: Any = intrinsic(_emit_fma)
_maximum: Any = intrinsic(_emit_maximum)
_where_positive: Any = intrinsic(_emit_where_positive)
_without_denormals: Any = intrinsic(_emit_without_denormals)
_restore: Any = intrinsic(_emit_restore)


def _arithmetic(name):
    def work(typing, a, b):
        def emit(context, builder, signature, args):
            return getattr(builder, name)(*args)

        return ROW(a, b), emit

    return work


def _overload_arithmetic(of, name):
    work: Any = intrinsic(_arithmetic(name))

    @overload(of)
    def typed(a, b):
        if isinstance(a, RowType) and isinstance(b, RowType):
            return lambda a, b: work(a, b)
        return None


for _of, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload_arithmetic(_of, _name)


@overload(load)
def _typed_load(x, i):
    return (lambda x, i: _load(x, i)) if x.ndim == 2 else (lambda x, i: x[i])


@overload(store)
def _typed_store(x, i, value):
    if x.ndim == 2:
        return lambda x, i, value: _store(x, i, value)

    def plain(x, i, value):
        x[i] = value

    return plain


@overload(same)
def _typed_same(x, number):
    return (lambda x, number: _splat(number)) if x.ndim == 2 else (lambda x, number: float(number))


@overload(fma)
def _typed_fma(a, b, c):
    return (lambda a, b, c: _fma(a, b, c)) if isinstance(a, RowType) else (lambda a, b, c: a * b + c)


@overload(maximum)
def _typed_maximum(a, b):
    return (lambda a, b: _maximum(a, b)) if isinstance(a, RowType) else (lambda a, b: a if a > b else b)


@overload(where_positive)
def _typed_where_positive(test, yes, no):
    if isinstance(test, RowType):
        return lambda test, yes, no: _where_positive(test, yes, no)
    return lambda test, yes, no: yes if test > 0.0 else no


@overload(without_denormals)
def _typed_without_denormals():
    return lambda: _without_denormals()


@overload(restore)
def _typed_restore(state):
    return lambda state: _restore(state)


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Return the address of row i, given (x, i, …); x is contiguous."""
    base = context.make_array(signature.args[0])(context, builder, args[0]).data
    row = context.cast(builder, args[1], signature.args[1], types.intp)
    place = builder.mul(row, ir.IntType(64)(LANES))
    return builder.bitcast(builder.gep(base, [place]), _VECTOR.as_pointer())
