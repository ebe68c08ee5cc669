"""Number format of the matrix products, and the measured speed of matrix products on this machine."""

import functools
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast, get_args

import torch

from earthworks.runs import EarthworksError

Precision = Literal["auto", "fp32", "bf16", "bf16-sr", "bf16-master"]
Settled = Literal["fp32", "bf16", "bf16-sr", "bf16-master"]
BF16_WEIGHTS = ("bf16-sr", "bf16-master")  # the parameters themselves are bf16 (training/weights.py)

BF16_WORTH_IT = 1.3  # bf16 products must be this much faster to make up for the casts around them


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else Apple's, else the CPU; any other name is used as given."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EarthworksError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def choose_precision(name: str, device: torch.device) -> Settled:
    """`auto` times the hardware: bf16 where its matrix products are at least 1.3 times as fast as float32's.

    A processor without bf16 instructions runs them in emulation, at a third of the float32 speed or less.
    """
    if name not in get_args(Precision):
        raise EarthworksError(f"precision is {name!r}; it must be one of {', '.join(get_args(Precision))}")
    if name != "auto":
        return cast(Settled, name)
    faster = matmul_ceiling(device, torch.bfloat16) > BF16_WORTH_IT * matmul_ceiling(device, torch.float32)
    return "bf16" if faster else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context of forward passes: only `bf16` multiplies bf16 copies of float32 weights."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def product_dtype(precision: str) -> torch.dtype:
    """Dtype of matrix products."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


@functools.cache
def matmul_ceiling(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Floating-point operations per second of a square matrix product on this machine: the best of a few.

    A run's speed is compared with this ceiling. It is measured, because a table of data-sheet peaks is wrong for every
    machine that is not listed, is shared, or is throttled.
    """
    size = size or (8192 if device.type == "cuda" else 1024)
    random = torch.Generator(device).manual_seed(0)  # its own: measuring must not move the run's random numbers
    a, b = (torch.randn(size, size, device=device, generator=random).to(dtype) for _ in range(2))
    best = float("inf")
    started = time.perf_counter()
    for done in range(1, 9):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
        spent = time.perf_counter() - started
        if spent > 1 or (
            spent > 0.25 and done >= 3
        ):  # repeat to compensate for a product that had to wait; emulated bf16 takes seconds
            break
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Release the memory cached by an accelerator's allocator, which may be fragmented."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
