"""Word n-grams of documents as 64-bit numbers, which near-duplicates and test items are found by.

The paper builds its n-grams "after whitespace normalisation, ignoring punctuation". Here that means `bare_words`, below; the
kernel computes the same from UTF-8 bytes and makes no string. Case is folded as well, since test sets such as LAMBADA are
lower-cased and a page in capitals is still the same page.
"""

import re
import sys
import unicodedata
from functools import cache

import numpy as np

from earthworks.corpus.rules import Texts, buffers
from earthworks.runs import EarthworksError


def bare(word: str) -> str:
    """The letters, marks and digits (general categories L, M, N) of a word, each in lower case by itself."""
    return "".join(each.lower()[0] for each in word if unicodedata.category(each)[0] in "LMN")


def bare_words(text: str) -> list[str]:
    """Runs of what is not white space (`str.split`), bared; those that nothing is left of do not count.

    "Don't -- STOP!" -> ["dont", "stop"]. Chinese and Japanese, written without spaces, make words of whole sentences.
    """
    return [found for word in text.split() if (found := bare(word))]


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """The `bare_words` with where each stands: text[start:end] is the word with its punctuation, in code points."""
    found = ((bare(each.group()), *each.span()) for each in re.finditer(r"\S+", text))
    return [span for span in found if span[0]]


@cache
def folding() -> np.ndarray:
    """What every code point becomes: (0x110000,) int32, a code point, DROPPED or SPACE."""
    from earthworks.corpus.hashing import SPACE

    table = np.zeros(sys.maxunicode + 1, np.int32)  # DROPPED is 0
    for code in range(sys.maxunicode + 1):
        each = chr(code)
        if each.isspace():
            table[code] = SPACE
        elif unicodedata.category(each)[0] in "LMN":
            table[code] = ord(each.lower()[0])
    return table


def shingles(texts: Texts, n: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every n-gram of `bare_words`, in text order: hashes uint64, and offsets (documents + 1) int64.

    Document d has hashes[offsets[d] : offsets[d + 1]]: one for each of its first W - n + 1 words, none where W < n. Equal
    n-grams have equal hashes on every machine; two different ones are equal with a chance of about 2**-59. O(bytes),
    whatever n is. Memory: 8 bytes an n-gram.
    """
    if n < 1:
        raise EarthworksError(f"n-grams of {n} words were asked for; n must be 1 or more")
    from earthworks.corpus.hashing import hash_ngrams

    data, offsets = buffers(texts)
    room = int(offsets[-1] - offsets[0]) // 2 + len(offsets)  # a word takes two bytes with what parts it from the next
    hashes, places = np.empty(room, np.uint64), np.zeros(len(offsets), np.int64)
    hash_ngrams(data, offsets, folding(), n, hashes, places)
    return hashes[: places[-1]], places


def distinct(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with each document's hashes sorted, and every one once."""
    from earthworks.corpus.hashing import sort_distinct

    found, places = hashes.copy(), np.zeros(len(offsets), np.int64)
    sort_distinct(found, offsets, places)
    return found[: places[-1]], places
