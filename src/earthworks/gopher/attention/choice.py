"""Choice of the attention backend: which can compute a case, and which is fastest."""

import importlib.util
import os
from dataclasses import dataclass

import torch

FLASH_WIDTH = 256  # features a head may have in the flash kernels that torch brings for CUDA
WORTH_COMPILING = 128  # keys from which `tiled` is chosen: shorter inputs should not have to wait for a compiler
BAND_WIDTH = 128  # d_head up to which a tile of `band` fits into the registers and shared memory of a multiprocessor


@dataclass(frozen=True)
class Case:
    """The properties of a call of `relative_attention` that the choice of its backend depends on."""

    device: str
    dtype: torch.dtype
    time_q: int
    time_k: int
    d_head: int
    d_position: int | None  # None: a table was given in place of w_r
    max_distance: int | None


def obstacle(backend: str, case: Case) -> str | None:
    """The reason a backend cannot compute this, and which one can; None if it can."""
    if backend in ("math", "skewed"):
        return None
    if case.device == "cuda" and case.dtype == torch.bfloat16 and not has_bfloat16():
        return (
            f"backend '{backend}' multiplies in bfloat16 here, which this GPU lacks (compute capability 8.0 has it): "
            f"use float32 (--precision fp32), or backend='skewed'"
        )
    if backend == "augmented":
        return obstacle_to_augmented(case)
    if backend == "tiled":
        return obstacle_to_tiled(case)
    return obstacle_to_band(case) if backend == "band" else None


def obstacle_to_augmented(case: Case) -> str | None:
    if case.d_position is None:
        return "backend 'augmented' needs w_r, but was given a table of distances: use backend='skewed', which takes a table"
    if case.max_distance is not None and case.max_distance < case.time_k - 1:
        return (
            f"backend 'augmented' cannot clamp distances, here at {case.max_distance}: use backend='skewed', which can"
        )
    width = case.d_head + case.d_position
    if case.device == "cuda" and width > FLASH_WIDTH:
        return (
            f"backend 'augmented' makes heads of d_head + d_position = {width} features, but torch's flash kernels take at "
            f"most {FLASH_WIDTH}: use backend='band', or a d_position of at most {FLASH_WIDTH - case.d_head}"
        )
    return None


def obstacle_to_tiled(case: Case) -> str | None:
    if case.device != "cpu":
        return f"backend 'tiled' runs on CPUs only and the tensors are on {case.device}: use backend='skewed'"
    if case.dtype not in (torch.float32, torch.bfloat16):
        numbers = str(case.dtype).removeprefix("torch.")
        return f"backend 'tiled' takes float32 and bfloat16 and was given {numbers}: use backend='skewed'"
    return None


def obstacle_to_band(case: Case) -> str | None:
    if case.device != "cuda" and not (case.device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return (
            f"backend 'band' is a CUDA kernel and the tensors are on {case.device}: use backend='skewed' "
            "(for tests, TRITON_INTERPRET=1 interprets the kernel on a CPU)"
        )
    if not has_triton():
        return "backend 'band' needs the package triton: pip install triton, or use backend='skewed'"
    if case.dtype == torch.float64:
        return "backend 'band' sums in float32 and was given float64: use backend='skewed', which keeps float64"
    if case.d_head > BAND_WIDTH:
        return (
            f"backend 'band' takes heads of at most {BAND_WIDTH} features and d_head is {case.d_head}: "
            "use backend='sdpa'"
        )
    return None


def choose(case: Case) -> str:
    """The backend that `auto` selects: the table in docs/attention.md."""
    if case.time_q == 1:
        return "math"  # a single row of products: no backend could compute less
    traced = torch.compiler.is_compiling()  # traced tensors have no addresses, which `tiled` needs
    if case.time_k >= WORTH_COMPILING and not traced and obstacle("tiled", case) is None:
        return "tiled"
    return "augmented" if case.device == "cuda" and obstacle("augmented", case) is None else "skewed"


def has_bfloat16() -> bool:
    """Whether the current CUDA device multiplies bfloat16 in hardware."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
