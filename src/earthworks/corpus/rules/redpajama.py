"""The rules as computed by the quality signals of RedPajama-V2, in plain Python, with the paper's bounds, as it has none.

For comparison with corpora that have these signals. Differences from `literal`: for `words`, `mean_word_length` and all
n-grams, words are those of the lower-cased text without ASCII punctuation, in NFD; for `symbol_ratio` and `alpha_words`,
they are runs of word characters or of other non-space characters, as in NLTK's WordPunctTokenizer. "#", "..." and U+2026
share one ratio; letters are a to z in either case; lines end at LF and blank ones count; there are ten bullets, without "-"
and "*"; copies of the top n-gram may overlap, and the first of the most frequent ones is taken. `dup_n` is that of
`literal`, on these words. There are no rules on repeated lines, paragraphs or stop words: RedPajama gives the share of
stop words in long lists by language, for which the paper has no bound. Its signal for words without a letter is
1 - `alpha_words`. Values are not rounded here (the signals have eight decimals); missing signals are 0.
"""

import re
import string
import unicodedata
from collections import Counter

from earthworks.corpus.rules.quality import QUALITY_BOUNDS, ratio
from earthworks.corpus.rules.repetition import DUPLICATED, REPETITION_LIMITS, TOP, duplicate_characters, ngrams

RAW_WORD = re.compile(r"\w+|[^\w\s]+")
SYMBOLS = ("#", "...", "\u2026")
BULLETS = tuple("\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013")
LETTER = re.compile("[a-zA-Z]")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

BOUNDS: dict[str, tuple[float, float]] = {
    **{name: QUALITY_BOUNDS[name] for name in ("words", "mean_word_length")},
    "symbol_ratio": (0, 0.1),
    **{name: QUALITY_BOUNDS[name] for name in ("bullet_lines", "ellipsis_lines", "alpha_words")},
}
LIMITS = {name: REPETITION_LIMITS[name] for name in [f"top_{n}" for n in TOP] + [f"dup_{n}" for n in DUPLICATED]}


def words(text: str) -> list[str]:
    return unicodedata.normalize("NFD", text.translate(NO_PUNCTUATION).lower()).split()


def quality(text: str) -> dict[str, float]:
    """The value of every quality rule of this profile."""
    found, raw, rows = words(text), RAW_WORD.findall(text), text.split("\n")
    if not rows[-1]:
        rows.pop()
    return {
        "words": float(len(found)),
        "mean_word_length": ratio(sum(map(len, found)), len(found)),
        "symbol_ratio": ratio(sum(map(text.count, SYMBOLS)), len(raw)),
        "bullet_lines": ratio(sum(row.lstrip().startswith(BULLETS) for row in rows), len(rows)),
        "ellipsis_lines": ratio(sum(row.rstrip().endswith(("...", "\u2026")) for row in rows), len(rows)),
        "alpha_words": ratio(sum(LETTER.search(word) is not None for word in raw), len(raw)),
    }


def repetition(text: str) -> dict[str, float]:
    """The value of every repetition rule of this profile."""
    found = words(text)
    lengths = [len(word) for word in found]
    total = sum(lengths)
    values = {}
    for n in TOP:
        ngram, count = next(iter(Counter(ngrams(found, n)).most_common(1)), ((), 0))
        values[f"top_{n}"] = ratio(count * sum(map(len, ngram)) if count > 1 else 0, total)
    for n in DUPLICATED:
        values[f"dup_{n}"] = ratio(duplicate_characters(found, lengths, n), total)
    return values
