"""MinHash: the estimate is unbiased with the error that theory gives it, and bands propose what they promise."""

import numpy as np
import pytest

from earthworks.corpus.dedup.minhash import band_keys, bands_for, estimates, minima, signatures, signed
from earthworks.corpus.dedup.shingles import shingles
from earthworks.runs import EarthworksError


def sets(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    """Disjoint sets of hashes."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 2**64, size, np.uint64) for size in sizes]


def pair(shared: int, left: int, right: int, draw: int = 0, **options) -> float:
    """The estimate for two sets of which `shared` hashes are in both."""
    both, one, other = sets(shared, left, right, seed=draw)
    hashes = np.concatenate([both, one, both, other])
    found = minima(hashes, np.array([0, shared + left, len(hashes)]), **options)
    return float(estimates(found[0], found[1]))


def test_signatures_are_the_least_of_every_permutation():
    texts = ["a b c d e f g h i j k l", "c d e f " * 9, "a b", ""]
    hashes, offsets = shingles(texts, 3)
    random = np.random.default_rng(5)
    factors = random.integers(0, 2**32, 70, np.uint32) | 1
    flips = random.integers(0, 2**32, 70, np.uint32)
    found = signatures(texts, n=3, num_hashes=70, seed=5)
    assert found.shape == (4, 70)
    assert found.dtype == np.uint32
    for k in range(2):
        own = [int(each) % 2**32 for each in hashes[offsets[k] : offsets[k + 1]]]
        for j in range(70):
            assert found[k, j] == min((x ^ int(flips[j])) * int(factors[j]) % 2**32 for x in own)
    assert signed(found).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("shared", "left", "right"), [(80, 10, 10), (50, 25, 25), (5, 95, 300), (1, 1, 2), (900, 50, 50)]
)
def test_estimates_are_unbiased_with_the_error_of_theory(shared, left, right):
    """Mean error within 4 standard errors of none, spread within 15 % of sqrt(J (1 - J) / k), over 400 pairs of sets."""
    truth, k = shared / (shared + left + right), 128
    theory = (truth * (1 - truth) / k) ** 0.5
    errors = np.array([pair(shared, left, right, draw, num_hashes=k) - truth for draw in range(400)])
    assert abs(errors.mean()) < 4 * theory / 20
    assert 0.85 < errors.std() / theory < 1.15


def test_other_seeds_are_other_permutations():
    guesses = [pair(60, 20, 20, num_hashes=64, seed=seed) for seed in range(300)]
    assert abs(np.mean(guesses) - 0.6) < 4 * (0.24 / 64 / 300) ** 0.5
    assert len(set(guesses)) > 10


def test_documents_of_a_batch_do_not_touch():
    texts = ["a b c d", "b c d e f g", "", "c d e"]
    together = signatures(texts, n=2, num_hashes=16)
    for k, text in enumerate(texts):
        assert np.array_equal(signatures([text], n=2, num_hashes=16)[0], together[k])


def test_bands_are_the_steepest_of_the_recall_asked_for():
    assert bands_for() == (18, 7)
    assert bands_for(0.8, 128, 0.94) == (16, 8)
    for threshold, num_hashes, recall in [(0.8, 128, 0.98), (0.5, 256, 0.9), (0.9, 112, 0.999), (0.7, 20, 0.5)]:
        bands, rows = bands_for(threshold, num_hashes, recall)
        assert bands * rows <= num_hashes
        assert 1 - (1 - threshold**rows) ** bands >= recall
        for steeper in range(rows + 1, num_hashes + 1):
            assert 1 - (1 - threshold**steeper) ** (num_hashes // steeper) < recall


def test_bands_that_cannot_be_are_refused():
    with pytest.raises(EarthworksError, match="use more hashes"):
        bands_for(0.05, 4, 0.99)
    with pytest.raises(EarthworksError, match="between 0 and 1"):
        bands_for(1.0)


def test_keys_are_equal_exactly_where_all_rows_of_a_band_are():
    random = np.random.default_rng(0)
    found = random.integers(0, 2, (400, 12)).astype(np.uint32)
    keys = band_keys(found, 5)  # two bands; two minima are left over
    assert keys.shape == (400, 2)
    for band in range(2):
        rows = found[:, 5 * band : 5 * band + 5]
        equal = (rows[:, None] == rows[None]).all(-1)
        assert np.array_equal(keys[:, None, band] == keys[None, :, band], equal)
    assert not np.isin(keys[:, 0], keys[:, 1]).any()  # the same minima in another band are another key


def test_bands_propose_pairs_as_often_as_they_promise():
    bands, rows = bands_for()
    for shared, left, right in [(80, 10, 10), (60, 20, 20)]:
        truth = shared / 100
        found = []
        for seed in range(400):
            both, one, other = sets(shared, left, right, seed=seed)
            hashes = np.concatenate([both, one, both, other])
            keys = band_keys(minima(hashes, np.array([0, shared + left, len(hashes)])), rows)
            found.append((keys[0, :bands] == keys[1, :bands]).any())
        promise = 1 - (1 - truth**rows) ** bands
        assert abs(np.mean(found) - promise) < 4 * (promise * (1 - promise) / 400) ** 0.5 + 0.01
