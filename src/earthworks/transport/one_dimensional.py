"""Wasserstein distance in one dimension, where the optimal plan is monotone: sort and match."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_weights
from earthworks.transport.magnitude import any_magnitude
from earthworks.transport.result import Distance

MANY = 1 << 17  # numbers from which starting threads (0.1 ms) is worth it
LONG = 1 << 10  # row length from which a radix sort is faster than NumPy's (4,096: 1.5 to 3.5 times)


@any_magnitude()
def wasserstein_1d(x: Tensor, y: Tensor, *, p: float = 1, a: Tensor | None = None, b: Tensor | None = None) -> Distance:
    """W_p = ( int_0^1 |F^-1(t) - G^-1(t)|^p dt )^(1/p), F and G the distribution functions of the two samples.

    x (n,) or (n, 1), y (m,) or (m, 1); `a` (n,) and `b` (m,) weights, uniform by default; any p >= 1; in the units of
    x. Differentiable in x, y, a and b (where two points coincide their distance has gradient 0). The plug-in estimate
    of the distance between the distributions: biased upwards, by O(1/sqrt n) where they are equal, O(1/n) where they differ.
    `assess()` adds `null` and `interval`, except for weighted samples.
    O(n log n + m log m). Source: Santambrogio, Optimal Transport for Applied Mathematicians, 2.2.
    Raises EarthworksError for clouds of d > 1 and for what `check_clouds` and `check_weights` refuse.
    """
    if x.shape[1] != 1:
        raise EarthworksError(f"these clouds have d = {x.shape[1]}, but wasserstein_1d needs d = 1: use wasserstein")
    a = a if a is None else check_weights(a, len(x), x, "the weights a")
    b = b if b is None else check_weights(b, len(y), y, "the weights b")

    def statistic(x: Tensor, y: Tensor) -> Tensor:
        return root(quantile_cost(x[:, 0], y[:, 0], p), p)

    weighted = a is not None or b is not None
    return Distance(
        name=f"wasserstein_{p:g}",
        value=root(quantile_cost(x[:, 0], y[:, 0], p, a, b), p),
        kind="distance",
        n=len(x),
        m=len(y),
        d=1,
        p=p,
        solver="sort" if len(x) == len(y) and not weighted else "merged quantiles",
        samples=(x.detach(), y.detach()),
        statistic=None if weighted else statistic,
    )


def quantile_cost(x: Tensor, y: Tensor, p: float, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """W_p^p along the last axis: x (..., n), y (..., m), weights (n,) and (m,) -> (...,).

    Equally many unweighted points are paired in order. Otherwise the levels at which either distribution function jumps
    cut [0, 1] into at most n + m pieces, on each of which both quantile functions are constant.
    """
    n, m = x.shape[-1], y.shape[-1]
    if a is None and b is None:
        if n == m:
            return power(ordered(x) - ordered(y), p).mean(-1)
        # Levels i/n and j/m as integers over n m: equal ones are recognised as equal.
        counts = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).to(x.device).unique()
        widths = counts.diff(prepend=counts.new_zeros(1)).to(x.dtype) / (n * m)
        i, j = (counts - 1) // m, (counts - 1) // n
        return power(ordered(x)[..., i] - ordered(y)[..., j], p) @ widths
    x, below_x = steps(x, check_weights(a, n, x))
    y, below_y = steps(y, check_weights(b, m, y))
    levels = torch.cat([below_x, below_y], dim=-1)
    order = order_of(levels)
    levels = levels.gather(-1, order)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    of_x = order < n
    # Number of jumps of each below: a path of the plan even where jumps coincide, so that the derivative with respect
    # to the weights is a pair of potentials.
    i = (of_x.cumsum(-1) - of_x.int()).clamp(max=n - 1)
    j = ((~of_x).cumsum(-1) - (~of_x).int()).clamp(max=m - 1)
    return (power(x.gather(-1, i) - y.gather(-1, j), p) * widths).sum(-1).to(x.dtype)


def steps(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The points in ascending order and F at each, both (..., n); F in float64."""
    order = order_of(x)
    return x.gather(-1, order), weights.double().expand(x.shape).gather(-1, order).cumsum(-1)


def ordered(x: Tensor) -> Tensor:
    """The last axis sorted; on a CPU rows are divided among torch's threads, and long ones radix-sorted."""
    if x.requires_grad:
        return x.gather(-1, order_of(x))
    if x.device.type != "cpu":
        return x.sort(-1).values
    values = x.double().numpy().copy()
    sort, rows = np.ndarray.sort, values
    if x.ndim > 1 and x.shape[-1] >= LONG and x.numel() >= MANY:
        from earthworks.transport.solvers.sorting import sort_rows as sort

        rows = values.reshape(-1, x.shape[-1]).view(np.uint64)
    threads = torch.get_num_threads()
    if threads == 1 or x.ndim == 1 or x.numel() < MANY:
        sort(rows)
    else:
        with ThreadPoolExecutor(threads) as pool:  # sorting releases the interpreter lock
            list(pool.map(sort, np.array_split(rows, threads)))
    return torch.from_numpy(values).to(x.dtype)


def order_of(x: Tensor) -> Tensor:
    x = x.detach()
    return torch.from_numpy(np.argsort(x.numpy())) if x.device.type == "cpu" else x.argsort(-1)


def power(difference: Tensor, p: float) -> Tensor:
    """|difference|^p; its gradient at 0 is 0."""
    return difference.abs() if p == 1 else difference.square() if p == 2 else difference.abs().pow(p)


def root(cost: Tensor, p: float) -> Tensor:
    """cost^(1/p) for a 0-d cost >= 0; at 0, where the root has an infinite slope, the gradient is set to 0."""
    if p == 1:
        return cost
    positive = cost > 0
    return torch.where(positive, torch.where(positive, cost, 1).pow(1 / p), 0 * cost)
