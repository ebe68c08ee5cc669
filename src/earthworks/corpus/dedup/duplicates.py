"""Exact and near-duplicate detection.

    keys = exact_keys(texts)                                                   128 bits of every text
    kept = exact_duplicates(keys, priorities(exact_keys(ids), seed))           the document kept for each document
    groups = propose(band_keys, mask)                                          documents that share the key of a band
    evidence = near_duplicates(groups, priorities(keys, seed), shingles_of)    dropped documents, with those kept for them

The paper drops, at random, one of two documents whose 13-gram Jaccard similarity is above 0.8. LSH proposes such pairs; the
exact similarity of their n-grams decides. A document is dropped only if it is itself similar to one that is *kept*: if
A ~ B ~ C but A and C differ, C stays when B is dropped for A. The result depends only on texts and seed, not on the order
of files or the number of shards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from earthworks.corpus.rules.profiles import Texts, buffers, kinds
from earthworks.runs import EarthworksError

CROWD = 512  # members from which a group is not compared pair by pair

# Exact copies


def exact_keys(texts: Texts) -> np.ndarray:
    """128-bit hashes of texts after collapsing runs of white space (`str.isspace`) to one space and trimming.

    (documents, 2) uint64, the same on every machine: `" ".join(text.split())` decides which texts are equal; case and
    punctuation count. Each of the two lanes distinguishes texts that differ in at most eight bytes in one place, and
    confuses others with probability 2**-64: among 10**9 documents, a false match has probability 2e-21. O(bytes).
    """
    from earthworks.corpus.dedup.hashing import hash_texts

    data, offsets = buffers(texts)
    out = np.empty((len(offsets) - 1, 2), np.uint64)
    hash_texts(data, offsets, kinds(), out)
    return out


def priorities(keys: np.ndarray, seed: int) -> np.ndarray:
    """A random number for every 128-bit key: (documents,) uint64. The lower one of two is kept."""
    from earthworks.corpus.dedup.hashing import hash_rows

    return hash_rows(keys, seed % 2**64)


def exact_duplicates(keys: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """The document kept for each document: (documents,) int64, its own index if it is kept.

    Of documents with equal keys the one with the lowest priority number is kept, on ties the first. Since equal texts
    have equal keys, `priority` must come from something else, such as the ids. O(d log d); 40 bytes per document.
    """
    order = np.lexsort((priority, keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    begins = np.r_[True, (ordered[1:] != ordered[:-1]).any(1)][: len(order)]
    kept = np.empty(len(order), np.int64)
    kept[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    return kept


# Near copies


@dataclass(frozen=True)
class Groups:
    """Documents that share the key of a band with another one.

    `candidates` (c,) int64: these documents, ascending. `groups[places[i] : places[i + 1]]` int32: groups of candidate i, in
    the order of the bands. `sizes` (groups,): number of members.
    """

    candidates: np.ndarray
    places: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Dropped near copies: `dropped[i]` shares `shared[i]` of `union[i]` distinct n-grams with `kept[i]`.

    All (pairs,) int64, in ascending order of `dropped`, which has no document twice and none that is in `kept`.
    `candidates` documents were examined in `comparisons` exact comparisons.
    """

    dropped: np.ndarray
    kept: np.ndarray
    shared: np.ndarray
    union: np.ndarray
    candidates: int
    comparisons: int

    @property
    def jaccard(self) -> np.ndarray:
        return self.shared / self.union


