"""A Gopher in training on random tokens: for benchmarks of speed, where what is read does not matter."""

from typing import Any

import numpy as np
import torch

from earthworks.gopher import Gopher, GopherConfig
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import RunFolder


class RandomTokens:
    """What `Pretraining` needs of packed tokens: windows of int64 tokens, the same for the same sample number."""

    subsets = ()
    train_tokens = 10**9

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def windows(self, seed: int, start: int, number: int, context: int, _sampling: str) -> np.ndarray:
        random = np.random.default_rng((seed, start))
        return random.integers(0, self.vocabulary, (number, context + 1))


def training_task(config: GopherConfig, device: torch.device, *, batch: int, **changes: Any) -> Pretraining:
    """Updates of `batch` sequences of `config.context` tokens by fused AdamW, clipped at 1, as `earthworks gopher train`
    makes them: data, guard against spikes and measurements included."""
    settings = {
        **{"optimizer": "adamw", "learning_rate": 3e-4, "embedding_rate": 3e-4, "beta1": 0.9, "beta2": 0.95},
        **{"weight_decay": 0.1, "momentum": 0.95, "clip": 1.0, "seed": 0, "schedule": "linear", "horizon": 10**6},
        **{"warmup_steps": 10, "final_share": 0.1, "batch": batch, "micro_batch": batch, "first_batch": None},
        **{"ramp_step": 0, "context": config.context, "validation_tokens": 0, "sampling": "windows", **changes},
    }
    torch.manual_seed(0)
    model = Gopher(config).to(device)
    return Pretraining(model, RandomTokens(config.vocabulary), RunFolder("unused"), settings, device)  # pyright: ignore
