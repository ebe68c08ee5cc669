"""Dialect gap: difference in bits per byte between two corpora given by the user."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthworks.corpus import read
from earthworks.evaluation.findings import finding
from earthworks.evaluation.likelihood.protocol import AnyScorer, log_likelihoods
from earthworks.runs import EarthworksError
from earthworks.transport.resampling import p_value, permuted

GAP = "dialect: first minus second, bits/byte"


def measure_dialects(
    scorer: AnyScorer,
    first: str,
    second: str,
    *,
    max_documents: int = 2000,
    num_permutations: int = 1999,
    seed: int = 0,
) -> dict[str, Any]:
    """Bits per byte of both corpora and their gap, first minus second; above 0 the model is worse on the first.

        bits per byte = - sum log2 P(document) / sum UTF-8 bytes,      perplexity per word = exp(- sum log P / sum words)

    Per byte, because a tokenizer cuts the dialects into different numbers of tokens. p by exchanging documents between the
    corpora, interval by resampling both; the unit is a document (a tweet, a post). The first `max_documents` of each are
    read. The gap reflects every difference between the corpora: subject and length as well as dialect.
    Source: Rae et al. 2021, section 5.2.3, on the tweets of Blodgett et al. 2016.
    """
    sides = [costs(scorer, corpus, max_documents) for corpus in (first, second)]
    nats, size, words = (np.concatenate(column) for column in zip(*sides))
    n = len(sides[0][0])

    def rate(rows: NDArray[Any]) -> float:
        return float(nats[rows].sum() / size[rows].sum() / math.log(2))

    every = np.arange(len(nats))
    value = rate(every[:n]) - rate(every[n:])
    null = permuted(lambda i, j: abs(rate(i.numpy()) - rate(j.numpy())), n, len(nats) - n, num_permutations, seed)
    random = np.random.default_rng(seed)
    drawn = [rate(random.choice(every[:n], n)) - rate(random.choice(every[n:], len(nats) - n)) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "what": "dialect: bits per byte of two corpora",
        "corpora": {
            name: {
                "bits_per_byte": rate(rows),
                "perplexity_per_word": perplexity(float(nats[rows].sum() / words[rows].sum())),
                "documents": len(rows),
                "bytes": int(size[rows].sum()),
            }
            for name, rows in ((first, every[:n]), (second, every[n:]))
        },
        "findings": [finding(GAP, value, (low, high), p_value(abs(value), null), len(nats), "documents")],
    }


def perplexity(nats: float) -> float:
    """exp(nats); NaN for NaN."""
    return math.exp(min(700, nats)) if math.isfinite(nats) else nats


def costs(scorer: AnyScorer, corpus: str, max_documents: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Nats, bytes and words of each document."""
    texts: Sequence[str] = [document.text for document, _ in zip(read(corpus), range(max_documents))]
    if len(texts) < 2:
        raise EarthworksError(f"{corpus} has {len(texts)} document; expected several (one per line of a .jsonl file)")
    nats = -log_likelihoods(scorer, [("", text) for text in texts])
    return (
        nats,
        np.array([len(text.encode()) for text in texts]),
        np.array([max(1, len(text.split())) for text in texts]),
    )
