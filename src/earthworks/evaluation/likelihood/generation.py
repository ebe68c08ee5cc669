"""Text generation: greedy lines, or random continuations."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthworks.evaluation.likelihood.model_readers import device_of
from earthworks.evaluation.results import Partial
from earthworks.gopher import Gopher, generate
from earthworks.gopher.generation import token_distribution
from earthworks.runs import Progress

END_OF_LINE = ("\n",)
ROWS = 64  # texts drawn together, independent of the scorer's batch because the draws depend on it


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    window: int,
    batch: int,
    stop: Sequence[str] = END_OF_LINE,
    progress: Progress | None = None,
) -> list[tuple[str, bool]]:
    """(text up to the first of `stop`, whether the prompt lost tokens on its left) for each prompt.

    The answer gets at most half the window; a prompt that does not fit is cut at its start.
    """
    max_tokens = max(1, min(max_tokens, window // 2))
    room = max(1, window - max_tokens - 1)  # and the token at the start of every document
    encoded = [np.asarray(tokenizer.encode(prompt), np.int64) for prompt in prompts]
    shown = [tokenizer.decode(ids[-room:]) if len(ids) > room else prompt for prompt, ids in zip(prompts, encoded)]
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: (len(encoded[index]), index))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        if isinstance(model, Gopher):
            answers = [
                answer.text
                for answer in generate(
                    model,
                    tokenizer,
                    [shown[index] for index in part],
                    max_tokens=max_tokens,
                    temperature=0,
                    stop=stop,
                    precision="fp32",  # results must not depend on the processor
                )
            ]
        else:
            answers = [one_by_one(model, tokenizer, shown[index], max_tokens, stop, likeliest) for index in part]
        for index, answer in zip(part, answers):
            texts[index] = answer
        if progress:
            progress.advance(len(part))
    return [(text, len(ids) > room) for text, ids in zip(texts, encoded)]


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    top_p: float,
    temperature: float,
    seed: int,
    progress: Progress,
    kept: Partial | None = None,
) -> list[str]:
    """One random continuation of each prompt, from the nucleus `top_p`; prompts are not cut.

    Batch b of 64 prompts draws with a seed made from (seed, b), each of its rows with its own generator. So a batch depends
    only on its own prompts, and one that was `kept` is not drawn again.
    """
    texts: list[str] = []
    for batch, start in enumerate(range(0, len(prompts), ROWS)):
        part = prompts[start : start + ROWS]
        drawn = int(np.random.SeedSequence(seed, spawn_key=(batch,)).generate_state(1)[0])
        if isinstance(model, Gopher):
            settings: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": drawn, "precision": "fp32"}
            texts += taken_or_drawn(kept, model, tokenizer, part, max_tokens, settings)
        else:
            random = torch.Generator().manual_seed(drawn)

            def draw(logits: Tensor, random: torch.Generator = random) -> int:
                return int(torch.multinomial(token_distribution(logits, temperature, None, top_p), 1, generator=random))

            texts += [one_by_one(model, tokenizer, prompt, max_tokens, (), draw) for prompt in part]
        progress.advance(len(part))
    return texts


def taken_or_drawn(
    kept: Partial | None,
    model: Gopher,
    tokenizer: Any,
    prompts: Sequence[str],
    max_tokens: int,
    settings: dict[str, Any],
) -> list[str]:
    """The continuations of one batch, from an interrupted evaluation if available."""

    def drawn() -> list[str]:
        return [each.text for each in generate(model, tokenizer, prompts, max_tokens=max_tokens, **settings)]

    if kept is None:
        return drawn()
    digest = hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()
    return kept.piece(
        {"prompts": digest, "max_tokens": max_tokens, **settings},
        drawn,
        lambda texts: (
            isinstance(texts, list) and len(texts) == len(prompts) and all(isinstance(each, str) for each in texts)
        ),
    )


def likeliest(logits: Tensor) -> int:
    return int(logits.argmax())


@torch.inference_mode()
def one_by_one(
    model: Any,
    tokenizer: Any,
    prompt: str,
    max_tokens: int,
    stop: Sequence[str],
    choose: Callable[[Tensor], int],
) -> str:
    """Generate with a callable without a cache, rereading everything for each token."""
    tokens = [tokenizer.end_of_document, *map(int, tokenizer.encode(prompt))]
    written: list[int] = []
    device = device_of(model)
    text = ""
    while len(written) < max_tokens and not any(each in text for each in stop):
        output = model(torch.tensor([tokens + written], device=device))
        token = choose(getattr(output, "logits", output)[0, -1].cpu())
        if token == tokenizer.end_of_document:
            break
        written.append(token)
        text = tokenizer.decode(written)
    found = [text.index(each) for each in stop if each in text]
    return text[: min(found)] if found else text
