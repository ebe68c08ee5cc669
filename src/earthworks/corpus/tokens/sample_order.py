"""Order of training samples: the i-th window is a pure function of (seed, i, context).

There is no state between samples, so the sequence does not change with resuming, batch size or number of processes. All
arithmetic is on 64-bit integers and depends on no library's random generator.

1. Subsets. Of every 1,024 consecutive samples each subset gets its share of the weights, rounded by largest remainders,
   in an order shuffled by (seed, block). So the number of samples of a subset before sample i has a closed form.
2. Windows. The tokens of a subset are divided into windows of `context` targets, from an offset drawn for each epoch;
   an epoch visits its windows in a pseudo-random order, a Feistel permutation keyed by (seed, subset, epoch), which
   needs no memory for any number of windows.
"""

from typing import Literal

import numpy as np

Sampling = Literal["windows", "documents"]
BLOCK = 1024
ROUNDS = 6


def shares(weights: np.ndarray) -> np.ndarray:
    """Samples of each subset in a block: BLOCK times its share of the weights, by largest remainders, at least one."""
    assert len(weights) <= BLOCK
    exact = weights / weights.sum() * BLOCK
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() < BLOCK:
        counts[np.argmax(np.round(exact - counts, 6))] += 1  # rounded, so that the first of equal remainders wins
    while counts.sum() > BLOCK:  # subsets below a thousandth were raised to one sample
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return counts


def subsets_of(seed: int, start: int, count: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the samples start .. start + count - 1: (subset, index of the sample within it), int64 each."""
    share = shares(weights)
    labels = np.repeat(np.arange(len(weights)), share)
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    subset, rank = [], []
    for block in range(first, last + 1):
        keys = mix(np.arange(BLOCK, dtype=np.uint64) ^ key(seed, 1, block))
        order = labels[np.argsort(keys, kind="stable")]
        ranks = np.empty(BLOCK, np.int64)
        for label in range(len(weights)):
            ranks[order == label] = block * share[label] + np.arange(share[label])
        subset.append(order)
        rank.append(ranks)
    within = slice(start - first * BLOCK, start - first * BLOCK + count)
    return np.concatenate(subset)[within], np.concatenate(rank)[within]


def windows_per_epoch(tokens: int, context: int) -> int:
    """Number of windows that fit into `tokens` at every offset an epoch may draw; 0 if not even one fits.

    A window has context + 1 tokens: its inputs and its targets, which are the inputs shifted by one."""
    if tokens < context + 1:
        return 0
    return max(1, tokens // context - 1)


def window_starts(seed: int, subset: int, rank: np.ndarray, tokens: int, context: int) -> np.ndarray:
    """The first token of a subset's rank-th samples. In an epoch no token is a target twice, and all but at most
    2 context tokens at the edges, which vary between epochs, are targets once."""
    num = windows_per_epoch(tokens, context)
    assert num > 0
    starts = np.empty(len(rank), np.int64)
    epochs = rank // num
    for epoch in np.unique(epochs):
        here = epochs == epoch
        offset = int(mix(key(seed, 2, subset, int(epoch)))) % min(context, tokens - num * context)
        order = permutation(rank[here] % num, num, key(seed, 3, subset, int(epoch)))
        starts[here] = offset + order * context
    return starts


def document_crops(
    seed: int, subset: int, rank: int, begins: np.ndarray, tokens: int, context: int
) -> list[tuple[int, int]]:
    """Token ranges, context + 1 tokens in all, that make up a subset's rank-th sample (Rae et al. 2021, A.1).

    A document is drawn uniformly, and if it is longer than needed also its start, uniformly among those from which it fills
    the sample; while tokens are missing, another one is drawn. `begins` (documents,): their first tokens of `tokens`."""
    crops, missing = [], context + 1
    while missing:
        draw = len(crops)
        document = int(mix(key(seed, 4, subset, rank, draw))) % len(begins)
        begin = int(begins[document])
        end = int(begins[document + 1]) if document + 1 < len(begins) else tokens
        spare = max(end - begin - missing, 0)
        begin += int(mix(key(seed, 5, subset, rank, draw))) % (spare + 1)
        crops.append((begin, min(begin + missing, end)))
        missing -= crops[-1][1] - begin
    return crops


def permutation(index: np.ndarray, size: int, keyed: np.uint64) -> np.ndarray:
    """Pseudo-random permutation of 0 .. size - 1, evaluated at `index` without a table.

    A Feistel network permutes the numbers of 2 h bits; results at or above `size` pass through it again until they are
    below (cycle walking: fewer than four passes on average)."""
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    round_keys = mix(keyed ^ np.arange(ROUNDS, dtype=np.uint64))
    value = index.astype(np.uint64)
    outside = np.ones(len(value), bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        value[outside] = (left << half) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def mix(value: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits whose every output bit depends on every
    input bit."""
    with np.errstate(over="ignore"):
        value = np.asarray(value, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def key(*numbers: int) -> np.uint64:
    """One 64-bit key from several integers."""
    value = np.uint64(0)
    for number in numbers:
        value = np.uint64(mix(value ^ np.uint64(number % (1 << 64))))
    return value
