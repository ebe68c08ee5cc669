"""Compiled quality and repetition values of the profile `literal`, in one pass over the UTF-8 bytes of a batch.

The results equal, to the bit, those of quality.py and repetition.py.
"""

import numpy as np

from earthworks.compilation import compiled
from earthworks.corpus.rules.kernels import (
    LETTER,
    SEED,
    SPACE,
    ascii_letters,
    ascii_lower_case,
    decode,
    distinct,
    duplicate_characters,
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
    top_characters,
    up_to_eight,
)

BULLET_MARKS = np.array([0x2022, 0x2023, 0x25E6, 0x25AA, 0x2D, 0x2A, 0x2013])


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
