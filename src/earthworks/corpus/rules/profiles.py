"""Quality- and repetition-rule values for a batch of documents; thresholds are applied later.

values = rule_values(texts)                  {"words": array([812., ...]), ..., "dup_10": array([0.03, ...])}
failing(values)                              {"words": array([False, ...]), ...}: which rule drops which document
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from earthworks.corpus.rules import dolma as dolma_rules
from earthworks.corpus.rules import redpajama as redpajama_rules
from earthworks.corpus.rules.quality import QUALITY_BOUNDS, STOP_WORDS, bare
from earthworks.corpus.rules.repetition import REPETITION_LIMITS
from earthworks.runs import EarthworksError

if TYPE_CHECKING:
    import pyarrow as pa

    Texts = Sequence[str] | pa.Array | pa.ChunkedArray
else:
    Texts = Any
PackedWords = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
Splitter = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Profile:
    """One definition of the rules: lowest and highest passing value of each, and the function that computes them.

    `compute(texts, **options)` returns (documents, rules) float64, in the order of `quality`, then `repetition`; `options`
    are those of `rule_values` that it accepts.
    """

    quality: Mapping[str, tuple[float, float]]
    repetition: Mapping[str, tuple[float, float]]
    compute: Callable[..., np.ndarray]
    options: tuple[str, ...] = ()

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        return {**self.quality, **self.repetition}


def literal(texts: Texts, stop_words: Collection[str] = STOP_WORDS) -> np.ndarray:
    from earthworks.corpus.rules.literal_kernels import literal_values

    data, offsets = buffers(texts)
    out = np.empty((len(offsets) - 1, len(QUALITY_BOUNDS) + len(REPETITION_LIMITS)))
    literal_values(data, offsets, kinds(), packed(frozenset(map(bare, stop_words))), lower_case(), out)
    return out


def datatrove(texts: Texts, stop_words: Collection[str] = STOP_WORDS, words: Splitter | None = None) -> np.ndarray:
    if words:
        from earthworks.corpus.rules.datatrove import quality, repetition

        return rows(texts, lambda text: {**quality(text, words, stop_words), **repetition(text, words)})
    from earthworks.corpus.rules.datatrove_kernels import datatrove_values

    data, offsets = buffers(texts)
    out = np.empty((len(offsets) - 1, len(QUALITY_BOUNDS) + len(REPETITION_LIMITS)))
    datatrove_values(data, offsets, kinds_with_punctuation(), packed(frozenset(stop_words)), out)
    return out


def dolma(texts: Texts, stop_words: Collection[str] = STOP_WORDS) -> np.ndarray:
    from earthworks.corpus.rules.dolma import quality, repetition

    return rows(texts, lambda text: {**quality(text, stop_words), **repetition(text)})


def redpajama(texts: Texts) -> np.ndarray:
    from earthworks.corpus.rules.redpajama import quality, repetition

    return rows(texts, lambda text: {**quality(text), **repetition(text)})


def rows(texts: Texts, values: Callable[[str], Mapping[str, float]]) -> np.ndarray:
    """The values of each text, computed by plain Python."""
    found = [list(values(text).values()) for text in strings(texts)]
    return np.array(found) if found else np.empty((0, len(values(""))))


def shares(limits: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {name: (0.0, limit) for name, limit in limits.items()}


PROFILES: dict[str, Profile] = {
    "literal": Profile(QUALITY_BOUNDS, shares(REPETITION_LIMITS), literal, ("stop_words",)),
    "datatrove": Profile(QUALITY_BOUNDS, shares(REPETITION_LIMITS), datatrove, ("stop_words", "words")),
    "dolma": Profile(dolma_rules.BOUNDS, shares(dolma_rules.LIMITS), dolma, ("stop_words",)),
    "redpajama": Profile(redpajama_rules.BOUNDS, shares(redpajama_rules.LIMITS), redpajama),
}


def rule_values(
    texts: Texts,
    profile: str = "literal",
    *,
    stop_words: Collection[str] | None = None,
    words: Splitter | None = None,
) -> dict[str, np.ndarray]:
    """The value of every rule for every text: rule name to (documents,) float64.

    `texts`: strings, or an Arrow array of strings, which the profiles `literal` and `datatrove` do not copy. The values are
    defined in quality.py and repetition.py, and for other profiles in the files named after them; rule names are those of
    `PROFILES[profile].bounds`, in that order. O(bytes), compiled for `literal` and `datatrove`, in plain Python for the
    others.
    `stop_words`: replaces the paper's eight, as for another language (stop_words.py has some); any number, of any length.
    `words`: for `datatrove`, a function that splits a text into words instead of white space; then in plain Python.
    Raises EarthworksError for an unknown profile, an option that it does not accept, and nulls.
    """
    if profile not in PROFILES:
        raise EarthworksError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    given = {"stop_words": stop_words, "words": words}
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in PROFILES[profile].options:
            takers = ", ".join(each for each in PROFILES if name in PROFILES[each].options)
            raise EarthworksError(f"the profile {profile} has no option {name}; these do: {takers}")
    if isinstance(stop_words, str):
        raise EarthworksError(
            f"stop_words is the string {stop_words!r}; it must be a set of words, such as STOP_WORDS['de']"
        )
    matrix = PROFILES[profile].compute(texts, **options)
    return dict(zip(PROFILES[profile].bounds, matrix.T))


def quality_values(texts: Texts, profile: str = "literal", **options: Any) -> dict[str, np.ndarray]:
    """`rule_values` of the quality rules alone."""
    values = rule_values(texts, profile, **options)
    return {name: values[name] for name in PROFILES[profile].quality}


def repetition_values(texts: Texts, profile: str = "literal", **options: Any) -> dict[str, np.ndarray]:
    """`rule_values` of the repetition rules alone."""
    values = rule_values(texts, profile, **options)
    return {name: values[name] for name in PROFILES[profile].repetition}


def failing(
    values: Mapping[str, np.ndarray], bounds: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, np.ndarray]:
    """Which documents each rule drops: name to (documents,) bool. A document is kept if no rule drops it."""
    bounds = PROFILES["literal"].bounds if bounds is None else bounds
    return {name: ~((low <= values[name]) & (values[name] <= high)) for name, (low, high) in bounds.items()}


def buffers(texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes (uint8) and the offsets of the texts in them (documents + 1, int64)."""
    if not isinstance(texts, list | tuple):
        import pyarrow as pa

        column = present(texts).cast(pa.large_string())
        _, offsets, data = column.buffers()
        places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), places
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    places = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(each) for each in encoded], out=places[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), places


