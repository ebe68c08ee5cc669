"""How a model is read by the scorer: tokens in, states out, logits of the states that are asked about.

A reader that remembers can go on from a prefix: `remember` reads (n, prefix) tokens, `go_on` reads more tokens after
any of them. A callable that gives logits cannot; its states are the logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from earthworks.gopher import Cache, Gopher


class GopherReader:
    """States are the normalised last layer, (batch, time, d_model)."""

    remembers = True

    def __init__(self, model: Gopher):
        self.model = model
        self.device = next(model.parameters()).device

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The model as it is in use, and afterwards as it was: it may be in training."""
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)

    def read(self, tokens: NDArray[np.int64]) -> Tensor:
        return self.model.hidden(torch.from_numpy(tokens).to(self.device))

    def remember(self, tokens: NDArray[np.int64]) -> tuple[Tensor, Cache]:
        cache = Cache(self.model.config)
        return self.model.hidden(torch.from_numpy(tokens).to(self.device), cache), cache

    def go_on(self, tokens: NDArray[np.int64], memory: Cache, rows: list[int]) -> Tensor:
        """States of `tokens` (n, time), row i of which follows row `rows[i]` of what was remembered."""
        index = torch.tensor(rows, device=self.device)
        return self.model.hidden(torch.from_numpy(tokens).to(self.device), memory.take(index, tokens.shape[1]))

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.model.output_weight, self.model.logit_bias).float()

    def vocabulary(self, states: Tensor) -> int:
        return self.model.config.vocabulary


class CallableReader:
    """States are the logits, (batch, time, vocabulary), of `model(tokens)` or its `.logits`."""

    remembers = False

    def __init__(self, model: Callable[[Tensor], Any]):
        self.model = model
        parameters = getattr(model, "parameters", None)
        first = next(iter(parameters()), None) if callable(parameters) else None
        self.device = first.device if first is not None else torch.device("cpu")

    @contextmanager
    def ready(self) -> Iterator[None]:
        was_training = getattr(self.model, "training", False)
        if was_training:
            self.model.eval()  # pyright: ignore
        try:
            yield
        finally:
            if was_training:
                self.model.train()  # pyright: ignore

    def read(self, tokens: NDArray[np.int64]) -> Tensor:
        output = self.model(torch.from_numpy(tokens).to(self.device))
        return getattr(output, "logits", output)

    def logits(self, states: Tensor) -> Tensor:
        return states.float()

    def vocabulary(self, states: Tensor) -> int:
        return states.shape[-1]
