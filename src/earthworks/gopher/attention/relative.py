"""Transformer-XL relative attention (Dai et al. 2019, section 3.3), as Gopher uses it, in memory linear in the context.

For one head, query i sees the keys j <= i with the logit

    A_ij = [ (q_i + u)·k_j + (q_i + v)·r_{i-j} ] / sqrt(d_head),    r_Delta = w_r S(Delta),
    S(Delta) = [sin(Delta omega), cos(Delta omega)],                omega_m = 10000^(-2m / d_position).

u is the content bias and v the position bias; values carry no position. Six backends compute this same function:

    math        the formula itself, below                    memory time_q x time_k, any order of derivative
    skewed      blocks of queries (skewed.py)      linear memory, every device
    tiled       compiled for processors (cpu_tiled.py) linear memory, float32 and bfloat16
    augmented   plain flash attention of longer vectors      linear memory, for a narrow d_position (fused.py)
    sdpa        position term as an additive mask            memory time_q x time_k, torch's fused kernels (the same file)
    band        a Triton kernel (triton_band.py)          linear memory, CUDA

docs/attention.md derives them from one another and lists what `auto` selects.
"""

import math

import torch
from torch import Tensor

from earthworks.gopher.attention.choice import Case, choose, obstacle
from earthworks.gopher.attention.cpu_tiled import tiled_attention
from earthworks.gopher.attention.fused import augmented_attention, sdpa_attention
from earthworks.gopher.attention.fused import causal_attention as causal_attention
from earthworks.gopher.attention.positions import position_table as position_table
from earthworks.gopher.attention.positions import rows_in_reach, visible_keys
from earthworks.gopher.attention.skewed import skewed_attention
from earthworks.runs import EarthworksError


def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w_r: Tensor | None,
    content_bias: Tensor,
    position_bias: Tensor,
    *,
    table: Tensor | None = None,
    key_mask: Tensor | None = None,
    backend: str = "auto",
    max_distance: int | None = None,
) -> Tensor:
    """softmax_j( [ (q_i + u)·k_j + (q_i + v)·r_{i-j} ] / sqrt(d_head) ) v_j, over the keys j <= i.

    q (batch, heads, time_q, d_head): the last time_q of the time_k positions of k and v (batch, heads, time_k, d_head).
    w_r (heads, d_head, d_position), d_position even; content_bias u and position_bias v (heads, d_head).
    table (heads, distances, d_head): r_Delta for Delta = 0, 1, ..., replaces w_r (see `position_table`).
    key_mask (batch, time_k), bool, True = attend; a query that sees no key gives zeros.
    max_distance: Delta is clamped to min(Delta, max_distance).
    backend: "auto", or one of those at the head of this file. Only "math" can be differentiated twice and used with
    torch.func.

    Returns (batch, heads, time_q, d_head). The softmax is computed in float32 (float64 for float64 inputs); matrix
    products in the dtype of q, or of autocast where that is on. Raises EarthworksError, naming a backend that works,
    where the requested one does not: "tiled" on a GPU or in float64; "augmented" with clamped distances, a table, or on CUDA
    more than 256 features a head; "band" without CUDA or Triton, in float64, or with d_head > 128; a second derivative
    through any but "math"; bfloat16 on a GPU without it. Also for an unknown backend and for a table too short for the
    distances in reach.
    """
    if backend not in ("auto", *BACKENDS):
        raise EarthworksError(f"unknown attention backend {backend!r}: choose one of auto, {', '.join(BACKENDS)}")
    time_q, time_k = q.shape[2], k.shape[2]
    if time_q > time_k:
        raise EarthworksError(f"{time_q} queries were given for {time_k} keys; give at most as many queries as keys")
    if table is None and w_r is None:
        raise EarthworksError("give w_r or table: attention without positions is causal_attention(q, k, v)")
    device = q.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q.dtype
    d_position = None if table is not None or w_r is None else w_r.shape[2]
    case = Case(device, dtype, time_q, time_k, q.shape[3], d_position, max_distance)
    if backend == "auto":
        backend = choose(case)
    elif reason := obstacle(backend, case):
        raise EarthworksError(reason)
    with torch.autocast(device, enabled=False):
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        if backend == "augmented":
            assert w_r is not None
            return augmented_attention(q, k, v, w_r, content_bias, position_bias, key_mask)
        if table is not None:
            table = rows_in_reach(table, time_k, max_distance)
        else:
            assert w_r is not None
            table = position_table(w_r.to(dtype), time_k, max_distance)
        return BACKENDS[backend](q, k, v, table.to(dtype), content_bias, position_bias, key_mask)


def math_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Differentiable to any order. Keeps several tensors of b·h·time_q·time_k numbers."""
    time_q, time_k, d_head = q.shape[2], k.shape[2], q.shape[3]
    content = (q + content_bias[:, None]).to(q.dtype) @ k.mT
    by_distance = (q + position_bias[:, None]).to(q.dtype) @ table.mT
    positions = torch.arange(time_k, device=q.device)
    distance = (positions[time_k - time_q :, None] - positions).clamp(min=0)
    position = by_distance.gather(-1, distance.expand_as(by_distance))
    logits = ((content + position) / math.sqrt(d_head)).to(torch.promote_types(q.dtype, torch.float32))
    hidden = ~visible_keys(time_q, time_k, key_mask, q.device)
    # The lowest finite number, not -inf: the softmax of a row that sees no key is then finite, and zeroed below.
    p = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(-1)
    if key_mask is not None:
        p = p.masked_fill(hidden, 0.0)
    return p.to(v.dtype) @ v


def band_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    from earthworks.gopher.attention.triton_band import banded  # imports Triton, needed only here

    return banded(q, k, v, table, content_bias, position_bias, key_mask)


BACKENDS = {
    "math": math_attention,
    "skewed": skewed_attention,
    "tiled": tiled_attention,
    "augmented": augmented_attention,
    "sdpa": sdpa_attention,
    "band": band_attention,
}
