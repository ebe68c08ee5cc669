"""One dial: from minutes, data and the speed of this machine to model size, context, batch and rates.

The numbers are fitted to experiments of this project (docs/log.md), not to theory.
"""

from dataclasses import dataclass

from earthworks.gopher.config import SIZES, GopherConfig
from earthworks.gopher.cost import training_flops

LADDER = ("vole", "mole", "gerbil", "rabbit", "44M", "117M", "417M", "1.4B")  # sizes that the dial turns through


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the dial settles; each can be given by hand instead."""

    size: str
    context: int
    batch: int
    learning_rate: float
    embedding_rate: float


def turn(seconds: float, flops_per_second: float, num_tokens: int, vocabulary: int) -> Choice:
    """The settings for a run of `seconds` on a machine that does `flops_per_second` on products of this kind."""
    budget = seconds * flops_per_second
    context = 256 if budget > 1e12 else 128
    size = LADDER[0]
    for name in LADDER:
        config = GopherConfig.preset(name, vocabulary=vocabulary, context=context)
        affordable = budget / training_flops(config, context)
        if affordable >= 0.3 * config.num_parameters() and num_tokens * 40 > config.num_parameters():
            size = name
    assert size in SIZES
    batch = 16
    return Choice(size=size, context=context, batch=batch, learning_rate=0.02, embedding_rate=0.01)


def vocabulary(num_bytes: int) -> int:
    """Size of a tokenizer to train on a corpus of so many bytes."""
    return 1024 if num_bytes < 3e6 else 4096 if num_bytes < 1e8 else 16_384 if num_bytes < 1e10 else 32_000
