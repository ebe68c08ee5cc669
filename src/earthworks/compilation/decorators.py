"""numba decorators for loops that no array operation covers, with their machine code cached on disk."""

from numba import njit
from numba.core import sigutils
from numba.core.ccallback import CFunc

from earthworks.compilation.cache import kept


def compiled(function, **options):
    """numba's njit without the interpreter's lock, with its machine code cached on disk."""
    return kept(njit(nogil=True, **options)(function), function)


def arithmetic(function):
    """`compiled`, with x / 0 infinite instead of an error: without that branch, loops over it vectorise."""
    return compiled(function, error_model="numpy")


def summing(function):
    """`arithmetic`, with sums in any order, so that summing loops vectorise too. NaN stays NaN."""
    return compiled(function, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


def for_c(signature, function):
    """`compiled` as a C function, immediately, for the types of `signature`."""
    callback = kept(CFunc(function, sigutils.normalize_signature(signature), locals={}, options={}), function)
    callback.compile()
    return callback
