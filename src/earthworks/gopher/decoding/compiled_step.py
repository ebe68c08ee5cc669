"""Decoding step: one token for every row, with the whole model in one compiled function.

    x <- x + W_o attention(norm(x)) + b_o,  x <- x + W_2 gelu(W_1 norm(x) + b_1) + b_2,   logits = E norm(x) + c

Each weight is read once per token, so reading them takes most of the time; see stored_weights.py for their layout.
Everything else is float32.

A team of threads shares a step: each takes its part of the outputs of a product, or of the heads, and `meet` separates
writes from reads. Every number is computed by one thread, so it does not depend on the number of threads.

b rows, d d_model, f feed-forward width, h heads, k d_head, a = h k, v vocabulary, l layers, n slots of keys and values (a
multiple of WIDTH).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from earthworks.compilation import (
    add_atomically,
    compiled,
    read_atomically,
    summing,
)
from earthworks.gopher.decoding.stored_weights import Stored, product, share, tile_of_1
from earthworks.gopher.kernels.arithmetic import exponential, gelu
from earthworks.gopher.kernels.tile import WIDTH

SPINS = 300_000  # polls of a counter before sleeping: some 0.3 ms, as in OpenMP; a sleep costs 70 microseconds
NAP = 20  # microseconds
sleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))

Floats = NDArray[np.float32]


class Weights(NamedTuple):
    """A model as the step reads it."""

    stored: Stored  # of each layer query-key-value (3a, d), output (d, a), up (f, d), down (d, f); then E (v, d)
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
    """Key-value cache and scratch buffers of a step."""

    keys: Floats  # (l, b, h, n / WIDTH, k, WIDTH): panels of slots
    values: Floats  # (l, b, h, k / WIDTH rounded up, n, WIDTH): panels of features
    table: Floats  # (l, h, n / WIDTH, k, WIDTH): r of distance n - 1, ..., 0, in panels as of slots
    first: NDArray[np.int64]  # (b): slots before it are padding
    length: NDArray[np.int64]  # (1): slots in use, those of this step's tokens included
    x: Floats  # (b, d): the residual stream; holds the embedded tokens when a step starts
    normal: Floats  # (threads, b, d)
    query_key_value: Floats  # (b, 3a)
    mixed: Floats  # (b, a)
    inner: Floats  # (b, f)
    added: Floats  # (b, d): what a layer adds to the stream
    sums: Floats  # (threads, MOST * WIDTH)
    queries: Floats  # (threads, 2, k)
    scores: Floats  # (threads, 2, n)
    logits: Floats  # (b, v)


@compiled
def meet(counter, team):
    """Barrier for the team; counter (2) int64: number of arrivals, and 1 to tell the workers to exit."""
    if team == 1:
        return
    target = (add_atomically(counter, 1) // team + 1) * team
    spins = 0
    while read_atomically(counter) < target:
        spins += 1
        if spins > SPINS:
            sleep(NAP)


@summing
def normalise(x, gain, shift, epsilon, centred, y):
    """y = gain x / sqrt(mean(x^2) + epsilon) + shift, with the mean of x subtracted first if centred."""
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
def attend(q, u, v, keys, values, table, relative, first, end, queries, scores, sums, out):
    """out = sum_j p_j values[j], p = softmax_j( [ (q + u)·k_j + (q + v)·r_{end-1-j} ] / sqrt(d_head) ), first <= j < end.

    The query is the one of slot end - 1. keys, values, table: panels as in `Memory`, flat; queries, scores, sums: scratch.
    The contents of the last panels beyond slot end - 1, and beyond d_head, are ignored.
    """
    d_head, slots = len(q), scores.shape[1]
    scale = np.float32(1) / np.sqrt(np.float32(d_head))
    content, position = queries
    score, far = scores
    for c in range(d_head):
        content[c], position[c] = (q[c] + u[c]) * scale, (q[c] + v[c]) * scale
    for j in range(first // WIDTH * WIDTH, end, WIDTH):
        tile_of_1(score, j, 0, content, 0, 0, 1, keys, j * d_head, d_head, 0)
    if relative:
        ahead = slots - end  # slot j has distance end - 1 - j, whose place in the table is ahead + j
        for j in range((ahead + first) // WIDTH * WIDTH, slots, WIDTH):
            tile_of_1(far, j, 0, position, 0, 0, 1, table, j * d_head, d_head, 0)
        for j in range(first, end):
            score[j] += far[ahead + j]
    highest = score[first]
    for j in range(first, end):
        highest = max(highest, score[j])
    total = np.float32(0)
    for j in range(first, end):
        score[j] = exponential(score[j] - highest)
        total += score[j]
    for c in range(0, d_head, WIDTH):
        tile_of_1(sums, 0, 0, score, first, 0, 1, values, c * slots + first * WIDTH, end - first, 0)
        for i in range(min(WIDTH, d_head - c)):
            out[c + i] = sums[i] / total


@compiled
def step(me, team, counter, w, m):
    """From m.x, the embedded tokens, to m.logits: the part of thread `me` of `team`."""
    layers, heads, d_head = w.content_bias.shape
    rows, d = m.x.shape
    a, f, vocabulary = heads * d_head, m.inner.shape[1], m.logits.shape[1]
    end = m.length[0]
    normal, sums = m.normal[me], m.sums[me]
    for layer in range(layers):
        normalise(m.x, w.gains[2 * layer], w.shifts[2 * layer], w.epsilon, w.centred, normal)
        first, last = share(me, team, 3 * a)
        product(w.stored, 4 * layer, normal, sums, m.query_key_value, first, last)
        meet(counter, team)

        for task in range(me * heads * rows // team, (me + 1) * heads * rows // team):
            head, row = task // rows, task % rows
            keys, values, table = m.keys[layer, row, head], m.values[layer, row, head], m.table[layer, head]
            part = slice(head * d_head, (head + 1) * d_head)
            three = m.query_key_value[row].reshape(3, a)
            key, value = three[1, part], three[2, part]
            for c in range(d_head):
                keys[(end - 1) // WIDTH, c, (end - 1) % WIDTH] = key[c]
                values[c // WIDTH, end - 1, c % WIDTH] = value[c]
            u, v = w.content_bias[layer, head], w.position_bias[layer, head]
            read = keys.reshape(keys.size), values.reshape(values.size), table.reshape(table.size)
            scratch = m.queries[me], m.scores[me], sums
            attend(three[0, part], u, v, *read, w.relative, m.first[row], end, *scratch, m.mixed[row, part])
        meet(counter, team)

        first, last = share(me, team, d)
        product(w.stored, 4 * layer + 1, m.mixed, sums, m.added, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.x[row, i] += m.added[row, i] + w.output_bias[layer, i]
        meet(counter, team)

        normalise(m.x, w.gains[2 * layer + 1], w.shifts[2 * layer + 1], w.epsilon, w.centred, normal)
        first, last = share(me, team, f)
        product(w.stored, 4 * layer + 2, normal, sums, m.inner, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.inner[row, i] = gelu(m.inner[row, i] + w.up_bias[layer, i])
        meet(counter, team)

        first, last = share(me, team, d)
        product(w.stored, 4 * layer + 3, m.inner, sums, m.added, first, last)
        for row in range(rows):
            for i in range(first, last):
                m.x[row, i] += m.added[row, i] + w.down_bias[layer, i]
        meet(counter, team)

    normalise(m.x, w.gains[2 * layers], w.shifts[2 * layers], w.epsilon, w.centred, normal)
    first, last = share(me, team, vocabulary)
    product(w.stored, 4 * layers, normal, sums, m.logits, first, last)
    for row in range(rows):
        for i in range(first, last):
            m.logits[row, i] += w.logit_bias[i]
    meet(counter, team)


@compiled
def lead(team, counter, w, m):
    """Run one step together with the other threads, which wait in `follow`."""
    meet(counter, team)
    step(0, team, counter, w, m)


@compiled
def follow(me, team, counter, w, m):
    """Take part in every step until told to exit."""
    meet(counter, team)
    while counter[1] == 0:
        step(me, team, counter, w, m)
        meet(counter, team)
