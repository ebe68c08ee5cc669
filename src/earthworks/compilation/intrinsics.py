"""Processor instructions without a Python equivalent, for use inside compiled functions."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import create_struct_proxy
from numba.extending import intrinsic

inlined: Any = intrinsic  # its type omits that numba itself passes the first argument


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
    """Inside compiled functions: number of trailing zero bits of a uint64; 64 for 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@inlined
def bits_to_float(typing_context, bits):
    """Inside compiled functions: the float32 that has these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@inlined
def widened(typing_context, number):
    """Inside compiled functions: a float32, the upper half of one as uint16 (bfloat16), or an int8, as float32."""

    def generate(context, builder, signature, arguments):
        if number == types.uint16:
            upper = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
            return builder.bitcast(upper, ir.FloatType())
        return arguments[0] if number == types.float32 else builder.sitofp(arguments[0], ir.FloatType())

    if number in (types.float32, types.uint16, types.int8):
        return types.float32(number), generate


@inlined
def pointer(typing_context, address, like):
    """Inside compiled functions: an address as a pointer to what the array `like` holds, for `numba.carray`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


@inlined
def add_atomically(typing_context, counter, amount):
    """Inside compiled functions: add atomically to counter[0] of an int64 array; returns the previous value."""

    def generate(context, builder, signature, arguments):
        array = create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, arguments[1], "seq_cst")

    return types.int64(counter, types.int64), generate


@inlined
def read_atomically(typing_context, counter):
    """Inside compiled functions: atomic read of counter[0] of an int64 array."""

    def generate(context, builder, signature, arguments):
        array = create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(counter), generate
