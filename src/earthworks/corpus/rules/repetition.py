"""The thirteen repetition rules of Rae et al. 2021 (A.1.1, Table A1) in plain Python: their definition, and the reference
for the kernel.

A document is dropped if any value is above its limit. Lines and paragraphs count from the second copy on, n-grams with
all their copies, following the paper's wording. Characters are code points that are not white space.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

from earthworks.corpus.rules.quality import ratio
from earthworks.corpus.rules.text_units import characters, lines, paragraphs, words

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)
REPETITION_LIMITS: dict[str, float] = {
    **{"dup_line": 0.30, "dup_para": 0.30, "dup_line_char": 0.20, "dup_para_char": 0.20},
    **{"top_2": 0.20, "top_3": 0.18, "top_4": 0.16},
    **{"dup_5": 0.15, "dup_6": 0.14, "dup_7": 0.13, "dup_8": 0.12, "dup_9": 0.11, "dup_10": 0.10},
}


def repetition(text: str) -> dict[str, float]:
    """The value of every repetition rule; C is the number of characters of the text.

    dup_line, dup_para            (lines - distinct lines) / lines, and of paragraphs
    dup_line_char, dup_para_char  characters of the lines that occurred before / C, and of paragraphs
    top_n                         characters of the words inside any occurrence of the most frequent n-gram / C; on ties
                                  the maximum; 0 if none occurs twice
    dup_n                         characters of the words inside any n-gram that occurs twice or more / C
    """
    found, rows, blocks = words(text), lines(text), paragraphs(text)
    lengths = [len(word) for word in found]
    total = sum(lengths)
    block_lengths = [sum(map(characters, block)) for block in blocks]
    values = {
        "dup_line": ratio(len(rows) - len(set(rows)), len(rows)),
        "dup_para": ratio(len(blocks) - len(set(blocks)), len(blocks)),
        "dup_line_char": ratio(later_copies(rows, [characters(row) for row in rows]), total),
        "dup_para_char": ratio(later_copies(blocks, block_lengths), total),
    }
    for n in TOP:
        values[f"top_{n}"] = ratio(covered(top_starts(found, lengths, n), n, lengths), total)
    for n in DUPLICATED:
        values[f"dup_{n}"] = ratio(duplicate_characters(found, lengths, n), total)
    return values


def ngrams(found: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, across lines and paragraphs, as tuples: ("ab", "c") is not ("a", "bc")."""
    return list(zip(*(found[k:] for k in range(n))))


def later_copies(items: Sequence[Hashable], lengths: Sequence[int]) -> int:
    """Characters of all items equal to an earlier one."""
    seen: set[Hashable] = set()
    total = 0
    for item, length in zip(items, lengths):
        total += length if item in seen else 0
        seen.add(item)
    return total


def top_starts(found: Sequence[str], lengths: Sequence[int], n: int) -> list[int]:
    """Starts of the most frequent n-gram, if it occurs twice; on ties, of the one that covers most characters."""
    starts: dict[tuple[str, ...], list[int]] = {}
    for start, ngram in enumerate(ngrams(found, n)):
        starts.setdefault(ngram, []).append(start)
    highest = max(map(len, starts.values()), default=0)
    if highest < 2:
        return []
    most_frequent = [places for places in starts.values() if len(places) == highest]
    return max(most_frequent, key=lambda places: covered(places, n, lengths))


def duplicate_characters(found: Sequence[str], lengths: Sequence[int], n: int) -> int:
    """Characters covered by all n-grams that occur twice or more."""
    return covered(repeated_starts(found, n), n, lengths)


def repeated_starts(found: Sequence[str], n: int) -> list[int]:
    """Starts of the n-grams that occur twice or more, including first occurrences."""
    counts = Counter(ngrams(found, n))
    return [start for start, ngram in enumerate(ngrams(found, n)) if counts[ngram] > 1]


def covered(starts: Sequence[int], n: int, lengths: Sequence[int]) -> int:
    """Characters of the words inside n-grams at `starts`, ascending, every word counted once."""
    total, end = 0, 0
    for start in starts:
        total += sum(lengths[max(start, end) : start + n])
        end = start + n
    return total
