"""The rules as computed by Dolma's tagger `gopher_v2`, in plain Python, with the bounds of its mixing files.

For comparison with corpora tagged this way. Differences from `literal`: the median word length replaces the mean
(`median_word_length`); one ratio for both symbols, the share of words that contain "#" or U+2026 (`symbol_ratio`), three
dots not counting; lines are split at runs of LF and not trimmed; bullets are "*" and "-"; stop words are compared as
written, and every occurrence counts; all copies of a line count, including the first, with their spaces, over characters
that are not white space, so the share may exceed 1; there are no paragraphs; the top n-gram may occur once, its copies may
overlap, and the first of the most frequent ones is taken; `dup_n` is a share of the characters of all n-grams, each counted
at every position. Its limit for `dup_line_char` is 0.3. The tagger `gopher_v1` splits lines at every LF. Values are not
rounded here; the tagger rounds to five decimals.
"""

import math
import re
from collections import Counter
from collections.abc import Collection
from statistics import median

from earthworks.corpus.rules.quality import QUALITY_BOUNDS, STOP_WORDS
from earthworks.corpus.rules.repetition import DUPLICATED, REPETITION_LIMITS, TOP, ngrams

LINES = re.compile(r"\n+")
SYMBOLS = "#\u2026"
BULLETS = ("*", "-")

BOUNDS: dict[str, tuple[float, float]] = {
    "words": QUALITY_BOUNDS["words"],
    "median_word_length": (3, 10),
    "symbol_ratio": (0, 0.1),
    **{name: QUALITY_BOUNDS[name] for name in ("bullet_lines", "ellipsis_lines", "alpha_words")},
    "stop_words": (2, math.inf),
}
LIMITS = {
    **{"dup_line": 0.30, "dup_line_char": 0.30},
    **{name: REPETITION_LIMITS[name] for name in [f"top_{n}" for n in TOP] + [f"dup_{n}" for n in DUPLICATED]},
}


def ratio(part: int, whole: int) -> float:
    return part / max(whole, 1)


def quality(text: str, stop_words: Collection[str] = STOP_WORDS) -> dict[str, float]:
    """The value of every quality rule of this profile."""
    found, rows, sought = text.split(), LINES.split(text), frozenset(stop_words)
    num_words, num_lines = len(found), len(rows)
    return {
        "words": float(num_words),
        "median_word_length": float(median(map(len, found))) if found else 0.0,
        "symbol_ratio": ratio(sum(any(symbol in word for symbol in SYMBOLS) for word in found), num_words),
        "bullet_lines": ratio(sum(row.startswith(BULLETS) for row in rows), num_lines),
        "ellipsis_lines": ratio(sum(row.endswith("\u2026") for row in rows), num_lines),
        "alpha_words": ratio(sum(any(map(str.isalpha, word)) for word in found), num_words),
        "stop_words": float(sum(word in sought for word in found)),
    }


def repetition(text: str) -> dict[str, float]:
    """The value of every repetition rule of this profile."""
    found, rows = text.split(), LINES.split(text)
    total = sum(map(len, found))
    copies = {row: count for row, count in Counter(rows).items() if count > 1}
    values = {
        "dup_line": ratio(sum(copies.values()), len(rows)),
        "dup_line_char": ratio(sum(len(row) * count for row, count in copies.items()), total),
    }
    for n in (*TOP, *DUPLICATED):
        counts = Counter(ngrams(found, n))
        characters = {ngram: count * sum(map(len, ngram)) for ngram, count in counts.items()}
        if n in TOP:
            values[f"top_{n}"] = ratio(characters[max(counts, key=counts.__getitem__)], total) if counts else 0.0
        else:
            repeated = sum(characters[ngram] for ngram, count in counts.items() if count > 1)
            values[f"dup_{n}"] = ratio(repeated, sum(characters.values()))
    return values
