"""Compiled relative attention for CPUs: products of small matrices in registers, with the shift as one of their strides.

docs/attention.md derives every line. For c queries, the last of which sees n keys, with q̂ = (q + u)/sqrt(d) and
q̄ = (q + v)/sqrt(d):

    S = skew(q̄ R^T) + q̂ K^T,   P = softmax(S),   Y = P V
    dV += P^T dY,   dP = dY V^T,   dS = P (dP - dY·Y),   dK += dS^T q̂,   dR += unskew(dS)^T q̄
    dq̂ = dS K,     dq̄ = unskew(dS) R,   dq = (dq̂ + dq̄)/sqrt(d)

All eleven products are those of tile.py. Row a of q̄ R^T has to move left by c - 1 - a places: writing it with rows one
number longer than those of S puts it there. Softmax is computed online over chunks of keys (Milakov and Gimelshein 2018;
Dao et al. 2022), so that the working set, 48 queries by 192 keys, stays in a core's caches at any length.

Arithmetic is in float32, whatever the input and output dtype. Torch's threads take the heads one by one.
Sizes: b batch, h heads, t time_q, n time_k, d d_head.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import carray, types
from numpy.typing import NDArray
from torch import Tensor

from earthworks.compilation import add_atomically, arithmetic, compiled, for_c, on_threads, pointer, summing, widened
from earthworks.gopher.attention.fused import refuse_second_derivative
from earthworks.gopher.kernels.arithmetic import exponential
from earthworks.gopher.kernels.tile import ROWS, WIDTH, maximum, multiply, narrowed, pack_columns, pack_rows, up_to
from earthworks.runs.progress import said_when_slow

BLOCK = 48  # queries at once, a multiple of ROWS
CHUNK = 192  # keys at once, a multiple of WIDTH, ROWS and STRIDE
SPARE = 96  # places between the rows of S: more than BLOCK + ROWS and than WIDTH + ROWS, for overflow of a row
LENGTH = SPARE + CHUNK + 16  # from one row of S to the next
STRIDE = 64  # numbers that a loop over a row takes at once; row ends are rounded up to a multiple
GROUPS = 32  # pieces of work in the backward pass: heads, each times a number of groups of sequences (see `backward`)

Floats = NDArray[np.float32]


class Rows(NamedTuple):
    """The rows of a tensor (b, h, time, d), in place; bfloat16 as uint16."""

    numbers: NDArray[Any]  # flat
    batch: int  # from one sequence, one head, one row, to the next
    head: int
    time: int


class Scratch(NamedTuple):
    """Scratch buffers of a thread, all float32 and flat."""

    keys: Floats  # K^T, V^T and R^T, in panels of WIDTH columns, each (d, WIDTH)
    values: Floats
    table: Floats  # its last column is r_0
    key_rows: Floats  # K (or V, in the forward pass) and R, in panels of WIDTH features, each (n, WIDTH)
    table_rows: Floats
    query: Floats  # (BLOCK, d): q̂, q̄, dY
    position_query: Floats
    gradient: Floats
    panels: Floats  # the same three in panels of WIDTH features, each (BLOCK, WIDTH)
    logits: Floats  # SPARE places and then CHUNK keys of each of BLOCK queries: S, then P
    change: Floats  # dP, then dS; spare places stay zero
    highest: Floats  # (BLOCK): so far
    total: Floats
    results: Floats  # (2, BLOCK, d): Y, or dq̂ and dq̄
    key_sums: Floats  # (n, d): dK, dV, dR
    value_sums: Floats
    table_sums: Floats


@compiled
def erase(hidden, d, columns, rows, count):
    """Zero the masked keys or values: they may hold anything, and zero times NaN is NaN."""
    for j in range(len(hidden)):
        if hidden[j]:
            for f in range(d):
                columns[j // WIDTH * WIDTH * d + f * WIDTH + j % WIDTH] = 0
                rows[f // WIDTH * WIDTH * count + j * WIDTH + f % WIDTH] = 0


@compiled
def load_queries(x, at, step, c, rows, d, bias, scale, out, panels):
    """scale (x + bias) of c rows, zero for the others up to `rows`: plain, and in panels unless there are none."""
    for a in range(rows):
        to = out[a * d :][:d]
        if a < c:
            row = x[at + a * step :][:d]
            for f in range(d):
                to[f] = (widened(row[f]) + bias[f]) * scale
        else:
            to[:] = 0
    if len(panels):
        pack_rows(out, 0, d, rows, d, panels, BLOCK)


@compiled
def form_logits(s, rows, ahead, begin, width, d, columns):
    """S = skew(q̄ R^T) + q̂ K^T of the current queries, the first of which sees `ahead` keys before its own, and `width` keys
    from `begin` on. Places beyond the keys that a query sees hold garbage.

    Query a is ahead + a - j away from key j, and r of distance Delta is column columns - 1 - Delta of R^T.
    """
    for i in range(0, rows, ROWS):
        first = (columns - 1 - (ahead + i + ROWS - 1) + begin) // WIDTH * WIDTH
        end = min(columns, columns - (ahead + i) + begin + width)
        at = i * LENGTH + SPARE + first - (columns - 1) + ahead + i - begin
        if first < end:
            multiply(
                *(s.logits, at, LENGTH + 1, s.position_query, i * d, d, 1, s.table, first * d, WIDTH * d),
                *(ROWS, end - first, d, 0),
            )
    multiply(s.logits, SPARE, LENGTH, s.query, 0, d, 1, s.keys, begin * d, WIDTH * d, rows, width, d, 1)


@summing
def exponentials(row, highest):
    """row = exp(row - highest), and their sum."""
    total = np.float32(0)
    for j in range(len(row)):
        row[j] = exponential(row[j] - highest)
        total += row[j]
    return total


@arithmetic
def greatest(row):
    highest = np.float32(-np.inf)
    for j in range(len(row)):
        highest = maximum(highest, row[j])
    return highest


@arithmetic
def softmax_gradient(p, dp, normaliser, inner):
    """Logits p, dp = dP -> p = P, dp = P (dP - sum P dP)."""
    for j in range(len(p)):
        p[j] = exponential(p[j] - normaliser)
        dp[j] = p[j] * (dp[j] - inner)


@compiled
def hide(row, hidden, instead):
    for j in range(len(row)):
        if hidden[j]:
            row[j] = instead


@compiled
def forward_head(q, k, v, table, content_bias, position_bias, hidden, out, normalisers, head, first, last, s):
    """Y, and log sum exp S of each row, for the sequences from first to last."""
    (t, d), n = normalisers.shape[2:] + content_bias.shape[1:], table.shape[1]
    scale = np.float32(1 / math.sqrt(d))
    columns, wide = up_to(n + ROWS, WIDTH), up_to(d, WIDTH)
    none = s.panels[:0]
    pack_columns(table[head].ravel(), 0, d, n, d, s.table, columns - 1, -1)
    for b in range(first, last):
        pack_columns(k.numbers, b * k.batch + head * k.head, k.time, n, d, s.keys, 0, 1)
        pack_rows(v.numbers, b * v.batch + head * v.head, v.time, n, d, s.key_rows, columns)
        if len(hidden):
            erase(hidden[b], d, s.keys, s.key_rows, columns)
        for start in range(0, t, BLOCK):
            c = min(BLOCK, t - start)
            rows, ahead = up_to(c, ROWS), n - t + start
            at = b * q.batch + head * q.head + start * q.time
            load_queries(q.numbers, at, q.time, c, rows, d, content_bias[head], scale, s.query, none)
            load_queries(q.numbers, at, q.time, c, rows, d, position_bias[head], scale, s.position_query, none)
            y = s.results
            y[: BLOCK * wide] = 0
            s.highest[:] = -np.inf
            s.total[:] = 0
            for begin in range(0, ahead + c, CHUNK):
                width = min(CHUNK, ahead + c - begin)
                form_logits(s, rows, ahead, begin, width, d, columns)
                for a in range(rows):
                    row = s.logits[a * LENGTH + SPARE :][:CHUNK]
                    reach = min(max(ahead + a + 1 - begin, 0), width) if a < c else 0
                    if reach:
                        if len(hidden):
                            hide(row[:reach], hidden[b, begin:], np.float32(-np.inf))
                        whole = row[: up_to(reach, STRIDE)]
                        whole[reach:] = -np.inf
                        highest = maximum(s.highest[a], greatest(whole))
                        if highest == -np.inf:
                            reach = 0
                        elif highest != s.highest[a]:
                            less = np.float32(math.exp(s.highest[a] - highest))
                            s.highest[a] = highest
                            s.total[a] *= less
                            sums = y[a * wide :][:wide]
                            for f in range(wide):
                                sums[f] *= less
                        if reach:
                            s.total[a] += exponentials(whole, highest)
                    row[reach:] = 0
                keys = begin * WIDTH
                multiply(
                    y, 0, wide, s.logits, SPARE, LENGTH, 1, s.key_rows, keys, WIDTH * columns, rows, wide, width, 1
                )
            for a in range(c):
                blind = s.total[a] == 0  # false for NaN, which has to show
                inverse = np.float32(0) if blind else 1 / s.total[a]
                normalisers[b, head, start + a] = np.float32(np.inf) if blind else s.highest[a] + np.log(s.total[a])
                row = y[a * wide :][:d]
                to = out.numbers[b * out.batch + head * out.head + (start + a) * out.time :][:d]
                for f in range(d):
                    to[f] = narrowed(row[f] * inverse, to)


@summing
def product_of_rows(x, y):
    total = np.float32(0)
    for f in range(len(x)):
        total += widened(x[f]) * widened(y[f])
    return total


@compiled
def backward_head(q, k, v, table, u, w, hidden, out, normalisers, dy, dq, dk, dv, dtable, du, dw, head, first, last, s):
    """The gradients of everything, for the sequences from first to last; dtable (n, d), du and dw (d) belong to them."""
    (t, d), n = normalisers.shape[2:] + u.shape[1:], table.shape[1]
    scale = np.float32(1 / math.sqrt(d))
    columns, wide = up_to(n + ROWS, WIDTH), up_to(d, WIDTH)
    flat = table[head].ravel()
    pack_columns(flat, 0, d, n, d, s.table, columns - 1, -1)
    pack_rows(flat, 0, d, n, d, s.table_rows, columns)
    size, panel, whole_panel = BLOCK * wide, BLOCK * WIDTH, WIDTH * columns
    dk_sum, dv_sum, dr_sum = s.key_sums, s.value_sums, s.table_sums
    query_panels, position_panels, gradient_panels = s.panels[:size], s.panels[size : 2 * size], s.panels[2 * size :]
    dq_content, dq_position = s.results[:size], s.results[size:]
    no_bias = np.zeros(d, np.float32)
    dr_sum[:] = 0
    du[:] = 0
    dw[:] = 0
    for b in range(first, last):
        at = b * k.batch + head * k.head
        pack_columns(k.numbers, at, k.time, n, d, s.keys, 0, 1)
        pack_rows(k.numbers, at, k.time, n, d, s.key_rows, columns)
        pack_columns(v.numbers, b * v.batch + head * v.head, v.time, n, d, s.values, 0, 1)
        if len(hidden):
            erase(hidden[b], d, s.keys, s.key_rows, columns)
            erase(hidden[b], d, s.values, s.key_rows, columns)
        dk_sum[:] = 0
        dv_sum[:] = 0
        for start in range(0, t, BLOCK):
            c = min(BLOCK, t - start)
            rows, ahead = up_to(c, ROWS), n - t + start
            at = b * q.batch + head * q.head + start * q.time
            load_queries(q.numbers, at, q.time, c, rows, d, u[head], scale, s.query, query_panels)
            load_queries(q.numbers, at, q.time, c, rows, d, w[head], scale, s.position_query, position_panels)
            at = b * dy.batch + head * dy.head + start * dy.time
            load_queries(dy.numbers, at, dy.time, c, rows, d, no_bias, np.float32(1), s.gradient, gradient_panels)
            for a in range(c):
                y = out.numbers[b * out.batch + head * out.head + (start + a) * out.time :][:d]
                s.total[a] = product_of_rows(y, s.gradient[a * d :][:d])  # sum P dP, for Y = P V
            s.results[:] = 0
            for begin in range(0, ahead + c, CHUNK):
                width = min(CHUNK, ahead + c - begin)
                form_logits(s, rows, ahead, begin, width, d, columns)
                multiply(
                    s.change, SPARE, LENGTH, s.gradient, 0, d, 1, s.values, begin * d, WIDTH * d, rows, width, d, 0
                )
                for a in range(rows):
                    p, ds = s.logits[a * LENGTH + SPARE :][:CHUNK], s.change[a * LENGTH + SPARE :][:CHUNK]
                    reach = min(max(ahead + a + 1 - begin, 0), width) if a < c else 0
                    if reach:
                        if len(hidden):
                            hide(p[:reach], hidden[b, begin:], np.float32(-np.inf))
                        padded = up_to(reach, STRIDE)
                        p[reach:padded] = -np.inf
                        ds[reach:padded] = 0
                        softmax_gradient(p[:padded], ds[:padded], normalisers[b, head, start + a], s.total[a])
                        if len(hidden):
                            hide(p[:reach], hidden[b, begin:], np.float32(0))
                            hide(ds[:reach], hidden[b, begin:], np.float32(0))
                    p[reach:] = 0
                    ds[reach:] = 0
                keys, rest = begin * WIDTH, begin * wide
                multiply(
                    dq_content, 0, wide, s.change, SPARE, LENGTH, 1, s.key_rows, keys, whole_panel, rows, wide, width, 1
                )
                multiply(dk_sum, rest, wide, s.change, SPARE, 1, LENGTH, query_panels, 0, panel, width, wide, rows, 1)
                multiply(
                    dv_sum, rest, wide, s.logits, SPARE, 1, LENGTH, gradient_panels, 0, panel, width, wide, rows, 1
                )
                # Unskewed, row a of dS has distance Delta in column ahead + a - Delta, and zeros beyond its ends.
                nearest = max(0, ahead - (begin + width - 1))
                for i in range(0, rows, ROWS):
                    near, far = max(0, ahead + i - (begin + width - 1)), ahead + i + ROWS - 1 - begin
                    at = (i * LENGTH) + SPARE + ahead + i - near - begin
                    if near <= far:
                        multiply(
                            *(dq_position, i * wide, wide, s.change, at, LENGTH + 1, -1),
                            *(s.table_rows, near * WIDTH, whole_panel, ROWS, wide, far - near + 1, 1),
                        )
                for near in range(nearest, ahead + rows - begin, ROWS):
                    low = min(max(near - ahead + begin, 0), rows - 1)  # queries that have such distances in this chunk
                    high = min(near + ROWS - 1 - ahead + begin + width, rows)
                    at = low * LENGTH + SPARE + ahead + low - near - begin
                    if low < high:
                        multiply(
                            *(dr_sum, near * wide, wide, s.change, at, -1, LENGTH + 1),
                            *(position_panels, low * WIDTH, panel, ROWS, wide, high - low, 1),
                        )
            for a in range(c):
                content, position = dq_content[a * wide :][:d], dq_position[a * wide :][:d]
                to = dq.numbers[b * dq.batch + head * dq.head + (start + a) * dq.time :][:d]
                for f in range(d):
                    to[f] = narrowed((content[f] + position[f]) * scale, to)
                for f in range(d):
                    du[f] += content[f] * scale
                    dw[f] += position[f] * scale
        for gradient, sums in ((dk, dk_sum), (dv, dv_sum)):
            for j in range(n):
                row = sums[j * wide :][:d]
                to = gradient.numbers[b * gradient.batch + head * gradient.head + j * gradient.time :][:d]
                for f in range(d):
                    to[f] = narrowed(row[f], to)
    for j in range(n):
        dtable[j] = dr_sum[j * wide :][:d]


@compiled
def scratch_sizes(n, d):
    """Size of each part of `Scratch`, in numbers."""
    columns, wide = up_to(n + ROWS, WIDTH) + CHUNK, up_to(d, WIDTH)
    transposed, plain, block, rows = columns * d, columns * wide, BLOCK * d, BLOCK * LENGTH + SPARE
    sums = (columns + BLOCK) * wide
    return (
        *(transposed, transposed, transposed, plain, plain, block, block, block, 3 * BLOCK * wide, rows, rows),
        *(BLOCK, BLOCK, 2 * BLOCK * wide, sums, sums, sums),
    )


@compiled
def scratch_of(arena, thread, n, d):
    """A thread's part of an arena that was initialised with zeros."""
    at = np.zeros(18, np.int64)
    for i, size in enumerate(scratch_sizes(n, d)):
        at[i + 1] = at[i] + size
    x = arena[thread * at[17] :]
    return Scratch(
        *(x[at[0] : at[1]], x[at[1] : at[2]], x[at[2] : at[3]], x[at[3] : at[4]], x[at[4] : at[5]], x[at[5] : at[6]]),
        *(x[at[6] : at[7]], x[at[7] : at[8]], x[at[8] : at[9]], x[at[9] : at[10]], x[at[10] : at[11]]),
        *(x[at[11] : at[12]], x[at[12] : at[13]], x[at[13] : at[14]], x[at[14] : at[15]], x[at[15] : at[16]]),
        x[at[16] : at[17]],
    )


