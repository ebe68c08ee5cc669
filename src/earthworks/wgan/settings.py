"""The settings that nobody gave: from a preset of a paper, from the kind of data, and from a timed warm-up."""

import math
import time
from typing import Any, get_args

import torch
from torch import nn

from earthworks.runs import EarthworksError, RunFolder
from earthworks.training.pace import seconds_per_update
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.networks import Network, build
from earthworks.wgan.objectives import OBJECTIVES, Objective
from earthworks.wgan.task import Adversarial

DEFAULT_MINUTES = 5.0
MIN_STEPS = 20
UPDATE_SHARE = 0.9  # of the time goes to updates, the rest to measuring, drawing and saving
TIMED_SHARE = 0.01
VALIDATIONS = 25
SAVE_SECONDS = 120.0
HOLD, HELD_STEPS = 0.5, 8000  # the rates are full for half of a run, and on points no longer than the grid bears them

# The settings of the papers, by name. Where a paper and its code differ, both are here.
GULRAJANI = {
    "objective": "gp",
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "beta2": 0.9,
    "critic_steps": 5,
    "hold": 1.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Arjovsky et al. 2017, Algorithm 1
    "wgan": {
        **{"objective": "clip", "optimizer": "rmsprop", "learning_rate": 5e-5, "clip": 0.01},
        **{"batch": 64, "critic_steps": 5, "hold": 1.0},
    },
    # Gulrajani et al. 2017, Algorithm 1: weight 10, beta1 0
    "wgan-gp": {**GULRAJANI, "penalty": 10.0, "beta1": 0.0, "batch": 64},
    # its code for the toy problems: weight 0.1, beta1 0.5, four layers of 512
    "wgan-gp-toy-code": {
        **GULRAJANI,
        **{"penalty": 0.1, "beta1": 0.5, "batch": 256, "network": "mlp", "width": 512, "depth": 3, "noise": 2},
    },
    # its code for MNIST
    "mnist": {
        **GULRAJANI,
        **{"penalty": 10.0, "beta1": 0.5, "batch": 50, "network": "dcgan", "width": 64, "noise": 128},
    },
    # its code for CIFAR-10, the convolutional network
    "cifar-dcgan": {
        **GULRAJANI,
        **{"penalty": 10.0, "beta1": 0.5, "batch": 64, "network": "dcgan", "width": 128, "noise": 128},
    },
    # its appendix F for CIFAR-10, the residual network: rate to 0 over the run, the generator on twice the batch
    "cifar-resnet": {
        **{**GULRAJANI, "learning_rate": 2e-4, "hold": 0.0},
        **{"penalty": 10.0, "beta1": 0.0, "batch": 64, "generator_batch": 128},
        **{"network": "resnet", "width": 128, "noise": 128, "dequantize": True},
    },
}

