"""Answers written by a model: the likeliest token after the likeliest token, to the end of the line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from earthworks.gopher import Gopher, generate
from earthworks.runs import Progress

STOP = "\n"


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    window: int,
    batch: int,
    progress: Progress | None = None,
) -> list[tuple[str, bool]]:
    """(text up to the end of its line, whether the prompt lost tokens on its left) for each prompt.

    At most half the window is given to the answer; what a prompt then lacks room for goes, from its beginning.
    """
    max_tokens = max(1, min(max_tokens, window // 2))
    room = max(1, window - max_tokens - 1)  # and the token that begins every document
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
                    stop=[STOP],
                )
            ]
        else:
            answers = [one_by_one(model, tokenizer, shown[index], max_tokens) for index in part]
        for index, answer in zip(part, answers):
            texts[index] = answer.split(STOP)[0]
        if progress:
            progress.advance(len(part))
    return [(text, len(ids) > room) for text, ids in zip(texts, encoded)]


@torch.inference_mode()
def one_by_one(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> str:
    """For a callable that remembers nothing: everything is read again for each token."""
    tokens = [tokenizer.end_of_document, *map(int, tokenizer.encode(prompt))]
    written: list[int] = []
    parameter = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
    device = parameter.device if parameter is not None else "cpu"
    while len(written) < max_tokens and STOP not in tokenizer.decode(written):
        output = model(torch.tensor([tokens + written], device=device))
        token = int(getattr(output, "logits", output)[0, -1].argmax())
        if token == tokenizer.end_of_document:
            break
        written.append(token)
    return tokenizer.decode(written)
