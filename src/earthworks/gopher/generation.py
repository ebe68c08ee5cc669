"""Text generation: the prompt is read once, and each new token costs one row of attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthworks.gopher.cache import Cache
from earthworks.gopher.decoding.decoder import Decoder, Stored, choose_stored
from earthworks.gopher.model import Gopher
from earthworks.runs import EarthworksError
from earthworks.training.precision import autocast, choose_precision

WORTH_COMPILING = (
    4e9  # weights read for all requested tokens: below this, the uncompiled model finishes before compilation would
)
PREFILL = 512  # tokens of a prompt read at a time: bounds memory for prompts of any length


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer: the text after the prompt, its tokens, and the reason it ended (`end of document`, `stop`, `length`)."""

    prompt: str
    text: str
    tokens: list[int]
    reason: str


@torch.no_grad()
def generate(
    model: Gopher,
    tokenizer: Any,
    prompts: str | Sequence[str],
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    precision: Stored = "auto",
    stream: Callable[[int, str], None] | None = None,
) -> list[Generated]:
    """Sample a continuation of every prompt, all in one ragged batch.

    A prompt starts after an end-of-document token, as every document did in training. Temperature 0 takes the most
    likely token; otherwise logits are divided by it, then cut to the `top_k` most likely and to the smallest set whose
    probability reaches `top_p` (Holtzman et al. 2020). `repetition_penalty` r divides positive and multiplies negative
    logits of tokens already in the prompt or answer by r (Keskar et al. 2019). An answer ends at an end-of-document
    token, before the first of the `stop` strings, or after `max_tokens`. Each row draws from a generator of its own, seeded
    (seed, row), so a row's text does not depend on the other rows. `stream(row, text)` is called with each new piece.

    `precision` is the storage format of the weights: "fp32", "bf16", "int8" (on the CPU) or "auto": bf16 where the
    processor multiplies bf16 matrices faster, else fp32, and fp32 for answers so short or models so small that it does
    not matter. docs/decoding.md has the speed and the error of each. On the CPU everything but the weights stays in
    float32, and the prompt is read in bf16 where that is faster and fp32 was not asked for. The weights are copied
    at the call.
    """
    check(max_tokens, temperature, top_k, top_p, repetition_penalty)
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    encoded = [[tokenizer.end_of_document, *map(int, tokenizer.encode(prompt))] for prompt in prompts]
    tokens, key_mask = left_pad(encoded, tokenizer.end_of_document, device)
    cache = Cache(model.config, key_mask)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    long = len(prompts) * max_tokens * num_weights >= WORTH_COMPILING
    stored = choose_stored(precision if long or precision != "auto" else "fp32", next(model.parameters()))
    if tokens.shape[1] > 1:
        with autocast("fp32" if stored == "fp32" else choose_precision("auto", device), device):
            prefill(model, tokens[:, :-1], cache)
    rows = [
        Row(tokenizer, prompt, seen, seed, index, stop) for index, (prompt, seen) in enumerate(zip(prompts, encoded))
    ]
    compiled = long or stored != "fp32"
    with make_decoder(model, cache, stored, len(tokens), tokens.shape[1] + max_tokens - 1, compiled) as decoder:
        logits = decoder.step(tokens[:, -1])
        for count in range(1, max_tokens + 1):
            chosen = [
                row.choose(logits[index], temperature, top_k, top_p, repetition_penalty) if row.reason is None else 0
                for index, row in enumerate(rows)
            ]
            for index, (row, token) in enumerate(zip(rows, chosen)):
                if row.reason is None:
                    piece = row.take(token, last=count == max_tokens)
                    if stream and piece:
                        stream(index, piece)
            if all(row.reason is not None for row in rows) or count == max_tokens:
                break
            logits = decoder.step(torch.tensor(chosen, device=device))
    model.train(was_training)
    return [Generated(row.prompt, row.text, row.answer, row.reason or "length") for row in rows]


def make_decoder(
    model: Gopher, cache: Cache, stored: Any, rows: int, most: int, compiled: bool
) -> "Decoder | ModelSteps":
    """Stepper for the tokens after the prompt: compiled if asked for (float32 weights on the CPU), else the model itself."""
    weight = next(model.parameters())
    if compiled and isinstance(model, Gopher) and weight.device.type == "cpu" and weight.dtype == torch.float32:
        return Decoder(model, stored, cache, rows, most)
    return ModelSteps(model, cache, stored)


class ModelSteps:
    """Steps of one token by the model itself, on any device and in any format."""

    def __init__(self, model: Gopher, cache: Cache, precision: str):
        self.model, self.cache, self.precision = model, cache, precision

    def __enter__(self) -> "ModelSteps":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, tokens: Tensor) -> Tensor:
        """tokens (batch) -> logits (batch, vocabulary)."""
        with autocast(self.precision, tokens.device):
            return self.model(tokens[:, None], cache=self.cache, last=1)[:, -1]


