"""`evaluate`: score a trained model on text, its own held-out part or any other."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthworks.corpus import PackedTokens, Reading, Tokenizer, sources
from earthworks.corpus.readers.any_source import read_texts
from earthworks.corpus.tokens.packing import tokens_of
from earthworks.gopher.inputs import open_tokens
from earthworks.gopher.inputs import packed_folder as packed_folder
from earthworks.gopher.loading import load
from earthworks.gopher.model import Gopher
from earthworks.gopher.scoring import ScoredDocument, Windows, score_documents, summarize
from earthworks.runs import EarthworksError, Progress, RunFolder
from earthworks.runs.progress import note
from earthworks.training.precision import choose_device

PASSAGE_TOKENS = 800

Scorable = tuple[NDArray[Any], int, int]  # tokens without the end of the document, bytes as read, words


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    context: int | None = None,
    windows: Windows = "sliding",
    max_tokens: int | None = None,
    max_distance: int | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
    verify: bool = False,
) -> dict[str, Any]:
    """Score a run's model on its own held-out part, or on `data`; every token exactly once (`cut`).

    Gives nats_per_byte and bits_per_byte (raw UTF-8 bytes) with a 95 % bootstrap `interval`, nats_per_token, perplexity
    per token and per word, counts, the loss by position, and the same by subset where there are several. `context` may
    exceed the trained one, where positions are relative; `max_distance` then clamps all greater distances to it, as
    the released Transformer-XL code does (None: as trained). `max_tokens` stops early. The run's held-out part is compared
    with its SHA-256 first, with `verify` all of its tokens.
    """
    for name, value in (("context", context), ("max_tokens", max_tokens), ("max_distance", max_distance)):
        if value is not None and value < 1:
            raise EarthworksError(f"--{name} is {value}; it must be at least 1")
    model, tokenizer = load(run, checkpoint, choose_device(device))
    context = context or model.config.context
    if max_distance is not None:
        model = clamped(model, max_distance)
    if model.config.positions == "absolute" and context > model.config.context:
        raise EarthworksError(
            f"--context {context} exceeds the {model.config.context} positions that this model has learned; "
            "only relative positions extend past the trained length"
        )
    if data is None:
        packed = open_tokens(RunFolder.open(run), verify=verify)
        if not packed.has_validation:
            raise EarthworksError(f"{run} held nothing out (--validation 0); give text with --data")
        return evaluate_packed(
            model, tokenizer, packed, context=context, windows=windows, max_tokens=max_tokens, seed=seed
        )[0]
    documents = {source.name: encoded(tokenizer, source.location) for source in sources(data)}
    return measure(model, tokenizer, documents, context, windows, max_tokens, seed)[0]


def clamped(model: Gopher, max_distance: int) -> Gopher:
    """The same weights, reading every greater distance as this one."""
    if model.config.positions != "relative":
        raise EarthworksError(
            f"--max_distance needs relative positions, and this model's are {model.config.positions}: leave it out"
        )
    with torch.device("meta"):
        other = Gopher(model.config.with_(max_distance=max_distance))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.train(model.training)


def encoded(tokenizer: Tokenizer, location: str) -> Iterator[Scorable]:
    """Documents of a source as tokens; one at a time."""
    reading = Reading()
    for document in read_texts(location, reading):
        yield tokens_of(document, tokenizer, reading)
    if notice := reading.notice():
        note(f"notice: {location}: {notice}")


def evaluate_packed(
    model: Gopher,
    tokenizer: Tokenizer,
    packed: PackedTokens,
    *,
    context: int,
    windows: Windows,
    max_tokens: int | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measurement of a packed corpus's held-out part, and a passage of it with the loss of every token."""
    documents = {
        subset.name: ((tokens[:-1], size, words) for tokens, size, words in packed.validation_documents(subset.name))
        for subset in packed.subsets
        if subset.validation.documents
    }
    result, first = measure(model, tokenizer, documents, context, windows, max_tokens, seed)
    return result, passage(tokenizer, *first)


def measure(
    model: Gopher,
    tokenizer: Tokenizer,
    documents: Mapping[str, Iterable[Scorable]],
    context: int,
    windows: Windows,
    max_tokens: int | None,
    seed: int,
) -> tuple[dict[str, Any], tuple[NDArray[Any], ScoredDocument]]:
    """Score each subset; also returns the first document with its scores."""
    scored: dict[str, list[ScoredDocument]] = {}
    first = None
    share = None if max_tokens is None else max(1, max_tokens // len(documents))
    for name, texts in documents.items():
        chosen = list(texts) if share is None else up_to(texts, share, tokenizer)
        total = sum(len(tokens) for tokens, _, _ in chosen)
        with Progress(f"scoring {name}", total=total, unit="tokens") as progress:
            scored[name] = score_documents(
                model,
                chosen,
                end_of_document=tokenizer.end_of_document,
                context=context,
                windows=windows,
                progress=progress,
            )
        if first is None:
            kept = [tokens for tokens, _, _ in chosen if len(tokens)]
            first = (kept[0], scored[name][0]) if kept else None
    if first is None:
        raise EarthworksError("there is no text to evaluate: every document is empty; give other text with --data")
    result = summarize(list(chain.from_iterable(scored.values())), context=context, windows=windows, seed=seed)
    if len(scored) > 1:
        result["subsets"] = {
            name: summarize(part, context=context, windows=windows, seed=seed) for name, part in scored.items()
        }
    return result, first


def up_to(documents: Iterable[Scorable], max_tokens: int, tokenizer: Tokenizer) -> list[Scorable]:
    """The first documents of at most `max_tokens` tokens in all, the last one cut, with its share of bytes and words.

    The share is of the bytes that its tokens spell, not of the tokens: for the first 1,000 tokens of documents of
    python-docs the latter would be off by 8 % (root mean square), and so would the bits per byte.
    """
    chosen: list[Scorable] = []
    left = max_tokens
    for tokens, num_bytes, num_words in documents:
        kept = tokens[:left]
        if len(kept):
            share = 1.0 if len(kept) == len(tokens) else spelled(kept, tokenizer) / spelled(tokens, tokenizer)
            chosen.append((kept, max(1, round(num_bytes * share)), round(num_words * share)))
        left -= len(kept)
        if left <= 0:
            break
    return chosen


def spelled(tokens: NDArray[Any], tokenizer: Tokenizer) -> int:
    """Bytes that the tokens stand for."""
    return sum(len(tokenizer.token_bytes(token)) for token in tokens.tolist())


def figures(result: dict[str, Any]) -> str:
    """One-line summary of a measurement."""
    low, high = result["interval"]
    interval = f"[{low:.3f}, {high:.3f}]" if math.isfinite(low) else f"({no_interval(result)})"
    return (
        f"{result['bits_per_byte']:.3f} bits per byte {interval}, {result['nats_per_token']:.3f} nats a token over "
        f"{result['tokens']:,} tokens"
    )


def no_interval(result: dict[str, Any]) -> str:
    """The reason a measurement has no interval."""
    one = math.isfinite(result["nats_per_token"])
    return f"no interval: one {result['interval_unit']}" if one else "no interval: the model diverged"


def passage(tokenizer: Tokenizer, tokens: NDArray[Any], scored: ScoredDocument) -> dict[str, Any]:
    """The start of a document, token by token, with the nats of each."""
    stream = tokenizer.decode_stream()
    pieces = [
        [stream.step(int(token)), float(nats)]
        for token, nats in zip(tokens[:PASSAGE_TOKENS], scored.nats[:PASSAGE_TOKENS].astype(np.float64))
    ]
    return {"title": "The beginning of a held-out document", "tokens": pieces}
