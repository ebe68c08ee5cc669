"""Compiled quality and repetition values of the profile `datatrove`, in one pass over the UTF-8 bytes of a batch.

The results equal, to the bit, those of datatrove.py.
"""

import numpy as np

from earthworks.compilation import compiled, trailing_zeros
from earthworks.corpus.rules.kernels import (
    HIGH,
    LETTER,
    ONES,
    PUNCTUATION,
    SEED,
    SPACE,
    ascii_letters,
    decode,
    distinct,
    is_short,
    later_copies,
    lengthen,
    long_stop_word,
    mix,
    number,
    place_of,
    ratio,
    repeated,
    short_key,
    table_size,
    up_to_eight,
)


@compiled
def newlines_from(data, at, end):
    """Position of the next LF, or `end`, and the number of consecutive LFs there."""
    while at < end:
        bits = up_to_eight(data, at, end) ^ ONES * np.uint64(10)
        zero = (bits - ONES) & ~bits & HIGH  # exact up to the first one
        if zero:
            at += trailing_zeros(zero) >> 3
            break
        at += 8
    if at >= end:
        return end, 0
    run = 1
    while at + run < end and data[at + run] == 10:
        run += 1
    return at, run


@compiled
def pieces(data, begin, end, newlines, starts, ends, hashes, lengths):
    """Split bytes at runs of at least `newlines` LFs, as re.split does, with empty pieces at the ends."""
    count, start, at = 0, begin, begin
    while True:
        at, run = newlines_from(data, at, end)
        if at < end and run < newlines:
            at += run
            continue
        hash, length = SEED, 0
        for k in range(start, at, 8):
            bits = up_to_eight(data, k, at)
            hash = mix(hash, bits)
            continued = (bits >> np.uint64(7)) & ~(bits >> np.uint64(6)) & ONES  # UTF-8 continuation bytes
            length += min(8, at - k) - np.int64((continued * ONES) >> np.uint64(56))
        starts[count], ends[count], hashes[count], lengths[count] = start, at, hash, length
        count += 1
        if at == end:
            return count
        at += run
        start = at


@compiled
def ends_line(code):
    """Whether str.splitlines() splits at this code point."""
    return 10 <= code <= 13 or 0x1C <= code <= 0x1E or code == 0x85 or code == 0x2028 or code == 0x2029


@compiled
def walked_characters(places, classes, left, n, before, met):
    """Characters of repeated n-grams in a scan that jumps over them."""
    for k in range(left):
        met[classes[k]] = 0
    total, at = 0, 0
    for k in range(left):
        if places[k] < at:
            continue
        if met[classes[k]]:
            at = places[k] + n
            total += before[at] - before[places[k]]
        met[classes[k]] = 1
    return total


@compiled
def first_top_characters(places, classes, left, n, frequency, before):
    """Length of the first of the most frequent n-grams, including spaces, times its number of occurrences."""
    highest, first = 1, 0
    for k in range(left):
        if frequency[classes[k]] > highest:
            highest, first = frequency[classes[k]], places[k]
    return highest * (before[first + n] - before[first] + n - 1)


