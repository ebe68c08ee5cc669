"""Relative attention in blocks of queries: the shift is a view, memory is linear, the backward pass hand-written.

docs/attention.md derives every line. For a block of c queries, the last of which sees n keys, with q̂ = (q + u)/sqrt(d)
and q̄ = (q + v)/sqrt(d):

    X = q̄ [r_{n-1}, ..., r_0, 0, ...]^T,   P = softmax( skew(X) + q̂ K^T ),   Y = P V.

Axes: b batch, h heads, c queries of the block, n keys it sees, d d_head. Internally the head axis comes before the batch,
since a batch shares the head's r: m = h·b.
"""

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from earthworks.gopher.attention.fused import refuse_second_derivative
from earthworks.gopher.attention.positions import visible_keys

BLOCK = 64  # queries handled at once, twice as many from LONG keys on
LONG = 1024
KEEP = 256  # maximum queries whose probabilities are kept for the backward pass; beyond, they are recomputed
SPARE = 16  # columns of zeros after r_0: one is needed, and rows of a multiple of 16 take a third less time
WORK = 2**21  # bytes of logits per thread: small enough for a cache, large enough for Python


def skewed_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Memory b·h·time·d; no logits are kept for the backward pass unless time_q <= KEEP."""
    out: Any = Skewed.apply(q, k, v, table, content_bias, position_bias, key_mask)
    return out


class Skewed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, table, content_bias, position_bias, key_mask = inputs
        batch, heads, time_q, d_head = q.shape
        memory = k.shape[2] - time_q
        scale = 1 / math.sqrt(d_head)
        keys, values, r = head_first(k), head_first(v), reverse(table)
        out = q.new_empty(batch, time_q, heads, d_head)  # in the order in which the next layer reads it
        work = Work(q, k.shape[2])
        saved: list[Tensor | None] = [keys, values, r, key_mask]
        for rows in blocks(time_q, k.shape[2]):
            query = q[:, :, rows].transpose(0, 1)
            qu, qv = (
                torch.add(scale * bias[:, None, None], query, alpha=scale, out=q.new_empty(query.shape)).flatten(0, 1)
                for bias in (content_bias, position_bias)
            )
            n = memory + rows.stop
            kept = q.new_empty(len(qu), rows.stop - rows.start, n) if time_q <= KEEP else None
            block = torch.empty_like(qu)
            for part in parts(qu, n, batch):
                p = probabilities(qu[part], qv[part], keys[part, :n], r, key_mask, part, work, kept)
                block[part] = torch.bmm(p, values[part, :n])
            out[:, rows] = block.unflatten(0, (heads, batch)).permute(1, 2, 0, 3)
            saved += [qu, qv, kept]
        ctx.save_for_backward(*saved)
        ctx.shape, ctx.dtypes = q.shape, (content_bias.dtype, position_bias.dtype)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        refuse_second_derivative("skewed")
        keys, values, r, key_mask, *saved = ctx.saved_tensors
        (batch, heads, time_q, d_head), (grad,) = ctx.shape, grad_outputs
        time_k = keys.shape[1]
        wide = torch.promote_types(grad.dtype, torch.float32)  # sums over blocks; products are rounded to grad.dtype
        dqu, dqv = grad.new_empty(2, heads * batch, time_q, d_head)
        dk, dv = torch.zeros(2, heads * batch, d_head, time_k, dtype=wide, device=grad.device)
        dr = torch.zeros(heads, d_head, r.shape[1], dtype=wide, device=grad.device)
        work = Work(grad, time_k)
        for i, rows in enumerate(blocks(time_q, time_k)):
            qu, qv, kept = saved[3 * i : 3 * i + 3]
            n, c = time_k - time_q + rows.stop, rows.stop - rows.start
            do_block = head_first(grad[:, :, rows])
            for part in parts(qu, n, batch):
                k_part, do, m = keys[part, :n], do_block[part], part.stop - part.start
                if kept is None:
                    p = probabilities(qu[part], qv[part], k_part, r, key_mask, part, work)
                else:
                    p = kept[part]
                ds = torch.bmm(do, values[part, :n].mT, out=work.take(1, m, c, n))
                torch.ops.aten._softmax_backward_data.out(ds, p, -1, p.dtype, grad_input=ds)  # P (dP - sum_j P dP)
                own = slice(part.start // batch, -(-part.stop // batch))  # the heads of this part
                r_part = r[own, reach(n, time_k)]
                x = work.take(0, m, c * r_part.shape[1]).zero_()  # places outside the view are beyond the first key
                skew(x, c)[:, :, :n] = ds
                x = x.view(len(r_part), -1, r_part.shape[1])
                dk[part, :, :n] += torch.bmm(qu[part].mT, ds)
                dv[part, :, :n] += torch.bmm(do.mT, p)
                dr[own, :, reach(n, time_k)] += torch.bmm(qv[part].view(len(r_part), -1, d_head).mT, x)
                dqu[part, rows] = torch.bmm(ds, k_part)
                dqv[part, rows] = torch.bmm(x, r_part).view(m, c, d_head)
        scale = 1 / math.sqrt(d_head)
        du, dw = (
            (scale * x.view(heads, -1, d_head).sum(1, dtype=wide)).to(dtype) for x, dtype in zip((dqu, dqv), ctx.dtypes)
        )
        dq = grad.new_empty(batch, time_q, heads, d_head)
        dqu.add_(dqv)
        torch.mul(dqu.unflatten(0, (heads, batch)), scale, out=dq.permute(2, 0, 1, 3))
        dk, dv = (x.unflatten(0, (heads, batch)).to(grad.dtype).permute(1, 0, 3, 2) for x in (dk, dv))
        dtable = dr[:, :, :time_k].mT.flip(1).to(grad.dtype)
        return dq.transpose(1, 2), dk, dv, dtable, du, dw, None


def probabilities(
    qu: Tensor,
    qv: Tensor,
    keys: Tensor,
    r: Tensor,
    key_mask: Tensor | None,
    part: slice,
    work: "Work",
    kept: Tensor | None = None,
) -> Tensor:
    """P of a block of queries and the n keys that its last query sees, for the heads and sequences `part` of h·b.

    qu, qv (m, c, d), scaled; keys (m, n, d); r (h, time_k + SPARE, d) by `reverse`. Returns (m, c, n), in its part of
    `kept` (h·b, c, n) if given, else in memory that the next part reuses.
    """
    (m, c, d_head), n = qu.shape, keys.shape[1]
    batch = work.batch
    own = slice(part.start // batch, -(-part.stop // batch))
    r = r[own, reach(n, r.shape[1] - SPARE)]
    by_head = qv.view(len(r), -1, d_head)
    x = torch.bmm(by_head, r.mT, out=work.take(0, len(r), by_head.shape[1], r.shape[1]))
    logits = work.take(2, m, c, n) if kept is None else kept[part]
    torch.baddbmm(skew(x.view(m, -1), c)[:, :, :n], qu, keys.mT, out=logits)
    lowest = torch.finfo(logits.dtype).min
    # tril_ and add_ take a third of the time of masked_fill_, and tril_ erases even NaN
    logits[:, :, n - c :].tril_().add_(torch.full((c, c), lowest, dtype=logits.dtype, device=logits.device).triu_(1))
    if key_mask is None:
        return torch.softmax(logits, -1, out=logits)  # for bfloat16 too it is computed in float32, and rounded once
    seen = visible_keys(c, n, key_mask[:, :n], logits.device)[:, 0].repeat(len(r), 1, 1)
    first = part.start % batch
    seen = seen[first : first + m]
    logits.masked_fill_(~seen, lowest)
    return torch.softmax(logits, -1, out=logits).mul_(seen.any(-1, keepdim=True))


def skew(x: Tensor, c: int) -> Tensor:
    """View x (m, c·width), c rows of products with r_{n-1}, ..., r_0 and spare ones, as logits (m, c, width - 1): no copy.

    Query a of the block is n - c + a - j away from key j, so its product is in column c - 1 - a + j: each row
    starts one step further left than the row above. In x that is place a·width + c-1-a + j = (c-1) + a (width - 1) + j:
    a plain matrix with rows of width - 1. Keys j after the query show spare columns or the start of the next row: mask
    them; so does everything from column n on.
    """
    width = x.shape[1] // c
    return x.as_strided((x.shape[0], c, width - 1), (x.stride(0), width - 1, 1), x.storage_offset() + c - 1)


def reverse(table: Tensor) -> Tensor:
    """r_0, ..., r_{n-1} (h, n, d) -> rows r_{n-1}, ..., r_0, 0, ..., 0 (h, n + SPARE, d)."""
    return F.pad(table.flip(1), (0, 0, 0, SPARE))


def reach(n: int, time_k: int) -> slice:
    """The rows r_{n-1}, ..., r_0, plus spare ones up to a multiple of SPARE greater than n."""
    return slice(time_k - n, time_k - n + n // SPARE * SPARE + SPARE)


def head_first(x: Tensor) -> Tensor:
    """(b, h, time, d) -> (h·b, time, d)."""
    return x.transpose(0, 1).reshape(-1, *x.shape[2:])


def blocks(time_q: int, time_k: int) -> list[slice]:
    """The rows of each block of queries."""
    size = BLOCK if time_k < LONG else 2 * BLOCK
    return [slice(start, min(start + size, time_q)) for start in range(0, time_q, size)]


def parts(block: Tensor, n: int, batch: int) -> Iterator[slice]:
    """Parts of h·b whose logits are computed at once: several heads of all sequences, or some sequences of one head."""
    num, c, _ = block.shape
    at_once = max(1, in_hand(block) // (c * (n + SPARE)))
    if at_once >= batch:
        step = at_once // batch * batch
        return (slice(start, min(start + step, num)) for start in range(0, num, step))
    return (
        slice(start, min(start + at_once, first + batch))
        for first in range(0, num, batch)
        for start in range(first, first + batch, at_once)
    )


def in_hand(like: Tensor) -> int:
    """Number of logits to work on at once: as many as the threads' caches hold, or all of them on an accelerator."""
    if like.device.type != "cpu":
        return sys.maxsize
    return torch.get_num_threads() * WORK // like.element_size()


class Work:
    """Three reused buffers for the logits of a part: fresh memory pages would cost more than the products."""

    def __init__(self, like: Tensor, time_k: int):
        self.batch, heads, time_q, _ = like.shape
        row = blocks(time_q, time_k)[0].stop * (time_k + SPARE)
        size = min(self.batch * heads * row, max(in_hand(like), row))
        self.buffers = [like.new_empty(size) for _ in range(3)]

    def take(self, index: int, *shape: int) -> Tensor:
        """The start of a buffer in that shape, uninitialised."""
        return self.buffers[index][: math.prod(shape)].view(shape)
