"""Loops that no array operation holds, as machine code."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import create_struct_proxy
from numba.extending import intrinsic

inlined: Any = intrinsic  # its type does not say that numba itself passes the first argument


def compiled(function):
    """numba's njit without the interpreter's lock, the machine code kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)


@inlined
def eight_bytes(typing_context, data, at):
    """Inside compiled functions: data[at : at + 8] of a uint8 array as one uint64, the first byte lowest; not checked."""

    def generate(context, builder, signature, arguments):
        array = create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.int64), generate


@inlined
def trailing_zeros(typing_context, bits):
    """Inside compiled functions: how many of the lowest bits of a uint64 are 0; 64 for 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate
