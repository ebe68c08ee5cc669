"""Word n-grams of documents as 64-bit numbers, which near-duplicates and test items are found by.

The paper builds its n-grams "after whitespace normalisation, ignoring punctuation". Here that means `bare_words`, below; the
kernel computes the same from UTF-8 bytes and makes no string. Case is folded as well, since test sets such as LAMBADA are
lower-cased and a page in capitals is still the same page.
"""

import sys
import unicodedata
from functools import cache

import numpy as np

from earthworks.compilation import compiled
from earthworks.corpus.rules import Texts, buffers
from earthworks.runs import EarthworksError

DROPPED, SPACE = 0, 1  # in the table of what code points fold to; other entries are code points
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
BASE = np.uint64(0xD6E8FEB86659FD93)  # 3 modulo 8: B**i - B**j is then divisible by few powers of 2


def bare(word: str) -> str:
    """The letters, marks and digits (general categories L, M, N) of a word, each in lower case by itself."""
    return "".join(each.lower()[0] for each in word if unicodedata.category(each)[0] in "LMN")


def bare_words(text: str) -> list[str]:
    """Runs of what is not white space (`str.split`), bared; those that nothing is left of do not count.

    "Don't -- STOP!" -> ["dont", "stop"]. Chinese and Japanese, written without spaces, make words of whole sentences.
    """
    return [found for word in text.split() if (found := bare(word))]


@cache
def folding() -> np.ndarray:
    """What every code point becomes: (0x110000,) int32, a code point, DROPPED or SPACE."""
    table = np.zeros(sys.maxunicode + 1, np.int32)
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
    data, offsets = buffers(texts)
    room = int(offsets[-1] - offsets[0]) // 2 + len(offsets)  # a word takes two bytes with what parts it from the next
    hashes, places = np.empty(room, np.uint64), np.zeros(len(offsets), np.int64)
    shingle(data, offsets, folding(), n, hashes, places)
    return hashes[: places[-1]], places


def distinct(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with each document's hashes sorted, and every one once."""
    found, places = hashes.copy(), np.zeros(len(offsets), np.int64)
    sort_distinct(found, offsets, places)
    return found[: places[-1]], places


@compiled
def mix(hash, value):
    hash = (hash ^ value) * MULTIPLIER
    return hash ^ (hash >> np.uint64(29))


@compiled
def finish(hash):
    """A bijection of 64 bits that spreads every bit over all others."""
    hash = (hash ^ (hash >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hash = (hash ^ (hash >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hash ^ (hash >> np.uint64(33))


@compiled
def decode(data, at):
    """The code point whose UTF-8, of two bytes or more, begins at `at`, and its number of bytes."""
    byte = np.int64(data[at])
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(data[at + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(data[at + 1] & 0x3F) << 6 | np.int64(data[at + 2] & 0x3F), 3
    code = (byte & 0x07) << 18 | np.int64(data[at + 1] & 0x3F) << 12
    return code | np.int64(data[at + 2] & 0x3F) << 6 | np.int64(data[at + 3] & 0x3F), 4


@compiled
def hash_words(data, at, end, fold, words):
    """The hash of every word of data[at:end] into `words`; how many there are.

    Eight bytes of a word are mixed in at a time; a folded code point above 0x7F is three bytes above 0x7F.
    """
    count, hash, packed, size = 0, np.uint64(0), np.uint64(0), 0
    while at < end:
        if data[at] < 0x80:
            code = fold[data[at]]
            at += 1
        else:
            code, length = decode(data, at)
            code = fold[code]
            at += length
        if code > 0x7F:
            for shift in (14, 7, 0):
                packed = packed << np.uint64(8) | np.uint64(code >> shift & 0x7F | 0x80)
                size += 1
                if size & 7 == 0:
                    hash, packed = mix(hash, packed), np.uint64(0)
        elif code > SPACE:
            packed = packed << np.uint64(8) | np.uint64(code)
            size += 1
            if size & 7 == 0:
                hash, packed = mix(hash, packed), np.uint64(0)
        elif code == SPACE and size:
            words[count] = mix(mix(hash, packed), np.uint64(size))
            count += 1
            hash, packed, size = np.uint64(0), np.uint64(0), 0
    if size:
        words[count] = mix(mix(hash, packed), np.uint64(size))
        count += 1
    return count


@compiled
def shingle(data, offsets, fold, n, hashes, places):
    """A rolling polynomial of the words' hashes: sum_i word[k + i] B**(n - 1 - i) modulo 2**64, finished."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    words = np.empty(longest // 2 + 1, np.uint64)
    leaving = np.uint64(1)
    for _ in range(n):
        leaving *= BASE
    total = 0
    for document in range(len(offsets) - 1):
        count = hash_words(data, offsets[document], offsets[document + 1], fold, words)
        if count >= n:
            rolling = np.uint64(0)
            for k in range(n):
                rolling = rolling * BASE + words[k]
            hashes[total] = finish(rolling)
            total += 1
            for k in range(n, count):
                rolling = rolling * BASE + (words[k] - words[k - n] * leaving)
                hashes[total] = finish(rolling)
                total += 1
        places[document + 1] = total


@compiled
def sort_distinct(hashes, offsets, places):
    """Sort every document's hashes and close up the gaps that copies leave, in place."""
    total = 0
    for document in range(len(offsets) - 1):
        ordered = np.sort(hashes[offsets[document] : offsets[document + 1]])
        for k in range(len(ordered)):
            if k == 0 or ordered[k] != ordered[k - 1]:
                hashes[total] = ordered[k]
                total += 1
        places[document + 1] = total
