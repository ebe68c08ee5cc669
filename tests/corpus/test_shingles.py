"""Word n-grams: what a word is, and the compiled kernel against tuples of words."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus.dedup.shingles import bare_words, distinct, shingles, word_spans
from earthworks.runs import EarthworksError

ATOMS = st.sampled_from(
    [
        *(chr(code) for code in range(0x3100) if chr(code).isspace()),
        *(" ", " ", "a", "b", "A", "Z", "0", "9", "'", "-", "/", ":", "@", "[", "`", "{", "_", "\0", "\x7f", "don't"),
        *("seventh", "eighthly", "ninthteen", "EIGHTHLY", "sixteenletterss", "x" * 16, "y" * 17, "1234567", "12345678"),
        *("\u0130", "\u212a", "\u00c9", "e\u0301", "\u03a3", "\u00df", "\u4e2d", "\U0001d4b3", "\U0001f600", "\ud800"),
        *("\u200b", "\ufeff", "\u00ad", "\u00b2", "\u2160", "\U0010ffff"),
    ]
)
TEXTS = st.one_of(st.lists(ATOMS, max_size=40).map("".join), st.text(max_size=60))


def plain_words(text: str) -> list[str]:
    """The definition, code point by code point."""
    found = []
    for word in text.split():
        kept = [each for each in word if unicodedata.category(each)[0] in ("L", "M", "N")]
        if kept:
            found.append("".join(each.lower()[0] for each in kept))
    return found


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = plain_words(text)
    return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]


@given(TEXTS)
def test_words_are_folded_letters_marks_and_digits(text):
    assert bare_words(text) == plain_words(text)


def test_case_punctuation_and_white_space_do_not_count():
    assert bare_words("Don't -- STOP!\u3000(2nd) \n...") == ["dont", "stop", "2nd"]
    assert bare_words("\u0130stanbul \u212a \u03a3\u03a3 e\u0301") == ["istanbul", "k", "\u03c3\u03c3", "e\u0301"]
    assert np.array_equal(shingles(["The end of it."], 3)[0], shingles(['"the  END"\n--of\tIT'], 3)[0])


@given(st.lists(TEXTS, max_size=5), st.integers(1, 5))
def test_hashes_are_equal_exactly_where_ngrams_are(texts, n):
    hashes, offsets = shingles(texts, n)
    plain = [ngrams(text, n) for text in texts]
    assert np.diff(offsets).tolist() == [len(each) for each in plain]
    flat = [each for document in plain for each in document]
    assert len(set(zip(flat, hashes.tolist()))) == len(set(flat)) == len(set(hashes.tolist()))


@given(TEXTS)
def test_spans_stand_where_the_words_do(text):
    spans = word_spans(text)
    assert [word for word, _, _ in spans] == bare_words(text)
    assert all(bare_words(text[start:end]) == [word] for word, start, end in spans)


@given(st.lists(TEXTS, max_size=4), st.integers(1, 3))
def test_distinct_hashes_are_the_set_of_each_document(texts, n):
    hashes, offsets = shingles(texts, n)
    found, places = distinct(hashes, offsets)
    for k in range(len(texts)):
        expected = np.unique(hashes[offsets[k] : offsets[k + 1]])
        assert np.array_equal(found[places[k] : places[k + 1]], expected)


def finish(hash: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hash = (hash ^ hash >> 33) * factor % 2**64
    return hash ^ hash >> 33


def word_hash(word: str) -> int:
    """Blocks of eight bytes, the first byte lowest; of the last one the upper byte is how many there are."""
    codes = [ord(each) for each in word]
    each_bytes = [
        [code] if code < 0x80 else [code >> 14 | 0x80, code >> 7 & 0x7F | 0x80, code & 0x7F | 0x80] for code in codes
    ]
    data = bytes(byte for some in each_bytes for byte in some)
    hash = 0
    while len(data) >= 8:
        hash, data = finish(hash ^ int.from_bytes(data[:8], "little")), data[8:]
    return finish(hash ^ (int.from_bytes(data, "little") | len(data) << 56))


@given(TEXTS, st.integers(1, 4))
def test_the_numbers_are_those_of_the_formula(text, n):
    """Signatures kept on disk stay comparable: the hash is part of the definition."""
    words, base = [word_hash(word) for word in plain_words(text)], 0xD6E8FEB86659FD93
    expected = [
        finish(sum(word * base ** (n - 1 - i) for i, word in enumerate(words[k : k + n])) % 2**64)
        for k in range(len(words) - n + 1)
    ]
    assert shingles([text], n)[0].tolist() == expected


def test_no_two_words_of_a_large_vocabulary_meet():
    """Letters, digits and lengths around the blocks of eight bytes, and every order of few words."""
    words = [f"{a}{b}{'q' * c}" for a in range(300) for b in "abcdefghij" for c in range(20)]
    assert len(np.unique(shingles([" ".join(words)], 1)[0])) == len(words)
    grams = [f"{a} {b} {c} {d} {e}" for a in "xy" for b in "xyz" for c in "xyzw" for d in "xyzwv" for e in "xyzwvu"]
    hashes, offsets = shingles(grams, 5)
    assert len(np.unique(hashes)) == len(grams) == len(offsets) - 1


def test_a_document_shorter_than_n_words_has_none():
    hashes, offsets = shingles(["a b", "", "a b c", " . , "], 3)
    assert offsets.tolist() == [0, 0, 0, 1, 1]
    assert len(hashes) == 1


def test_arrow_columns_are_read_where_they_lie():
    texts = ["left out", "a b \u00e9 d", "c d e", "too"]
    column = pa.array(texts, pa.large_string())[1:3]
    for ours, theirs in zip(shingles(column, 2), shingles(texts[1:3], 2)):
        assert np.array_equal(ours, theirs)


def test_ngrams_of_no_words_are_refused():
    with pytest.raises(EarthworksError, match="n is 0; an n-gram must have at least 1 word"):
        shingles(["a"], 0)
