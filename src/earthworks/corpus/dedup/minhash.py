"""MinHash: short signatures of documents' n-grams, and band keys shared by documents of high Jaccard similarity.

J(A, B) = |A & B| / |A | B| of two sets of n-grams. A random order of all n-grams has the same first one in A and B with
probability J, so k orders estimate J with standard error sqrt(J (1 - J) / k) (Broder 1997).
"""

import numpy as np

from earthworks.corpus.dedup.shingles import shingles
from earthworks.corpus.rules.profiles import Texts
from earthworks.runs import EarthworksError

NONE = np.uint32(0xFFFFFFFF)  # minima of a document without n-grams: no element is last in two orders


def signatures(texts: Texts, n: int = 13, num_hashes: int = 128, seed: int = 0) -> np.ndarray:
    """MinHash signatures of the word n-grams of `bare_words`: (documents, num_hashes) uint32.

    The order of hash j is that of a_j (x ^ b_j) modulo 2**32, x being 32 bits of the n-gram's hash, a_j odd: a permutation.
    Documents of fewer than n words have no signature (`signed`). O(num_hashes) per n-gram; signatures of equal seeds are
    comparable across machines.
    """
    hashes, offsets = shingles(texts, n)
    return minima(hashes, offsets, num_hashes, seed)


def minima(hashes: np.ndarray, offsets: np.ndarray, num_hashes: int = 128, seed: int = 0) -> np.ndarray:
    """`signatures` of n-grams that are already hashed."""
    from earthworks.corpus.dedup.hashing import take_minima

    random = np.random.default_rng(seed)
    factors = random.integers(0, 2**32, num_hashes, np.uint32) | np.uint32(1)
    flips = random.integers(0, 2**32, num_hashes, np.uint32)
    out = np.empty((len(offsets) - 1, num_hashes), np.uint32)
    take_minima(hashes, offsets, factors, flips, NONE, out)
    return out


def signed(signatures: np.ndarray) -> np.ndarray:
    """(documents,) bool: which documents have a signature."""
    return (signatures != NONE).any(1)


def estimates(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Jaccard similarity estimated from two signatures, or two arrays of them: the share of equal minima."""
    return (left == right).mean(-1)


def bands_for(threshold: float = 0.8, num_hashes: int = 128, recall: float = 0.98) -> tuple[int, int]:
    """(bands, rows): the most rows whose bands propose a pair of similarity `threshold` with probability >= `recall`.

    b = num_hashes // r bands of r rows propose a pair of similarity J with probability 1 - (1 - J**r)**b. More rows
    propose fewer pairs below the threshold. 0.8, 128, 0.98 -> 18 bands of 7: 0.986 at J = 0.8, 0.999 at 0.85, 0.13 at 0.5.
    Raises EarthworksError if even one row is too many.
    """
    if not (0 < threshold < 1 and 0 < recall < 1):
        raise EarthworksError(f"threshold is {threshold} and recall {recall}; both must be between 0 and 1")
    for rows in range(num_hashes, 0, -1):
        bands = num_hashes // rows
        if 1 - (1 - threshold**rows) ** bands >= recall:
            return bands, rows
    raise EarthworksError(
        f"{num_hashes} hashes cannot propose pairs of similarity {threshold} with probability {recall}: use more hashes"
    )


def band_keys(signatures: np.ndarray, rows: int) -> np.ndarray:
    """One key for each band of `rows` minima: (documents, num_hashes // rows) uint64.

    Two documents are a proposed pair if they share the key of a band. Different minima have the same key with probability
    2**-64; a false proposal only costs one comparison.
    """
    from earthworks.corpus.dedup.hashing import hash_rows

    bands = range(signatures.shape[1] // rows)
    keys = [hash_rows(signatures[:, band * rows : (band + 1) * rows], band) for band in bands]
    return np.stack(keys, 1)