def check(
    max_tokens: int, temperature: float, top_k: int | None, top_p: float | None, repetition_penalty: float
) -> None:
    if max_tokens < 1:
        raise EarthworksError(f"max_tokens is {max_tokens}; it must be at least 1")
    if not temperature >= 0:
        raise EarthworksError(f"temperature is {temperature}; it must be 0 (the most likely token) or more")
    if top_k is not None and top_k < 1:
        raise EarthworksError(f"top_k is {top_k}; it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise EarthworksError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if not repetition_penalty > 0:
        raise EarthworksError(f"repetition_penalty is {repetition_penalty}; it must be above 0 (1 changes nothing)")


def left_pad(rows: list[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows of unequal length to one (batch, time) tensor, real tokens on the right, and the mask of real tokens."""
    width = max(map(len, rows))
    tokens = torch.tensor([[padding] * (width - len(row)) + row for row in rows], device=device)
    if all(len(row) == width for row in rows):
        return tokens, None
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows], device=device)
    return tokens, mask


def prefill(model: Gopher, tokens: Tensor, cache: Cache) -> Tensor:
    """Read the prompt in chunks; the logits of the token after it, (batch, vocabulary)."""
    mask = cache.key_mask
    logits = None
    for start in range(0, tokens.shape[1], PREFILL):
        end = min(start + PREFILL, tokens.shape[1])
        cache.key_mask = mask[:, :end] if mask is not None else None
        logits = model(tokens[:, start:end], cache=cache, last=1)
    assert logits is not None
    return logits[:, -1]


class Row:
    """One prompt and the answer so far."""

    def __init__(self, tokenizer: Any, prompt: str, seen: list[int], seed: int, index: int, stop: Sequence[str]):
        self.tokenizer, self.prompt, self.stop = tokenizer, prompt, [s for s in stop if s]
        self.seen = set(seen[1:])  # without the end of document before the prompt: a penalty on it would defer the end
        self.answer: list[int] = []
        self.stream = tokenizer.decode_stream()
        self.text = ""
        self.shown = 0
        self.reason: str | None = None
        # mixed into 32 bits, for torch's generator on the CPU looks at no more of its seed
        mixed = np.random.SeedSequence(seed % 2**64, spawn_key=(index,)).generate_state(1)
        self.generator = torch.Generator().manual_seed(int(mixed[0]))

    def choose(
        self, logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, repetition_penalty: float
    ) -> int:
        """The next token, from logits (vocabulary)."""
        logits = logits.cpu()
        if repetition_penalty != 1:
            seen = torch.tensor(sorted(self.seen), dtype=torch.int64)
            values = logits[seen]
            logits = logits.index_put(
                (seen,), torch.where(values > 0, values / repetition_penalty, values * repetition_penalty)
            )
        if temperature == 0:
            likeliest = logits.argmax()
            check_number(logits[likeliest])  # of values with a NaN among them argmax gives that place
            return int(likeliest)
        return int(
            torch.multinomial(token_distribution(logits, temperature, top_k, top_p), 1, generator=self.generator)
        )

    def take(self, token: int, last: bool) -> str:
        """Add a token; returns the text that can be shown now, without a possible start of a stop string."""
        if token == self.tokenizer.end_of_document:
            self.reason = "end of document"
        else:
            self.answer.append(token)
            self.seen.add(token)
            self.text += self.stream.step(token)
        if self.reason or last:
            self.text += self.stream.end()
        found = [position for position in (self.text.find(each) for each in self.stop) if position >= 0]
        if found:
            self.text, self.reason = self.text[: min(found)], "stop"
        held = 0 if self.reason or last else max((unfinished(self.text, each) for each in self.stop), default=0)
        piece = self.text[self.shown : len(self.text) - held]
        self.shown += len(piece)
        return piece


def unfinished(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def check_number(value: Tensor) -> None:
    if value.isnan():
        raise EarthworksError("the model's logits are NaN: its training diverged; choose another checkpoint", 1)


def token_distribution(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """softmax(logits / temperature), then the cut to `top_k` and to the nucleus `top_p`; sums to 1, (vocabulary) float64."""
    p = torch.softmax(logits.double() / temperature, -1)
    check_number(p[0])  # one NaN makes all of them NaN
    ranked, order = p, None
    if top_k is not None:
        ranked, order = largest(p, top_k)
        ranked[top_k:] = 0
    if top_p is not None and top_p < 1:
        if order is None:
            ranked, order = nucleus(p, top_p)
        ranked = ranked / ranked.sum() if top_k is not None else ranked
        before = ranked.cumsum(-1) - ranked
        # the token that crosses top_p stays; 1e-10, so that rounding adds none to a set that is exactly full
        ranked[before >= top_p * (1 - 1e-10)] = 0
    ranked = ranked / ranked.sum()
    return ranked if order is None else torch.zeros_like(p).scatter_(0, order, ranked)


def largest(p: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """At least `number` of the largest p, descending, ties in order of position; and their positions."""
    if number >= len(p):
        return p.sort(descending=True, stable=True)
    border = p.topk(number, sorted=False).values.min()
    found = (p >= border).nonzero()[:, 0]
    ranked, order = p[found].sort(descending=True, stable=True)
    return ranked, found[order]


def nucleus(p: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The largest p, as by `largest`, that together hold `top_p`: a full sort of 8,192 takes ten times as long."""
    number = 128
    while True:
        ranked, order = largest(p, number)
        if number >= len(p) or ranked.sum() >= top_p:
            return ranked, order
        number *= 8
