"""Compilation of kernels by numba: decorators, threads, instructions, and the cache of machine code.

Only kernels import it: `cache.sources` finds by that import the files that machine code depends on.
"""

from earthworks.compilation.decorators import arithmetic, compiled, for_c, summing
from earthworks.compilation.intrinsics import (
    add_atomically,
    bits_to_float,
    eight_bytes,
    inlined,
    pointer,
    read_atomically,
    trailing_zeros,
    widened,
)
from earthworks.compilation.threads import on_threads, openmp

__all__ = [
    "add_atomically",
    "arithmetic",
    "bits_to_float",
    "compiled",
    "eight_bytes",
    "for_c",
    "inlined",
    "on_threads",
    "openmp",
    "pointer",
    "read_atomically",
    "summing",
    "trailing_zeros",
    "widened",
]
