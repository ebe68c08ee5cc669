"""Positions in a text of what a rule counts, computed on demand in plain Python."""

import re
from collections.abc import Collection
from itertools import groupby

from earthworks.corpus.rules.quality import BULLETS, ELLIPSIS, QUALITY_BOUNDS, STOP_WORDS, bare
from earthworks.corpus.rules.repetition import REPETITION_LIMITS, repeated_starts, top_starts
from earthworks.corpus.rules.text_units import LINE_END
from earthworks.runs import EarthworksError

Span = tuple[int, int]
WORD = re.compile(r"\S+")
LAST_ELLIPSIS = re.compile(r"(?:\.\.\.|\u2026)\Z")
RULES = (*QUALITY_BOUNDS, *REPETITION_LIMITS)


def counted_spans(
    text: str, rule: str, profile: str = "literal", *, stop_words: Collection[str] = STOP_WORDS
) -> list[Span]:
    """(start, end) in code points, in order and without overlap, of everything that `rule` counts in `text`.

    hash_ratio, ellipsis_ratio    every "#"; every "..." and U+2026
    bullet_lines, ellipsis_lines  the bullet that starts a line; the ellipsis that ends it
    alpha_words                   the words *without* a letter
    stop_words                    every stop word found, without non-letters
    dup_line, dup_para            lines and paragraphs that occurred before; also for dup_line_char, dup_para_char
    top_n, dup_n                  the words inside the n-grams that count, adjacent ones merged
    words, mean_word_length       nothing: they concern the whole text

    The number of spans over words or lines, or their characters that are not white space over all such characters, gives
    the value of the rule. O(length) per call.
    Raises EarthworksError for an unknown rule, and for any profile but `literal`.
    """
    if profile != "literal":
        raise EarthworksError(f"the profile is {profile!r}; spans exist only for the profile 'literal'")
    if rule not in RULES:
        raise EarthworksError(f"the rule is {rule!r}; it must be one of {', '.join(RULES)}")
    if rule == "hash_ratio":
        return [mark.span() for mark in re.finditer("#", text)]
    if rule == "ellipsis_ratio":
        return [mark.span() for mark in ELLIPSIS.finditer(text)]
    if rule == "bullet_lines":
        return [(start, start + 1) for start, _ in line_spans(text) if text[start] in BULLETS]
    if rule == "ellipsis_lines":
        ends = [LAST_ELLIPSIS.search(text, start, end) for start, end in line_spans(text)]
        return [mark.span() for mark in ends if mark]
    if rule == "alpha_words":
        return [(start, end) for start, end in word_spans(text) if not any(map(str.isalpha, text[start:end]))]
    if rule == "stop_words":
        sought = {bare(word) for word in stop_words} - {""}
        return [letters(text, span) for span in word_spans(text) if bare(text[slice(*span)]) in sought]
    if rule in ("dup_line", "dup_line_char"):
        return later_copies([(span, text[slice(*span)]) for span in line_spans(text)])
    if rule in ("dup_para", "dup_para_char"):
        blocks = [((block[0][0], block[-1][1]), block) for block in paragraph_spans(text)]
        return later_copies([(span, tuple(text[slice(*line)] for line in block)) for span, block in blocks])
    return ngram_spans(text, rule) if rule.startswith(("top", "dup")) else []


def word_spans(text: str) -> list[Span]:
    return [word.span() for word in WORD.finditer(text)]


def trimmed_spans(text: str) -> list[Span]:
    """Spans of the pieces between line ends, trimmed of white space; blank ones are empty."""
    ends = [mark.span() for mark in LINE_END.finditer(text)]
    found = []
    for start, end in zip([0, *(after for _, after in ends)], [*(before for before, _ in ends), len(text)]):
        start = end - len(text[start:end].lstrip())
        found.append((start, start + len(text[start:end].rstrip())))
    return found


def line_spans(text: str) -> list[Span]:
    return [span for span in trimmed_spans(text) if span[0] < span[1]]


def paragraph_spans(text: str) -> list[list[Span]]:
    """The lines of each paragraph."""
    return [list(run) for blank, run in groupby(trimmed_spans(text), lambda span: span[0] == span[1]) if not blank]


def letters(text: str, word: Span) -> Span:
    """The span from the first letter of a word to its last."""
    places = [place for place in range(*word) if text[place].isalpha()]
    return places[0], places[-1] + 1


def later_copies(items: list[tuple[Span, object]]) -> list[Span]:
    seen: set[object] = set()
    found = []
    for span, item in items:
        if item in seen:
            found.append(span)
        seen.add(item)
    return found


def ngram_spans(text: str, rule: str) -> list[Span]:
    """Spans of the words in n-grams counted by `top_n` or `dup_n`, adjacent ones merged."""
    kind, size = rule.split("_")
    n, where = int(size), word_spans(text)
    found = [text[start:end] for start, end in where]
    starts = top_starts(found, list(map(len, found)), n) if kind == "top" else repeated_starts(found, n)
    joined: list[list[int]] = []
    for start in starts:
        if joined and start <= joined[-1][1]:
            joined[-1][1] = start + n
        else:
            joined.append([start, start + n])
    return [(where[first][0], where[after - 1][1]) for first, after in joined]
