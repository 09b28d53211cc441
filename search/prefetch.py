"""Asks the processor to bring memory into its cache before it is needed, while it computes something else."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np import arrayobj

_FOR_READING, _INTO_ALL_CACHES, _DATA = 0, 3, 1


def _prefetch(typingctx, array, row, column):
    """Ask for the line of the cache where array[row, column] stands; nothing is checked, and nothing returned."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        fields = arrayobj.make_array(array_type)(context, builder, arguments[0])
        indices = [
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        ]
        place = cgutils.get_item_pointer(context, builder, array_type, fields, indices)
        address = builder.bitcast(place, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(number(n) for n in (_FOR_READING, _INTO_ALL_CACHES, _DATA))])
        return impl_ret_untracked(context, builder, types.none, context.get_dummy_value())

    return types.none(array, row, column), generate


# For kernels; to a type checker an intrinsic is a function with one argument more.
prefetch: Any = intrinsic(_prefetch)
