"""Relative attention in blocks of queries: the shift is a view, memory is linear, the backward pass is by hand.

docs/attention.md derives every line. For a block of c queries, the last of which sees n keys, with q̂ = (q + u)/sqrt(d)
and q̄ = (q + v)/sqrt(d):

    X = q̄ [r_{n-1}, ..., r_0, 0, ...],   P = softmax( skew(X) + q̂ K^T ),   Y = P V.

Axes: b batch, h heads, c queries of the block, n keys it sees, d d_head. Inside, a head comes before its batch, since
they share its r: m = h·b.
"""

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from earthworks.gopher.attention_fused import refuse_second_derivative
from earthworks.gopher.positions import visible_keys

BLOCK = 64  # queries handled at once
KEEP = 256  # up to so many queries the probabilities are kept for the backward pass; beyond, they are computed again
SPARE = 16  # columns of zeros after r_0: one is needed, and rows of a multiple of 16 are multiplied a third sooner
WORK = 2**19  # bytes of logits that a thread has in hand: three such buffers stay in its cache


def skewed_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Memory b·h·time·d, nothing of the logits kept for the backward pass unless time_q <= KEEP."""
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
        for rows in blocks(time_q):
            query = q[:, :, rows].transpose(0, 1)
            qu, qv = (
                torch.add(scale * bias[:, None, None], query, alpha=scale, out=q.new_empty(query.shape))
                for bias in (content_bias, position_bias)
            )
            n = memory + rows.stop
            kept = q.new_empty(heads, batch, rows.stop - rows.start, n) if time_q <= KEEP else None
            for part in parts(qu, n):
                p = probabilities(qu, qv, keys, r, n, key_mask, part, work, kept)
                block = torch.bmm(p, values[part][:, :, :n].flatten(0, 1))
                out[part[1], rows, part[0]] = block.view(qu[part].shape).permute(1, 2, 0, 3)
            saved += [qu, qv, kept]
        ctx.save_for_backward(*saved)
        ctx.shape, ctx.dtypes = q.shape, (content_bias.dtype, position_bias.dtype)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        refuse_second_derivative("skewed")
        keys, values, r, key_mask, *saved = ctx.saved_tensors
        (batch, heads, time_q, d_head), (grad,) = ctx.shape, grad_outputs
        time_k = keys.shape[2]
        wide = torch.promote_types(grad.dtype, torch.float32)  # sums over blocks; products are rounded to grad.dtype
        dq = grad.new_empty(batch, time_q, heads, d_head)
        dk, dv = torch.zeros(2, heads, batch, d_head, time_k, dtype=wide, device=grad.device)
        dr = torch.zeros_like(r, dtype=wide)
        du, dw = torch.zeros(2, heads, d_head, dtype=wide, device=grad.device)
        work = Work(grad, time_k)
        for i, rows in enumerate(blocks(time_q)):
            qu, qv, kept = saved[3 * i : 3 * i + 3]
            n, c = time_k - time_q + rows.stop, rows.stop - rows.start
            do_block = head_first(grad[:, :, rows])
            for part in parts(qu, n):
                q_part, k_part, v_part, do = (
                    x.flatten(0, 1) for x in (qu[part], keys[part][:, :, :n], values[part][:, :, :n], do_block[part])
                )
                qv_part, r_part = qv[part].flatten(1, 2), r[part[0], :, reach(n, time_k)]
                if kept is None:
                    p = probabilities(qu, qv, keys, r, n, key_mask, part, work)
                else:
                    p = kept[part].flatten(0, 1)
                ds = torch.bmm(do, v_part.mT, out=work.take(1, len(do), c, n))
                torch.ops.aten._softmax_backward_data.out(ds, p, -1, p.dtype, grad_input=ds)  # P (dP - sum_j P dP)
                x = work.take(0, len(do), c * r_part.shape[2])
                shifted = skew(x, c)
                shifted[:, :, :n] = ds
                shifted[:, :, n:] = 0  # the spare columns,
                x[:, : c - 1] = 0  # and what the view leaves out: distances beyond the first key,
                x[:, -1] = 0  # and the very last place
                x = x.view(len(qv_part), -1, r_part.shape[2])
                add_product(dk[part][..., :n].flatten(0, 1), q_part.mT, ds)
                add_product(dv[part][..., :n].flatten(0, 1), do.mT, p)
                add_product(dr[part[0], :, reach(n, time_k)], qv_part.mT, x)
                dqu = torch.bmm(ds, k_part).view(qu[part].shape)
                dqv = torch.bmm(x, r_part.mT).view(qu[part].shape)
                du[part[0]] += dqu.sum((1, 2), dtype=wide)
                dw[part[0]] += dqv.sum((1, 2), dtype=wide)
                torch.add(dqu, dqv, out=dq[part[1], rows, part[0]].permute(2, 0, 1, 3))
        scale = 1 / math.sqrt(d_head)
        dk, dv = (x.to(grad.dtype).permute(1, 0, 3, 2) for x in (dk, dv))
        dtable = dr[:, :, :time_k].mT.flip(1).to(grad.dtype)
        du, dw = ((scale * bias).to(dtype) for bias, dtype in zip((du, dw), ctx.dtypes))
        return dq.mul_(scale).transpose(1, 2), dk, dv, dtable, du, dw, None


def probabilities(
    qu: Tensor,
    qv: Tensor,
    keys: Tensor,
    r: Tensor,
    n: int,
    key_mask: Tensor | None,
    part: tuple[slice, slice],
    work: "Work",
    kept: Tensor | None = None,
) -> Tensor:
    """P of a block of queries and the first n keys, the last of them the last query's own, for some heads and sequences.

    qu, qv (h, b, c, d), scaled; keys (h, b, time_k, d); r (h, d, time_k + SPARE) by `reverse`. Returns (m, c, n), in `kept`
    (h, b, c, n) if given, else in memory that the next block will use again.
    """
    qu, qv, keys = qu[part].flatten(0, 1), qv[part].flatten(1, 2), keys[part][:, :, :n].flatten(0, 1)
    m, c, _ = qu.shape
    r = r[part[0], :, reach(n, r.shape[2] - SPARE)]
    x = torch.bmm(qv, r, out=work.take(0, len(qv), qv.shape[1], r.shape[2]))
    logits = work.take(2, m, c, n) if kept is None else kept[part].flatten(0, 1)
    torch.baddbmm(skew(x.view(m, -1), c)[:, :, :n], qu, keys.mT, out=logits)
    lowest = torch.finfo(logits.dtype).min
    # tril_ and add_ take a third of the time of masked_fill_, and tril_ erases even NaN
    logits[:, :, n - c :].tril_().add_(torch.full((c, c), lowest, dtype=logits.dtype, device=logits.device).triu_(1))
    by_head = logits.view(len(qv), -1, c, n)
    if key_mask is not None:
        by_head.masked_fill_(~key_mask[part[1], None, :n], lowest)
    torch.softmax(logits, -1, out=logits)  # of bfloat16 too it is formed in float32, and rounded once
    if key_mask is not None:
        by_head.mul_(visible_keys(c, n, key_mask[part[1], :n], logits.device).any(-1, keepdim=True).transpose(0, 1))
    return logits


def skew(x: Tensor, c: int) -> Tensor:
    """View x (m, c·width), c rows of products with r_{n-1}, ..., r_0 and spare ones, as logits (m, c, width - 1): no copy.

    Query a of the block is n - c + a - j away from key j, so its product stands in column c - 1 - a + j: each row
    starts one step further left than the row above. In x that is place a·width + c-1-a + j = (c-1) + a (width - 1) + j:
    a plain matrix with rows of width - 1. Keys j after the query show spare columns or the start of the next row: mask
    them; so does everything from column n on.
    """
    width = x.shape[1] // c
    return x.as_strided((x.shape[0], c, width - 1), (x.stride(0), width - 1, 1), x.storage_offset() + c - 1)


def reverse(table: Tensor) -> Tensor:
    """r_0, ..., r_{n-1} (h, n, d) -> columns r_{n-1}, ..., r_0, 0, ..., 0 (h, d, n + SPARE)."""
    return F.pad(table.flip(1), (0, 0, 0, SPARE)).mT.contiguous()


def reach(n: int, time_k: int) -> slice:
    """The columns r_{n-1}, ..., r_0, and the spare ones that make their number a multiple of SPARE and more than n."""
    return slice(time_k - n, time_k - n + n // SPARE * SPARE + SPARE)


def add_product(sums: Tensor, a: Tensor, b: Tensor) -> None:
    """sums += a b. For bfloat16 the sums are float32 and the product is rounded before it is added."""
    if sums.dtype == a.dtype:
        sums.baddbmm_(a, b)
    else:
        sums += torch.bmm(a, b).to(sums.dtype)


def head_first(x: Tensor) -> Tensor:
    """(b, h, time, d) -> (h, b, time, d), contiguous."""
    return x.transpose(0, 1).contiguous()


def blocks(time_q: int) -> list[slice]:
    """The rows of each block of queries."""
    return [slice(start, min(start + BLOCK, time_q)) for start in range(0, time_q, BLOCK)]


def parts(block: Tensor, n: int) -> Iterator[tuple[slice, slice]]:
    """Heads and sequences whose logits are in hand at once: several heads of all sequences, or some sequences of one."""
    heads, batch, c, _ = block.shape
    at_once = max(1, in_hand(block) // (c * (n + SPARE)))
    some, of_them = max(1, at_once // batch), min(batch, at_once)
    for head in range(0, heads, some):
        for sequence in range(0, batch, of_them):
            yield slice(head, head + some), slice(sequence, sequence + of_them)


def in_hand(like: Tensor) -> int:
    """How many logits to work on at once: what the threads' caches hold, and on an accelerator all there are."""
    if like.device.type != "cpu":
        return sys.maxsize
    return torch.get_num_threads() * WORK // like.element_size()


class Work:
    """Three buffers for the logits in hand, made once: the pages of fresh memory cost more than the products do."""

    def __init__(self, like: Tensor, time_k: int):
        batch, heads, time_q, _ = like.shape
        row = min(BLOCK, time_q) * (time_k + SPARE)
        size = min(batch * heads * row, max(in_hand(like), row))
        self.buffers = [like.new_empty(size) for _ in range(3)]

    def take(self, index: int, *shape: int) -> Tensor:
        """The beginning of a buffer in that shape, with whatever it holds."""
        return self.buffers[index][: math.prod(shape)].view(shape)
