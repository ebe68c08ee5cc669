"""Defaults for settings the user left out: from the time budget, the data, and a timed warm-up on this machine.

The numbers are fitted to this project's own experiments (docs/log.md), on tiny Shakespeare and a novel in bytes and on
python-docs in BPE, with runs of 8 seconds to 5 minutes on two cores; beyond those they are extrapolated as power laws.
"""

import math
import time
from dataclasses import dataclass, replace

import torch

from earthworks.corpus import PackedTokens
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.cost import training_flops
from earthworks.gopher.model import Gopher
from earthworks.gopher.pretraining.settings import Settled, TrainSettings, model_config
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import RunFolder
from earthworks.training.command_settings import settled
from earthworks.training.pace import seconds_per_update
from earthworks.training.precision import matmul_ceiling, product_dtype

DEFAULT_MINUTES = 5.0
TIMED_SHARE = 0.01  # of the time goes to timing steps: three steps alone were up to a quarter off
MIN_STEPS = 20
UPDATE_SHARE = 0.9  # of the time goes to updates, the rest to validating, sampling and saving
SAVE_SECONDS = 120.0  # between checkpoints
MOST_VALIDATION_TOKENS = 65_536
MICRO_BATCH_TOKENS = 16_384  # tokens of one forward and backward pass; larger batches are accumulated
LADDER = ("shrew", "vole", "mole", "gerbil", "rabbit", "44M", "117M", "417M", "1.4B")  # the sizes to choose from
EFFICIENCY = 0.25  # of the matrix-product ceiling that training reaches, before it is measured
TOKENS_PER_PARAMETER = 0.5  # at least, for a size to be worth its slower steps; long runs have 20 and more
EPOCHS = 16  # maximum passes over the data for which a larger model is worth it


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings chosen from the time budget; each can be given by hand instead."""

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
    """Tokens per update for a run over `tokens` in all: 1,024 for 0.2 M, 2,048 for 0.9 M, and so on."""
    return 1024 * (tokens / 2e5) ** 0.45


def rates(optimizer: str, max_steps: int, d_model: int) -> tuple[float, float]:
    """Peak rates of matrices and of everything else.

    Muon's update has a fixed size, so its rate depends on the length of the run alone: 0.08 for 150 steps, falling with
    the fourth root of the length. Adam's follows the paper, 6e-4 at width 768 and inversely proportional to the width,
    doubled for runs this short.
    """
    if optimizer == "muon":
        rate = 0.08 * (max_steps / 150) ** -0.25
        return rate, 0.45 * rate
    rate = min(3e-3, 1.2e-3 * 768 / d_model)
    return rate, rate


def momentum(max_steps: int) -> float:
    """Muon's momentum: an average over 7 steps in short runs, over 20 in runs of thousands."""
    return 0.85 if max_steps < 300 else 0.9 if max_steps < 1000 else 0.95


def vocabulary(num_bytes: int) -> int:
    """Vocabulary size of a tokenizer trained on a corpus of `num_bytes` bytes."""
    return 1024 if num_bytes < 3e6 else 4096 if num_bytes < 1e8 else 16_384 if num_bytes < 1e10 else 32_000


def settle(
    settings: TrainSettings, packed: PackedTokens, device: torch.device, started: float
) -> tuple[Settled, float]:
    """Fill in settings that were not given: from the time budget, data and machine, then from a timed warm-up.

    Also returns the seconds per step. The minutes are counted from `started`, the start time of the command.
    """
    minutes = settings.minutes
    if settings.max_steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    seconds = 60 * (minutes or DEFAULT_MINUTES)
    choice = turn(
        seconds,
        matmul_ceiling(device, product_dtype(settings.precision)),
        packed.train_tokens,
        packed.tokenizer.vocabulary,
        size=settings.size,
        context=settings.context,
    )
    context, batch = settings.context or choice.context, settings.batch or choice.batch
    settings = replace(
        settings,
        minutes=minutes,
        size=settings.size or choice.size,
        context=context,
        batch=batch,
        micro_batch=settings.micro_batch or min(batch, max(1, MICRO_BATCH_TOKENS // context)),
        final_share=first_of(settings.final_share, 0.1 if settings.schedule == "gopher" else 0.02),
    )
    by_time = settings.max_steps is None
    timed = follow(settings, settings.max_steps or 1000)
    step_seconds, micro_batch = time_steps(timed, packed, device, enough=TIMED_SHARE * seconds if by_time else 0.0)
    left = seconds - (time.perf_counter() - started)
    settings = replace(
        settings,
        micro_batch=micro_batch,
        max_steps=settings.max_steps or max(MIN_STEPS, int(UPDATE_SHARE * left / step_seconds)),
        save_every=settings.save_every or max(1, round(SAVE_SECONDS / step_seconds)),
    )
    return follow(settings, settings.max_steps or 0), step_seconds


def follow(settings: TrainSettings, max_steps: int) -> Settled:
    """The settings that follow from the number of steps alone, where they were not given.

    Validations are few enough and small enough to cost about a twentieth of the training: reading a token costs a third
    of training on it.
    """
    assert settings.batch is not None
    assert settings.context is not None
    assert settings.size is not None
    validations = min(12, max(2, max_steps // 50))
    tokens = max_steps * settings.batch * settings.context
    d_model = GopherConfig.preset(settings.size).d_model
    learning_rate, embedding_rate = rates(settings.optimizer, max_steps, d_model)
    found = {
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "embedding_rate": embedding_rate,
        "momentum": momentum(max_steps),
        "horizon": max_steps,
        "warmup_steps": 1500 if settings.schedule == "gopher" else max(1, max_steps // 20),
        "ramp_step": max_steps // 2 if settings.first_batch else 0,
        "evaluate_every": math.ceil(max_steps / validations),
        "validation_tokens": min(MOST_VALIDATION_TOKENS, max(settings.context, int(0.15 * tokens / validations))),
        "sample_every": math.ceil(max_steps / min(5, max(1, max_steps // 150))),
        "save_every": max(1, max_steps // 4),
    }
    missing = {name: value for name, value in found.items() if getattr(settings, name) is None}
    return settled(Settled, replace(settings, **missing), "the command")


def time_steps(settings: Settled, packed: PackedTokens, device: torch.device, enough: float) -> tuple[float, int]:
    """Seconds per update, on a throwaway model, and the microbatch size that fitted into memory."""
    torch.manual_seed(settings.seed)
    model = Gopher(model_config(settings, packed.tokenizer.vocabulary)).to(device)
    task = Pretraining(model, packed, RunFolder("unused"), settings, device)
    return seconds_per_update(task, enough), task.micro_batch


def first_of(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
