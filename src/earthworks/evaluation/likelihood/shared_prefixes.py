"""Which token sequences should be read together, so that what they have in common is read once.

Sequences in lexicographic order are cut into runs i..j. A run costs its common prefix once and every rest in full,

    cost(i, j) = c + p + sum_{m=i..j} (n_m - p),    p = min_{m=i+1..j} common(m - 1, m),

n_m being lengths and c what a pass of its own is worth in tokens; a run of one costs its length. The options of one
question fall into one run, and so do all questions that follow the same few-shot examples.
"""

import numpy as np
from numpy.typing import NDArray

from earthworks.compilation import compiled


def lexicographic(sequences: list[NDArray[np.int64]]) -> list[int]:
    """The indices of the sequences in lexicographic order of their tokens."""
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """How many first tokens two sequences share."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n


def partition(sequences: list[NDArray[np.int64]], most: int, pass_cost: int) -> list[tuple[int, int, int]]:
    """The cheapest runs of at most `most` of the sorted `sequences`: (begin, end, common prefix). O(n most) time."""
    if not sequences:
        return []
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    shared = np.zeros(len(sequences), np.int64)
    for index in range(1, len(sequences)):
        shared[index] = common(sequences[index - 1], sequences[index])
    begins = cheapest(lengths, shared, most, float(pass_cost))
    runs = []
    end = len(sequences)
    while end:
        begin = int(begins[end])
        runs.append((begin, end, int(shared[begin + 1 : end].min()) if end - begin > 1 else 0))
        end = begin
    return runs[::-1]


@compiled
def cheapest(lengths: np.ndarray, shared: np.ndarray, most: int, pass_cost: float) -> np.ndarray:
    """begins[e]: where the last run of the cheapest partition of the first e sequences begins."""
    n = len(lengths)
    best = np.empty(n + 1)
    begins = np.zeros(n + 1, np.int64)
    best[0] = 0.0
    for end in range(1, n + 1):
        best[end] = best[end - 1] + lengths[end - 1]  # alone, read whole
        begins[end] = end - 1
        prefix = shared[end - 1]
        total = lengths[end - 1]
        for begin in range(end - 2, max(-1, end - 1 - most), -1):
            prefix = min(prefix, shared[begin + 1])
            if prefix == 0:
                break
            total += lengths[begin]
            cost = best[begin] + pass_cost + total - (end - begin - 1) * prefix
            if cost < best[end]:
                best[end] = cost
                begins[end] = begin
    return begins
