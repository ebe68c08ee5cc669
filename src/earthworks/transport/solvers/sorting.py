"""Row-wise sort of many rows, where a sliced distance spends most of its time.

Radix sort by the leading 24 bits of each number (sign, exponent, 12 bits of the mantissa), then insertion, which usually
moves almost nothing; for rows whose numbers agree in those bits, where it would, radix sort by all 64.
"""

import numpy as np

from earthworks.compilation import compiled

DIGIT = 12  # bits sorted per pass: 4,096 counters fit the first-level cache
LEADING = 64 - 2 * DIGIT
MOVES = 16  # mean insertion moves per number beyond which radix sort by all bits is faster


@compiled
def sort_rows(rows):
    """Sort each row of `rows` (L, n), float64 without NaN, viewed as uint64, in place. O(n) a row."""
    n = rows.shape[1]
    sign, ones = np.uint64(1 << 63), np.uint64((1 << DIGIT) - 1)
    keys, moved = np.empty(n, np.uint64), np.empty(n, np.uint64)
    counts = np.empty(1 << DIGIT, np.int64)
    for row in rows:
        for start in (LEADING, 0):
            for k in range(n):  # keys in the order of the numbers: the bits of negative ones are inverted
                keys[k] = ~row[k] if row[k] & sign else row[k] | sign
            for low in range(start, 64, DIGIT):
                shift = np.uint64(low)
                counts[:] = 0
                for k in range(n):
                    counts[(keys[k] >> shift) & ones] += 1
                below = 0
                for digit in range(len(counts)):
                    here = counts[digit]
                    counts[digit] = below
                    below += here
                for k in range(n):
                    digit = (keys[k] >> shift) & ones
                    moved[counts[digit]] = keys[k]
                    counts[digit] += 1
                keys, moved = moved, keys
            moves_left = MOVES * n
            for k in range(1, n):
                key, j = keys[k], k
                while j > 0 and keys[j - 1] > key and moves_left > 0:
                    keys[j] = keys[j - 1]
                    j -= 1
                    moves_left -= 1
                keys[j] = key
            if moves_left > 0:
                break
        for k in range(n):
            row[k] = keys[k] ^ sign if keys[k] & sign else ~keys[k]
