"""Values of the quality and repetition rules for many documents at once; bounds are applied to them afterwards.

values = rule_values(texts)                  {"words": array([812., ...]), ..., "dup_10": array([0.03, ...])}
failing(values)                              {"words": array([False, ...]), ...}: which rule drops which document
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from earthworks.corpus.quality import QUALITY_BOUNDS, STOP_WORDS
from earthworks.corpus.repetition import REPETITION_LIMITS
from earthworks.runs import EarthworksError

if TYPE_CHECKING:
    import pyarrow as pa

    Texts = Sequence[str] | pa.Array | pa.ChunkedArray
else:
    Texts = Any


@dataclass(frozen=True)
class Profile:
    """One definition of the rules: lowest and highest passing value of each, and what computes them.

    `compute(data, offsets)` takes UTF-8 as Arrow lays it out and gives (documents, rules) in float64, in the order of
    `quality`, then `repetition`.
    """

    quality: Mapping[str, tuple[float, float]]
    repetition: Mapping[str, tuple[float, float]]
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        return {**self.quality, **self.repetition}


def literal(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    from earthworks.corpus.kernels import literal_values

    out = np.empty((len(offsets) - 1, len(QUALITY_BOUNDS) + len(REPETITION_LIMITS)))
    literal_values(data, offsets, kinds(), packed_stop_words(), out)
    return out


def datatrove(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    from earthworks.corpus.kernels import datatrove_values

    out = np.empty((len(offsets) - 1, len(QUALITY_BOUNDS) + len(REPETITION_LIMITS)))
    datatrove_values(data, offsets, kinds_with_punctuation(), packed_stop_words(), out)
    return out


SHARES = {name: (0.0, limit) for name, limit in REPETITION_LIMITS.items()}
PROFILES: dict[str, Profile] = {
    "literal": Profile(QUALITY_BOUNDS, SHARES, literal),
    "datatrove": Profile(QUALITY_BOUNDS, SHARES, datatrove),
}


def rule_values(texts: Texts, profile: str = "literal") -> dict[str, np.ndarray]:
    """The value of every rule for every text: rule's name to (documents,) float64.

    `texts`: strings, or an Arrow array of strings, which is not copied. What each value is stands in quality.py and
    repetition.py, for the profile `datatrove` in datatrove.py; the names of the rules are those of
    `PROFILES[profile].bounds`, in that order. O(bytes).
    Raises EarthworksError for an unknown profile and for nulls.
    """
    if profile not in PROFILES:
        raise EarthworksError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    matrix = PROFILES[profile].compute(*buffers(texts))
    return dict(zip(PROFILES[profile].bounds, matrix.T))


def quality_values(texts: Texts, profile: str = "literal") -> dict[str, np.ndarray]:
    """`rule_values` of the quality rules alone."""
    values = rule_values(texts, profile)
    return {name: values[name] for name in PROFILES[profile].quality}


def repetition_values(texts: Texts, profile: str = "literal") -> dict[str, np.ndarray]:
    """`rule_values` of the repetition rules alone."""
    values = rule_values(texts, profile)
    return {name: values[name] for name in PROFILES[profile].repetition}


def failing(
    values: Mapping[str, np.ndarray], bounds: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, np.ndarray]:
    """Which documents each rule drops: name to (documents,) bool. A document is kept when no rule drops it."""
    bounds = PROFILES["literal"].bounds if bounds is None else bounds
    return {name: ~((low <= values[name]) & (values[name] <= high)) for name, (low, high) in bounds.items()}


def buffers(texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes (uint8) and where each text begins and the last ends (documents + 1, int64)."""
    if not isinstance(texts, list | tuple):
        import pyarrow as pa

        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        assert isinstance(column, pa.Array), f"expected strings or an Arrow array, got {type(texts).__name__}"
        if column.null_count:
            raise EarthworksError(f"{column.null_count} of {len(column)} texts are missing")
        column = column.cast(pa.large_string())
        _, offsets, data = column.buffers()
        places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), places
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    places = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(each) for each in encoded], out=places[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), places


@cache
def kinds() -> np.ndarray:
    """Of every code point: white space, letter, or neither, by Python's own Unicode tables."""
    from earthworks.corpus.kernels import LETTER, SPACE

    characters = map(chr, range(0x110000))
    found = [SPACE if each.isspace() else LETTER if each.isalpha() else 0 for each in characters]
    return np.array(found, np.uint8)


@cache
def kinds_with_punctuation() -> np.ndarray:
    from earthworks.corpus.datatrove import PUNCTUATION as characters
    from earthworks.corpus.kernels import PUNCTUATION

    found = kinds().copy()
    found[[ord(each) for each in characters]] |= PUNCTUATION
    return found


@cache
def packed_stop_words() -> np.ndarray:
    """The bytes of each stop word after a 1 as one number, the longest first."""
    longest_first = sorted(STOP_WORDS, key=len, reverse=True)
    return np.array([int.from_bytes(b"\1" + word.encode(), "big") for word in longest_first], np.uint64)
