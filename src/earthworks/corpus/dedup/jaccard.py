"""Compiled selection of near-duplicates to drop, by exact similarities of sorted sets of n-gram hashes."""

from typing import NamedTuple

import numpy as np

from earthworks.compilation import compiled

COUNTERS = 1 << 22  # counters of n-gram occurrences in crowds, indexed by some bits of the hash
CLASSES = 40  # size classes per factor of e: an n-gram of a crowd is looked up among documents of one size class
SPREAD = np.uint64(0x9E3779B97F4A7C15)


@compiled
def needed(a, b, numerator, denominator):
    """The least |A & B| of sets of a and b n-grams with |A & B| / |A | B| > numerator / denominator = p / q.

    s / (a + b - s) > p / q is s (p + q) > p (a + b).
    """
    return numerator * (a + b) // (numerator + denominator) + 1


@compiled
def size_class(size):
    """Class of a size; sizes in one class differ by less than one part in CLASSES."""
    return np.int64(np.log(size) * CLASSES)


@compiled
def overlap(hashes, a, a_end, b, b_end, numerator, denominator):
    """|A & B| of two sorted ranges, or -1 once |A & B| / |A | B| > numerator / denominator is out of reach."""
    least = needed(a_end - a, b_end - b, numerator, denominator)
    shared = 0
    spare_a, spare_b = a_end - a - least, b_end - b - least  # how many of each may be unmatched
    if spare_a < 0 or spare_b < 0:
        return -1
    while a < a_end and b < b_end:
        if hashes[a] == hashes[b]:
            shared += 1
            a += 1
            b += 1
        elif hashes[a] < hashes[b]:
            a += 1
            spare_a -= 1
            if spare_a < 0:
                return -1
        else:
            b += 1
            spare_b -= 1
            if spare_b < 0:
                return -1
    return shared if shared >= least else -1


class Crowd(NamedTuple):
    """Index of the n-grams of kept members of crowds.

    `member` (candidates,) bool; `counters`: occurrences of n-grams in crowds, by some bits of their hash, which order all
    n-grams from rare to frequent, ties by hash. Entries (e,): the hash of an n-gram and a size class, its document, its
    rank among the document's n-grams in that order, and the next entry in the chain of `head`.
    """

    member: np.ndarray
    counters: np.ndarray
    head: np.ndarray
    next: np.ndarray
    hash: np.ndarray
    document: np.ndarray
    place: np.ndarray


