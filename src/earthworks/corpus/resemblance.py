"""The walk that decides which near-duplicates are dropped, compiled: exact similarities of sorted sets of n-gram hashes."""

import numpy as np

from earthworks.compilation import compiled

CLASSES = 40  # of sizes, to a factor of e: an n-gram of a crowd is looked up among documents of one size class
SPREAD = np.uint64(0x9E3779B97F4A7C15)


@compiled
def needed(a, b, numerator, denominator):
    """The least |A & B| of sets of a and b n-grams with |A & B| / |A | B| > numerator / denominator = p / q.

    s / (a + b - s) > p / q is s (p + q) > p (a + b).
    """
    return numerator * (a + b) // (numerator + denominator) + 1


@compiled
def size_class(size):
    """Sizes of one class differ by less than one in CLASSES."""
    return np.int64(np.log(size) * CLASSES)


@compiled
def overlap(hashes, a, a_end, b, b_end, numerator, denominator):
    """|A & B| of two sorted ranges, or -1 as soon as |A & B| / |A | B| > numerator / denominator is out of reach."""
    least = needed(a_end - a, b_end - b, numerator, denominator)
    shared = 0
    spare_a, spare_b = a_end - a - least, b_end - b - least  # how many of each may have no partner
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


@compiled
def walk(order, places, groups, begins, crowded, hashes, offsets, numerator, denominator, counters):
    """For every candidate: the one it is dropped for (-1 where it is kept), what they share, their union."""
    count = len(order)
    kept = np.full(count, -1, np.int64)
    shared, union = np.zeros(count, np.int64), np.zeros(count, np.int64)
    seen = np.full(count, -1, np.int64)  # for whom a candidate was last compared
    entered = np.zeros(len(begins) - 1, np.int64)  # kept members of each group
    residents = np.empty(begins[-1], np.int32)
    comparisons = 0

    # Of members of crowds: how often their n-grams occur, and an index of their first ones.
    in_crowd = np.zeros(count, np.bool_)
    bits = np.uint64(len(counters) - 1)
    room, longest = 0, 0
    for document in range(count):
        for k in range(places[document], places[document + 1]):
            in_crowd[document] |= crowded[groups[k]]
        if in_crowd[document]:
            size = offsets[document + 1] - offsets[document]
            room += size - size * numerator // denominator
            longest = max(longest, size)
            for k in range(offsets[document], offsets[document + 1]):
                counters[hashes[k] & bits] += 1
    slots = 1
    while slots < room + room // 2:
        slots *= 2
    head = np.full(slots, -1, np.int64)
    entry_document, entry_next = np.empty(room, np.int32), np.empty(room, np.int64)
    entry_hash, entry_place = np.empty(room, np.uint64), np.empty(room, np.int32)
    frequency = np.empty(longest, np.int32)
    entries = 0

    for place in range(count):
        document = order[place]
        seen[document] = document
        begin, end = offsets[document], offsets[document + 1]
        found = np.int64(-1)
        for k in range(places[document], places[document + 1]):
            group = groups[k]
            if crowded[group]:
                continue
            for at in range(begins[group], begins[group] + entered[group]):
                other = residents[at]
                if seen[other] == document:
                    continue
                seen[other] = document
                comparisons += 1
                common = overlap(hashes, begin, end, offsets[other], offsets[other + 1], numerator, denominator)
                if common >= 0:
                    found, shared[document] = other, common
                    break
            if found >= 0:
                break
        first = np.empty(0, np.int64)
        size = end - begin
        if found < 0 and in_crowd[document]:
            for k in range(size):
                frequency[k] = counters[hashes[begin + k] & bits]
            first = np.argsort(frequency[:size], kind="mergesort")[: size - size * numerator // denominator]
            lowest, highest = size * numerator // denominator + 1, size * denominator // numerator
            for each in range(size_class(lowest), size_class(highest) + 1):
                smallest = np.int64(np.exp(each / CLASSES) * (1 - 1e-9))
                length = min(len(first), size - needed(size, smallest, numerator, denominator) + 1)
                for i in range(length):
                    hash = hashes[begin + first[i]] + np.uint64(each) * SPREAD
                    entry = head[hash >> np.uint64(20) & np.uint64(slots - 1)]
                    while entry >= 0 and found < 0:
                        other = entry_document[entry]
                        if entry_hash[entry] == hash and seen[other] != document:
                            seen[other] = document
                            other_size = offsets[other + 1] - offsets[other]
                            rest = min(
                                size - i, other_size - entry_place[entry]
                            )  # this is the first they have in common
                            if rest >= needed(size, other_size, numerator, denominator):
                                comparisons += 1
                                common = overlap(
                                    hashes, begin, end, offsets[other], offsets[other + 1], numerator, denominator
                                )
                                if common >= 0:
                                    found, shared[document] = np.int64(other), common
                        entry = entry_next[entry]
                    if found >= 0:
                        break
                if found >= 0:
                    break
        if found >= 0:
            kept[document] = found
            union[document] = end - begin + offsets[found + 1] - offsets[found] - shared[document]
            continue
        for k in range(places[document], places[document + 1]):
            group = groups[k]
            if not crowded[group]:
                residents[begins[group] + entered[group]] = document
                entered[group] += 1
        for i in range(len(first)):
            hash = hashes[begin + first[i]] + np.uint64(size_class(size)) * SPREAD
            slot = hash >> np.uint64(20) & np.uint64(slots - 1)
            entry_document[entries], entry_hash[entries], entry_place[entries] = document, hash, i
            entry_next[entries], head[slot] = head[slot], entries
            entries += 1
    return kept, shared, union, comparisons
