"""Compiled 64-bit hashes of words, n-grams and whole texts, computed on UTF-8 bytes without making strings.

All input passes through `finish` block by block, h <- finish(h ^ block). This is a bijection, so inputs that differ in one
block never collide; and every bit affects all others, so inputs that differ in more collide with probability 2**-64. (A
single multiplication by an odd number is not enough: a difference in the high bits of one block stays in few bits, which a
difference in the next block cancels.)
"""

import numpy as np

from earthworks.compilation import compiled

DROPPED, SPACE = 0, 1  # in the folding table; its other entries are code points
BASE = np.uint64(0xD6E8FEB86659FD93)  # 3 modulo 8: B**i - B**j is then divisible by few powers of 2
AT_ONCE = 8  # n-grams in one pass over a signature
EACH, TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)  # 1 and 0x80 in each byte
FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


@compiled
def finish(hash):
    hash = (hash ^ (hash >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hash = (hash ^ (hash >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hash ^ (hash >> np.uint64(33))


@compiled
def hash_rows(rows, seed):
    """One number for every row of a matrix of unsigned numbers."""
    out = np.empty(len(rows), np.uint64)
    start = finish(np.uint64(seed) ^ FIRST)
    for k in range(len(rows)):
        hash = start
        for value in rows[k]:
            hash = finish(hash ^ np.uint64(value))
        out[k] = hash
    return out


@compiled
def decode(data, at):
    """The code point whose UTF-8, of two bytes or more, starts at `at`, and its number of bytes."""
    byte = np.int64(data[at])
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(data[at + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(data[at + 1] & 0x3F) << 6 | np.int64(data[at + 2] & 0x3F), 3
    code = (byte & 0x07) << 18 | np.int64(data[at + 1] & 0x3F) << 12
    return code | np.int64(data[at + 2] & 0x3F) << 6 | np.int64(data[at + 3] & 0x3F), 4


@compiled
def eight_bytes(data, at):
    """data[at : at + 8] as one number, the first byte lowest; compiled to one load."""
    u = np.uint64(at)
    low = np.uint64(data[u]) | np.uint64(data[u + np.uint64(1)]) << np.uint64(8)
    low |= np.uint64(data[u + np.uint64(2)]) << np.uint64(16) | np.uint64(data[u + np.uint64(3)]) << np.uint64(24)
    low |= np.uint64(data[u + np.uint64(4)]) << np.uint64(32) | np.uint64(data[u + np.uint64(5)]) << np.uint64(40)
    return low | np.uint64(data[u + np.uint64(6)]) << np.uint64(48) | np.uint64(data[u + np.uint64(7)]) << np.uint64(56)


@compiled
def between(bytes, low, high):
    """The top bit of each byte from `low` to `high`; all bytes are below 0x80."""
    return (bytes + EACH * np.uint64(0x80 - low)) & ~(bytes + EACH * np.uint64(0x7F - high)) & TOPS


@compiled
def hash_words(data, at, end, fold, words):
    """Write the hash of every word of data[at:end] to `words`; return their number.

    A block is eight bytes of a word, the first lowest; the last block, of at most seven bytes, has their number in its top
    byte. A folded code point above 0x7F is three bytes above 0x7F. ASCII letters and digits are processed eight at a time.
    """
    count, hash, packed, size = 0, np.uint64(0), np.uint64(0), np.uint64(0)
    seven, eight = np.uint64(7), np.uint64(8)
    while at < end:
        if size & seven == 0 and at + 8 <= end:
            block = eight_bytes(data, at)
            plain = block & ~TOPS
            letters = between(plain | EACH << np.uint64(5), 0x61, 0x7A)
            others = ~(letters | between(plain, 0x30, 0x39)) & TOPS | block & TOPS
            block |= letters >> np.uint64(2)  # 0x20: lower case
            if others == 0:
                hash = finish(hash ^ block)
                size += eight
                at += 8
                continue
            first = (others & (~others + np.uint64(1))) >> seven  # 256**k for k leading letters and digits
            packed = block & (first - np.uint64(1))
            known = (first * np.uint64(0x0001020304050607)) >> np.uint64(56)
            size += known
            at += np.int64(known)
        byte = data[at]
        if byte < 0x80:
            code = fold[byte]
            at += 1
            if code > SPACE:
                packed |= np.uint64(code) << (size & seven) * eight
                size += np.uint64(1)
                if size & seven == 0:
                    hash, packed = finish(hash ^ packed), np.uint64(0)
                continue
        else:
            code, length = decode(data, at)
            code = fold[code]
            at += length
            if code > SPACE:
                marked = code > 0x7F
                for shift in range(14 if marked else 0, -1, -7):
                    part = code >> shift & 0x7F | 0x80 if marked else code
                    packed |= np.uint64(part) << (size & seven) * eight
                    size += np.uint64(1)
                    if size & seven == 0:
                        hash, packed = finish(hash ^ packed), np.uint64(0)
                continue
        if code == SPACE and size:
            words[count] = finish(hash ^ (packed | (size & seven) << np.uint64(56)))
            count += 1
            hash, packed, size = np.uint64(0), np.uint64(0), np.uint64(0)
    if size:
        words[count] = finish(hash ^ (packed | (size & seven) << np.uint64(56)))
        count += 1
    return count


@compiled
def word_places(data, at, end, fold, begins, ends):
    """Write the start and end of each word of data[at:end], including its punctuation; return their number."""
    count, begin, inside, kept = 0, at, False, False
    while at < end:
        code, length = np.int64(data[at]), 1
        if code >= 0x80:
            code, length = decode(data, at)
        code = fold[code]
        if code == SPACE:
            if kept:
                begins[count], ends[count] = begin, at
                count += 1
            inside = kept = False
        else:
            if not inside:
                begin, inside = at, True
            kept = kept or code > SPACE
        at += length
    if kept:
        begins[count], ends[count] = begin, end
        count += 1
    return count


@compiled
def hash_ngrams(data, offsets, fold, n, hashes, places):
    """Hash n-grams by a rolling polynomial of word hashes: sum_i word[k + i] B**(n - 1 - i) modulo 2**64, finished."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    words = np.empty(longest // 2 + 1, np.uint64)
    leaving = np.uint64(1)
    for _ in range(n):
        leaving *= BASE
    total = 0
    for document in range(len(offsets) - 1):
        count = hash_words(data, offsets[document], offsets[document + 1], fold, words)
        if count >= n:
            rolling = np.uint64(0)
            for k in range(n):
                rolling = rolling * BASE + words[k]
            hashes[total] = finish(rolling)
            total += 1
            for k in range(n, count):
                rolling = rolling * BASE + (words[k] - words[k - n] * leaving)
                hashes[total] = finish(rolling)
                total += 1
        places[document + 1] = total


@compiled
def sort_distinct(hashes, offsets, places):
    """Sort every document's hashes and remove repeated ones, in place."""
    total = 0
    for document in range(len(offsets) - 1):
        ordered = np.sort(hashes[offsets[document] : offsets[document + 1]])
        for k in range(len(ordered)):
            if k == 0 or ordered[k] != ordered[k - 1]:
                hashes[total] = ordered[k]
                total += 1
        places[document + 1] = total


@compiled
def space_length(data, at, kinds):
    """Number of bytes of the white-space character at `at`; 0 if there is none."""
    byte = np.int64(data[at])
    if byte < 0x80:
        return np.int64(kinds[byte] == 1)
    if byte == 0xC2:
        return 2 * np.int64(kinds[0x80 | data[at + 1] & 0x3F] == 1)
    if byte == 0xE1 or byte == 0xE2 or byte == 0xE3:
        code = (byte & 0x0F) << 12 | np.int64(data[at + 1] & 0x3F) << 6 | np.int64(data[at + 2] & 0x3F)
        return 3 * np.int64(kinds[code] == 1)
    return 0


@compiled
def hash_texts(data, offsets, kinds, out):
    """Two hashes of each text, with white space collapsed and trimmed: eight bytes at a time, the length last."""
    for document in range(len(offsets) - 1):
        first, second, packed, size = FIRST, SECOND, np.uint64(0), 0
        at, end, waiting = offsets[document], offsets[document + 1], False
        while at < end:
            length = space_length(data, at, kinds)
            if length:
                at += length
                waiting = size > 0
                continue
            if waiting:
                packed = packed << np.uint64(8) | np.uint64(0x20)
                size += 1
                if size & 7 == 0:
                    first, second, packed = finish(first ^ packed), finish(second ^ packed), np.uint64(0)
                waiting = False
            while True:  # bytes that cannot start white space need no check
                packed = packed << np.uint64(8) | np.uint64(data[at])
                size += 1
                if size & 7 == 0:
                    first, second, packed = finish(first ^ packed), finish(second ^ packed), np.uint64(0)
                at += 1
                if at == end or data[at] <= 0x20 or data[at] >= 0x80:
                    break
        out[document, 0] = finish(finish(first ^ packed) ^ np.uint64(size))
        out[document, 1] = finish(finish(second ^ packed) ^ np.uint64(size))


@compiled
def take_minima(hashes, offsets, factors, flips, none, out):
    """Minimum of factors[j] (x ^ flips[j]) modulo 2**32 over the n-grams of each document, x being their lower 32 bits."""
    count = len(factors)
    padded = np.empty(AT_ONCE, np.uint32)
    lowest = np.empty(count, np.uint32)
    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        lowest[:] = none
        for at in range(begin, end, AT_ONCE):
            for k in range(AT_ONCE):  # the last pass repeats its last n-gram
                padded[k] = np.uint32(hashes[min(at + k, end - 1)])
            a, b, c, d = padded[0], padded[1], padded[2], padded[3]
            e, f, g, h = padded[4], padded[5], padded[6], padded[7]
            for j in range(count):  # the compiler vectorizes this loop
                factor, flip = factors[j], flips[j]
                p, q = np.uint32((a ^ flip) * factor), np.uint32((b ^ flip) * factor)
                r, s = np.uint32((c ^ flip) * factor), np.uint32((d ^ flip) * factor)
                t, u = np.uint32((e ^ flip) * factor), np.uint32((f ^ flip) * factor)
                v, w = np.uint32((g ^ flip) * factor), np.uint32((h ^ flip) * factor)
                lowest[j] = min(min(min(min(p, q), min(r, s)), min(min(t, u), min(v, w))), lowest[j])
        out[document, :] = lowest
