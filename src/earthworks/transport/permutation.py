"""Permutation test of whether two samples come from the same distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_clouds
from earthworks.transport.resampling import p_value, permuted
from earthworks.transport.sliced import sliced_wasserstein


@dataclass(eq=False)
class Permutation:
    """`value` for the observed samples, `null` (B,) for B random divisions of their pool, and the p-value."""

    value: float
    null: Tensor
    p_value: float


def permutation_test(
    x: Tensor,
    y: Tensor,
    statistic: Callable[[Tensor, Tensor], Any] | None = None,
    *,
    num_permutations: int = 200,
    seed: int = 0,
) -> Permutation:
    """Test that x (n, d) and y (m, d) come from one distribution, by any statistic that grows with their difference:

        p = (1 + #{b : T(permutation b) >= T(x, y)}) / (1 + B),    B = num_permutations.

    `statistic(x, y)` returns a number, a 0-d tensor or a Distance; by default sliced_wasserstein with p = 1. Under the
    hypothesis P(p <= alpha) <= alpha for every n, m and statistic: exact in finite samples, no asymptotics; so no p is
    below 1 / (1 + B). Takes B + 1 evaluations. Source: Lehmann and Romano, Testing Statistical Hypotheses, 15.2.
    """
    x, y = check_clouds(x, y)
    measure = statistic or sliced_mean
    pool = torch.cat([x.detach(), y.detach()])
    value = float(measure(pool[: len(x)], pool[len(x) :]))
    null = permuted(lambda i, j: measure(pool[i], pool[j]), len(x), len(y), num_permutations, seed)
    if math.isnan(value) or bool(null.isnan().any()):
        raise EarthworksError(
            "the statistic of the permutation test is NaN for these points: choose one that is finite for them"
        )
    return Permutation(value, null, p_value(value, null))


def sliced_mean(x: Tensor, y: Tensor) -> Any:
    return sliced_wasserstein(x, y, p=1)
