"""Readers between model and scorer: tokens to states, and states to logits.

A reader that remembers can continue from a prefix: `remember` reads (n, prefix) tokens, `resume` reads more tokens after
any of them. A callable that returns logits cannot; its states are the logits.
`pass_cost`: fixed cost of a forward pass, in tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from earthworks.gopher import Cache, Gopher

PASS_COST = 16  # with 30 million parameters on one core: 10 ms
PASS_COST_ACCELERATOR = 1024


@contextmanager
def in_use(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, the previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def device_of(model: Any) -> torch.device:
    """The device of the parameters; the CPU for a callable without any."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter.device if parameter is not None else torch.device("cpu")


class GopherReader:
    """Reader whose states are the normalised last layer, (batch, time, d_model)."""

    remembers = True

    def __init__(self, model: Gopher):
        self.model = model
        self.device = device_of(model)
        self.pass_cost = PASS_COST if self.device.type == "cpu" else PASS_COST_ACCELERATOR

    def ready(self) -> AbstractContextManager[None]:
        return in_use(self.model)

    def read(self, tokens: NDArray[np.int64]) -> Tensor:
        return self.model.hidden(torch.from_numpy(tokens).to(self.device))

    def remember(self, tokens: NDArray[np.int64]) -> tuple[Tensor, Cache]:
        cache = Cache(self.model.config)
        return self.model.hidden(torch.from_numpy(tokens).to(self.device), cache), cache

    def resume(self, tokens: NDArray[np.int64], memory: Cache, rows: list[int]) -> Tensor:
        """States of `tokens` (n, time), where row i follows row `rows[i]` of `memory`."""
        index = torch.tensor(rows, device=self.device)
        return self.model.hidden(torch.from_numpy(tokens).to(self.device), memory.take(index, tokens.shape[1]))

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.model.output_weight, self.model.logit_bias).float()

    def vocabulary(self, states: Tensor) -> int:
        return self.model.config.vocabulary


class CallableReader:
    """Reader whose states are the logits, (batch, time, vocabulary), of `model(tokens)` or its `.logits`."""

    remembers = False

    def __init__(self, model: Callable[[Tensor], Any]):
        self.model = model
        self.device = device_of(model)
        self.pass_cost = PASS_COST if self.device.type == "cpu" else PASS_COST_ACCELERATOR

    def ready(self) -> AbstractContextManager[None]:
        return in_use(self.model) if isinstance(self.model, nn.Module) else nullcontext()

    def remember(self, tokens: NDArray[np.int64]) -> NoReturn:
        raise AssertionError("a callable that returns logits has no memory")

    def resume(self, tokens: NDArray[np.int64], memory: Any, rows: list[int]) -> NoReturn:
        raise AssertionError("a callable that returns logits has no memory")

    def read(self, tokens: NDArray[np.int64]) -> Tensor:
        output = self.model(torch.from_numpy(tokens).to(self.device))
        return getattr(output, "logits", output)

    def logits(self, states: Tensor) -> Tensor:
        return states.float()

    def vocabulary(self, states: Tensor) -> int:
        return states.shape[-1]