# A call is a row of integers: the number of threads that have arrived and of heads that are taken, the sizes b, h, t, n, d,
# whether keys are masked, the number of groups of sequences; and for each tensor its address and its first three strides.
THREADS, TAKEN, SIZES, HIDDEN, PARTS, TENSORS = 0, 1, slice(2, 7), 7, 8, 9
FORWARD = ("q", "k", "v", "out", "table", "content_bias", "position_bias", "normalisers", "hidden", "arena")
BACKWARD = (*FORWARD, "dy", "dq", "dk", "dv", "dtable", "du", "dw")
FAR = 2**60  # more numbers than any tensor has: bounds are not checked


@compiled
def contiguous(call, index, shape, like):
    """A contiguous tensor of a call, with the dtype of `like`."""
    return carray(pointer(call[TENSORS + 4 * index], like), shape)


@compiled
def strided(call, index, like):
    at = TENSORS + 4 * index
    return Rows(carray(pointer(call[at], like), (FAR,)), call[at + 1], call[at + 2], call[at + 3])


@compiled
def common(call, like):
    """Arguments common to both directions, and a thread's own scratch."""
    batch, heads, t, n, d = call[2], call[3], call[4], call[5], call[6]
    floats = np.empty(0, np.float32)
    tensors = (
        *(strided(call, 0, like), strided(call, 1, like), strided(call, 2, like), strided(call, 3, like)),
        contiguous(call, 4, (heads, n, d), floats),
        contiguous(call, 5, (heads, d), floats),
        contiguous(call, 6, (heads, d), floats),
        contiguous(call, 7, (batch, heads, t), floats),
        contiguous(call, 8, (call[HIDDEN] * batch, n), np.empty(0, np.bool_)),
    )
    return tensors, scratch_of(contiguous(call, 9, (FAR,), floats), add_atomically(call, 1), n, d)