def propose(bands: Sequence[np.ndarray] | Callable[[int], np.ndarray], num_bands: int, mask: np.ndarray) -> Groups:
    """Gather the documents that share a key, band by band.

    `bands[b]` or `bands(b)`: the keys (documents,) uint64 of band b, which may be on disk; `mask` (documents,) bool selects
    the documents that take part (those with a signature that are not exact copies).
    Memory: 36 bytes per document while a band is sorted, and 40 bytes per membership of a candidate in a group, at most
    one per band.
    """
    documents = np.flatnonzero(mask)
    members, sizes = [documents[:0]], [np.empty(0, np.int32)]
    for band in range(num_bands):
        keys = np.asarray(bands(band) if callable(bands) else bands[band])[documents]
        order = np.argsort(keys)
        keys = keys[order]
        like_next = np.r_[keys[1:] == keys[:-1], False][: len(keys)]
        like_last = np.r_[False, like_next[:-1]][: len(keys)]
        grouped = np.logical_or(like_next, like_last)
        members.append(documents[order[grouped]])
        begins = np.flatnonzero(~like_last[grouped])
        sizes.append(np.diff(begins, append=len(members[-1])).astype(np.int32))
    member, size = np.concatenate(members), np.concatenate(sizes)
    del members
    group = np.repeat(np.arange(len(size), dtype=np.int32), size)
    order = np.argsort(member, kind="stable")  # groups of one document in the order of the bands
    member, group = member[order], group[order]
    begins = np.flatnonzero(np.r_[True, member[1:] != member[:-1]][: len(member)])
    return Groups(member[begins], np.r_[begins, len(member)], group, size)


def near_duplicates(
    groups: Groups,
    priority: np.ndarray,
    shingles_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    threshold: float = 0.8,
) -> Evidence:
    """Drop every candidate whose Jaccard similarity to a kept member of one of its groups is above `threshold`.

    Candidates are processed in ascending order of `priority` (documents,) uint64, ties in their own order; each is
    compared with the members of its groups kept so far, and dropped for the first with

        |A & B| / |A | B| > threshold, compared as whole numbers (0.8 is 4/5), for sets of 64-bit n-gram hashes.

    `shingles_of(candidates)` returns their n-grams as `distinct` does: hashes, sorted and distinct for each candidate, and
    offsets (c + 1); both may be memory-mapped. A comparison stops as soon as the threshold is out of reach.

    Groups of CROWD or more members, such as pages that share a long menu, are not compared pair by pair. Two sets of a and
    b n-grams with J > t share s > t (a + b) / (1 + t), hence also one of the first a - s + 1 and b - s + 1 of them in any
    order of all n-grams (Chaudhuri et al. 2006; Xiao et al. 2008 for the lengths). In the order from rare to frequent, these
    distinguish pages with the same menu: members of crowds are compared only if they share one of them. No pair above the
    threshold is missed, and no comparison is truncated.

    Memory in addition to the groups: 8 bytes per n-gram of the candidates unless mapped, 40 bytes per candidate, and for
    members of crowds up to 48 bytes per n-gram among the rarest |A| - floor(t |A|) (at 0.8 about 10 bytes per n-gram).
    """
    from earthworks.corpus.dedup.jaccard import crowd_of, walk

    if not 0 < threshold < 1:
        raise EarthworksError(f"threshold is {threshold}; it must be a Jaccard similarity between 0 and 1")
    share = Fraction(str(threshold)).limit_denominator(10**6)
    hashes, offsets = shingles_of(groups.candidates)
    assert len(offsets) == len(groups.candidates) + 1, "shingles_of returned a different number of documents"
    hashes, offsets, of = np.asarray(hashes), np.asarray(offsets), groups.candidates
    crowded = groups.sizes >= CROWD
    member = np.zeros(len(of), bool)
    member[np.repeat(np.arange(len(of)), np.diff(groups.places))[crowded[groups.groups]]] = True
    kept, shared, comparisons = walk(
        np.argsort(priority[of], kind="stable"),
        groups.places,
        groups.groups,
        np.r_[0, np.cumsum(groups.sizes, dtype=np.int64)],
        crowded,
        crowd_of(member, hashes, offsets, share.numerator, share.denominator),
        hashes,
        offsets,
        share.numerator,
        share.denominator,
    )
    sizes, dropped = np.diff(offsets), np.flatnonzero(kept >= 0)
    kept, shared = kept[dropped], shared[dropped]
    union = sizes[dropped] + sizes[kept] - shared
    return Evidence(of[dropped], of[kept], shared, union, candidates=len(of), comparisons=int(comparisons))
