"""Answers written by a model: the likeliest token after the likeliest token, up to the end of the line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from earthworks.evaluation.reading import device_of
from earthworks.gopher import Gopher, generate
from earthworks.runs import Progress

END_OF_LINE = ("\n",)


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
                    stop=stop,
                )
            ]
        else:
            answers = [one_by_one(model, tokenizer, shown[index], max_tokens, stop) for index in part]
        for index, answer in zip(part, answers):
            texts[index] = answer
        if progress:
            progress.advance(len(part))
    return [(text, len(ids) > room) for text, ids in zip(texts, encoded)]


@torch.inference_mode()
def one_by_one(model: Any, tokenizer: Any, prompt: str, max_tokens: int, stop: Sequence[str]) -> str:
    """For a callable that remembers nothing: everything is read again for each token."""
    tokens = [tokenizer.end_of_document, *map(int, tokenizer.encode(prompt))]
    written: list[int] = []
    device = device_of(model)
    text = ""
    while len(written) < max_tokens and not any(each in text for each in stop):
        output = model(torch.tensor([tokens + written], device=device))
        token = int(getattr(output, "logits", output)[0, -1].argmax())
        if token == tokenizer.end_of_document:
            break
        written.append(token)
        text = tokenizer.decode(written)
    found = [text.index(each) for each in stop if each in text]
    return text[: min(found)] if found else text
