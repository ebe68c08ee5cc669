"""The settings that nobody gave: from the dial, from each other, and from a timed warm-up."""

import math
import time
from typing import Any, get_args

import torch

from earthworks.corpus import PackedTokens
from earthworks.corpus.tokens.sample_order import Sampling
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.model import Gopher
from earthworks.gopher.pretraining import budget
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import EarthworksError, RunFolder
from earthworks.training.optimizer import Kind
from earthworks.training.pace import seconds_per_update
from earthworks.training.precision import BF16_WEIGHTS, Precision, matmul_ceiling, product_dtype
from earthworks.training.schedule import Shape

DEFAULT_MINUTES = 5.0
TIMED_SHARE = 0.01  # of the time goes to timing steps: three alone were up to a quarter off
MIN_STEPS = 20
UPDATE_SHARE = 0.9  # of the time goes to updates, the rest to validating, sampling and saving
SAVE_SECONDS = 120.0  # between checkpoints
MOST_VALIDATION_TOKENS = 65_536
MICRO_BATCH_TOKENS = 16_384  # tokens of one forward and backward pass; larger batches are accumulated


AT_LEAST_ONE = (
    *("max_steps", "horizon", "context", "batch", "micro_batch", "first_batch"),
    *("evaluate_every", "validation_tokens", "sample_every", "save_every"),
)
WHOLE = (*AT_LEAST_ONE, "vocabulary", "warmup_steps", "ramp_step", "d_position", "max_distance")
MOST = 1 << 31  # of any whole number but the seed: what is allocated for it could not be indexed
AT_LEAST_ZERO = ("warmup_steps", "ramp_step", "weight_decay")
ABOVE_ZERO = ("minutes", "learning_rate", "embedding_rate", "clip")
BELOW_ONE = ("validation", "momentum", "beta1", "beta2")
ARCHITECTURE = ("context", "d_position", "max_distance", "norm", "positions", "tied")  # beside the size
SETTLED_OF_FAMILY = ("data", "max_steps", "horizon", "context", "batch")
SETTLED = (
    *(*SETTLED_OF_FAMILY, "size", "micro_batch", "final_share", "learning_rate", "embedding_rate", "momentum"),
    *("warmup_steps", "ramp_step", "evaluate_every", "validation_tokens", "sample_every", "save_every"),
)
CHOICES = {"optimizer": Kind, "schedule": Shape, "precision": Precision, "sampling": Sampling}