@compiled
def forward(call, like):
    """Forward pass of the heads that no other thread has taken, in sequence."""
    batch, heads = call[2], call[3]
    (q, k, v, out, table, u, w, normalisers, hidden), s = common(call, like)
    while True:
        item = add_atomically(call[TAKEN:], 1)
        if item >= heads * batch:
            return
        head, b = item // batch, item % batch
        forward_head(q, k, v, table, u, w, hidden, out, normalisers, head, b, b + 1, s)


@compiled
def backward(call, like):
    """Backward pass of heads of groups of sequences; each group has its own sums."""
    batch, heads, n, d, groups = call[2], call[3], call[5], call[6], call[PARTS]
    (q, k, v, out, table, u, w, normalisers, hidden), s = common(call, like)
    dy, dq, dk, dv = strided(call, 10, like), strided(call, 11, like), strided(call, 12, like), strided(call, 13, like)
    floats = np.empty(0, np.float32)
    dtable = contiguous(call, 14, (groups, heads, n, d), floats)
    du, dw = contiguous(call, 15, (groups, heads, d), floats), contiguous(call, 16, (groups, heads, d), floats)
    while True:
        item = add_atomically(call[TAKEN:], 1)
        if item >= heads * groups:
            return
        head, group = item // groups, item % groups
        first, last = group * batch // groups, (group + 1) * batch // groups
        backward_head(
            *(q, k, v, table, u, w, hidden, out, normalisers, dy, dq, dk, dv),
            *(dtable[group, head], du[group, head], dw[group, head], head, first, last, s),
        )


