from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus.tokens.sample_order import (
    BLOCK,
    document_crops,
    permutation,
    shares,
    subsets_of,
    window_starts,
    windows_per_epoch,
)

SEED = st.integers(0, 2**63)


@given(size=st.integers(1, 400), key=st.integers(0, 2**64 - 1))
def test_every_epoch_is_a_permutation(size, key):
    assert sorted(permutation(np.arange(size), size, np.uint64(key)).tolist()) == list(range(size))


@given(size=st.integers(2**30, 2**40), key=st.integers(0, 2**64 - 1))
def test_a_permutation_of_billions_needs_no_table(size, key):
    index = np.unique(np.linspace(0, size - 1, 50).astype(np.int64))
    image = permutation(index, size, np.uint64(key))
    assert len(set(image.tolist())) == len(index)
    assert image.min() >= 0
    assert image.max() < size


def test_a_permutation_looks_random():
    # over many keys each place receives each number equally often: chi-squared of 16 cells with 15 degrees of freedom
    size, keys = 16, 4000
    images = np.array([permutation(np.arange(size), size, np.uint64(key * 7919)) for key in range(keys)])
    for place in range(size):
        counts = np.bincount(images[:, place], minlength=size)
        assert ((counts - keys / size) ** 2).sum() / (keys / size) < 50  # the 99.999 % point is 44
    order = permutation(np.arange(10_000), 10_000, np.uint64(1))
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def slow_shares(weights: list[Fraction]) -> list[int]:
    exact = [weight / sum(weights) * BLOCK for weight in weights]
    counts = [int(each) for each in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for index in by_remainder[: BLOCK - sum(counts)]:
        counts[index] += 1
    return counts


@given(st.lists(st.integers(20, 1000), min_size=1, max_size=12))
def test_each_subset_has_its_largest_remainder_share_of_a_block(weights):
    assert shares(np.array(weights, float)).tolist() == slow_shares([Fraction(weight) for weight in weights])


def test_a_subset_of_tiny_weight_is_not_forgotten():
    assert shares(np.array([1e-9, 0.7, 1e-9, 0.3])).tolist() == [1, 716, 1, 306]


@given(
    seed=SEED,
    start=st.integers(0, 10**12),
    count=st.integers(1, 3000),
    weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=5),
)
def test_mixture_is_exact_in_every_block_and_counts_each_subset_without_gaps(seed, start, count, weights):
    weights = np.array(weights)
    first = start // BLOCK * BLOCK
    subset, rank = subsets_of(seed, first, 2 * BLOCK, weights)
    for number, share in enumerate(shares(weights)):
        assert (subset[:BLOCK] == number).sum() == (subset[BLOCK:] == number).sum() == share
        before = first // BLOCK * share
        assert rank[subset == number].tolist() == list(range(before, before + 2 * share))
    part = subsets_of(seed, start, count, weights)
    ones = [subsets_of(seed, index, 1, weights) for index in (start, start + count - 1)]
    assert [(part[0][0], part[1][0]), (part[0][-1], part[1][-1])] == [(one[0][0], one[1][0]) for one in ones]


@given(
    seed=SEED,
    tokens=st.integers(2, 3000),
    context=st.integers(1, 200),
    epoch=st.integers(0, 10**6),
    subset=st.integers(0, 9),
)
def test_every_token_but_the_edges_is_a_target_exactly_once_per_epoch(seed, tokens, context, epoch, subset):
    num = windows_per_epoch(tokens, context)
    if tokens <= context:
        assert num == 0
        return
    targets = np.zeros(tokens, int)
    for start in window_starts(seed, subset, epoch * num + np.arange(num), tokens, context):
        targets[start + 1 : start + context + 1] += 1
        assert start + context < tokens
    seen = np.flatnonzero(targets)
    assert targets.max() == 1
    assert len(seen) == seen[-1] - seen[0] + 1 == num * context  # no hole between the edges
    assert tokens - len(seen) <= 2 * context


def test_the_edges_move_from_epoch_to_epoch():
    num = windows_per_epoch(10_000, 100)
    offsets = {int(window_starts(0, 0, epoch * num + np.arange(num), 10_000, 100).min()) for epoch in range(400)}
    assert len(offsets) > 90
    assert max(offsets) < 100


@pytest.mark.parametrize("other", [{"seed": 1}, {"subset": 1}, {"epoch": 1}])
def test_seeds_subsets_and_epochs_have_orders_of_their_own(other):
    def order(seed=0, subset=0, epoch=0):
        num = windows_per_epoch(10**6, 100)
        return window_starts(seed, subset, epoch * num + np.arange(num), 10**6, 100) // 100

    assert (order() == order(**other)).mean() < 0.01


def test_seeds_mix_subsets_in_orders_of_their_own():
    half = np.array([0.5, 0.5])
    first, second = (subsets_of(seed, 0, BLOCK, half)[0] for seed in (0, 1))
    assert 0.4 < (first == second).mean() < 0.6
    assert 0.4 < (first == subsets_of(0, BLOCK, BLOCK, half)[0]).mean() < 0.6


def test_the_order_is_the_same_in_every_version():
    # a run that is resumed under a later version must read what it would have read
    subset, rank = subsets_of(7, 5000, 12, np.array([0.7, 0.3]))
    assert subset.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert rank.tolist() == [3508, 3509, 3510, 3511, 1492, 3512, 3513, 3514, 1493, 3515, 3516, 3517]
    assert window_starts(7, 1, np.arange(5), 100_000, 64).tolist() == [48951, 82807, 13815, 97527, 87543]


@given(seed=SEED, lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), context=st.integers(1, 60))
def test_crops_fill_a_sample_from_within_documents(seed, lengths, context):
    begins, tokens = np.cumsum([0, *lengths[:-1]]), sum(lengths)
    crops = document_crops(seed, 0, 3, begins, tokens, context)
    assert sum(stop - start for start, stop in crops) == context + 1
    ends = np.cumsum(lengths)
    for start, stop in crops:
        document = int(np.searchsorted(ends, start, "right"))
        assert begins[document] <= start < stop <= ends[document]
    for _, stop in crops[:-1]:  # all but the last are taken to their end
        assert stop in ends.tolist()


def test_short_documents_are_drawn_as_often_as_long_ones():
    lengths = [1000, 10, 10, 1000]
    begins, tokens = np.cumsum([0, *lengths[:-1]]), sum(lengths)
    first = [document_crops(0, 0, rank, begins, tokens, 9)[0][0] for rank in range(4000)]
    counts = np.bincount(np.searchsorted(np.cumsum(lengths), first, "right"), minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 21  # chi-squared of four cells: the 99.99 % point
    places = np.array([place for place in first if place < 1000])
    assert abs(places.mean() - 990 / 2) < 40  # uniform over 0 .. 990: its standard error is 9
    assert places.max() <= 990
