"""What a word, a line and a paragraph are, for every rule of the profile `literal` (argued in docs/massivetext.md).

A text is a sequence of code points, and nothing about it is changed. White space is the 29 code points for which
`str.isspace()` is true, which is also what `str.split()` and `str.strip()` go by: U+200B, U+2060 and U+FEFF are not among
them. Characters are counted as code points that are not white space, everywhere.
"""

import re
from itertools import groupby

LINE_END = re.compile(r"\r\n|\r|\n")  # str.splitlines() would also cut at VT, FF, NEL, U+2028 and others


def words(text: str) -> list[str]:
    """Maximal runs of what is not white space, punctuation attached."""
    return text.split()


def trimmed_lines(text: str) -> list[str]:
    """The pieces between line ends (CRLF is one), white space trimmed off; blank ones are empty strings."""
    return [line.strip() for line in LINE_END.split(text)]


def lines(text: str) -> list[str]:
    """The trimmed lines that are not blank."""
    return [line for line in trimmed_lines(text) if line]


def paragraphs(text: str) -> list[tuple[str, ...]]:
    """Maximal runs of lines that are not blank."""
    return [tuple(run) for blank, run in groupby(trimmed_lines(text), lambda line: not line) if not blank]


def characters(text: str) -> int:
    """Code points that are not white space."""
    return sum(map(len, words(text)))
