"""One dial: from minutes, data and the speed of this machine to model size, context, batch and rates.

The numbers are fitted to this project's own experiments (docs/log.md), on tiny Shakespeare and a novel in bytes and on
python-docs in BPE, with runs of 8 seconds to 5 minutes on two cores; beyond those they are extrapolated as power laws.
"""

from dataclasses import dataclass

from earthworks.gopher.config import GopherConfig
from earthworks.gopher.cost import training_flops

LADDER = ("shrew", "vole", "mole", "gerbil", "rabbit", "44M", "117M", "417M", "1.4B")  # the sizes it turns through
EFFICIENCY = 0.25  # of the matrix-product ceiling that training reaches, before it is measured
TOKENS_PER_PARAMETER = 0.5  # at least, for a size to be worth its slower steps; long runs have 20 and more
EPOCHS = 16  # at most so many passes over the data are worth a larger model


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the dial settles; each can be given by hand instead."""

    size: str
    context: int
    batch: int


def turn(
    seconds: float,
    ceiling: float,
    train_tokens: int,
    vocabulary: int,
    *,
    size: str | None = None,
    context: int | None = None,
) -> Choice:
    """Size, context and batch for a run of `seconds` where matrix products do `ceiling` operations a second.

    A size or a context that is given stays, and the rest follows from it.
    """
    sizes = (size,) if size else LADDER
    size, tokens = sizes[0], 0.0
    budget = seconds * ceiling
    if context is None:
        context = 64 if budget < 5e12 else 128 if budget < 6e13 else 256 if budget < 1e16 else 1024
        context = min(context, max(16, 1 << (max(1, train_tokens // 8)).bit_length() - 1))
    for name in sizes:
        config = GopherConfig.preset(name, vocabulary=vocabulary, context=context)
        affordable = EFFICIENCY * budget / training_flops(config, context)
        enough = min(affordable, EPOCHS * train_tokens) >= TOKENS_PER_PARAMETER * config.num_parameters()
        if name == sizes[0] or enough:
            size, tokens = name, affordable
    return Choice(size=size, context=context, batch=max(4, round(batch_tokens(tokens) / context)))


def batch_tokens(tokens: float) -> float:
    """Tokens of one update for a run over so many in all: 1,024 for 0.2 M, 2,048 for 0.9 M, and so on."""
    return 1024 * (tokens / 2e5) ** 0.45


def rates(optimizer: str, max_steps: int, d_model: int) -> tuple[float, float]:
    """Peak rates of matrices and of everything else.

    Muon's update has a size of its own, so its rate falls with the length of the run alone: 0.08 for 150 steps, as the
    fourth root of the length. Adam's is the paper's pattern, 6e-4 at width 768, as one over the width, doubled for runs
    this short.
    """
    if optimizer == "muon":
        rate = 0.08 * (max_steps / 150) ** -0.25
        return rate, 0.45 * rate
    rate = min(3e-3, 1.2e-3 * 768 / d_model)
    return rate, rate


def momentum(max_steps: int) -> float:
    """Muon's: an average over 7 steps where there are few, over 20 where there are thousands."""
    return 0.85 if max_steps < 300 else 0.9 if max_steps < 1000 else 0.95


def vocabulary(num_bytes: int) -> int:
    """Size of a tokenizer to train on a corpus of so many bytes."""
    return 1024 if num_bytes < 3e6 else 4096 if num_bytes < 1e8 else 16_384 if num_bytes < 1e10 else 32_000
