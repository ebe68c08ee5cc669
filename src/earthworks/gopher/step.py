"""One token for every row, the whole model in one compiled function: what decoding repeats.

    x <- x + W_o attention(norm(x)) + b_o,  x <- x + W_2 gelu(W_1 norm(x) + b_1) + b_2,   logits = E norm(x) + c

Each weight is read once for a token, so reading them is the time that it takes: they may be stored as float32, as
bfloat16 (uint16, the upper half of a float32) or as int8 with a scale for each output. Everything else is float32.

A team of threads shares a step: each takes its part of the outputs of a product, or of the heads, and `meet` separates
what is written from what is read. Every number is the work of one thread, so it does not depend on how many there are.

b rows, d d_model, f feed-forward width, h heads, k d_head, a = h k, v vocabulary, l layers, n slots of keys and values.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from earthworks.compilation import (
    add_atomically,
    arithmetic,
    bits_to_float,
    compiled,
    pointer,
    read_atomically,
    summing,
    widened,
)

SPINS = 300_000  # looks at a counter before sleeping: some 0.3 ms, as OpenMP does; a sleep costs 70 microseconds
NAP = 20  # microseconds
sleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))

Floats = NDArray[np.float32]


class Weights(NamedTuple):
    """A model as the step reads it."""

    sample: NDArray[Any]  # of the type that matrices are stored in; holds nothing
    matrices: NDArray[np.int64]  # (l, 4): addresses of query-key-value (3a, d), output (d, a), up (f, d), down (d, f)
    scales: Floats  # (l, 3a + d + f + d): one for each output of the four
    embedding: NDArray[Any]  # (v, d): E
    embedding_scale: Floats  # (v)
    logit_bias: Floats  # (v)
    gains: Floats  # (2l + 1, d)
    shifts: Floats  # (2l + 1, d), of LayerNorm
    content_bias: Floats  # (l, h, k): u
    position_bias: Floats  # (l, h, k): v
    output_bias: Floats  # (l, d)
    up_bias: Floats  # (l, f)
    down_bias: Floats  # (l, d)
    epsilon: np.float32
    centred: bool  # LayerNorm rather than RMSNorm
    relative: bool


class Memory(NamedTuple):
    """What rows have read, and where a step writes."""

    keys: Floats  # (l, b, h, k, n)
    values: Floats  # (l, b, h, k, n)
    table: Floats  # (l, h, k, n): r of distance n - 1, ..., 0
    first: NDArray[np.int64]  # (b): slots before it are padding
    length: NDArray[np.int64]  # (1): slots in use, those of this step's tokens included
    x: Floats  # (b, d): the residual stream; holds the embedded tokens when a step begins
    normal: Floats  # (threads, b, d)
    query_key_value: Floats  # (b, 3a)
    mixed: Floats  # (b, a)
    inner: Floats  # (b, f)
    added: Floats  # (b, d): what a layer adds to the stream
    scores: Floats  # (threads, n)
    logits: Floats  # (b, v)


@compiled
def meet(counter, team):
    """Return when all threads of the team have come here; counter (2) int64: how often one came, and 1 to go home."""
    if team == 1:
        return
    target = (add_atomically(counter, 1) // team + 1) * team
    spins = 0
    while read_atomically(counter) < target:
        spins += 1
        if spins > SPINS:
            sleep(NAP)


@arithmetic
def exponential(x):
    """e^x to 1e-7 for x <= 0 (0 below -87), without a call, so that loops over it run in vectors."""
    x = np.float32(-87) if x < np.float32(-87) else x  # so written, NaN stays
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # x - n log 2, log 2 in two parts
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * bits_to_float(np.int32((np.int32(n) + 127) << 23))


@arithmetic
def gelu(x):
    """x Phi(x), Phi the normal distribution function; erf by Abramowitz & Stegun 7.1.26, to 1.5e-7."""
    z = abs(x) * np.float32(0.70710678)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    p = np.float32(1.061405429)
    p = p * t + np.float32(-1.453152027)
    p = p * t + np.float32(1.421413741)
    p = p * t + np.float32(-0.284496736)
    p = p * t + np.float32(0.254829592)
    beyond = np.float32(0.5) * p * t * exponential(-z * z)  # 1 - Phi(|x|)
    return x * beyond if x < 0 else x - x * beyond


@summing
def normalise(x, gain, shift, epsilon, centred, y):
    """y = gain x / sqrt(mean(x^2) + epsilon) + shift, of x less its mean where it is centred."""
    rows, width = x.shape
    for row in range(rows):
        mean, square = np.float32(0), np.float32(0)
        if centred:
            for i in range(width):
                mean += x[row, i]
            mean /= np.float32(width)
        for i in range(width):
            centre = x[row, i] - mean
            square += centre * centre
        inverse = np.float32(1) / np.sqrt(square / np.float32(width) + epsilon)
        for i in range(width):
            y[row, i] = (x[row, i] - mean) * inverse * gain[i] + shift[i]


@summing
def one_by_one(weight, scale, x, y, o, begin):
    """The same for one output o and the rows from `begin` on."""
    rows, width = x.shape
    for row in range(begin, rows):
        s = np.float32(0)
        for i in range(width):
            s += widened(weight[o, i]) * x[row, i]
        y[row, o] = s * scale[o]


@summing
def product(weight, scale, x, y, first, last):
    """y[:, o] = scale_o sum_i weight[o, i] x[:, i] for first <= o < last, with `first` even.

    Two outputs of four rows are summed at once: half as many loads a product, 45 billion of them a second on one Zen 4
    core where one output of four rows had 27.
    """
    rows, width = x.shape
    fours = rows - rows % 4
    for o in range(first, last - 1, 2):
        for row in range(0, fours, 4):
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(width):
                w, z = widened(weight[o, i]), widened(weight[o + 1, i])
                x0, x1, x2, x3 = x[row, i], x[row + 1, i], x[row + 2, i], x[row + 3, i]
                s0 += w * x0
                s1 += w * x1
                s2 += w * x2
                s3 += w * x3
                t0 += z * x0
                t1 += z * x1
                t2 += z * x2
                t3 += z * x3
            for each, (s, t) in enumerate(((s0, t0), (s1, t1), (s2, t2), (s3, t3))):
                y[row + each, o], y[row + each, o + 1] = s * scale[o], t * scale[o + 1]
        one_by_one(weight, scale, x, y, o, fours)
        one_by_one(weight, scale, x, y, o + 1, fours)
    if (last - first) % 2:
        one_by_one(weight, scale, x, y, last - 1, 0)


@summing
def attend(q, u, v, keys, values, table, relative, first, end, scores, out):
    """out = sum_j p_j values[:, j], p = softmax_j( [ (q + u)·k_j + (q + v)·r_{end-1-j} ] / sqrt(d_head) ), first <= j < end.

    The query is the one of slot end - 1. keys and values (k, n), so that sums over the slots run in vectors.
    """
    d_head = len(keys)
    scale = np.float32(1) / np.sqrt(np.float32(d_head))
    n = end - first
    scores = scores[:n]
    scores[:] = 0
    for c in range(d_head):
        content, position = (q[c] + u[c]) * scale, (q[c] + v[c]) * scale
        key = keys[c, first:end]
        if relative:
            r = table[c, table.shape[1] - n :]  # distances n - 1, ..., 0
            for j in range(n):
                scores[j] += content * key[j] + position * r[j]
        else:
            for j in range(n):
                scores[j] += content * key[j]
    highest = scores[0]
    for j in range(n):
        highest = max(highest, scores[j])
    total = np.float32(0)
    for j in range(n):
        scores[j] = exponential(scores[j] - highest)
        total += scores[j]
    for c in range(d_head):
        value = values[c, first:end]
        s = np.float32(0)
        for j in range(n):
            s += scores[j] * value[j]
        out[c] = s / total


@compiled
def share(me, team, outputs):
    """Which of the outputs thread `me` makes: from an even one on, so that pairs are the same for any team."""
    first, last = me * outputs // team, (me + 1) * outputs // team
    return first - first % 2, outputs if me == team - 1 else last - last % 2


@compiled
def step(me, team, counter, w, m):
    """m.x, the embedded tokens, to m.logits; the part of thread `me` of `team`."""
    layers, heads, d_head = w.content_bias.shape
    rows, d = m.x.shape
    a, f, vocabulary = heads * d_head, m.inner.shape[1], m.logits.shape[1]
    end = m.length[0]
    normal = m.normal[me]
    for layer in range(layers):
        address, scale = w.matrices[layer], w.scales[layer]
        query_key_value = carray(pointer(address[0], w.sample), (3 * a, d))
        output = carray(pointer(address[1], w.sample), (d, a))
        up = carray(pointer(address[2], w.sample), (f, d))
        down = carray(pointer(address[3], w.sample), (d, f))
        scale_output, scale_up, scale_down = scale[3 * a :], scale[3 * a + d :], scale[3 * a + d + f :]

        normalise(m.x, w.gains[2 * layer], w.shifts[2 * layer], w.epsilon, w.centred, normal)
        first, last = share(me, team, 3 * a)
        product(query_key_value, scale, normal, m.query_key_value, first, last)
        meet(counter, team)

        for task in range(me * heads * rows // team, (me + 1) * heads * rows // team):
            head, row = task // rows, task % rows
            keys, values, table = m.keys[layer, row, head], m.values[layer, row, head], m.table[layer, head]
            part = slice(head * d_head, (head + 1) * d_head)
            three = m.query_key_value[row].reshape(3, a)
            keys[:, end - 1], values[:, end - 1] = three[1, part], three[2, part]
            u, v = w.content_bias[layer, head], w.position_bias[layer, head]
            mixed = m.mixed[row, part]
            attend(three[0, part], u, v, keys, values, table, w.relative, m.first[row], end, m.scores[me], mixed)
        meet(counter, team)

        first, last = share(me, team, d)
        product(output, scale_output, m.mixed, m.added, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.x[row, i] += m.added[row, i] + w.output_bias[layer, i]
        meet(counter, team)

        normalise(m.x, w.gains[2 * layer + 1], w.shifts[2 * layer + 1], w.epsilon, w.centred, normal)
        first, last = share(me, team, f)
        product(up, scale_up, normal, m.inner, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.inner[row, i] = gelu(m.inner[row, i] + w.up_bias[layer, i])
        meet(counter, team)

        first, last = share(me, team, d)
        product(down, scale_down, m.inner, m.added, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.x[row, i] += m.added[row, i] + w.down_bias[layer, i]
        meet(counter, team)

    normalise(m.x, w.gains[2 * layers], w.shifts[2 * layers], w.epsilon, w.centred, normal)
    first, last = share(me, team, vocabulary)
    product(w.embedding, w.embedding_scale, normal, m.logits, first, last)
    for row in range(rows):
        for i in range(first, last):
            m.logits[row, i] += w.logit_bias[i]
    meet(counter, team)


@compiled
def lead(team, counter, w, m):
    """One step; the others of the team, who wait in `follow`, take part."""
    meet(counter, team)
    step(0, team, counter, w, m)


@compiled
def follow(me, team, counter, w, m):
    """Take part in every step until sent home."""
    meet(counter, team)
    while counter[1] == 0:
        step(me, team, counter, w, m)
        meet(counter, team)
