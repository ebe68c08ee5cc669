"""Loops that no array operation covers, as machine code that is kept on disk."""

from numba import njit
from numba.core import sigutils
from numba.core.ccallback import CFunc

from earthworks.compilation.cache import kept


def compiled(function, **options):
    """numba's njit without the interpreter's lock, its machine code kept on disk."""
    return kept(njit(nogil=True, **options)(function), function)


def arithmetic(function):
    """`compiled`, where x / 0 is infinite and no error: without that branch, loops over it run in vectors."""
    return compiled(function, error_model="numpy")


def summing(function):
    """`arithmetic`, and sums may be taken in any order: so loops that add up run in vectors too. NaN stays NaN."""
    return compiled(function, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


def for_c(signature, function):
    """`compiled` for callers that know nothing of Python, at once, for the types of `signature`."""
    callback = kept(CFunc(function, sigutils.normalize_signature(signature), locals={}, options={}), function)
    callback.compile()
    return callback
