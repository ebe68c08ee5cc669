"""Scoring of text by a model: every token once, in nats per token and bits per byte."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from earthworks.gopher.model import Gopher
from earthworks.runs import EarthworksError, Progress
from earthworks.statistics import bootstrap_ratio

Windows = Literal["sliding", "disjoint"]

TOKENS_AT_ONCE = 16_384  # tokens of one forward pass: bounds memory whatever the context
FEW_DOCUMENTS = 20  # below this the interval is taken over windows, for documents are too few to resample


@dataclass(slots=True)
class Window:
    """`tokens` are read; the losses of the last `scored` of `targets` count."""

    document: int
    start: int
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    scored: int


@dataclass(slots=True)
class ScoredDocument:
    """A model's scores of one document; `nats` has one entry per token."""

    nats: NDArray[np.float32]
    positions: NDArray[np.int64]  # tokens of context of each prediction, the preceding end-of-document token included
    num_bytes: int
    num_words: int


def cut(document: NDArray[Any], number: int, context: int, windows: Windows, end_of_document: int) -> Iterator[Window]:
    """The windows of one document (its tokens without the end token), so that every token is a scored target once.

    The first token is predicted from the end-of-document token, as in training. `disjoint`: context, context, ... tokens
    side by side, so a token sees between 1 and `context` before it. `sliding`: windows half a context apart, of which the
    later half counts, so every token but the first half sees at least context / 2.
    """
    stride = context if windows == "disjoint" else max(1, context // 2)
    inputs = np.concatenate([[end_of_document], document[:-1]]).astype(np.int64)
    scored_until = 0
    while scored_until < len(document):
        end = min(len(document), max(context, scored_until + stride))
        start = max(0, end - context) if windows == "sliding" else scored_until
        yield Window(number, start, inputs[start:end], document[start:end].astype(np.int64), end - scored_until)
        scored_until = end


def score_documents(
    model: Gopher,
    documents: Iterable[tuple[NDArray[Any], int, int]],
    *,
    end_of_document: int,
    context: int,
    windows: Windows = "sliding",
    progress: Progress | None = None,
) -> list[ScoredDocument]:
    """Score (tokens without the end token, bytes, words) documents. O(tokens x context) attention, bounded memory."""
    if windows not in get_args(Windows):
        raise EarthworksError(f"windows is {windows!r}; it must be one of {', '.join(get_args(Windows))}")
    if context < 1:
        raise EarthworksError(f"context is {context}; it must be at least 1")
    documents = [document for document in documents if len(document[0])]
    scored = [
        ScoredDocument(np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int64), num_bytes, num_words)
        for tokens, num_bytes, num_words in documents
    ]
    cuts = [
        window
        for number, (tokens, _, _) in enumerate(documents)
        for window in cut(tokens, number, context, windows, end_of_document)
    ]
    cuts.sort(key=lambda window: len(window.tokens))  # rows of like length share a batch: little padding
    device = next(model.parameters()).device
    index = 0
    while index < len(cuts):
        rows = max(1, TOKENS_AT_ONCE // len(cuts[min(index + 1, len(cuts) - 1)].tokens))
        batch = cuts[index : index + rows]
        while len(batch) > 1 and len(batch) * len(batch[-1].tokens) > TOKENS_AT_ONCE:
            batch = batch[: max(1, TOKENS_AT_ONCE // len(batch[-1].tokens))]
        index += len(batch)
        width = len(batch[-1].tokens)
        tokens = np.zeros((len(batch), width), np.int64)
        targets = np.full((len(batch), width), -100, np.int64)
        for row, window in enumerate(batch):
            tokens[row, : len(window.tokens)] = window.tokens
            targets[row, : len(window.tokens)] = window.targets
        losses = (
            model.token_losses(torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device)).cpu().numpy()
        )
        for row, window in enumerate(batch):
            end = len(window.tokens)
            first = end - window.scored
            part = slice(window.start + first, window.start + end)
            scored[window.document].nats[part] = losses[row, first:end]
            scored[window.document].positions[part] = np.arange(first, end) + 1
        if progress:
            progress.advance(sum(window.scored for window in batch))
    return scored


def summarize(scored: list[ScoredDocument], *, context: int, windows: Windows, seed: int = 0) -> dict[str, Any]:
    """bits per byte = sum nats / (ln 2 x raw UTF-8 bytes), with its 95 % bootstrap interval, and the other readings.

    The interval resamples documents, or windows of one context where there are fewer than 20 documents (see
    `unit`). Perplexity per word is exp(sum nats / words), words being whitespace-separated.
    """
    nats = math.fsum(float(document.nats.sum(dtype=np.float64)) for document in scored)
    tokens = sum(len(document.nats) for document in scored)
    num_bytes = sum(document.num_bytes for document in scored)
    words = sum(document.num_words for document in scored)
    if not tokens or not num_bytes:
        raise EarthworksError("there is no text to evaluate: every document is empty; give other text with --data")
    unit = "document" if len(scored) >= FEW_DOCUMENTS else "window"
    with np.errstate(invalid="ignore"):  # of a diverged model all of this is NaN
        low, high = bootstrap_ratio(*units(scored, unit, context), seed=seed)
    return {
        "nats_per_byte": nats / num_bytes,
        "bits_per_byte": nats / num_bytes / math.log(2),
        "interval": [low / math.log(2), high / math.log(2)],
        "interval_unit": unit,
        "nats_per_token": nats / tokens,
        "perplexity_per_token": perplexity(nats / tokens),
        "perplexity_per_word": perplexity(nats / max(1, words)),
        "tokens": tokens,
        "bytes": num_bytes,
        "words": words,
        "documents": len(scored),
        "context": context,
        "windows": windows,
        "by_position": by_position(scored, context),
    }


def perplexity(nats: float) -> float:
    """exp(nats); infinity on overflow, NaN for NaN."""
    return math.inf if nats > 709 else math.exp(nats)


def units(scored: list[ScoredDocument], unit: str, context: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nats and bytes of each unit that the bootstrap draws; a window's bytes are its share of its document's."""
    nats, num_bytes = [], []
    for document in scored:
        total = len(document.nats)
        length = total if unit == "document" else context
        for start in range(0, total, length):
            part = document.nats[start : start + length]
            nats.append(part.sum(dtype=np.float64))
            num_bytes.append(document.num_bytes * len(part) / total)
    return np.array(nats), np.array(num_bytes)


def by_position(scored: list[ScoredDocument], context: int) -> list[list[float]]:
    """[tokens of context, mean nats a token there], positions gathered in octaves beyond the first eight."""
    positions = np.concatenate([document.positions for document in scored])
    nats = np.concatenate([document.nats for document in scored]).astype(np.float64)
    edges = [1, 2, 3, 4, 6, 8]
    while edges[-1] <= context:
        edges += [edges[-1] * 3 // 2, edges[-1] * 2]
    curve = []
    for low, high in pairwise(edges):
        inside = (positions >= low) & (positions < high)
        if inside.any():
            curve.append([float(positions[inside].mean()), float(nats[inside].mean())])
    return curve
