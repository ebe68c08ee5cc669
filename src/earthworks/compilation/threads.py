"""A compiled function on the threads of torch's own OpenMP."""

import ctypes
import functools
import threading
from typing import Any

from numpy.typing import NDArray


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
