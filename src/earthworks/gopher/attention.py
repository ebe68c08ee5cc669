"""Transformer-XL relative attention (Dai et al. 2019, section 3.3), as Gopher uses it, in memory linear in the context.

For one head, query i sees the keys j <= i with the logit

    A_ij = [ (q_i + u)·k_j + (q_i + v)·r_{i-j} ] / sqrt(d_head),    r_Delta = w_r S(Delta),
    S(Delta) = [sin(Delta omega), cos(Delta omega)],                omega_m = 10000^(-2m / d_position).

u is the content bias and v the position bias; values carry no position. Two backends compute this same function:
`math` says it as above, `skewed` computes it block by block. docs/attention.md derives the second from the first.

Axes: b batch, h heads, i queries, j keys, d d_head, n distances. The last axis of the others is written in words.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from earthworks.runs import EarthworksError

BASE = 10000.0  # of the wavelengths, Vaswani et al. 2017, section 3.5; kept by Dai et al. 2019
BLOCK = 64  # queries handled at once by `skewed`
KEEP = 256  # up to so many queries `skewed` keeps its probabilities for the backward pass; beyond, it recomputes them


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
    backend: "math" (autograd, any order of derivative, torch.func; memory time_q x time_k), "skewed" (first
    derivative only; memory linear in time_k), "auto" ("math" for a single query, as in decoding; else "skewed").

    Returns (batch, heads, time_q, d_head). The softmax is taken in float32 (float64 for float64 inputs); matrix
    products in the dtype of q, or of autocast where that is on. Raises EarthworksError for an unknown backend, for a
    table too short for the distances in reach, and for a second derivative through "skewed".
    """
    if backend not in ("auto", *BACKENDS):
        raise EarthworksError(f"unknown attention backend {backend!r}: choose one of auto, {', '.join(BACKENDS)}")
    time_q, time_k = q.shape[2], k.shape[2]
    if time_q > time_k:
        raise EarthworksError(f"{time_q} queries were given for {time_k} keys: queries are the last of the keys")
    device = q.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else q.dtype
    with torch.autocast(device, enabled=False):
        if table is None:
            if w_r is None:
                raise EarthworksError("give w_r or table: attention without positions is causal_attention(q, k, v)")
            table = position_table(w_r.to(dtype), time_k, max_distance)
        else:
            table = rows_in_reach(table, time_k, max_distance)
        q, k, v, table = q.to(dtype), k.to(dtype), v.to(dtype), table.to(dtype)
        if backend == "auto":
            backend = "math" if time_q == 1 else "skewed"
        return BACKENDS[backend](q, k, v, table, content_bias, position_bias, key_mask)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """softmax_j( q_i·k_j / sqrt(d_head) ) v_j over the keys j <= i: no positions. Shapes as in `relative_attention`."""
    time_q, time_k = q.shape[2], k.shape[2]
    if key_mask is None and time_q in (1, time_k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=time_q > 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible_keys(time_q, time_k, key_mask, q.device))


