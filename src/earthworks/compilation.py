"""Loops that no array operation holds, as machine code."""

from numba import njit


def compiled(function):
    """numba's njit without the interpreter's lock, the machine code kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)
