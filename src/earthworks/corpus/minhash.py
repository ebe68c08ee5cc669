"""MinHash: a short signature of a document's n-grams, and keys that documents of high Jaccard similarity share.

J(A, B) = |A & B| / |A | B| of two sets of n-grams. A random order of all n-grams has the same first one in A and B with
probability J, so that k orders estimate J with standard error sqrt(J (1 - J) / k) (Broder 1997).
"""

import numpy as np

from earthworks.compilation import compiled
from earthworks.corpus.rules import Texts
from earthworks.corpus.shingles import shingles
from earthworks.runs import EarthworksError

NONE = np.uint32(0xFFFFFFFF)  # the signature of a document without n-grams: two orders have no last element in common
AT_ONCE = 8  # n-grams in one pass over the signature


def signatures(texts: Texts, n: int = 13, num_hashes: int = 128, seed: int = 0) -> np.ndarray:
    """MinHash signatures of the word n-grams of `bare_words`: (documents, num_hashes) uint32.

    The order of hash j is that of a_j (x ^ b_j) modulo 2**32, x being 32 bits of the n-gram's hash, a_j odd: a permutation.
    Documents of fewer than n words have no signature (`signed`). O(num_hashes) an n-gram; equal seeds give signatures
    that can be compared, on every machine.
    """
    hashes, offsets = shingles(texts, n)
    return minima(hashes, offsets, num_hashes, seed)


def minima(hashes: np.ndarray, offsets: np.ndarray, num_hashes: int = 128, seed: int = 0) -> np.ndarray:
    """`signatures` of n-grams that are hashed already."""
    random = np.random.default_rng(seed)
    factors = random.integers(0, 2**32, num_hashes, np.uint32) | np.uint32(1)
    flips = random.integers(0, 2**32, num_hashes, np.uint32)
    out = np.full((len(offsets) - 1, num_hashes), NONE)
    take_minima(hashes, offsets, factors, flips, out)
    return out


def signed(signatures: np.ndarray) -> np.ndarray:
    """(documents,) bool: which have a signature."""
    return (signatures != NONE).any(1)


def estimates(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Jaccard similarity estimated from two signatures, or two arrays of them: the share of equal minima."""
    return (left == right).mean(-1)


def bands_for(threshold: float = 0.8, num_hashes: int = 128, recall: float = 0.98) -> tuple[int, int]:
    """(bands, rows): the most rows whose bands propose a pair of similarity `threshold` with probability >= `recall`.

    b = num_hashes // r bands of r rows propose a pair of similarity J with probability 1 - (1 - J**r)**b. More rows
    propose fewer pairs below the threshold. 0.8, 128, 0.98 -> 18 bands of 7: 0.986 at J = 0.8, 0.999 at 0.85, 0.13 at 0.5.
    Raises EarthworksError where even one row is too many.
    """
    if not (0 < threshold < 1 and 0 < recall < 1):
        raise EarthworksError(f"threshold {threshold} and recall {recall} were given; both lie between 0 and 1")
    for rows in range(num_hashes, 0, -1):
        bands = num_hashes // rows
        if 1 - (1 - threshold**rows) ** bands >= recall:
            return bands, rows
    raise EarthworksError(
        f"{num_hashes} hashes cannot propose pairs of similarity {threshold} with probability {recall}: take more hashes"
    )


def band_keys(signatures: np.ndarray, rows: int) -> np.ndarray:
    """One number for each band of `rows` minima: (documents, num_hashes // rows) uint64.

    Two documents are a proposed pair when they share the key of a band. Different bands of minima have the same key with
    a chance of 2**-64; a false proposal costs one comparison and nothing else.
    """
    out = np.empty((len(signatures), signatures.shape[1] // rows), np.uint64)
    hash_bands(np.ascontiguousarray(signatures), rows, out)
    return out


@compiled
def take_minima(hashes, offsets, factors, flips, out):
    count = len(factors)
    padded = np.empty(AT_ONCE, np.uint32)
    lowest = np.empty(count, np.uint32)
    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        lowest[:] = NONE
        for at in range(begin, end, AT_ONCE):
            for k in range(AT_ONCE):  # the last pass takes its last n-gram several times
                padded[k] = np.uint32(hashes[min(at + k, end - 1)])
            a, b, c, d = padded[0], padded[1], padded[2], padded[3]
            e, f, g, h = padded[4], padded[5], padded[6], padded[7]
            for j in range(count):  # the compiler makes vectors of this loop
                factor, flip = factors[j], flips[j]
                p, q = np.uint32((a ^ flip) * factor), np.uint32((b ^ flip) * factor)
                r, s = np.uint32((c ^ flip) * factor), np.uint32((d ^ flip) * factor)
                t, u = np.uint32((e ^ flip) * factor), np.uint32((f ^ flip) * factor)
                v, w = np.uint32((g ^ flip) * factor), np.uint32((h ^ flip) * factor)
                lowest[j] = min(min(min(min(p, q), min(r, s)), min(min(t, u), min(v, w))), lowest[j])
        out[document, :] = lowest


@compiled
def hash_bands(signatures, rows, out):
    for document in range(out.shape[0]):
        for band in range(out.shape[1]):
            hash = np.uint64(band)
            for row in range(rows):
                hash = (hash ^ np.uint64(signatures[document, band * rows + row])) * np.uint64(0xFF51AFD7ED558CCD)
                hash ^= hash >> np.uint64(32)
            out[document, band] = hash