def sinusoid(distances: Tensor, d_position: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """S(Delta) = [sin(Delta omega), cos(Delta omega)], omega_m = 10000^(-2m / d_position), m < d_position / 2.

    distances (n,), of any real dtype -> (n, d_position) of `dtype`, on the same device. Angles are formed in float64
    and only sine and cosine are rounded: the error of float32 angles grows with Delta. Raises EarthworksError when
    d_position is odd.
    """
    if d_position % 2:
        raise EarthworksError(f"d_position is {d_position} and must be even: a sine and a cosine for each frequency")
    device = "cpu" if distances.device.type == "mps" else distances.device  # Apple's GPUs have no float64
    omega = BASE ** (-torch.arange(0, d_position, 2, dtype=torch.float64, device=device) / d_position)
    angles = distances.to(device, torch.float64)[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(distances.device, dtype)


def position_table(w_r: Tensor, num_distances: int, max_distance: int | None = None) -> Tensor:
    """r_Delta = w_r S(min(Delta, max_distance)) for Delta = 0, ..., num_distances - 1.

    w_r (heads, d_head, d_position) -> (heads, num_distances, d_head), differentiable in w_r. Projected once per layer,
    it serves a whole generation as `table`. Cost: num_distances·heads·d_head·d_position multiplications.
    """
    heads, d_head, d_position = w_r.shape
    farthest = num_distances - 1 if max_distance is None else max_distance
    distances = torch.arange(num_distances, device=w_r.device).clamp(max=farthest)
    r = F.linear(sinusoid(distances, d_position, w_r.dtype), w_r.reshape(heads * d_head, d_position))
    return r.view(num_distances, heads, d_head).transpose(0, 1)


def rows_in_reach(table: Tensor, time_k: int, max_distance: int | None) -> Tensor:
    """The rows r_min(Delta, max_distance), Delta < time_k, of a table that may be longer than needed."""
    farthest = time_k - 1 if max_distance is None else min(time_k - 1, max_distance)
    if farthest >= table.shape[1]:
        raise EarthworksError(
            f"the position table holds {table.shape[1]} distances and {farthest + 1} are in reach: "
            f"make it with position_table(w_r, {farthest + 1})"
        )
    if farthest == time_k - 1:
        return table[:, :time_k]
    return table[:, torch.arange(time_k, device=table.device).clamp(max=farthest)]


def visible_keys(time_q: int, time_k: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """True where query i, of the last time_q of time_k, sees key j: (time_q, time_k) or (b, 1, time_q, time_k)."""
    causal = torch.ones(time_q, time_k, dtype=torch.bool, device=device).tril(time_k - time_q)
    return causal if key_mask is None else causal & key_mask[:, None, None, :]


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 whatever the activations are; float64 stays."""
    return torch.promote_types(dtype, torch.float32)


# math: the formula as it stands, by autograd


def math_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Every step can be differentiated any number of times. Keeps several tensors of b·h·time_q·time_k numbers."""
    time_q, time_k, d_head = q.shape[2], k.shape[2], q.shape[3]
    content = (q + content_bias[:, None]).to(q.dtype) @ k.mT
    by_distance = (q + position_bias[:, None]).to(q.dtype) @ table.mT
    positions = torch.arange(time_k, device=q.device)
    distance = (positions[time_k - time_q :, None] - positions).clamp(min=0)
    position = by_distance.gather(-1, distance.expand_as(by_distance))
    logits = ((content + position) / math.sqrt(d_head)).to(softmax_dtype(q.dtype))
    hidden = ~visible_keys(time_q, time_k, key_mask, q.device)
    # The lowest finite number, not -inf: the softmax of a row that sees no key is then finite, and erased below.
    p = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(-1)
    if key_mask is not None:
        p = p.masked_fill(hidden, 0.0)
    return p.to(v.dtype) @ v


# skewed: blocks of queries, the shift as a view, the backward pass by hand


class Skewed(torch.autograd.Function):
    """The same function, BLOCK queries at a time. Inside, a head comes before its batch (they share its r): m = h·b."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, table, content_bias, position_bias, key_mask = inputs
        batch, heads, time_q, d_head = q.shape
        memory = k.shape[2] - time_q
        scale = 1 / math.sqrt(d_head)
        keys, values, r = head_first(k), head_first(v), reverse(table)
        out = q.new_empty(batch, time_q, heads, d_head)  # in the order in which the next layer reads it
        saved: list[Tensor | None] = [keys, values, r, key_mask]
        for rows in blocks(time_q):
            query = q[:, :, rows].transpose(0, 1)
            qu, qv = (
                torch.add(scale * bias[:, None, None], query, alpha=scale, out=q.new_empty(query.shape)).flatten(0, 1)
                for bias in (content_bias, position_bias)
            )
            p = probabilities(qu, qv, keys, r, memory + rows.stop, key_mask)
            block = torch.bmm(p.to(v.dtype), values[:, : memory + rows.stop])
            out[:, rows] = block.unflatten(0, (heads, batch)).permute(1, 2, 0, 3)
            saved += [qu, qv, p if time_q <= KEEP else None]
        ctx.save_for_backward(*saved)
        ctx.shape, ctx.dtypes = q.shape, (content_bias.dtype, position_bias.dtype)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if torch.is_grad_enabled():
            raise EarthworksError(
                "attention backend 'skewed' has a first derivative only; for higher ones: backend='math'"
            )
        keys, values, r, key_mask, *saved = ctx.saved_tensors
        (batch, heads, time_q, d_head), (grad,) = ctx.shape, grad_outputs
        memory = keys.shape[1] - time_q
        dq = grad.new_empty(batch, time_q, heads, d_head)
        dk, dv, dr = torch.zeros_like(keys), torch.zeros_like(values), torch.zeros_like(r)
        du, dw = torch.zeros(2, heads, d_head, dtype=softmax_dtype(grad.dtype), device=grad.device)
        for i, rows in enumerate(blocks(time_q)):
            qu, qv, p = saved[3 * i : 3 * i + 3]
            n = memory + rows.stop
            if p is None:
                p = probabilities(qu, qv, keys, r, n, key_mask)
            do = head_first(grad[:, :, rows])
            dp = torch.bmm(do, values[:, :n].mT).to(p.dtype)
            x = torch.empty(heads * batch, dp.shape[1] * (n + 1), dtype=grad.dtype, device=grad.device)
            ds = skew(x, dp.shape[1], n)
            ds.copy_(torch._softmax_backward_data(dp, p, -1, p.dtype))  # dS = P (dP - sum_j P dP)
            x[:, : dp.shape[1] - 1] = 0  # what the view leaves out: distances beyond the first key,
            x[:, -1] = 0  # and the last spare column
            x = x.view(heads, -1, n + 1)
            dqu = torch.bmm(ds, keys[:, :n]).unflatten(0, (heads, batch))
            dqv = torch.bmm(x, r[:, :, -(n + 1) :].mT).view_as(dqu)
            dk[:, :n] += torch.bmm(ds.mT, qu)
            dv[:, :n] += torch.bmm(p.to(do.dtype).mT, do)
            dr[:, :, -(n + 1) :] += torch.bmm(qv.view(heads, -1, d_head).mT, x)
            du += dqu.sum((1, 2), dtype=du.dtype)
            dw += dqv.sum((1, 2), dtype=dw.dtype)
            torch.add(dqu, dqv, out=dq[:, rows].permute(2, 0, 1, 3))
        scale = 1 / math.sqrt(d_head)
        dk, dv = (x.unflatten(0, (heads, batch)).transpose(0, 1) for x in (dk, dv))
        du, dw = ((scale * bias).to(dtype) for bias, dtype in zip((du, dw), ctx.dtypes))
        return dq.mul_(scale).transpose(1, 2), dk, dv, dr[:, :, :-1].mT.flip(1), du, dw, None


def probabilities(qu: Tensor, qv: Tensor, keys: Tensor, r: Tensor, n: int, key_mask: Tensor | None) -> Tensor:
    """softmax of (q+u)·k + (q+v)·r for a block of queries and the first n keys, the last of them the last query's own.

    qu, qv (m, c, d), scaled; keys (m, time_k, d); r (h, d, time_k + 1) by `reverse`. Returns (m, c, n).
    """
    m, c, d_head = qu.shape
    heads = r.shape[0]
    by_distance = torch.bmm(qv.view(heads, -1, d_head), r[:, :, -(n + 1) :])
    logits = torch.baddbmm(skew(by_distance.view(m, -1), c, n), qu, keys[:, :n].mT)
    lowest = torch.finfo(logits.dtype).min
    # tril_ and add_ take a third of the time of masked_fill_, and tril_ erases even NaN
    logits[:, :, n - c :].tril_().add_(torch.full((c, c), lowest, dtype=logits.dtype, device=logits.device).triu_(1))
    if key_mask is not None:
        logits.view(heads, -1, c, n).masked_fill_(~key_mask[:, None, :n], lowest)
    logits = logits.to(softmax_dtype(logits.dtype))
    p = torch.softmax(logits, -1, out=logits)
    if key_mask is not None:
        sees_any = visible_keys(c, n, key_mask[:, :n], p.device).any(-1, keepdim=True)
        p.view(heads, -1, c, n).mul_(sees_any.transpose(0, 1))
    return p


def skew(x: Tensor, c: int, n: int) -> Tensor:
    """View x (m, c·(n+1)), c rows of products with r_{n-1}, ..., r_0 and 0, as logits (m, c, n): no copy.

    Query a of the block is n - c + a - j away from key j, so its product stands in column c - 1 - a + j: each row
    starts one step further left than the row above. In x that is place a(n+1) + c-1-a + j = (c-1) + a·n + j: a plain
    matrix of row length n. Keys j after the query show the spare column or the start of the next row: mask them.
    """
    return x.as_strided((x.shape[0], c, n), (x.stride(0), n, 1), x.storage_offset() + c - 1)


def reverse(table: Tensor) -> Tensor:
    """r_0, ..., r_{n-1} (h, n, d) -> columns r_{n-1}, ..., r_0, 0 (h, d, n+1): the last n'+1 serve any n' <= n keys."""
    return F.pad(table.flip(1), (0, 0, 0, 1)).mT.contiguous()


def head_first(x: Tensor) -> Tensor:
    """(b, h, time, d) -> (h·b, time, d)."""
    return x.transpose(0, 1).reshape(-1, *x.shape[2:])


def blocks(time_q: int) -> list[slice]:
    """The rows of each block of queries, last block first: each then fits into the memory that the one before freed."""
    return [slice(start, min(start + BLOCK, time_q)) for start in reversed(range(0, time_q, BLOCK))]


def skewed_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Memory b·h·BLOCK·time_k, and nothing of it kept for the backward pass unless time_q <= KEEP."""
    out: Any = Skewed.apply(q, k, v, table, content_bias, position_bias, key_mask)
    return out


BACKENDS = {"math": math_attention, "skewed": skewed_attention}