@compiled
def datatrove_values(data, offsets, kinds, stop_words, out):
    """`literal_values` for the profile `datatrove`; `kinds` also marks punctuation."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    room = longest + 2  # a line may be empty
    starts, ends, hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    lengths, before = np.empty(room, np.int64), np.zeros(room + 1, np.int64)
    numbers, places, frequency = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    table, keys = np.empty(table_size(room), np.int32), np.empty(table_size(room), np.uint64)
    as_it_stands = np.empty(0, np.int32)
    short, indices = stop_words[3], stop_words[4]
    found_in = np.full(len(stop_words[1]), -1)  # the last document with each stop word; at the end, with any other word

    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        row = out[document]
        row[:] = 0.0

        num_words, counted, counted_length, alpha_words = 0, 0, 0, 0
        num_lines, bullet_lines, ellipsis_lines = 0, 0, 0
        num_codes, num_hashes, ellipses = 0, 0, 0
        in_word, blank, open_line = False, True, False
        hash, length, dots, last = SEED, 0, 0, np.int64(0)
        has_letter, has_more = False, False
        first_byte, after_word = end, begin
        at = begin
        while at <= end:
            code, size, kind = np.int64(0x20), 1, SPACE
            if at < end:
                code, size = decode(data, at)
                kind = np.int64(kinds[code])
                num_codes += 1
            if kind & SPACE == 0:
                if not in_word:
                    in_word = True
                    starts[num_words], first_byte = at, min(first_byte, at)
                    hash, length, dots, has_letter, has_more = SEED, 0, 0, False, False
                if blank:
                    blank = False
                    bullet_lines += code == 0x2022 or code == 0x2D
                open_line = True
                last = code
                if kind & LETTER and code < 0x80:
                    has_letter, has_more, dots, run = True, True, 0, 8
                    num_codes -= 1
                    while run == 8:
                        run, letters = ascii_letters(up_to_eight(data, at, end))
                        hash = mix(hash, letters)
                        at += run
                        length += run
                        num_codes += run
                    continue
                hash = mix(hash, np.uint64(code))
                length += 1
                has_letter |= kind & LETTER != 0
                has_more |= kind & PUNCTUATION == 0
                if code == 0x2E:
                    dots += 1
                    ellipses += dots % 3 == 0
                else:
                    dots = 0
                    ellipses += code == 0x2026
                    num_hashes += code == 0x23
            else:
                if in_word:
                    in_word = False
                    ends[num_words], hashes[num_words] = at, hash
                    before[num_words + 1] = before[num_words] + length
                    if has_more:
                        counted += 1
                        counted_length += length
                    alpha_words += has_letter
                    bits = up_to_eight(data, starts[num_words], at)
                    if is_short(bits, at - starts[num_words]):
                        found_in[indices[place_of(short_key(bits, at - starts[num_words]), short)]] = document
                    else:
                        found_in[long_stop_word(data, starts[num_words], at, stop_words, as_it_stands)] = document
                    num_words += 1
                    after_word = at
                closes = ends_line(code) or at == end
                if at < end and not closes:
                    open_line = True
                if closes and (at < end or open_line):
                    num_lines += 1
                    ellipsis_lines += not blank and (last == 0x2026 or dots >= 3)
                    blank, open_line = True, False
                    if code == 13 and at + 1 < end and data[at + 1] == 10:
                        size = 2
                        num_codes += 1
            at += size

        row[0] = counted
        row[1] = ratio(counted_length, counted)
        row[2] = ratio(num_hashes, num_words)
        row[3] = ratio(ellipses, num_words)
        row[4] = ratio(bullet_lines, num_lines)
        row[5] = ratio(ellipsis_lines, num_lines)
        row[6] = ratio(alpha_words, num_words)
        row[7] = distinct(found_in, document)

        number(data, starts, ends, hashes, num_words, table[: table_size(num_words)], numbers)
        left = repeated(numbers, num_words, places, numbers, frequency)
        for n in range(2, min(10, num_words) + 1):
            left = lengthen(places, numbers, left, frequency, keys, table)
            if n < 5:
                row[10 + n] = ratio(first_top_characters(places, numbers, left, n, frequency, before), num_codes)
            elif left:
                row[10 + n] = ratio(walked_characters(places, numbers, left, n, before, frequency), num_codes)
            else:
                break

        for column, newlines in ((8, 1), (9, 2)):
            first, after = (begin, end) if newlines == 1 else (min(first_byte, after_word), after_word)
            count = pieces(data, first, after, newlines, starts, ends, hashes, lengths)
            number(data, starts, ends, hashes, count, table[: table_size(count)], numbers)
            copies, characters = later_copies(numbers, lengths, count)
            row[column], row[column + 2] = ratio(copies, count), ratio(characters, num_codes)
