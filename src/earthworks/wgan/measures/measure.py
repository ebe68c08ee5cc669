"""Result type of a measure: value, interval and sample sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LEVEL = 0.95
NORMAL = 1.959964  # the standard normal quantile of LEVEL
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Measure:
    """`value` from `n` real and `m` generated samples, and its 95 % `interval`, (nan, nan) where there is none.
    `details` are plain numbers: the score of a perfect generator at these sizes, p-values, settings."""

    name: str
    value: float
    interval: tuple[float, float]
    n: int | None = None
    m: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = [f"{name}={size}" for name, size in (("n", self.n), ("m", self.m)) if size is not None]
        low, high = self.interval
        interval = "no interval" if math.isnan(low) else f"95 % interval [{low:.4g}, {high:.4g}]"
        return f"{self.name} = {self.value:.4g} ({interval}; {', '.join(sizes)})"


def share_interval(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a probability, from `successes` in `trials` independent trials,

        (k + z^2 / 2 +- z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2),    z = 1.96.

    If all succeed it is still an interval; a bootstrap would give the point 1. Source: Wilson 1927.
    """
    middle, square = successes + NORMAL**2 / 2, NORMAL**2
    half = NORMAL * math.sqrt(max(successes * (trials - successes) / trials, 0.0) + square / 4)
    return max((middle - half) / (trials + square), 0.0), min((middle + half) / (trials + square), 1.0)


def percentiles(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
