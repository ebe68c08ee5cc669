"""Which backend can compute an attention, and which does it soonest."""

import importlib.util
import os
from dataclasses import dataclass

import torch

FLASH_WIDTH = 256  # features a head may have in the flash kernels that torch brings for CUDA
WORTH_COMPILING = 128  # keys from which on `tiled` is taken: what reads less should not have to wait for a compiler
BAND_WIDTH = 128  # d_head up to which a tile of `band` fits into the registers and shared memory of a multiprocessor


@dataclass(frozen=True)
class Case:
    """One call of `relative_attention`, as far as the choice of its backend depends on it."""

    device: str
    dtype: torch.dtype
    time_q: int
    time_k: int
    d_head: int
    d_position: int | None  # None: a table was given in place of w_r
    max_distance: int | None


def obstacle(backend: str, case: Case) -> str | None:
    """Why a backend cannot compute this, and which one can; None where nothing stands in its way."""
    if backend in ("math", "skewed"):
        return None
    if case.device == "cuda" and case.dtype == torch.bfloat16 and not has_bfloat16():
        return (
            f"backend '{backend}' multiplies in bfloat16 here and this GPU has none (compute capability 8.0 brings it): "
            f"use float32 (--precision fp32), or backend='skewed'"
        )
    if backend == "augmented":
        return obstacle_to_augmented(case)
    if backend == "tiled":
        return obstacle_to_tiled(case)
    return obstacle_to_band(case) if backend == "band" else None


def obstacle_to_augmented(case: Case) -> str | None:
    if case.d_position is None:
        return (
            "backend 'augmented' takes sines of positions apart and needs w_r; it was given a table of distances, which "
            "backend='skewed' takes"
        )
    if case.max_distance is not None and case.max_distance < case.time_k - 1:
        return (
            f"backend 'augmented' writes sin((i - j) omega) as products of i and j, which distances clamped at "
            f"{case.max_distance} are not: backend='skewed' clamps them"
        )
    width = case.d_head + case.d_position
    if case.device == "cuda" and width > FLASH_WIDTH:
        return (
            f"backend 'augmented' makes heads of d_head + d_position = {width} features and torch's flash kernels end at "
            f"{FLASH_WIDTH}: backend='band' takes any d_position, or make d_position at most {FLASH_WIDTH - case.d_head}"
        )
    return None


def obstacle_to_tiled(case: Case) -> str | None:
    if case.device != "cpu":
        return (
            f"backend 'tiled' is made for processors and the tensors are on {case.device}: backend='skewed' runs there"
        )
    if case.dtype not in (torch.float32, torch.bfloat16):
        numbers = str(case.dtype).removeprefix("torch.")
        return f"backend 'tiled' takes float32 and bfloat16 and was given {numbers}: backend='skewed' takes any"
    return None


def obstacle_to_band(case: Case) -> str | None:
    if case.device != "cuda" and not (case.device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return (
            f"backend 'band' is a CUDA kernel and the tensors are on {case.device}: backend='skewed' runs there "
            "(TRITON_INTERPRET=1 runs the kernel on a CPU, step by step, to test it)"
        )
    if not has_triton():
        return "backend 'band' needs the package triton (pip install triton): backend='skewed' does without"
    if case.dtype == torch.float64:
        return "backend 'band' sums in float32 and was given float64: backend='skewed' keeps float64"
    if case.d_head > BAND_WIDTH:
        return (
            f"backend 'band' holds heads of at most {BAND_WIDTH} features and d_head is {case.d_head}: "
            "backend='sdpa' takes wider ones"
        )
    return None


def choose(case: Case) -> str:
    """The backend that `auto` stands for: the table in docs/attention.md."""
    if case.time_q == 1:
        return "math"  # a row of products, which is all that any of them would compute
    traced = torch.compiler.is_compiling()  # then there are no numbers, whose addresses `tiled` needs
    if case.time_k >= WORTH_COMPILING and not traced and obstacle("tiled", case) is None:
        return "tiled"
    return "augmented" if case.device == "cuda" and obstacle("augmented", case) is None else "skewed"


def has_bfloat16() -> bool:
    """Whether the current CUDA device multiplies bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
