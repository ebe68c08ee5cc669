"""All quality and repetition values of a batch of documents in one reading of their UTF-8 bytes, compiled.

The same numbers, to the bit, as quality.py and repetition.py (`literal`) and datatrove.py (`datatrove`), in plain Python.
Three ideas make it fast.
* One scan decodes, cuts into words, lines and paragraphs, and hashes them; no string is made.
* Words become numbers, the place of their first occurrence, by a table that compares bytes; so do lines.
* An (n+1)-gram can only occur twice if both its n-grams do. The class of an n-gram is a number, the start of its first
  occurrence, or -1 when it occurs once; an (n+1)-gram is the pair of two classes, which is looked up exactly. Most starts
  have dropped out by n = 3.
Both profiles stand in this one file because what numba keeps on disk does not notice a change in another file.
"""

import numpy as np

from earthworks.compilation import compiled

SPACE, LETTER, PUNCTUATION = 1, 2, 4  # kinds of code points; the last is of `datatrove` alone
BULLET_MARKS = np.array([0x2022, 0x2023, 0x25E6, 0x25AA, 0x2D, 0x2A, 0x2013])
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@compiled
def mix(hash, value):
    hash = (hash ^ value) * MULTIPLIER
    return hash ^ (hash >> np.uint64(29))


@compiled
def decode(data, at):
    """The code point whose UTF-8 begins at `at`, and its number of bytes."""
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
    """A power of two of at least twice as many places."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@compiled
def number(data, starts, ends, hashes, count, table, numbers):
    """numbers[k]: the index of the first item equal to item k, items being byte ranges of `data`."""
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
            if hashes[other] == hashes[k] and ends[other] - starts[other] == size:
                same = True
                a, b = starts[k], starts[other]
                for offset in range(size):
                    if data[a + offset] != data[b + offset]:
                        same = False
                        break
                if same:
                    numbers[k] = other
                    break
            place = (place + np.uint64(1)) & mask


@compiled
def occurring_twice(numbers, count, frequency):
    """numbers[k] <- -1 where it occurs once; how many are left."""
    frequency[:count] = 0
    for k in range(count):
        if numbers[k] >= 0:
            frequency[numbers[k]] += 1
    left = 0
    for k in range(count):
        if numbers[k] >= 0:
            if frequency[numbers[k]] < 2:
                numbers[k] = -1
            else:
                left += 1
    return left


@compiled
def lengthen(classes, count, keys, firsts):
    """From the classes of n-grams to those of (n+1)-grams, in place: the pair of two neighbours."""
    pairs = 0
    for k in range(count - 1):
        if classes[k] >= 0 and classes[k + 1] >= 0:
            pairs += 1
    size = table_size(pairs)
    mask = np.uint64(size - 1)
    firsts[:size] = -1
    for k in range(count - 1):
        if classes[k] < 0 or classes[k + 1] < 0:
            classes[k] = -1
            continue
        key = np.uint64(classes[k]) << np.uint64(32) | np.uint64(classes[k + 1])
        place = mix(FNV_OFFSET, key) & mask
        while firsts[place] >= 0 and keys[place] != key:
            place = (place + np.uint64(1)) & mask
        if firsts[place] < 0:
            keys[place], firsts[place] = key, k
        classes[k] = firsts[place]


@compiled
def top_characters(classes, count, n, frequency, before, covered, ends):
    """Characters under the most frequent n-gram, the most of equally frequent ones; before[k] are those before word k."""
    highest = 0
    for k in range(count):
        if classes[k] >= 0:
            highest = max(highest, frequency[classes[k]])
            covered[classes[k]] = ends[classes[k]] = 0
    best = 0
    for k in range(count):
        each = classes[k]
        if each >= 0 and frequency[each] == highest:
            covered[each] += before[k + n] - before[max(k, ends[each])]
            ends[each] = k + n
            best = max(best, covered[each])
    return best


@compiled
def duplicate_characters(classes, count, n, before):
    """Characters under n-grams that occur twice or more, every word once."""
    total, end = 0, 0
    for k in range(count):
        if classes[k] >= 0:
            total += before[k + n] - before[max(k, end)]
            end = k + n
    return total


@compiled
def later_copies(numbers, lengths, count):
    """How many items equal one before them, and their characters."""
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
    """Whether these bytes are that word; with `lower` (by code point) in lower case, else as they stand."""
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
def stop_word(data, start, end, stop_words, lower):
    """The index of the stop word that these bytes are; -1 for none."""
    codes, places, buckets = stop_words
    code, _ = decode(data, start)
    if len(lower):
        code = np.int64(lower[code])
    for k in range(buckets[code & 63], buckets[(code & 63) + 1]):
        if spells(data, start, end, codes, places[k], places[k + 1], lower):
            return k
    return -1


@compiled
def is_ascii_letter(byte):
    return np.uint8((byte | np.uint8(0x20)) - np.uint8(0x61)) < 26


@compiled
def literal_values(data, offsets, kinds, stop_words, lower, out):
    """Values of every rule into `out` (documents, 21): the quality rules, then the repetition rules, in table order.

    `data` uint8 and `offsets` int64 (documents + 1) hold valid UTF-8 as Arrow lays it out; `kinds` says of each code point
    whether it is white space or a letter, `lower` what its lower case is; `stop_words`: code points, places, buckets.
    """
    room = 0
    for document in range(len(offsets) - 1):
        room = max(room, offsets[document + 1] - offsets[document])
    room = room // 2 + 2  # a word takes two bytes at least with what parts it from the next; so does a line
    word_start, word_end, word_hash = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    line_start, line_end, line_hash = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    line_length, block_length = np.empty(room, np.int64), np.empty(room, np.int64)
    block_start, block_hash = np.empty(room + 1, np.int64), np.empty(room, np.uint64)  # in lines
    before = np.zeros(room + 1, np.int64)  # characters of the words before word k
    numbers, line_numbers = np.empty(room, np.int64), np.empty(room, np.int64)
    frequency, covered, ends = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    table, keys = np.empty(table_size(room), np.int32), np.empty(table_size(room), np.uint64)
    found_in = np.full(len(stop_words[1]), -1)  # the last document each stop word was found in

    for document in range(len(offsets) - 1):
        num_words, num_lines, num_blocks = 0, 0, 0
        hashes, ellipses, alpha_words, distinct_stops = 0, 0, 0, 0
        bullet_lines, ellipsis_lines = 0, 0
        in_word, in_line, in_block = False, False, False
        hash, row_hash, gap = FNV_OFFSET, FNV_OFFSET, np.uint64(0)
        length, first_letter, after_letter, dots, last = 0, -1, 0, 0, 0
        at, end = offsets[document], offsets[document + 1]
        while at <= end:
            code, size, kind = np.int64(10), 1, SPACE  # the end of the text ends its last line
            if at < end:
                code, size = decode(data, at)
                kind = np.int64(kinds[code])
            if kind != SPACE:
                if not in_word:
                    in_word = True
                    word_start[num_words] = at
                    hash, length, first_letter, dots = FNV_OFFSET, 0, -1, 0
                    if in_line:
                        row_hash = mix(row_hash, gap)
                        gap = np.uint64(0)
                    else:
                        in_line = True
                        line_start[num_lines], line_length[num_lines] = at, 0
                        row_hash, gap = FNV_OFFSET, np.uint64(0)
                        for mark in BULLET_MARKS:
                            bullet_lines += code == mark
                if kind == LETTER:
                    if first_letter < 0:
                        first_letter = at
                    dots = 0
                    if code < 0x80:  # most bytes pass here
                        start = at
                        while True:
                            hash = (hash ^ np.uint64(data[at])) * FNV_PRIME
                            at += 1
                            if at == end or not is_ascii_letter(data[at]):
                                break
                        length += at - start
                        after_letter = at
                        last = code
                        continue
                    after_letter = at + size
                elif code == 0x2E:
                    dots += 1
                    ellipses += dots % 3 == 0
                else:
                    dots = 0
                    ellipses += code == 0x2026
                    hashes += code == 0x23
                for k in range(at, at + size):
                    hash = (hash ^ np.uint64(data[k])) * FNV_PRIME
                length += 1
                last = code
            else:
                if in_word:
                    in_word = False
                    word_end[num_words], word_hash[num_words] = at, hash ^ (hash >> np.uint64(32))
                    before[num_words + 1] = before[num_words] + length
                    num_words += 1
                    row_hash = mix(row_hash, hash)
                    line_end[num_lines] = at
                    line_length[num_lines] += length
                    if first_letter >= 0:
                        alpha_words += 1
                        stop = stop_word(data, first_letter, after_letter, stop_words, lower)
                        if stop >= 0 and found_in[stop] != document:
                            found_in[stop] = document
                            distinct_stops += 1
                if code == 10 or code == 13:
                    if code == 13 and at + 1 < end and data[at + 1] == 10:
                        size = 2
                    if in_line:
                        in_line = False
                        ellipsis_lines += last == 0x2026 or dots >= 3
                        line_hash[num_lines] = row_hash
                        if not in_block:
                            in_block = True
                            block_start[num_blocks] = num_lines
                            num_blocks += 1
                        num_lines += 1
                    else:
                        in_block = False
                elif in_line:
                    gap = mix(gap, np.uint64(code))
            at += size

        total = before[num_words]
        row = out[document]
        row[:] = 0.0
        row[0] = num_words
        row[1] = ratio(total, num_words)
        row[2] = ratio(hashes, num_words)
        row[3] = ratio(ellipses, num_words)
        row[4] = ratio(bullet_lines, num_lines)
        row[5] = ratio(ellipsis_lines, num_lines)
        row[6] = ratio(alpha_words, num_words)
        row[7] = distinct_stops

        size = table_size(num_lines)
        number(data, line_start, line_end, line_hash, num_lines, table[:size], line_numbers)
        copies, characters = later_copies(line_numbers, line_length, num_lines)
        row[8], row[10] = ratio(copies, num_lines), ratio(characters, total)
        block_start[num_blocks] = num_lines
        for block in range(num_blocks):
            hash, length = FNV_OFFSET, 0
            for k in range(block_start[block], block_start[block + 1]):
                hash = mix(hash, np.uint64(line_numbers[k]))
                length += line_length[k]
            block_hash[block], block_length[block] = hash, length
        size = table_size(num_blocks)
        number(line_numbers, block_start, block_start[1:], block_hash, num_blocks, table[:size], numbers)
        copies, characters = later_copies(numbers, block_length, num_blocks)
        row[9], row[11] = ratio(copies, num_blocks), ratio(characters, total)

        size = table_size(num_words)
        number(data, word_start, word_end, word_hash, num_words, table[:size], numbers)
        left = occurring_twice(numbers, num_words, frequency)
        for n in range(2, 11):
            count = num_words - n + 1
            if count < 2 or left < 2:
                break
            lengthen(numbers, count + 1, keys, table)
            left = occurring_twice(numbers, count, frequency)
            if n < 5:
                characters = top_characters(numbers, count, n, frequency, before, covered, ends)
            else:
                characters = duplicate_characters(numbers, count, n, before)
            row[10 + n] = ratio(characters, total)


# datatrove


@compiled
def pieces(data, begin, end, newlines, starts, ends, hashes, lengths):
    """Cut bytes where at least so many LFs stand in a row: as re.split does, empty pieces at the ends included."""
    count, start, hash, length, at = 0, begin, FNV_OFFSET, 0, begin
    while True:
        run = 0
        while at + run < end and data[at + run] == 10:
            run += 1
        if at == end or run >= newlines:
            starts[count], ends[count], hashes[count], lengths[count] = (
                start,
                at,
                hash ^ (hash >> np.uint64(32)),
                length,
            )
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
def first_top_characters(classes, count, n, frequency, before):
    """Length of the first of the most frequent n-grams, with the spaces between its words, times how often it occurs."""
    highest, first = 1, 0
    for k in range(count):
        if classes[k] >= 0 and frequency[classes[k]] > highest:
            highest, first = frequency[classes[k]], k
    return highest * (before[first + n] - before[first] + n - 1)


@compiled
def datatrove_values(data, offsets, kinds, stop_words, out):
    """As `literal_values`, for the profile `datatrove`; `kinds` also tells punctuation."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    room = longest + 2  # a line may be empty
    starts, ends, hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    lengths, before = np.empty(room, np.int64), np.zeros(room + 1, np.int64)
    numbers, frequency = np.empty(room, np.int64), np.empty(room, np.int64)
    table, keys = np.empty(table_size(room), np.int32), np.empty(table_size(room), np.uint64)
    as_it_stands = np.empty(0, np.int32)
    found_in = np.full(len(stop_words[1]), -1)  # the last document each stop word was found in

    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        row = out[document]
        row[:] = 0.0

        num_words, counted, counted_length, alpha_words, distinct_stops = 0, 0, 0, 0, 0
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
                    stop = stop_word(data, starts[num_words], at, stop_words, as_it_stands)
                    if stop >= 0 and found_in[stop] != document:
                        found_in[stop] = document
                        distinct_stops += 1
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
                row[10 + n] = ratio(first_top_characters(numbers, count, n, frequency, before), num_codes)
            else:
                row[10 + n] = ratio(walked_characters(numbers, count, n, before, frequency), num_codes)

        for column, newlines in ((8, 1), (9, 2)):
            first, after = (begin, end) if newlines == 1 else (min(first_byte, after_word), after_word)
            count = pieces(data, first, after, newlines, starts, ends, hashes, lengths)
            number(data, starts, ends, hashes, count, table[: table_size(count)], numbers)
            copies, characters = later_copies(numbers, lengths, count)
            row[column], row[column + 2] = ratio(copies, count), ratio(characters, num_codes)
