"""Partition token sequences so that shared prefixes are read once, at least cost.

Sequences in lexicographic order are cut into runs i..j. A run costs its common prefix once and each remainder in full,

    cost(i, j) = c + p + sum_{m=i..j} (n_m - p),    p = min_{m=i+1..j} common(m - 1, m),

with lengths n_m and c the cost of an extra pass in tokens; a run of one costs its length. The options of one question
form one run, as do all questions after the same few-shot examples.
"""

import numpy as np
from numpy.typing import NDArray

from earthworks.compilation import compiled


def lexicographic(sequences: list[NDArray[np.int64]]) -> list[int]:
    """Indices of the sequences in lexicographic order of their tokens."""
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Length of the common prefix of two sequences."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n


def partition(sequences: list[NDArray[np.int64]], most: int, pass_cost: int) -> list[tuple[int, int, int]]:
    """The cheapest runs of at most `most` of the sorted `sequences`: (start, end, common prefix). O(n most) time."""
    if not sequences:
        return []
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    shared = np.zeros(len(sequences), np.int64)
    for index in range(1, len(sequences)):
        shared[index] = common(sequences[index - 1], sequences[index])
    starts = cheapest(lengths, shared, most, float(pass_cost))
    runs = []
    end = len(sequences)
    while end:
        start = int(starts[end])
        runs.append((start, end, int(shared[start + 1 : end].min()) if end - start > 1 else 0))
        end = start
    return runs[::-1]


@compiled
def cheapest(lengths: np.ndarray, shared: np.ndarray, most: int, pass_cost: float) -> np.ndarray:
    """starts[e]: start of the last run in the cheapest partition of the first e sequences."""
    n = len(lengths)
    best = np.empty(n + 1)
    starts = np.zeros(n + 1, np.int64)
    best[0] = 0.0
    for end in range(1, n + 1):
        best[end] = best[end - 1] + lengths[end - 1]  # alone, read in full
        starts[end] = end - 1
        prefix = shared[end - 1]
        total = lengths[end - 1]
        for start in range(end - 2, max(-1, end - 1 - most), -1):
            prefix = min(prefix, shared[start + 1])
            if prefix == 0:
                break
            total += lengths[start]
            cost = best[start] + pass_cost + total - (end - start - 1) * prefix
            if cost < best[end]:
                best[end] = cost
                starts[end] = start
    return starts
