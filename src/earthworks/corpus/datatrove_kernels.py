"""All values of the `datatrove` profile from UTF-8 bytes, compiled: the same numbers as datatrove.py, to the bit."""

import numpy as np

from earthworks.compilation import compiled
from earthworks.corpus.kernels import (
    FNV_OFFSET,
    FNV_PRIME,
    LETTER,
    SPACE,
    decode,
    later_copies,
    lengthen,
    number,
    occurring_twice,
    ratio,
    stop_word,
    table_size,
)

PUNCTUATION = 4  # beside SPACE and LETTER, in the kinds of code points


@compiled
def pieces(data, begin, end, newlines, starts, ends, hashes, lengths):
    """Cut bytes where at least so many LFs stand in a row: as re.split does, empty pieces at the ends included."""
    count, start, hash, length, at = 0, begin, FNV_OFFSET, 0, begin
    while True:
        run = 0
        while at + run < end and data[at + run] == 10:
            run += 1
        if at == end or run >= newlines:
            starts[count], ends[count], hashes[count], lengths[count] = start, at, hash ^ (hash >> np.uint64(32)), length
            count += 1
            if at == end:
                return count
            at += run
            start, hash, length = at, FNV_OFFSET, 0
            continue
        for _ in range(max(run, 1)):
            hash = (hash ^ np.uint64(data[at])) * FNV_PRIME
            length += data[at] & 0xC0 != 0x80
            at += 1


@compiled
def ends_line(code):
    """What str.splitlines() cuts at."""
    return 10 <= code <= 13 or 0x1C <= code <= 0x1E or code == 0x85 or code == 0x2028 or code == 0x2029


@compiled
def walked_characters(classes, count, n, before, met):
    """Characters of the n-grams met before, on a walk that jumps over them."""
    for k in range(count):
        if classes[k] >= 0:
            met[classes[k]] = 0
    total, at = 0, 0
    while at < count:
        if classes[at] >= 0 and met[classes[at]]:
            total += before[at + n] - before[at]
            at += n
        else:
            if classes[at] >= 0:
                met[classes[at]] = 1
            at += 1
    return total


@compiled
def top_characters(classes, count, n, frequency, before):
    """Length of the first of the most frequent n-grams, with the spaces between its words, times how often it occurs."""
    highest, first = 1, 0
    for k in range(count):
        if classes[k] >= 0 and frequency[classes[k]] > highest:
            highest, first = frequency[classes[k]], k
    return highest * (before[first + n] - before[first] + n - 1)


@compiled
def rule_values(data, offsets, kinds, stop_words, out):
    """As kernels.rule_values; `kinds` also tells punctuation."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    room = longest + 2  # a line may be empty
    starts, ends, hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    lengths, before = np.empty(room, np.int64), np.zeros(room + 1, np.int64)
    numbers, frequency = np.empty(room, np.int64), np.empty(room, np.int64)
    table, keys = np.empty(table_size(room), np.int32), np.empty(table_size(room), np.uint64)

    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        row = out[document]
        row[:] = 0.0

        num_words, counted, counted_length, alpha_words, stops = 0, 0, 0, 0, 0
        num_lines, bullet_lines, ellipsis_lines = 0, 0, 0
        num_codes, num_hashes, ellipses = 0, 0, 0
        in_word, blank, open_line = False, True, False
        hash, length, dots, last = FNV_OFFSET, 0, 0, np.int64(0)
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
                    hash, length, dots, has_letter, has_more = FNV_OFFSET, 0, 0, False, False
                if blank:
                    blank = False
                    bullet_lines += code == 0x2022 or code == 0x2D
                open_line = True
                for k in range(at, at + size):
                    hash = (hash ^ np.uint64(data[k])) * FNV_PRIME
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
                last = code
            else:
                if in_word:
                    in_word = False
                    ends[num_words], hashes[num_words] = at, hash ^ (hash >> np.uint64(32))
                    before[num_words + 1] = before[num_words] + length
                    if has_more:
                        counted += 1
                        counted_length += length
                    alpha_words += has_letter
                    stops |= stop_word(data, starts[num_words], at, stop_words, False)
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

        distinct_stops = 0
        while stops:
            distinct_stops += stops & 1
            stops >>= 1
        row[0] = counted
        row[1] = ratio(counted_length, counted)
        row[2] = ratio(num_hashes, num_words)
        row[3] = ratio(ellipses, num_words)
        row[4] = ratio(bullet_lines, num_lines)
        row[5] = ratio(ellipsis_lines, num_lines)
        row[6] = ratio(alpha_words, num_words)
        row[7] = distinct_stops

        number(data, starts, ends, hashes, num_words, table[: table_size(num_words)], numbers)
        left = occurring_twice(numbers, num_words, frequency)
        for n in range(2, 11):
            count = num_words - n + 1
            if count < 1 or (left < 2 and n > 4):
                break
            if left:
                lengthen(numbers, count + 1, keys, table)
                left = occurring_twice(numbers, count, frequency)
            if n < 5:
                row[10 + n] = ratio(top_characters(numbers, count, n, frequency, before), num_codes)
            else:
                row[10 + n] = ratio(walked_characters(numbers, count, n, before, frequency), num_codes)

        for column, newlines in ((8, 1), (9, 2)):
            first, after = (begin, end) if newlines == 1 else (min(first_byte, after_word), after_word)
            count = pieces(data, first, after, newlines, starts, ends, hashes, lengths)
            number(data, starts, ends, hashes, count, table[: table_size(count)], numbers)
            copies, characters = later_copies(numbers, lengths, count)
            row[column], row[column + 2] = ratio(copies, count), ratio(characters, num_codes)
