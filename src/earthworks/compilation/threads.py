"""A compiled function on the threads of torch's own OpenMP."""

import ctypes
import functools
import threading
from typing import Any

from numpy.typing import NDArray


def on_threads(function: Any, numbers: NDArray[Any], threads: int) -> None:
    """Call a function made by `for_c` on `threads` threads at once, each time with the address of `numbers`.

    They are the threads of torch's own OpenMP if found: these keep polling for work at full speed for a while after each
    operation, and would compete with threads of our own.
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
    """The OpenMP library of this process, if it exports GNU's names, as those of GCC and of LLVM on Linux do."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "GOMP_parallel") else None
