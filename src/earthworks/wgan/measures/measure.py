"""Result type of a measure: value, interval and sample sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LEVEL = 0.95
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


def percentiles(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
