"""Language identification by the model of py3langid (naive Bayes over byte n-grams, 140 languages).

The model ships in that package's wheel; its scan over the bytes is compiled here, so it is cheap compared with the rules.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from earthworks.compilation import compiled
from earthworks.corpus.rules.profiles import Texts
from earthworks.runs.errors import missing_extra

CHARACTERS = 1000  # of a document that are used: more cost time and change nothing
UNKNOWN = "und"


class Model(NamedTuple):
    codes: list[str]
    moves: np.ndarray  # rows of 256: the next state by byte
    rows: np.ndarray  # (states,): the row of each state
    features: np.ndarray  # (states,): the feature recognized there, or -1
    weights: np.ndarray  # (features, languages) float32: log-probabilities
    priors: np.ndarray  # (languages,) float32


def languages(texts: Texts) -> tuple[list[str], np.ndarray]:
    """The ISO 639 code of each text's language, and its probability (documents,) float64.

    log P(language | text) is the prior's logarithm + sum over features of log(1 + count) x log P(feature | language), over
    the square root of the number of bytes, which calibrates it for all lengths: as py3langid 0.4 does with `norm_probs`.
    Uses the first 1,000 code points of each text, in NFC, in lower case if all of them are capitals. A text without any
    known feature gives "und" and 0. Deterministic; only the model is cached, once per process (0.7 s to unpack, 80 MB).
    O(bytes used + features found x languages).
    Raises EarthworksError if py3langid is not installed.
    """
    model = load()
    pieces = [prepared(text) for text in beginnings(texts)]
    offsets = np.cumsum([0, *map(len, pieces)])
    scores = np.empty((len(pieces), len(model.codes)), np.float32)
    data = np.frombuffer(b"".join(pieces), np.uint8)
    met = np.empty(len(pieces), np.int64)
    log_posteriors(data, offsets, *model[1:], scores, met)

    scores = scores / np.sqrt(np.maximum(np.diff(offsets), 1))[:, None]
    probabilities = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    probabilities /= probabilities.sum(1, keepdims=True)
    for place, code in enumerate(model.codes):  # a language in two scripts has two columns
        first = model.codes.index(code)
        if first != place:
            probabilities[:, first] += probabilities[:, place]
            probabilities[:, place] = 0.0
    best = probabilities.argmax(1) if len(pieces) else np.empty(0, np.int64)
    codes = [model.codes[place] if found else UNKNOWN for place, found in zip(best, met)]
    return codes, np.where(met > 0, probabilities[np.arange(len(pieces)), best], 0.0)


def beginnings(texts: Texts) -> Iterable[str]:
    """The part of each text that is used; of Arrow texts, only this part is converted to strings."""
    if hasattr(texts, "to_pylist"):
        import pyarrow.compute as compute  # its functions are created on import

        return compute.utf8_slice_codeunits(texts, 0, CHARACTERS).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    return [text[:CHARACTERS] for text in texts]


def prepared(text: str) -> bytes:
    return normalize("NFC", text.lower() if text.isupper() else text).encode(errors="surrogatepass")


@cache
def load() -> Model:
    try:
        from py3langid.langid import MODEL_DIR, MODEL_FILE  # pyright: ignore[reportMissingImports]
        from py3langid.modelio import load_model  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise missing_extra("py3langid", "extract", "telling languages apart") from None
    unpacked: tuple[Any, ...] = load_model(MODEL_DIR / MODEL_FILE)
    weights, priors, codes, moves, rows, features = unpacked
    weights, priors = np.asarray(weights, np.float32), np.asarray(priors, np.float32)
    return Model(list(codes), np.asarray(moves), np.asarray(rows), np.asarray(features, np.int32), weights, priors)


@compiled
def log_posteriors(data, offsets, moves, rows, features, weights, priors, scores, met):
    """Write log-posteriors of all languages, unnormalised, to `scores` (documents, languages), feature counts to `met`."""
    counts, seen = np.zeros(len(weights), np.int64), np.empty(len(weights), np.int64)
    for document in range(len(offsets) - 1):
        state, num_seen = np.int64(0), 0
        for at in range(offsets[document], offsets[document + 1]):
            state = np.int64(moves[np.int64(rows[state]) * 256 + np.int64(data[at])])
            feature = features[state]
            if feature >= 0:
                if counts[feature] == 0:
                    seen[num_seen] = feature
                    num_seen += 1
                counts[feature] += 1
        met[document] = num_seen
        row = scores[document]
        row[:] = priors
        for k in range(num_seen):
            weight = np.float32(np.log1p(float(counts[seen[k]])))
            counts[seen[k]] = 0
            each = weights[seen[k]]
            for language in range(len(row)):
                row[language] += weight * each[language]
