# type: ignore
"""Relative attention as one Triton kernel forward and three backward; nothing of time x time is ever written.

A tile of B queries and B keys, `distance` apart at its corner, meets 2B - 1 distances: the tile's *band*, 2B rows of r.
Query a of the tile is distance + a - b from key b, so with the band starting at distance - (B - 1)

    products = (q + v) band^T      (B, 2B)          position[a, b] = products[a, B - 1 + a - b]      `shear`

which is a `tl.gather` along rows inside the tile. The rest is flash attention (Dao 2023): online softmax, its log-sum-exp
kept, P recomputed in the backward pass from the same band. There a tile adds dS K to dq, dS^T (q + u) to dk and
unshear(dS)^T (q + v) to the band of dr. Each sum has its own kernel, which walks the tiles that share the sum: `rows` of
tiles for dq, `columns` for dk and dv, `diagonals` for dr, on which all tiles have one band. So no two programs add to one
place, and the answer is the same each time.

Products in the dtype of the tensors, sums in float32. Imported only when asked for: it needs Triton.

Axes: B queries or keys of a tile, D d_head rounded up to a power of two (at least 16); bh = batch x heads.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from earthworks.gopher.attention.fused import erase_hidden, refuse_second_derivative

TILE = {2: 64, 4: 32}  # B by bytes of a number: two operands of (B, D) and a band of (2B, D) stay in shared memory


def banded(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Work per tile: the products of a plain flash kernel, q k^T and p v, and one of twice their size for the band."""
    out: Any = Band.apply(q, k, v, table, content_bias, position_bias, key_mask)
    return out


