"""Loops that no array operation holds, as machine code."""

import ctypes
import functools
import threading
from typing import Any

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core.cgutils import create_struct_proxy
from numba.extending import intrinsic
from numpy.typing import NDArray

inlined: Any = intrinsic  # its type does not say that numba itself passes the first argument


def compiled(function, **options):
    """numba's njit without the interpreter's lock, the machine code kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True, **options)(function)


def arithmetic(function):
    """`compiled`, where x / 0 is infinite and no error: without that branch, loops over it run in vectors."""
    return compiled(function, error_model="numpy")


def summing(function):
    """`arithmetic`, and sums may be taken in any order: so loops that add up run in vectors too. NaN stays NaN."""
    return compiled(function, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


def for_c(signature, function):
    """`compiled` for callers that know nothing of Python, at once, for the types of `signature`."""
    try:
        return cfunc(signature, cache=True)(function)
    except RuntimeError:
        return cfunc(signature)(function)


def on_threads(function: Any, numbers: NDArray[Any], threads: int) -> None:
    """Call a function made by `for_c` on so many threads at once, each time with the address of `numbers`.

    They are those of torch's own OpenMP where it can be found: its threads go on looking for work at full speed for a while
    after each operation, and would do so beside ours.
    """
    if threads == 1:
        function.ctypes(ctypes.cast(numbers.ctypes.data, function.ctypes.argtypes[0]))
    elif openmp() is not None:
        openmp().GOMP_parallel(ctypes.c_void_p(function.address), ctypes.c_void_p(numbers.ctypes.data), threads, 0)
    else:
        others = [threading.Thread(target=on_threads, args=(function, numbers, 1)) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        on_threads(function, numbers, 1)
        for thread in others:
            thread.join()


@functools.cache
def openmp() -> Any:
    """The OpenMP library of this process, if it answers to GNU's names, as those of GCC and of LLVM on Linux do."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "GOMP_parallel") else None


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
    """Inside compiled functions: add to counter[0] of an int64 array, whatever other threads do; what it was before."""

    def generate(context, builder, signature, arguments):
        array = create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, arguments[1], "seq_cst")

    return types.int64(counter, types.int64), generate


@inlined
def read_atomically(typing_context, counter):
    """Inside compiled functions: counter[0] of an int64 array as other threads last left it."""

    def generate(context, builder, signature, arguments):
        array = create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(counter), generate