def check(settings: dict[str, Any]) -> None:
    """Raise EarthworksError for the first setting that no run can have, before anything is read or written."""
    expected = (
        (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (AT_LEAST_ZERO, lambda value: value >= 0, "at least 0"),
        (ABOVE_ZERO, lambda value: 0 < value < math.inf, "above 0"),
        (BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        (("final_share",), lambda value: 0 <= value <= 1, "between 0 and 1"),
    )
    for names, holds, words in expected:
        for name in names:
            if settings[name] is not None and not holds(settings[name]):
                raise EarthworksError(f"--{name} is {settings[name]}; it must be {words}")
    for name in WHOLE:
        if settings[name] is not None and settings[name] >= MOST:
            raise EarthworksError(f"--{name} is {settings[name]}; it must be below {MOST:,}")
    for name, choices in CHOICES.items():
        if settings[name] not in get_args(choices):
            raise EarthworksError(f"--{name} is {settings[name]!r}; it must be one of {', '.join(get_args(choices))}")
    if settings["optimizer"] == "rmsprop" and settings["precision"] in BF16_WEIGHTS:
        raise EarthworksError(
            f"--optimizer rmsprop moves float32 weights and --precision {settings['precision']} has none: take adam, adamw "
            "or muon, or --precision bf16"
        )
    model_config({**settings, "size": settings["size"] or "44M", "context": settings["context"] or 1}, vocabulary=1)


def model_config(settings: dict[str, Any], vocabulary: int) -> GopherConfig:
    """The model that the settings describe; what is not given is as `GopherConfig` has it."""
    given = {name: settings[name] for name in ARCHITECTURE if settings[name] is not None}
    return GopherConfig.preset(settings["size"], vocabulary=vocabulary, **given)


def architecture(settings: dict[str, Any], init: tuple[str, GopherConfig] | None) -> dict[str, Any]:
    """The settings with the architecture filled in: of the run that the weights are taken from (its size and its model),
    where there is one, else the defaults. Raises EarthworksError naming a setting that is given otherwise."""
    settings = dict(settings)
    if init is None:
        for name in ("norm", "positions", "tied"):
            if settings[name] is None:
                settings[name] = getattr(GopherConfig, name)
        return settings
    size, config = init
    found = {"size": size, **{name: getattr(config, name) for name in ARCHITECTURE if name != "context"}}
    if config.positions == "absolute":  # a vector was learned for each of them
        found["context"] = config.context
    for name, value in found.items():
        if settings[name] not in (None, value):
            raise EarthworksError(
                f"--{name} is {settings[name]}, and the model of --init {settings['init']} has {value}: its weights fit no "
                f"other, so leave --{name} out"
            )
        settings[name] = value
    return settings


def check_settled(settings: dict[str, Any], source: object) -> None:
    """Raise EarthworksError when the file of a run that was started lacks a setting that every start settles."""
    for name in SETTLED if settings["family"] is None else SETTLED_OF_FAMILY:
        if settings[name] is None:
            raise EarthworksError(f"{source} does not say {name}: it was altered")


def settle(
    settings: dict[str, Any], packed: PackedTokens, device: torch.device, begun: float
) -> tuple[dict[str, Any], float]:
    """Fill in what was not given: by the dial where it is a matter of time, data and machine, then by a timed warm-up.

    Also gives the seconds of one step. `begun` is when the command began: the minutes are counted from there.
    """
    settings = dict(settings)
    if settings["max_steps"] is None and settings["minutes"] is None:
        settings["minutes"] = DEFAULT_MINUTES
    seconds = 60 * (settings["minutes"] or DEFAULT_MINUTES)
    choice = budget.turn(
        seconds,
        matmul_ceiling(device, product_dtype(settings["precision"])),
        packed.train_tokens,
        packed.tokenizer.vocabulary,
        size=settings["size"],
        context=settings["context"],
    )
    for name in ("size", "context", "batch"):
        if settings[name] is None:
            settings[name] = getattr(choice, name)
    if settings["micro_batch"] is None:
        settings["micro_batch"] = min(settings["batch"], max(1, MICRO_BATCH_TOKENS // settings["context"]))
    gopher = settings["schedule"] == "gopher"
    if settings["final_share"] is None:
        settings["final_share"] = 0.1 if gopher else 0.02
    by_time = settings["max_steps"] is None
    timed = follow(settings, settings["max_steps"] or 1000)
    step_seconds, settings["micro_batch"] = time_steps(
        timed, packed, device, enough=TIMED_SHARE * seconds if by_time else 0.0
    )
    if by_time:
        left = seconds - (time.perf_counter() - begun)
        settings["max_steps"] = max(MIN_STEPS, int(UPDATE_SHARE * left / step_seconds))
    if settings["save_every"] is None:
        settings["save_every"] = max(1, round(SAVE_SECONDS / step_seconds))
    return follow(settings, int(settings["max_steps"] or 0)), step_seconds


def follow(settings: dict[str, Any], max_steps: int) -> dict[str, Any]:
    """The settings that follow from the number of steps alone, where they were not given.

    Validations are few enough and small enough to cost about a twentieth of the training: reading a token costs a third
    of training on it.
    """
    validations = min(12, max(2, max_steps // 50))
    tokens = max_steps * settings["batch"] * settings["context"]
    d_model = GopherConfig.preset(settings["size"]).d_model
    learning_rate, embedding_rate = budget.rates(settings["optimizer"], max_steps, d_model)
    values = {
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "embedding_rate": embedding_rate,
        "momentum": budget.momentum(max_steps),
        "horizon": max_steps,
        "warmup_steps": 1500 if settings["schedule"] == "gopher" else max(1, max_steps // 20),
        "ramp_step": max_steps // 2 if settings["first_batch"] else 0,
        "evaluate_every": math.ceil(max_steps / validations),
        "validation_tokens": min(MOST_VALIDATION_TOKENS, max(settings["context"], int(0.15 * tokens / validations))),
        "sample_every": math.ceil(max_steps / min(5, max(1, max_steps // 150))),
        "save_every": max(1, max_steps // 4),
    }
    return {**settings, **{name: value for name, value in values.items() if settings[name] is None}}


def time_steps(
    settings: dict[str, Any], packed: PackedTokens, device: torch.device, enough: float
) -> tuple[float, int]:
    """Seconds of one update, on a throwaway model, and the sequences of a microbatch that its memory had room for."""
    torch.manual_seed(settings["seed"])
    model = Gopher(model_config(settings, packed.tokenizer.vocabulary)).to(device)
    task = Pretraining(model, packed, RunFolder("unused"), settings, device)
    return seconds_per_update(task, enough), task.micro_batch
