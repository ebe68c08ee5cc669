"""Word n-grams of documents as 64-bit hashes, for finding near-duplicates and test items.

The paper builds its n-grams "after whitespace normalisation, ignoring punctuation". Here that means `bare_words` below; the
kernel computes the same from UTF-8 bytes without making strings. Case is folded too, since test sets such as LAMBADA are
lower-cased and a page in capitals is still the same page.
"""

import re
import sys
import unicodedata
from functools import cache

import numpy as np

from earthworks.corpus.rules.profiles import Texts, buffers
from earthworks.runs import EarthworksError


class Folding(dict[int, str]):
    """Mapping of code points for `str.translate`, filled on demand: letters, marks and digits (general categories L, M, N)
    become lower case, one by one; white space is kept; everything else is dropped."""

    def __missing__(self, code: int) -> str:
        each = chr(code)
        kept = unicodedata.category(each)[0] in "LMN"
        self[code] = each if each.isspace() else each.lower()[0] if kept else ""
        return self[code]


FOLDING = Folding()


def bare_words(text: str) -> list[str]:
    """The words of a text in lower case and without punctuation; words of punctuation alone are dropped.

    "Don't -- STOP!" -> ["dont", "stop"]. Words are separated only by white space (`str.isspace`): in Chinese and
    Japanese, whole sentences are words.
    """
    return text.translate(FOLDING).split()


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """The `bare_words` with positions in code points: text[start:end] is the word with its punctuation."""
    found = ((each.group().translate(FOLDING), *each.span()) for each in re.finditer(r"\S+", text))
    return [span for span in found if span[0]]


@cache
def folding_table() -> np.ndarray:
    """FOLDING as a table (0x110000,) int32: for each code point, a code point, SPACE or DROPPED."""
    from earthworks.corpus.dedup.hashing import DROPPED, SPACE

    folded = (FOLDING[code] for code in range(sys.maxunicode + 1))
    return np.array([DROPPED if not each else SPACE if each.isspace() else ord(each) for each in folded], np.int32)


def shingles(texts: Texts, n: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every n-gram of `bare_words`, in text order: hashes uint64, and offsets (documents + 1) int64.

    Document d has hashes[offsets[d] : offsets[d + 1]]: one for each of its first W - n + 1 words, none if W < n. Equal
    n-grams have equal hashes on every machine; two different ones collide with a probability of about 2**-59. O(bytes)
    for any n. Memory: 8 bytes per n-gram.
    """
    if n < 1:
        raise EarthworksError(f"n is {n}; an n-gram must have at least 1 word")
    from earthworks.corpus.dedup.hashing import hash_ngrams

    data, offsets = buffers(texts)
    room = int(offsets[-1] - offsets[0]) // 2 + len(offsets)  # a word takes two bytes with its separator
    hashes, places = np.empty(room, np.uint64), np.zeros(len(offsets), np.int64)
    hash_ngrams(data, offsets, folding_table(), n, hashes, places)
    return hashes[: places[-1]], places


def distinct(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with each document's hashes sorted and made unique."""
    from earthworks.corpus.dedup.hashing import sort_distinct

    found, places = hashes.copy(), np.zeros(len(offsets), np.int64)
    sort_distinct(found, offsets, places)
    return found[: places[-1]], places
