"""Compiled scanning of UTF-8 and counting of repeated n-grams, shared by literal_kernels.py and datatrove_kernels.py.

Three ideas make them fast.
* One scan decodes the text, splits it into words, lines and paragraphs, and hashes them, without making strings.
* Words and lines become numbers, the index of their first occurrence, by a hash table that compares bytes.
* An (n+1)-gram can only be repeated if both its n-grams are. Repeated n-grams are listed, each with a number that
  identifies its words; an (n+1)-gram is a pair of neighbours in that list, looked up exactly. By n = 3 the list is short.
"""

import numpy as np

from earthworks.compilation import compiled, eight_bytes, trailing_zeros

SPACE, LETTER, PUNCTUATION = 1, 2, 4  # kinds of code points; the last is only for `datatrove`
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
SEED = np.uint64(0xCBF29CE484222325)
ONES, HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)  # in each of eight bytes


@compiled
def mix(hash, value):
    hash = (hash ^ value) * MULTIPLIER
    return hash ^ (hash >> np.uint64(29))


@compiled
def up_to_eight(data, at, end):
    """Up to eight bytes from `at`, before `end`, the first one lowest, padded with zeros."""
    if at + 8 <= len(data):
        bits = eight_bytes(data, at)
        return bits if end - at >= 8 else bits & ((np.uint64(1) << np.uint64(8 * (end - at))) - np.uint64(1))
    bits = np.uint64(0)
    for k in range(end - at):
        bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return bits


@compiled
def ascii_letters(bits):
    """Number of leading ASCII letters among eight bytes, and these letters alone."""
    low = (bits | ONES * np.uint64(0x20)) & ~HIGH
    other = (
        ~((low + ONES * np.uint64(0x1F)) & ~(low + ONES * np.uint64(5)) & ~bits) & HIGH
    )  # beyond "a", not beyond "z"
    if other == 0:
        return 8, bits
    place = trailing_zeros(other) >> 3
    return place, bits & ((np.uint64(1) << np.uint64(8 * place)) - np.uint64(1))


