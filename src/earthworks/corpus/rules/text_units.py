"""Definitions of word, line and paragraph for all rules of the profile `literal` (rationale in docs/massivetext.md).

A text is a sequence of code points, used unchanged. White space is the 29 code points for which `str.isspace()` is true,
as in `str.split()` and `str.strip()`; U+200B, U+2060 and U+FEFF are not among them. Characters are always code points that
are not white space.
"""

import re
from itertools import groupby

LINE_END = re.compile(r"\r\n|\r|\n")  # str.splitlines() would also cut at VT, FF, NEL, U+2028 and others


def words(text: str) -> list[str]:
    """Maximal runs without white space, punctuation attached."""
    return text.split()


def trimmed_lines(text: str) -> list[str]:
    """The pieces between line ends (CRLF is one), trimmed of white space; blank ones are empty strings."""
    return [line.strip() for line in LINE_END.split(text)]


def lines(text: str) -> list[str]:
    """The trimmed non-blank lines."""
    return [line for line in trimmed_lines(text) if line]


def paragraphs(text: str) -> list[tuple[str, ...]]:
    """Maximal runs of non-blank lines."""
    return [tuple(run) for blank, run in groupby(trimmed_lines(text), lambda line: not line) if not blank]


def characters(text: str) -> int:
    """Number of code points that are not white space."""
    return sum(map(len, words(text)))
