"""How far a distance would move if its samples were drawn again."""

import math

import torch
from torch import Tensor

from earthworks.transport.permutation import OnPool

NORMAL = 1.959964  # the 97.5 % point of the normal law


def influence_interval(value: float, h_x: Tensor, h_y: Tensor) -> tuple[float, float]:
    """value +- 1.96 sqrt(var h_x / n + var h_y / m), with h the derivative of the value by the weight of each point.

    For the optimal cost h are the potentials, and this is the limit law of del Barrio and Loubes 2019 (p > 1, laws with
    densities) with the empirical potentials in it: the cost is centred at its *mean*, whatever its bias. O(n + m).
    """
    if min(len(h_x), len(h_y)) < 2:
        return math.nan, math.nan
    error = math.sqrt(sum(float(h.detach().double().var()) / len(h) for h in (h_x, h_y)))
    return max(0.0, value - NORMAL * error), value + NORMAL * error


def bootstrap_interval(
    value: float, evaluate: OnPool, n: int, m: int, num_resamples: int, seed: int, power: float = 1
) -> tuple[float, float]:
    """The basic bootstrap of T^power: [2 T^p - q(97.5 %), 2 T^p - q(2.5 %)], q the quantiles of T^p over resamples of
    either sample; cut at 0, and the root taken.

    A resample lies further apart than the samples do by about as much as the samples do beyond the laws: reflected at
    the value, that bias is taken off, where percentiles would count it twice. It is additive in costs, W_p^p, and not
    in distances: `power` is p for a number of which the p-th root was taken. (Two samples of 3,000 from one Gaussian in
    d = 64: the Gaussian W_2 is 0.88, its reflected interval without the power [0.50, 0.56], with it [0, 0.26].)
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 13; Davison and Hinkley, Bootstrap Methods, 5.2.
    """
    if min(n, m) < 2:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    draws = torch.empty(num_resamples, dtype=torch.float64)
    for k in range(num_resamples):
        i = torch.randint(n, (n,), generator=generator)
        j = torch.randint(m, (m,), generator=generator) + n
        draws[k] = float(evaluate(i, j)) ** power
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    centre = 2 * value**power
    return max(0.0, centre - high) ** (1 / power), max(0.0, centre - low) ** (1 / power)