class Band(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, table, content_bias, position_bias, key_mask = inputs
        if key_mask is not None:
            k, v = erase_hidden(k, key_mask), erase_hidden(v, key_mask)
        given = [x.contiguous() for x in (q, k, v, table, content_bias.float(), position_bias.float())]
        seen = given[0] if key_mask is None else key_mask.to(torch.int8).contiguous()  # without a mask it is not read
        out = torch.empty_like(given[0])
        log_sum = q.new_empty(q.shape[:3], dtype=torch.float32)
        launch(forward_rows, q, k, -(-q.shape[2] // tile(q)), key_mask, *given, seen, out, log_sum)
        ctx.save_for_backward(*given, key_mask, seen, out, log_sum)
        ctx.dtypes = content_bias.dtype, position_bias.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        refuse_second_derivative("band")
        *given, key_mask, seen, out, log_sum = ctx.saved_tensors
        q, k, v, table = given[:4]
        batch, heads, time_q, d_head = q.shape
        time_k, memory, size = k.shape[2], k.shape[2] - time_q, tile(q)
        grad = grad_outputs[0].contiguous()
        delta = (grad.float() * out.float()).sum(-1)
        num_rows, num_columns = -(-time_q // size), -(-time_k // size)
        extra = -(-memory // size)  # diagonals that start in the memory
        num_diagonals = num_rows + extra

        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dbias = q.new_empty(2, batch, heads, num_rows, d_head, dtype=torch.float32)
        dband = q.new_empty(batch, heads, num_diagonals, 2, size, d_head, dtype=torch.float32)
        common = (*given, seen, grad, log_sum, delta)
        launch(backward_rows, q, k, num_rows, key_mask, *common, dq, dbias[0], dbias[1])
        launch(backward_columns, q, k, num_columns, key_mask, *common, dk, dv)
        launch(backward_diagonals, q, k, num_diagonals, key_mask, *common, dband)

        du, dw = (x.sum((0, 2)).to(dtype) for x, dtype in zip(dbias, ctx.dtypes))
        # Bands of neighbouring diagonals overlap by half: B - 1 distances before the corner's, and B from it on.
        near, far = dband.sum(0).unbind(2)
        by_distance = dband.new_zeros(heads, num_diagonals + 1, size, d_head)
        by_distance[:, :-1] += near
        by_distance[:, 1:] += far
        first = extra * size + size - 1 - memory
        dtable = by_distance.flatten(1, 2)[:, first : first + time_k].to(table.dtype)
        return dq, dk, dv, dtable, du, dw, None


def tile(like: Tensor) -> int:
    return TILE[like.element_size()]


def launch(kernel: Any, q: Tensor, k: Tensor, num_programs: int, key_mask: Tensor | None, *tensors: Tensor) -> None:
    batch, heads, time_q, d_head = q.shape
    B, D = tile(q), max(16, triton.next_power_of_2(d_head))
    kernel[(num_programs, batch * heads)](
        *tensors,
        heads,
        time_q,
        k.shape[2],
        d_head,
        1 / math.sqrt(d_head),
        MASKED=key_mask is not None,
        B=B,
        D=D,
        num_warps=B // 8,  # with half as many, the registers of a 64 x 128 product spill
        num_stages=2,
    )


# parts of a tile


@triton.jit
def load_rows(matrix, first, num_rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows first, ..., first + ROWS - 1 of a (num_rows, width) matrix, with zeros where it ends."""
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = ((rows >= 0) & (rows < num_rows))[:, None] & (columns < width)[None, :]
    return tl.load(matrix + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(matrix, x, first, num_rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    tl.store(matrix + rows[:, None] * width + columns[None, :], x.to(matrix.dtype.element_ty), mask=inside)


@triton.jit
def load_queries(q, u, w, first, time_q, d_head, B: tl.constexpr, D: tl.constexpr):
    """q + u and q + v of a tile, in the dtype of q. Rows after the last query hold the biases alone."""
    columns = tl.arange(0, D)
    query = load_rows(q, first, time_q, d_head, B, D)
    content_bias = tl.load(u + columns, mask=columns < d_head, other=0.0)
    position_bias = tl.load(w + columns, mask=columns < d_head, other=0.0)
    return (query + content_bias[None, :]).to(query.dtype), (query + position_bias[None, :]).to(query.dtype)


@triton.jit
def shear(products, B: tl.constexpr):
    """Products by distance (B, 2B), as a tile of keys (B, B): [a, B - 1 + a - b] moves to [a, b]."""
    a = tl.arange(0, B)
    return tl.gather(products, (B - 1) + a[:, None] - a[None, :], 1)


@triton.jit
def unshear(x, B: tl.constexpr):
    """The transpose of `shear`: [a, b] moves to [a, B - 1 + a - b], with zeros elsewhere."""
    b = (B - 1) + tl.arange(0, B)[:, None] - tl.arange(0, 2 * B)[None, :]
    inside = (b >= 0) & (b < B)
    return tl.where(inside, tl.gather(x, tl.where(inside, b, 0), 1), 0.0)


@triton.jit
def tile_logits(qu, qv, key, band, seen, first_key, distance, time_k, scale, MASKED: tl.constexpr, B: tl.constexpr):
    """A_ij of a tile, -inf where query i does not see key j. `distance` is that of its first query from its first key."""
    a = tl.arange(0, B)
    content = tl.dot(qu, tl.trans(key), input_precision="ieee")
    position = shear(tl.dot(qv, tl.trans(band), input_precision="ieee"), B)
    visible = (distance + a[:, None] - a[None, :] >= 0) & (first_key + a < time_k)[None, :]
    if MASKED:
        visible &= (tl.load(seen + first_key + a, mask=first_key + a < time_k, other=0) != 0)[None, :]
    return tl.where(visible, (content + position) * scale, float("-inf"))


@triton.jit
def tile_gradient(logits, log_sum, delta, grad, value):
    """P, and dS = P (dP - sum_j P dP), where the sum is the `delta` of a query: its output times its gradient."""
    p = tl.exp(logits - log_sum[:, None])
    dp = tl.dot(grad, tl.trans(value), input_precision="ieee")
    return p, tl.where(logits > float("-inf"), p * (dp - delta[:, None]), 0.0)


@triton.jit
def load_statistics(log_sum, delta, first, time_q, B: tl.constexpr):
    """Rows after the last query have an infinite sum: their P is zero."""
    rows = first + tl.arange(0, B)
    inside = rows < time_q
    return tl.load(log_sum + rows, mask=inside, other=float("inf")), tl.load(delta + rows, mask=inside, other=0.0)


# forward: a program has B queries of one head, and walks their row of tiles


@triton.jit
def forward_rows(
    q, k, v, table, u, w, seen, out, log_sum, heads, time_q, time_k, d_head, scale,
    MASKED: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    first_query = (tl.num_programs(0) - 1 - tl.program_id(0)) * B  # the longest rows start first
    bh = tl.program_id(1).to(tl.int64)
    head = bh % heads
    q, out, log_sum = q + bh * time_q * d_head, out + bh * time_q * d_head, log_sum + bh * time_q
    k, v, table = k + bh * time_k * d_head, v + bh * time_k * d_head, table + head * time_k * d_head
    seen += (bh // heads) * time_k

    qu, qv = load_queries(q, u + head * d_head, w + head * d_head, first_query, time_q, d_head, B, D)
    highest = tl.full([B], float("-inf"), tl.float32)
    total = tl.zeros([B], tl.float32)
    weighted = tl.zeros([B, D], tl.float32)
    here = time_k - time_q + first_query
    for first_key in range(0, tl.minimum(time_k, here + B), B):
        key = load_rows(k, first_key, time_k, d_head, B, D)
        value = load_rows(v, first_key, time_k, d_head, B, D)
        distance = here - first_key
        band = load_rows(table, distance - (B - 1), time_k, d_head, 2 * B, D)
        logits = tile_logits(qu, qv, key, band, seen, first_key, distance, time_k, scale, MASKED, B)
        higher = tl.maximum(highest, tl.max(logits, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # for a query that has seen no key yet
        p = tl.exp(logits - finite[:, None])
        shrink = tl.exp(highest - finite)
        total = total * shrink + tl.sum(p, 1)
        weighted = weighted * shrink[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        highest = higher
    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    store_rows(out, weighted / total[:, None], first_query, time_q, d_head, B, D)
    rows = first_query + tl.arange(0, B)
    tl.store(log_sum + rows, tl.where(blind, float("inf"), highest + tl.log(total)), mask=rows < time_q)


# backward: dq, du, dv along rows; dk, dv along columns; dr along diagonals


@triton.jit
def backward_rows(
    q, k, v, table, u, w, seen, grad, log_sum, delta, dq, du, dw, heads, time_q, time_k, d_head, scale,
    MASKED: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    row = tl.num_programs(0) - 1 - tl.program_id(0)
    first_query = row * B
    bh = tl.program_id(1).to(tl.int64)
    head = bh % heads
    q, grad, dq = q + bh * time_q * d_head, grad + bh * time_q * d_head, dq + bh * time_q * d_head
    k, v, table = k + bh * time_k * d_head, v + bh * time_k * d_head, table + head * time_k * d_head
    seen += (bh // heads) * time_k

    qu, qv = load_queries(q, u + head * d_head, w + head * d_head, first_query, time_q, d_head, B, D)
    dy = load_rows(grad, first_query, time_q, d_head, B, D)
    sums, deltas = load_statistics(log_sum + bh * time_q, delta + bh * time_q, first_query, time_q, B)
    dqu = tl.zeros([B, D], tl.float32)
    dqv = tl.zeros([B, D], tl.float32)
    here = time_k - time_q + first_query
    for first_key in range(0, tl.minimum(time_k, here + B), B):
        key = load_rows(k, first_key, time_k, d_head, B, D)
        value = load_rows(v, first_key, time_k, d_head, B, D)
        distance = here - first_key
        band = load_rows(table, distance - (B - 1), time_k, d_head, 2 * B, D)
        logits = tile_logits(qu, qv, key, band, seen, first_key, distance, time_k, scale, MASKED, B)
        _, ds = tile_gradient(logits, sums, deltas, dy, value)
        ds = ds.to(key.dtype)
        dqu += tl.dot(ds, key, input_precision="ieee")
        dqv += tl.dot(unshear(ds, B), band, input_precision="ieee")
    store_rows(dq, (dqu + dqv) * scale, first_query, time_q, d_head, B, D)
    columns = tl.arange(0, D)
    place = (bh * tl.num_programs(0) + row) * d_head + columns
    tl.store(du + place, tl.sum(dqu, 0) * scale, mask=columns < d_head)
    tl.store(dw + place, tl.sum(dqv, 0) * scale, mask=columns < d_head)


@triton.jit
def backward_columns(
    q, k, v, table, u, w, seen, grad, log_sum, delta, dk, dv, heads, time_q, time_k, d_head, scale,
    MASKED: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    first_key = tl.program_id(0) * B
    bh = tl.program_id(1).to(tl.int64)
    head = bh % heads
    q, grad, table = q + bh * time_q * d_head, grad + bh * time_q * d_head, table + head * time_k * d_head
    log_sum, delta = log_sum + bh * time_q, delta + bh * time_q
    seen += (bh // heads) * time_k

    key = load_rows(k + bh * time_k * d_head, first_key, time_k, d_head, B, D)
    value = load_rows(v + bh * time_k * d_head, first_key, time_k, d_head, B, D)
    dkey = tl.zeros([B, D], tl.float32)
    dvalue = tl.zeros([B, D], tl.float32)
    memory = time_k - time_q
    for first_query in range(tl.maximum(first_key - memory, 0) // B * B, time_q, B):
        qu, qv = load_queries(q, u + head * d_head, w + head * d_head, first_query, time_q, d_head, B, D)
        dy = load_rows(grad, first_query, time_q, d_head, B, D)
        sums, deltas = load_statistics(log_sum, delta, first_query, time_q, B)
        distance = memory + first_query - first_key
        band = load_rows(table, distance - (B - 1), time_k, d_head, 2 * B, D)
        logits = tile_logits(qu, qv, key, band, seen, first_key, distance, time_k, scale, MASKED, B)
        p, ds = tile_gradient(logits, sums, deltas, dy, value)
        dvalue += tl.dot(tl.trans(p.to(dy.dtype)), dy, input_precision="ieee")
        dkey += tl.dot(tl.trans(ds.to(qu.dtype)), qu, input_precision="ieee")
    store_rows(dk + bh * time_k * d_head, dkey * scale, first_key, time_k, d_head, B, D)
    store_rows(dv + bh * time_k * d_head, dvalue, first_key, time_k, d_head, B, D)


@triton.jit
def backward_diagonals(
    q, k, v, table, u, w, seen, grad, log_sum, delta, dband, heads, time_q, time_k, d_head, scale,
    MASKED: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    head = bh % heads
    q, grad, table = q + bh * time_q * d_head, grad + bh * time_q * d_head, table + head * time_k * d_head
    k, v = k + bh * time_k * d_head, v + bh * time_k * d_head
    log_sum, delta = log_sum + bh * time_q, delta + bh * time_q
    seen += (bh // heads) * time_k

    memory = time_k - time_q
    ahead = (tl.program_id(0) - (memory + B - 1) // B) * B  # of a tile's first query before its first key, in places
    distance = memory + ahead
    band = load_rows(table, distance - (B - 1), time_k, d_head, 2 * B, D)
    dr = tl.zeros([2 * B, D], tl.float32)
    for first_query in range(tl.maximum(ahead, 0), tl.minimum(time_q, time_k + ahead), B):
        first_key = first_query - ahead
        qu, qv = load_queries(q, u + head * d_head, w + head * d_head, first_query, time_q, d_head, B, D)
        key = load_rows(k, first_key, time_k, d_head, B, D)
        value = load_rows(v, first_key, time_k, d_head, B, D)
        dy = load_rows(grad, first_query, time_q, d_head, B, D)
        sums, deltas = load_statistics(log_sum, delta, first_query, time_q, B)
        logits = tile_logits(qu, qv, key, band, seen, first_key, distance, time_k, scale, MASKED, B)
        _, ds = tile_gradient(logits, sums, deltas, dy, value)
        dr += tl.dot(tl.trans(unshear(ds.to(qv.dtype), B)), qv, input_precision="ieee")
    place = dband + (bh * tl.num_programs(0) + tl.program_id(0)) * 2 * B * d_head
    store_rows(place, dr * scale, 0, 2 * B, d_head, 2 * B, D)
