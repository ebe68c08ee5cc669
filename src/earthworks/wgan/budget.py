"""Number of steps of a run, and the settings that depend on it, from a timed warm-up."""

import math
import time
from dataclasses import replace

import torch

from earthworks.runs import RunFolder
from earthworks.training.command_settings import settled
from earthworks.training.pace import seconds_per_update
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.settings import Filled, Settled, networks
from earthworks.wgan.task import Adversarial

DEFAULT_MINUTES = 5.0
MIN_STEPS = 20
UPDATE_SHARE = 0.9  # share of the time for updates; the rest is for validation, samples and saving
TIMED_SHARE = 0.01
VALIDATIONS = 25
SAVE_SECONDS = 120.0
HOLD, HELD_STEPS = 0.5, 8000  # full rates for half of a run, and on points for at most as long as the grid stays stable


def settle(settings: Filled, data: Dataset, device: torch.device, started: float) -> tuple[Settled, float]:
    """The settings of a run, and the seconds per step; `started`: when the command started, from which minutes count."""
    minutes = settings.minutes
    if settings.max_steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    seconds = 60 * (minutes or 0.0)
    max_steps = settings.max_steps
    torch.manual_seed(settings.seed)
    timed = with_steps(replace(settings, horizon=1000, hold=1.0), data, 1000, 1.0)
    task = Adversarial(*networks(settings, data), data, RunFolder("unused"), timed, device)
    step_seconds = seconds_per_update(task, 0.0 if max_steps else TIMED_SHARE * seconds)
    if max_steps is None:
        left = seconds - (time.perf_counter() - started)
        max_steps = max(MIN_STEPS, int(UPDATE_SHARE * left / step_seconds))
    return with_steps(replace(settings, minutes=minutes), data, max_steps, step_seconds), step_seconds


def with_steps(settings: Filled, data: Dataset, max_steps: int, step_seconds: float) -> Settled:
    """Fill in missing settings that follow from the number of steps."""
    every = math.ceil(max_steps / VALIDATIONS)
    found = {
        "max_steps": max_steps,
        "hold": min(HOLD, HELD_STEPS / max_steps) if len(data.shape) == 1 else HOLD,
        "horizon": max_steps,
        "evaluate_every": every,
        "sample_every": every,
        "save_every": max(1, round(SAVE_SECONDS / step_seconds)),
    }
    missing = {name: value for name, value in found.items() if getattr(settings, name) is None}
    return settled(Settled, replace(settings, **missing), "the command")
