"""Models with known likelihoods."""

import random

import torch

from earthworks.evaluation.likelihood.scorer import Likelihood
from earthworks.gopher import Gopher, GopherConfig


class Uniform(Gopher):
    """Model without knowledge: all tokens have exactly the same probability."""

    def __init__(self, context: int = 256):
        super().__init__(GopherConfig.preset("shrew", vocabulary=257, context=context))
        for parameter in self.parameters():
            parameter.data.zero_()


class Memory:
    """Model that memorised some texts: predicts the next byte of the first text with this prefix, otherwise uniformly."""

    def __init__(self, texts: list[str]):
        self.following: dict[tuple[int, ...], int] = {}
        for text in texts:
            tokens = [256, *text.encode(), 256]
            for end in range(1, len(tokens)):
                self.following.setdefault(tuple(tokens[:end]), tokens[end])

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 257)
        for row, ids in enumerate(tokens.tolist()):
            for time in range(len(ids)):
                known = self.following.get(tuple(ids[: time + 1]))
                if known is not None:
                    logits[row, time, known] = 50.0
        return logits


class Chance:
    """Scorer that scores options at random and independently."""

    def __init__(self, seed: int):
        self.draw = random.Random(seed)

    def score(self, pairs, progress=None):
        return [Likelihood(self.draw.gauss(-10, 3), False, 1, 0, False) for _ in pairs]