CALL = types.void(types.CPointer(types.int64))
LONGEST = TENSORS + 4 * len(BACKWARD)


def forward_float32(call: Any) -> None:
    forward(carray(call, (LONGEST,)), np.empty(0, np.float32))


def forward_bfloat16(call: Any) -> None:
    forward(carray(call, (LONGEST,)), np.empty(0, np.uint16))


def backward_float32(call: Any) -> None:
    backward(carray(call, (LONGEST,)), np.empty(0, np.float32))


def backward_bfloat16(call: Any) -> None:
    backward(carray(call, (LONGEST,)), np.empty(0, np.uint16))


@functools.cache
def machine_code(function: Any) -> Any:
    with said_when_slow("compiling attention for this processor (once; kept on disk)"):
        return for_c(CALL, function)


def run(function: Any, sizes: tuple[int, ...], groups: int, tensors: Mapping[Any, Tensor | None]) -> None:
    """Call a function with the tensors of FORWARD or BACKWARD, on torch's threads."""
    *_, time_k, d_head = sizes
    threads = torch.get_num_threads()
    arena = np.zeros(threads * sum(scratch_sizes(time_k, d_head)), np.float32)
    call = [0, 0, *sizes, int(tensors["hidden"] is not None), groups]
    for name in FORWARD if len(tensors) < len(FORWARD) else BACKWARD:
        x = tensors.get(name)
        call += [0, 0, 0, 0] if x is None else [x.data_ptr(), *(x.stride()[:3] if x.dim() == 4 else (0, 0, 0))]
    call[TENSORS + 4 * FORWARD.index("arena")] = arena.ctypes.data
    call += [0] * (LONGEST - len(call))
    on_threads(machine_code(function), np.array(call, np.int64), threads)


class Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, table, content_bias, position_bias, key_mask = inputs
        batch, heads, time_q, d_head = q.shape
        q, k, v = (rows_together(x) for x in (q, k, v))
        out = q.new_empty(batch, time_q, heads, d_head).transpose(1, 2)  # in the order in which the next layer reads it
        normalisers = torch.empty(batch, heads, time_q)
        hidden = None if key_mask is None else (~key_mask).contiguous()
        floats = [x.float().contiguous() for x in (table, content_bias, position_bias)]
        given = dict(zip(FORWARD, [q, k, v, out, *floats, normalisers, hidden]))
        function = forward_float32 if q.dtype == torch.float32 else forward_bfloat16
        run(function, (batch, heads, time_q, k.shape[2], d_head), 1, given)
        ctx.save_for_backward(q, k, v, out, *floats, normalisers, hidden)
        ctx.dtypes = [x.dtype for x in (table, content_bias, position_bias)]
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        refuse_second_derivative("tiled")
        q, k, v, out, *floats, normalisers, hidden = ctx.saved_tensors
        (batch, heads, time_q, d_head), time_k = q.shape, k.shape[2]
        dq, dk, dv = (q.new_empty(batch, time, heads, d_head).transpose(1, 2) for time in (time_q, time_k, time_k))
        groups = max(1, min(batch, -(-GROUPS // heads)))
        sums = [torch.empty(groups, *x.shape) for x in floats]  # of each group: of table, u and v
        given = dict(zip(FORWARD, [q, k, v, out, *floats, normalisers, hidden]))
        given |= dict(zip(BACKWARD[len(FORWARD) :], [rows_together(grad_outputs[0]), dq, dk, dv, *sums]))
        function = backward_float32 if q.dtype == torch.float32 else backward_bfloat16
        run(function, (batch, heads, time_q, time_k, d_head), groups, given)
        return dq, dk, dv, *(x.sum(0).to(dtype) for x, dtype in zip(sums, ctx.dtypes)), None


def rows_together(x: Tensor) -> Tensor:
    """x with contiguous rows."""
    return x if x.stride(-1) == 1 else x.contiguous()


def tiled_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Memory b·h·time·d, and a thread's scratch of 10 time·d; float32 or bfloat16."""
    out: Any = Tiled.apply(q, k, v, table, content_bias, position_bias, key_mask)
    return out
