"""Compiled quality and repetition values of a batch of documents, in one pass over their UTF-8 bytes.

The results equal, to the bit, those of quality.py and repetition.py (`literal`) and datatrove.py (`datatrove`).
Three ideas make it fast.
* One scan decodes the text, splits it into words, lines and paragraphs, and hashes them, without making strings.
* Words and lines become numbers, the index of their first occurrence, by a hash table that compares bytes.
* An (n+1)-gram can only be repeated if both its n-grams are. Repeated n-grams are listed, each with a number that
  identifies its words; an (n+1)-gram is a pair of neighbours in that list, looked up exactly. By n = 3 the list is short.
Both profiles are in this file because numba's disk cache does not notice changes in other files.
"""

import numpy as np

from earthworks.compilation import compiled, eight_bytes, trailing_zeros

SPACE, LETTER, PUNCTUATION = 1, 2, 4  # kinds of code points; the last is only for `datatrove`
BULLET_MARKS = np.array([0x2022, 0x2023, 0x25E6, 0x25AA, 0x2D, 0x2A, 0x2013])
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


@compiled
def literal_values(data, offsets, kinds, stop_words, lower, out):
    """Write the values of all rules to `out` (documents, 21): quality rules, then repetition rules, in table order.

    `data` uint8 and `offsets` int64 (documents + 1) hold valid UTF-8 in Arrow's layout; `kinds` marks white space and
    letters among code points, `lower` maps them to lower case; `stop_words`: see `packed` in profiles.py.
    """
    room = 0
    for document in range(len(offsets) - 1):
        room = max(room, offsets[document + 1] - offsets[document])
    room = room // 2 + 2  # a word, or a line, takes at least two bytes with its separator
    word_start, word_end, word_hash = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    line_start, line_end, line_hash = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    line_length, block_length = np.empty(room, np.int64), np.empty(room, np.int64)
    block_start, block_hash = np.empty(room + 1, np.int64), np.empty(room, np.uint64)  # in bytes of line_numbers
    before = np.zeros(room + 1, np.int64)  # characters of the words before word k
    numbers, line_numbers, starts = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    frequency, covered, ends = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    table, keys = np.empty(table_size(room), np.int32), np.empty(table_size(room), np.uint64)
    short, indices = stop_words[3], stop_words[4]
    found_in = np.full(len(stop_words[1]), -1)  # the last document with each stop word; at the end, with any other word

    for document in range(len(offsets) - 1):
        num_words, num_lines, num_blocks = 0, 0, 0
        hashes, ellipses, alpha_words = 0, 0, 0
        bullet_lines, ellipsis_lines = 0, 0
        in_word, in_line, in_block = False, False, False
        hash, row_hash, gap = SEED, SEED, np.uint64(0)
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
                    hash, length, first_letter, dots = SEED, 0, -1, 0
                    if in_line:
                        row_hash = mix(row_hash, gap)
                        gap = np.uint64(0)
                    else:
                        in_line = True
                        line_start[num_lines], line_length[num_lines] = at, 0
                        row_hash, gap = SEED, np.uint64(0)
                        for mark in BULLET_MARKS:
                            bullet_lines += code == mark
                if kind == LETTER:
                    if first_letter < 0:
                        first_letter = at
                    dots = 0
                    if code < 0x80:  # the most common case
                        run = 8
                        while run == 8:
                            run, letters = ascii_letters(up_to_eight(data, at, end))
                            hash = mix(hash, letters)
                            at += run
                            length += run
                        after_letter, last = at, code
                        continue
                    after_letter = at + size
                elif code == 0x2E:
                    dots += 1
                    ellipses += dots % 3 == 0
                else:
                    dots = 0
                    ellipses += code == 0x2026
                    hashes += code == 0x23
                hash = mix(hash, np.uint64(code))
                length += 1
                last = code
            else:
                if in_word:
                    in_word = False
                    word_end[num_words], word_hash[num_words] = at, hash
                    before[num_words + 1] = before[num_words] + length
                    num_words += 1
                    row_hash = mix(row_hash, hash)
                    line_end[num_lines] = at
                    line_length[num_lines] += length
                    if first_letter >= 0:
                        alpha_words += 1
                        bits = up_to_eight(data, first_letter, after_letter)
                        if is_short(bits, after_letter - first_letter):
                            key = short_key(ascii_lower_case(bits), after_letter - first_letter)
                            found_in[indices[place_of(key, short)]] = document
                        else:
                            found_in[long_stop_word(data, first_letter, after_letter, stop_words, lower)] = document
                if code == 10 or code == 13:
                    if code == 13 and at + 1 < end and data[at + 1] == 10:
                        size = 2
                    if in_line:
                        in_line = False
                        ellipsis_lines += last == 0x2026 or dots >= 3
                        line_hash[num_lines] = row_hash
                        if not in_block:
                            in_block = True
                            block_start[num_blocks] = 8 * num_lines
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
        row[7] = distinct(found_in, document)

        size = table_size(num_lines)
        number(data, line_start, line_end, line_hash, num_lines, table[:size], line_numbers)
        copies, characters = later_copies(line_numbers, line_length, num_lines)
        row[8], row[10] = ratio(copies, num_lines), ratio(characters, total)
        block_start[num_blocks] = 8 * num_lines
        for block in range(num_blocks):
            hash, length = SEED, 0
            for k in range(block_start[block] // 8, block_start[block + 1] // 8):
                hash = mix(hash, np.uint64(line_numbers[k]))
                length += line_length[k]
            block_hash[block], block_length[block] = hash, length
        size = table_size(num_blocks)
        number(line_numbers.view(np.uint8), block_start, block_start[1:], block_hash, num_blocks, table[:size], numbers)
        copies, characters = later_copies(numbers, block_length, num_blocks)
        row[9], row[11] = ratio(copies, num_blocks), ratio(characters, total)

        size = table_size(num_words)
        number(data, word_start, word_end, word_hash, num_words, table[:size], numbers)
        left = repeated(numbers, num_words, starts, numbers, frequency)
        for n in range(2, 11):
            left = lengthen(starts, numbers, left, frequency, keys, table)
            if not left:
                break
            if n < 5:
                characters = top_characters(starts, numbers, left, n, frequency, before, covered, ends)
            else:
                characters = duplicate_characters(starts, left, n, before)
            row[10 + n] = ratio(characters, total)


# datatrove


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