# Ours, for what no preset says. Fitted in docs/log.md.
SMALL_IMAGE = 16  # pixels: below it an mlp, as there is nothing to convolve
POINTS = {
    **{"network": "mlp", "width": 128, "depth": 3, "noise": 2},
    **{"batch": 128, "generator_batch": 512, "learning_rate": 2e-3, "penalty": 1.0, "critic_steps": 2},
}
IMAGES = {
    **{"network": "dcgan", "depth": 3, "noise": 128},
    **{"batch": 64, "learning_rate": 4e-4, "penalty": 10.0, "critic_steps": 2},
}
SMALL_IMAGES = {**IMAGES, "network": "mlp", "width": 256, "learning_rate": 5e-4}
BY_OBJECTIVE: dict[str, dict[str, Any]] = {
    "minimax": {"critic_steps": 1, "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999},  # Radford et al. 2016
    "non-saturating": {"critic_steps": 1, "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999},
    "clip": {"optimizer": "rmsprop", "learning_rate": 5e-5, "critic_steps": 5, "hold": 1.0},
    "gp": {},
    "lp": {},
}
COMMON: dict[str, Any] = {
    **{"objective": "gp", "optimizer": "adam", "beta1": 0.0, "beta2": 0.9, "critic_steps": 5, "clip": 0.01},
    **{"average": 0.999, "dequantize": False},
}

AT_LEAST_ONE = (
    *("max_steps", "horizon", "batch", "generator_batch", "critic_steps", "width", "depth", "noise"),
    *("evaluate_every", "sample_every", "save_every"),
)
ABOVE_ZERO = ("minutes", "learning_rate", "critic_learning_rate", "clip")
BELOW_ONE = ("beta1", "beta2", "average")
CHOICES = {"objective": Objective, "network": Network}


def check(settings: dict[str, Any]) -> None:
    """Raise EarthworksError for the first setting that no run can have, before anything is read or written."""
    expected = (
        (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (ABOVE_ZERO, lambda value: 0 < value < math.inf, "above 0"),
        (BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        (("hold",), lambda value: 0 <= value <= 1, "between 0 and 1"),
        (("validation",), lambda value: 0 < value < 1, "between 0 and 1"),
        (("penalty", "seed"), lambda value: 0 <= value < math.inf, "at least 0"),
    )
    for names, holds, words in expected:
        for name in names:
            if settings[name] is not None and not holds(settings[name]):
                raise EarthworksError(f"--{name} is {settings[name]}; it must be {words}")
    if settings["precision"] == "fp16":
        raise EarthworksError("gradients of gradients overflow fp16: use --precision bf16 or fp32")
    choices = {name: get_args(kind) for name, kind in CHOICES.items()}
    choices |= {
        "preset": tuple(PRESETS),
        "optimizer": ("adam", "adamw", "rmsprop"),
        "precision": ("auto", "fp32", "bf16"),
    }
    for name, possible in choices.items():
        if settings[name] is not None and settings[name] not in possible:
            raise EarthworksError(f"--{name} is {settings[name]!r}; it must be one of {', '.join(possible)}")


def fill(settings: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """What was given, then the preset, then what suits the objective, the data, and everything."""
    settings = dict(settings)
    preset = PRESETS.get(settings["preset"] or "", {})
    layers = [{"generator_batch": settings["batch"] or preset["batch"], **preset} if preset else {}]
    objective = settings["objective"] or layers[0].get("objective", COMMON["objective"])
    layers += [BY_OBJECTIVE[objective], suited(data.shape), COMMON]
    for layer in layers:
        for name, value in layer.items():
            if settings[name] is None:
                settings[name] = value
    settings["batch"] = min(settings["batch"], len(data.train))
    settings["generator_batch"] = settings["generator_batch"] or settings["batch"]
    settings["critic_learning_rate"] = settings["critic_learning_rate"] or settings["learning_rate"]
    # in both networks wherever no penalty forbids it: Radford et al. 2016; the code of Gulrajani et al. 2017 for clipping
    settings["critic_batch_norm"] = OBJECTIVES[objective].penalty is None and settings["network"] == "dcgan"
    if settings["network"] == "mlp" and settings["precision"] == "auto":
        settings["precision"] = "fp32"
    if settings["channels_last"] is None:
        settings["channels_last"] = len(data.shape) == 3
    return settings


def suited(shape: tuple[int, ...]) -> dict[str, Any]:
    """What suits samples of this shape."""
    if len(shape) == 1:
        return POINTS
    if min(shape[1:]) < SMALL_IMAGE:
        return SMALL_IMAGES
    return {**IMAGES, "width": 64 if shape[0] == 1 else 128}


def settle(settings: dict[str, Any], data: Dataset, device: torch.device, begun: float) -> tuple[dict[str, Any], float]:
    """The number of steps and what follows from it, by a timed warm-up; also the seconds of one step."""
    settings = dict(settings)
    if settings["max_steps"] is None and settings["minutes"] is None:
        settings["minutes"] = DEFAULT_MINUTES
    seconds = 60 * (settings["minutes"] or 0.0)
    by_time = settings["max_steps"] is None
    torch.manual_seed(settings["seed"])
    timed = {**settings, "horizon": 1000, "hold": 1.0}
    task = Adversarial(*networks(settings, data), data, RunFolder("unused"), timed, device)
    step_seconds = seconds_per_update(task, TIMED_SHARE * seconds if by_time else 0.0)
    if by_time:
        left = seconds - (time.perf_counter() - begun)
        settings["max_steps"] = max(MIN_STEPS, int(UPDATE_SHARE * left / step_seconds))
    max_steps = int(settings["max_steps"] or 0)
    every = math.ceil(max_steps / VALIDATIONS)
    values = {
        "hold": min(HOLD, HELD_STEPS / max_steps) if len(data.shape) == 1 else HOLD,
        "horizon": max_steps,
        "evaluate_every": every,
        "sample_every": every,
        "save_every": max(1, round(SAVE_SECONDS / step_seconds)),
    }
    return {**settings, **{name: value for name, value in values.items() if settings[name] is None}}, step_seconds


def networks(settings: dict[str, Any], data: Dataset) -> tuple[nn.Module, nn.Module]:
    """Generator and critic of these settings. Raises EarthworksError for what does not fit."""
    pair = build(
        settings["network"],
        data.shape,
        noise=settings["noise"],
        width=settings["width"],
        depth=settings["depth"],
        batch_norm=settings["critic_batch_norm"],
    )
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for each in pair for module in each.modules())
    if normalized and min(settings["batch"], settings["generator_batch"]) < 2:
        raise EarthworksError(
            f"a batch of one has no spread for the batch normalization of --network {settings['network']} to divide by: "
            "give a --batch and --generator_batch of at least 2, or --network mlp"
        )
    return pair
