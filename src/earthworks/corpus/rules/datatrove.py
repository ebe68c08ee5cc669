"""The rules as computed by the filters of datatrove 0.10, in plain Python, on the words of any splitter.

For comparison with corpora filtered this way. Differences from `literal`: words of punctuation alone do not count in
`words` and `mean_word_length`; there are two bullets; lines are those of str.splitlines(), blank ones included; stop words
are compared as written; white space counts in the denominator of every share of characters, but not in the numerators of
`dup_n`; the top n-gram may occur once, its copies may overlap, and the first of the most frequent ones is taken; `dup_n`
scans from left to right, remembers the n-grams it visits, and jumps over those it remembers. One difference is
intentional: datatrove joins words without a separator, so ("ab", "c") equals ("a", "bc"); here n-grams are compared word
by word. Where datatrove would divide by zero, the value is 0.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from earthworks.corpus.rules.quality import STOP_WORDS, ratio
from earthworks.corpus.rules.repetition import DUPLICATED, TOP, later_copies, ngrams

BULLETS = ("\u2022", "-")
LINES, PARAGRAPHS = re.compile(r"\n+"), re.compile(r"\n{2,}")
# datatrove's set of punctuation, including control characters, as ranges of code points.
PUNCTUATION_RANGES = (
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 "
    "1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E "
    "1C3B-1C3C 1C7E-1C7F 2013-2014 2019 201C-201E 2026 203C-203D 2047-2049 2236 2501 25BA 2E2E 2E3C 2E53-2E54 "
    "3001-3002 3008-300D 3010-3011 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 "
    "ABEB FE52 FE56-FE57 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 "
    "1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 "
    "11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88"
)


def punctuation() -> frozenset[str]:
    ends = [[int(end, 16) for end in each.split("-")] for each in PUNCTUATION_RANGES.split()]
    return frozenset(chr(code) for each in ends for code in range(each[0], each[-1] + 1))


PUNCTUATION = punctuation()


def quality(
    text: str, words: Callable[[str], Sequence[str]] = str.split, stop_words: Collection[str] = STOP_WORDS
) -> dict[str, float]:
    """The value of every quality rule, under the names of `literal`."""
    found, rows = words(text), text.splitlines()
    counted = [word for word in found if not PUNCTUATION.issuperset(word)]
    return {
        "words": float(len(counted)),
        "mean_word_length": ratio(sum(map(len, counted)), len(counted)),
        "hash_ratio": ratio(text.count("#"), len(found)),
        "ellipsis_ratio": ratio(text.count("...") + text.count("\u2026"), len(found)),
        "bullet_lines": ratio(sum(row.lstrip().startswith(BULLETS) for row in rows), len(rows)),
        "ellipsis_lines": ratio(sum(row.rstrip().endswith(("...", "\u2026")) for row in rows), len(rows)),
        "alpha_words": ratio(sum(any(map(str.isalpha, word)) for word in found), len(found)),
        "stop_words": float(len(set(found) & set(stop_words))),
    }


def repetition(text: str, words: Callable[[str], Sequence[str]] = str.split) -> dict[str, float]:
    """The value of every repetition rule, under the names of `literal`."""
    found, rows, blocks = words(text), LINES.split(text), PARAGRAPHS.split(text.strip())
    values = {
        "dup_line": ratio(len(rows) - len(set(rows)), len(rows)),
        "dup_para": ratio(len(blocks) - len(set(blocks)), len(blocks)),
        "dup_line_char": ratio(later_copies(rows, list(map(len, rows))), len(text)),
        "dup_para_char": ratio(later_copies(blocks, list(map(len, blocks))), len(text)),
    }
    for n in TOP:
        values[f"top_{n}"] = ratio(top_characters(found, n), len(text))
    for n in DUPLICATED:
        values[f"dup_{n}"] = ratio(walked_characters(found, n), len(text))
    return values


def top_characters(found: Sequence[str], n: int) -> int:
    """Length of the first of the most frequent n-grams, including spaces, times its number of occurrences."""
    counts = Counter(ngrams(found, n))
    if not counts:
        return 0
    ngram, count = counts.most_common(1)[0]
    return count * len(" ".join(ngram))


def walked_characters(found: Sequence[str], n: int) -> int:
    """Characters of repeated n-grams in a scan that jumps over them."""
    met: set[tuple[str, ...]] = set()
    total, at = 0, 0
    while at + n <= len(found):
        ngram = tuple(found[at : at + n])
        if ngram in met:
            total += sum(map(len, ngram))
            at += n
        else:
            met.add(ngram)
            at += 1
    return total
