"""The eight quality rules of Rae et al. 2021 (A.1.1) in plain Python: their definition, and the reference for the kernel.

A document is dropped if any value is outside its bounds; the bounds themselves pass. x / 0 is 0.
"""

import math
import re
from collections.abc import Collection

from earthworks.corpus.rules.text_units import lines, words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = "\u2022\u2023\u25e6\u25aa-*\u2013"
ELLIPSIS = re.compile(r"\.\.\.|\u2026")

# id: lowest and highest value that passes
QUALITY_BOUNDS: dict[str, tuple[float, float]] = {
    "words": (50, 100_000),
    "mean_word_length": (3, 10),
    "hash_ratio": (0, 0.1),
    "ellipsis_ratio": (0, 0.1),
    "bullet_lines": (0, 0.9),
    "ellipsis_lines": (0, 0.3),
    "alpha_words": (0.8, 1),
    "stop_words": (2, math.inf),
}


def ratio(part: int, whole: int) -> float:
    """One correctly rounded division, so that comparing it with a decimal bound is as exact as comparing fractions."""
    return part / whole if whole else 0.0


def quality(text: str, stop_words: Collection[str] = STOP_WORDS) -> dict[str, float]:
    """The value of every quality rule.

    words               W
    mean_word_length    characters of all words / W
    hash_ratio          "#" / W
    ellipsis_ratio      ("..." from left to right without overlap, and U+2026) / W
    bullet_lines        lines that start with one of seven bullets / lines
    ellipsis_lines      lines that end in "..." or U+2026 / lines
    alpha_words         words with a letter (general category L) / W
    stop_words          distinct stop words; non-letters are stripped off both ends of a word, case is ignored
    """
    found, rows = words(text), lines(text)
    sought = {bare(word) for word in stop_words} - {""}
    num_words, num_lines = len(found), len(rows)
    return {
        "words": float(num_words),
        "mean_word_length": ratio(sum(map(len, found)), num_words),
        "hash_ratio": ratio(text.count("#"), num_words),
        "ellipsis_ratio": ratio(len(ELLIPSIS.findall(text)), num_words),
        "bullet_lines": ratio(sum(row[0] in BULLETS for row in rows), num_lines),
        "ellipsis_lines": ratio(sum(row.endswith(("...", "\u2026")) for row in rows), num_lines),
        "alpha_words": ratio(sum(any(map(str.isalpha, word)) for word in found), num_words),
        "stop_words": float(len({bare(word) for word in found} & sought)),
    }


def bare(word: str) -> str:
    """The word from its first letter to its last, in lower case, with final sigma as sigma."""
    letters = [place for place, each in enumerate(word) if each.isalpha()]
    return word[letters[0] : letters[-1] + 1].lower().replace("\u03c2", "\u03c3") if letters else ""
