"""The cheapest way to read sequences with shared prefixes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from earthworks.evaluation.likelihood.shared_prefixes import common, lexicographic, partition

sequences = st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=7)


def cost(lengths: list[int], prefix: int, pass_cost: int) -> int:
    return lengths[0] if len(lengths) == 1 else pass_cost + prefix + sum(each - prefix for each in lengths)


def all_partitions(n: int):
    """Every way to cut 0..n into runs."""
    if n == 0:
        yield []
    for start in range(n):
        for before in all_partitions(start):
            yield [*before, (start, n)]


@given(sequences, st.integers(1, 4), st.integers(0, 3))
def test_no_partition_reads_fewer_tokens(given_sequences, most, pass_cost):
    arrays = [np.array(each, np.int64) for each in given_sequences]
    arrays = [arrays[index] for index in lexicographic(arrays)]

    def total(runs):
        return sum(cost([len(each) for each in arrays[a:b]], shared(arrays[a:b]), pass_cost) for a, b in runs)

    def shared(part):
        return min((common(part[0], each) for each in part[1:]), default=0)

    found = partition(arrays, most, pass_cost)
    assert [(start, end) for start, end, _ in found] in list(all_partitions(len(arrays)))
    assert all(prefix == shared(arrays[start:end]) for start, end, prefix in found)
    possible = [runs for runs in all_partitions(len(arrays)) if all(b - a <= most for a, b in runs)]
    assert total([(start, end) for start, end, _ in found]) == min(map(total, possible))


def test_options_of_a_question_fall_together_and_strangers_do_not():
    question, other = list(range(40)), list(range(50, 90))
    rows = [np.array([*base, 99, option], np.int64) for base in (question, other) for option in (1, 2, 3)]
    assert partition(rows, 64, 16) == [(0, 3, 41), (3, 6, 41)]
