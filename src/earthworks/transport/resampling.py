"""Resampling of two samples: intervals of a distance, and its null distribution under permutation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.statistics import NORMAL

OnPool = Callable[[Tensor, Tensor], Any]  # indices into the pool of x, and of y -> a number


def influence_interval(value: float, h_x: Tensor, h_y: Tensor) -> tuple[float, float]:
    """value +- 1.96 sqrt(var h_x / n + var h_y / m), with h the derivative of the value with respect to the weight of
    each point.

    For the optimal cost h is the potentials, and this is the limit theorem of del Barrio and Loubes 2019 (p > 1,
    distributions with densities) with the empirical potentials: the cost is centred at its *mean*, whatever its bias.
    O(n + m).
    """
    if min(len(h_x), len(h_y)) < 2:
        return math.nan, math.nan
    error = math.sqrt(sum(float(h.detach().double().var()) / len(h) for h in (h_x, h_y)))
    return max(0.0, value - NORMAL * error), value + NORMAL * error


def bootstrap_interval(
    value: float, evaluate: OnPool, n: int, m: int, num_resamples: int, seed: int, power: float = 1
) -> tuple[float, float]:
    """[2 C - mean C* - 1.96 s, C + 1.96 s] for the cost C = T^power, with s and mean those of C* over resamples of both
    samples; clipped at 0, and the root taken.

    Resamples are further apart than the samples by about as much as the samples are further apart than the distributions.
    The lower end subtracts this bias; the upper end does not, because far from 0, where there is no bias, the bootstrap
    still shows some. Bias is additive in costs, W_p^p, and not in distances: `power` is p where the p-th root was taken.
    Measured at n = 100, 200 intervals each, in one dimension, sliced and Gaussian in d = 5: 90 % to 100 % contained the
    distance between the distributions; of reflected percentiles 83 % to 99 %, of T +- 1.96 s near the null 2 %.
    Source: Davison and Hinkley, Bootstrap Methods and their Application, 5.2 (normal intervals, bias correction).
    """
    if min(n, m) < 2:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    costs = torch.empty(num_resamples, dtype=torch.float64)
    for k in range(num_resamples):
        i = torch.randint(n, (n,), generator=generator)
        j = torch.randint(m, (m,), generator=generator) + n
        costs[k] = float(evaluate(i, j)) ** power
    cost, spread = value**power, NORMAL * float(costs.std())
    low, high = min(cost, 2 * cost - float(costs.mean())) - spread, cost + spread
    return max(0.0, low) ** (1 / power), high ** (1 / power)


def permuted(evaluate: OnPool, n: int, m: int, num_permutations: int, seed: int) -> Tensor:
    """`evaluate` for random divisions of n + m points into n and m: (B,) float64."""
    if num_permutations < 1:
        raise EarthworksError(f"num_permutations is {num_permutations}; expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    null = torch.empty(num_permutations, dtype=torch.float64)
    for k in range(num_permutations):
        order = torch.randperm(n + m, generator=generator)
        null[k] = float(evaluate(order[:n], order[n:]))
    return null


def p_value(value: float, null: Tensor) -> float:
    """Permutation p-value; divisions that tie with the value, up to rounding, count as at least as extreme."""
    slack = 1e-9 * abs(value) if math.isfinite(value) else 0.0
    reached = int((null >= value - slack).sum())
    return (1 + reached) / (1 + len(null))