@compiled
def decode(data, at):
    """The code point whose UTF-8 starts at `at`, and its number of bytes."""
    byte = np.int64(data[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(data[at + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(data[at + 1] & 0x3F) << 6 | np.int64(data[at + 2] & 0x3F), 3
    code = (byte & 0x07) << 18 | np.int64(data[at + 1] & 0x3F) << 12
    return code | np.int64(data[at + 2] & 0x3F) << 6 | np.int64(data[at + 3] & 0x3F), 4


@compiled
def table_size(items):
    """Power of two that is at least twice the number of items."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@compiled
def equal(data, a, b, size):
    for offset in range(0, size, 8):
        if up_to_eight(data, a + offset, a + size) != up_to_eight(data, b + offset, b + size):
            return False
    return True


@compiled
def number(data, starts, ends, hashes, count, table, numbers):
    """Set numbers[k] to the index of the first item equal to item k; items are ranges of bytes."""
    mask = np.uint64(len(table) - 1)
    table[:] = -1
    for k in range(count):
        place = hashes[k] & mask
        size = ends[k] - starts[k]
        while True:
            other = table[place]
            if other < 0:
                table[place] = k
                numbers[k] = k
                break
            alike = hashes[other] == hashes[k] and ends[other] - starts[other] == size
            if alike and equal(data, starts[k], starts[other], size):
                numbers[k] = other
                break
            place = (place + np.uint64(1)) & mask


@compiled
def repeated(numbers, count, starts, classes, frequency):
    """Positions, in order, and numbers of the words that occur at least twice; return how many there are."""
    frequency[:count] = 0
    for k in range(count):
        frequency[numbers[k]] += 1
    left = 0
    for k in range(count):
        starts[left], classes[left] = k, numbers[k]
        left += frequency[numbers[k]] > 1
    return left


@compiled
def lengthen(starts, classes, left, frequency, keys, table):
    """Turn the repeated n-grams into the repeated (n+1)-grams, in place; return how many are left."""
    size = table_size(left)
    mask = np.uint64(size - 1)
    table[:size] = -1
    pairs = 0
    for k in range(left - 1):
        if starts[k + 1] != starts[k] + 1:
            continue
        key = np.uint64(classes[k]) << np.uint64(32) | np.uint64(classes[k + 1])
        place = mix(SEED, key) & mask
        while table[place] >= 0 and keys[place] != key:
            place = (place + np.uint64(1)) & mask
        if table[place] < 0:
            keys[place], table[place] = key, pairs
            frequency[pairs] = 0
        frequency[table[place]] += 1
        starts[pairs], classes[pairs] = starts[k], table[place]
        pairs += 1
    left = 0
    for k in range(pairs):
        starts[left], classes[left] = starts[k], classes[k]
        left += frequency[classes[k]] > 1
    return left


@compiled
def top_characters(starts, classes, left, n, frequency, before, covered, ends):
    """Characters covered by the most frequent n-gram (on ties, the maximum); before[k]: characters before word k."""
    highest = 0
    for k in range(left):
        highest = max(highest, frequency[classes[k]])
        covered[classes[k]] = ends[classes[k]] = 0
    best = 0
    for k in range(left):
        each, start = classes[k], starts[k]
        if frequency[each] == highest:
            covered[each] += before[start + n] - before[max(start, ends[each])]
            ends[each] = start + n
            best = max(best, covered[each])
    return best


@compiled
def duplicate_characters(starts, left, n, before):
    """Characters covered by repeated n-grams, every word counted once."""
    total, end = 0, 0
    for k in range(left):
        total += before[starts[k] + n] - before[max(starts[k], end)]
        end = starts[k] + n
    return total


@compiled
def later_copies(numbers, lengths, count):
    """Number of items equal to an earlier one, and their characters."""
    copies, characters = 0, 0
    for k in range(count):
        if numbers[k] != k:
            copies += 1
            characters += lengths[k]
    return copies, characters


@compiled
def ratio(part, whole):
    return part / whole if whole else 0.0


@compiled
def spells(data, at, end, codes, first, after, lower):
    """Whether the bytes spell the word; with `lower` (by code point) in lower case, otherwise as written."""
    while at < end:
        code, size = decode(data, at)
        dotted = False
        if len(lower):
            dotted = code == 0x130  # the one capital whose lower case is two code points
            code = np.int64(lower[code])
        if first == after or codes[first] != code:
            return False
        first += 1
        if dotted:
            if first == after or codes[first] != 0x307:
                return False
            first += 1
        at += size
    return first == after


@compiled
def short_key(bits, size):
    return bits | np.uint64(size) << np.uint64(56)


@compiled
def place_of(key, keys):
    """Position of a key in the table, or the empty position (0) where it would be inserted."""
    mask = np.uint64(len(keys) - 1)
    place = mix(SEED, key) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return place


@compiled
def ascii_lower_case(bits):
    """Eight ASCII bytes with 0x20 added to capitals."""
    return bits | ((bits + ONES * np.uint64(0x3F)) & ~(bits + ONES * np.uint64(0x25)) & HIGH) >> np.uint64(2)


@compiled
def is_short(bits, size):
    return size < 8 and bits & HIGH == 0


@compiled
def long_stop_word(data, start, end, stop_words, lower):
    """Index of the stop word spelled by the bytes; the number of stop words if there is none."""
    codes, places, buckets, _, _, longest = stop_words
    none = len(places) - 1
    if longest < 8 and end - start >= 8 and eight_bytes(data, start) & HIGH == 0:
        return none
    code, _ = decode(data, start)
    if len(lower):
        code = np.int64(lower[code])
    for k in range(buckets[code & 63], buckets[(code & 63) + 1]):
        if spells(data, start, end, codes, places[k], places[k + 1], lower):
            return k
    return none


@compiled
def distinct(found_in, document):
    count = 0
    for k in range(len(found_in) - 1):
        count += found_in[k] == document
    return count
