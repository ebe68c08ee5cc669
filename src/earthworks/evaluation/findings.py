"""Findings: numbers with interval and p-value, corrected for the number of tested differences."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from earthworks.statistics import bootstrap_ratio, holm, sign_flip_test


def finding(
    name: str, value: float, interval: tuple[float, float] | None, p_value: float, n: int, unit: str
) -> dict[str, Any]:
    """One tested difference, 0 for none; `n` is the number of `unit`s that interval and p-value are over."""
    return {"name": name, "value": float(value), "interval": ends(interval), "p_value": p_value, "n": n, "unit": unit}


def ends(interval: tuple[float, float] | None) -> list[float] | None:
    """The interval for JSON; None for NaN, which a single unit gives."""
    return None if interval is None or any(math.isnan(end) for end in interval) else [float(end) for end in interval]


def mean_finding(
    name: str, sums: ArrayLike, counts: ArrayLike | None = None, *, unit: str, seed: int = 0
) -> dict[str, Any]:
    """sum_i s_i / sum_i c_i over independent units, symmetric about 0 if there is no difference.

    Interval: percentile bootstrap of the units; p-value: random sign flips.
    """
    totals = np.asarray(sums, dtype=float)
    sizes = np.ones_like(totals) if counts is None else np.asarray(counts, dtype=float)
    value = float(totals.sum() / sizes.sum())
    return finding(
        name, value, bootstrap_ratio(totals, sizes, seed=seed), sign_flip_test(totals, seed=seed), len(totals), unit
    )


def corrected(findings: list[dict[str, Any]]) -> None:
    """Add `p_holm` to each: Holm's step-down over all of them, valid under any dependence."""
    for each, adjusted in zip(findings, holm([each["p_value"] for each in findings])):
        each["p_holm"] = adjusted