def crowd_of(member: np.ndarray, hashes: np.ndarray, offsets: np.ndarray, numerator: int, denominator: int) -> Crowd:
    """An empty index with room for the n-grams of all members of crowds, and their counters."""
    sizes = np.diff(offsets)[member]
    room = int((sizes - sizes * numerator // denominator).sum())
    counters = np.zeros(COUNTERS if room else 1, np.int32)
    count_ngrams(member, hashes, offsets, counters)
    return Crowd(
        member,
        counters,
        head=np.full(1 << (room + room // 2).bit_length(), -1, np.int64),
        next=np.empty(room, np.int64),
        hash=np.empty(room, np.uint64),
        document=np.empty(room, np.int32),
        place=np.empty(room, np.int32),
    )


@compiled
def count_ngrams(member, hashes, offsets, counters):
    bits = np.uint64(len(counters) - 1)
    for document in range(len(member)):
        if member[document]:
            for k in range(offsets[document], offsets[document + 1]):
                counters[hashes[k] & bits] += 1


@compiled
def rarest(document, hashes, offsets, crowd, numerator, denominator):
    """Indices of the document's rarest |A| - floor(t |A|) n-grams, rarest first."""
    begin, end = offsets[document], offsets[document + 1]
    frequency = np.empty(end - begin, np.int32)
    for k in range(begin, end):
        frequency[k - begin] = crowd.counters[hashes[k] & np.uint64(len(crowd.counters) - 1)]
    return begin + np.argsort(frequency, kind="mergesort")[: end - begin - (end - begin) * numerator // denominator]


@compiled
def chain(hash, crowd):
    return hash >> np.uint64(20) & np.uint64(len(crowd.head) - 1)


@compiled
def search(document, rare, hashes, offsets, crowd, seen, numerator, denominator):
    """A kept member of a crowd similar to the document, or -1; number of shared n-grams; number of comparisons."""
    begin, end = offsets[document], offsets[document + 1]
    size, comparisons = end - begin, 0
    lowest, highest = size * numerator // denominator + 1, size * denominator // numerator
    for each in range(size_class(lowest), size_class(highest) + 1):
        smallest = np.int64(np.exp(each / CLASSES) * (1 - 1e-9))
        length = min(len(rare), size - needed(size, smallest, numerator, denominator) + 1)
        for i in range(length):
            hash = hashes[rare[i]] + np.uint64(each) * SPREAD
            entry = crowd.head[chain(hash, crowd)]
            while entry >= 0:
                other = np.int64(crowd.document[entry])
                if crowd.hash[entry] == hash and seen[other] != document:
                    seen[other] = document  # they share nothing rarer, so all shared n-grams are from here on
                    a, b = offsets[other], offsets[other + 1]
                    if min(size - i, b - a - crowd.place[entry]) >= needed(size, b - a, numerator, denominator):
                        comparisons += 1
                        common = overlap(hashes, begin, end, a, b, numerator, denominator)
                        if common >= 0:
                            return other, common, comparisons
                entry = crowd.next[entry]
    return np.int64(-1), np.int64(-1), comparisons


@compiled
def enter(document, rare, hashes, offsets, crowd, entries):
    """Append a kept member of a crowd after `entries` entries; return the new number of entries."""
    spread = np.uint64(size_class(offsets[document + 1] - offsets[document])) * SPREAD
    for i in range(len(rare)):
        hash = hashes[rare[i]] + spread
        crowd.document[entries], crowd.hash[entries], crowd.place[entries] = document, hash, i
        crowd.next[entries] = crowd.head[chain(hash, crowd)]
        crowd.head[chain(hash, crowd)] = entries
        entries += 1
    return entries


@compiled
def walk(order, places, groups, begins, crowded, crowd, hashes, offsets, numerator, denominator):
    """For every candidate, the one it is dropped for (-1 if kept) and the number of shared n-grams; all comparisons.

    Candidate d is in groups[places[d] : places[d + 1]]; members of group g are stored from begins[g] on.
    """
    count = len(order)
    kept, shared = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    seen = np.full(count, -1, np.int64)  # the document with which a candidate was last compared
    entered = np.zeros(len(begins) - 1, np.int64)  # kept members of each group
    residents = np.empty(begins[-1], np.int32)
    comparisons, entries = 0, 0
    for document in order:
        begin, end = offsets[document], offsets[document + 1]
        found, common = np.int64(-1), np.int64(-1)
        for group in groups[places[document] : places[document + 1]]:
            for at in range(begins[group], begins[group] + entered[group]):
                other = residents[at]
                if seen[other] != document:
                    seen[other] = document
                    comparisons += 1
                    common = overlap(hashes, begin, end, offsets[other], offsets[other + 1], numerator, denominator)
                    if common >= 0:
                        found = np.int64(other)
                        break
            if found >= 0:
                break
        if found < 0 and crowd.member[document]:
            rare = rarest(document, hashes, offsets, crowd, numerator, denominator)
            found, common, compared = search(document, rare, hashes, offsets, crowd, seen, numerator, denominator)
            comparisons += compared
            if found < 0:
                entries = enter(document, rare, hashes, offsets, crowd, entries)
        if found >= 0:
            kept[document], shared[document] = found, common
            continue
        for group in groups[places[document] : places[document + 1]]:
            if not crowded[group]:
                residents[begins[group] + entered[group]] = document
                entered[group] += 1
    return kept, shared, comparisons