def strings(texts: Any) -> Sequence[str]:
    return texts if isinstance(texts, list | tuple) else present(texts).to_pylist()


def present(texts: Any) -> Any:
    """The Arrow array, in one piece and without nulls."""
    import pyarrow as pa

    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    assert isinstance(column, pa.Array), f"expected strings or an Arrow array, got {type(texts).__name__}"
    if column.null_count:
        raise EarthworksError(f"{column.null_count} of {len(column)} texts are missing")
    return column


@cache
def kinds() -> np.ndarray:
    """The kind of every code point (white space, letter, or neither) by Python's own Unicode tables."""
    from earthworks.corpus.rules.kernels import LETTER, SPACE

    characters = map(chr, range(0x110000))
    found = [SPACE if each.isspace() else LETTER if each.isalpha() else 0 for each in characters]
    return np.array(found, np.uint8)


@cache
def kinds_with_punctuation() -> np.ndarray:
    from earthworks.corpus.rules.datatrove import PUNCTUATION as characters
    from earthworks.corpus.rules.kernels import PUNCTUATION

    found = kinds().copy()
    found[[ord(each) for each in characters]] |= PUNCTUATION
    return found


@cache
def lower_case() -> np.ndarray:
    """The lower case of every code point, as in `bare`: of the two of U+0130, the first."""
    lowered = "".join(map(chr, range(0x110000))).lower().replace("\u03c2", "\u03c3")
    codes = np.delete(np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), "<i4"), 0x131)
    assert len(codes) == 0x110000, "a second capital whose lower case is two code points"
    return codes


@lru_cache(maxsize=16)
def packed(stop_words: frozenset[str]) -> PackedWords:
    """Stop words in the form used by the kernels.

    Their code points, concatenated; the start of each word; the first word for each value of the last six bits of the
    first code point; then a hash table of words of at most seven ASCII bytes, each packed into a number, and their indices
    (in empty positions the number of all words); the length of the longest.
    """
    from earthworks.corpus.rules.kernels import place_of, short_key

    ordered = sorted(stop_words - {""}, key=lambda word: (ord(word[0]) & 63, word))
    codes = np.array([ord(each) for word in ordered for each in word], np.int64)
    places = np.cumsum([0, *map(len, ordered)])
    buckets = np.searchsorted([ord(word[0]) & 63 for word in ordered], np.arange(65))
    keys = np.zeros(1 << (4 * len(ordered) + 15).bit_length(), np.uint64)
    indices = np.full(len(keys), len(ordered))
    for index, word in enumerate(ordered):
        if word.isascii() and len(word) < 8:
            key = short_key(np.uint64(int.from_bytes(word.encode(), "little")), len(word))
            keys[place_of(key, keys)], indices[place_of(key, keys)] = key, index
    return codes, places, buckets, keys, indices, max(map(len, ordered), default=0)
