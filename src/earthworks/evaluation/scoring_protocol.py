"""What a measurement of bias or toxicity asks of a language model: the likelihood of a continuation, and continuations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from earthworks.gopher import Gopher, generate, load
from earthworks.gopher.scoring import score_documents
from earthworks.runs import EarthworksError, Progress
from earthworks.training.precision import choose_device

ROWS = 64  # prompts that are continued together


class Scorer(Protocol):
    """Anything with these two methods can be measured."""

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """log P(continuation | context) in nats of each (context, continuation); "" is the beginning of a document."""
        ...

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, top_p: float, temperature: float, seed: int, num: int
    ) -> list[list[str]]:
        """`num` continuations of each prompt, without the prompt."""
        ...


class GopherScorer:
    """A Gopher and its tokenizer as a Scorer, the model as it stands in memory."""

    def __init__(self, model: Gopher, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Sum of log p over the tokens that end beyond the context's last byte, of the encoding of both together.

        A token that straddles the boundary counts whole: the encoding is the one the model was trained on, and every
        option after one context has the same straddling token or pays for its own. Contexts longer than the window are
        read through windows half a context apart.
        """
        different = list(dict.fromkeys(pairs))
        encoded = self.tokenizer.encode_batch([context + continuation for context, continuation in different])
        kept = [index for index, tokens in enumerate(encoded) if len(tokens)]
        with Progress("scoring", total=sum(map(len, encoded)), unit="tokens") as progress:
            scored = score_documents(
                self.model,
                [(encoded[index], 1, 1) for index in kept],
                end_of_document=self.tokenizer.end_of_document,
                context=self.model.config.context,
                progress=progress,
            )
        likelihood = dict.fromkeys(different, 0.0)
        for index, document in zip(kept, scored):
            before = len(self.tokenizer.normalize(different[index][0]).encode())
            ends = np.cumsum([len(self.tokenizer.token_bytes(token)) for token in encoded[index].tolist()])
            likelihood[different[index]] = -float(document.nats[ends > before].sum(dtype=np.float64))
        return [likelihood[pair] for pair in pairs]

    def num_cut(self, prompts: Sequence[str]) -> int:
        """How many prompts, with a token to come, are longer than the window."""
        return sum(len(tokens) >= self.model.config.context for tokens in self.tokenizer.encode_batch(prompts))

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, top_p: float, temperature: float, seed: int, num: int
    ) -> list[list[str]]:
        """Batch b of 64 rows draws with a seed made of (seed, b), each of its rows with a generator of its own."""
        rows = [prompt for prompt in prompts for _ in range(num)]
        texts: list[str] = []
        with Progress("continuing", total=len(rows), unit="texts") as progress:
            for batch, start in enumerate(range(0, len(rows), ROWS)):
                chosen = int(np.random.SeedSequence(seed, spawn_key=(batch,)).generate_state(1)[0])
                answers = generate(
                    self.model,
                    self.tokenizer,
                    rows[start : start + ROWS],
                    max_tokens=max_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=chosen,
                )
                texts += [answer.text for answer in answers]
                progress.advance(len(answers))
        return [texts[start : start + num] for start in range(0, len(texts), num)]


def scorer_of(model: Any, checkpoint: str = "best", device: str = "auto") -> Scorer:
    """A run folder, a (model, tokenizer) in memory, or what already is a Scorer, as a Scorer."""
    if isinstance(model, str | Path):
        return GopherScorer(*load(model, checkpoint, choose_device(device)))
    if isinstance(model, tuple):
        return GopherScorer(*model)
    return model


def loglikelihoods(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The scorer's answers, (pairs,) float64; EarthworksError where they cannot be log-likelihoods."""
    values = np.asarray(scorer.loglikelihoods(pairs), dtype=np.float64)
    if values.shape != (len(pairs),):
        raise EarthworksError(f"the model gave {values.size} log-likelihoods for {len(pairs)} continuations", 1)
    if np.isnan(values).any():
        raise EarthworksError(f"{int(np.isnan(values).sum())} of {len(values)} log-likelihoods are NaN", 1)
    if (values > 1e-6).any():
        raise EarthworksError(f"a log-likelihood of {values.max():.3g} is above 0: the probability would exceed 1", 1)
    return values
