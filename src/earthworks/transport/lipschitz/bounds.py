"""Lower bounds of a batch's exact W1 from any critic, whatever its slope."""

from dataclasses import dataclass

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_clouds, times, unit

BLOCK_ELEMENTS = 1 << 22  # distances held at once, 32 MB in float64


@dataclass(frozen=True)
class LowerBounds:
    """`by_slope` and `by_c_transform` are at most W1 of the batch they were computed on; `max_slope` is the critic's
    largest slope between any x and any y of that batch. 0-d float64 tensors."""

    by_slope: Tensor
    by_c_transform: Tensor
    max_slope: Tensor


@torch.no_grad()
def lower_bounds(scores_x: Tensor, scores_y: Tensor, x: Tensor, y: Tensor) -> LowerBounds:
    """Two feasible values of the dual of W1 between the points x and y, from any function f, higher on x:

        by slope         (mean f(x) - mean f(y)) / L,   L = max_ij (f(x_i) - f(y_j)) / |x_i - y_j|,
        by c-transform   mean f(x) + mean_j min_i (|x_i - y_j| - f(x_i)).

    Both hold for every f, however it was trained; the second ignores f on y. They bound W1 of these *points*, which in
    high dimension is far above that of the distributions; on few points they do not bound the latter.
    Pairs at distance 0 have no slope and are left out; if L <= 0 (the critic is lower on x) the first is 0.

    scores_x (n,) or (n, 1), scores_y (m,) or (m, 1), x (n, *), y (m, *). Computed in float64, O(n m d) time, in blocks of
    32 MB. Raises EarthworksError unless there is one score per point, and for points that `wasserstein` refuses.
    """
    x, y = (points.double() for points in check_clouds(x, y))
    f, g = scores_x.double().flatten(), scores_y.double().flatten()
    if len(f) != len(x) or len(g) != len(y):
        raise EarthworksError(f"expected one score per point, {len(x)} and {len(y)}; got {len(f)} and {len(g)}")
    exponent = unit(x, y, 2)
    x, y, f, g = (times(each, -exponent) for each in (x, y, f, g))  # slopes are unchanged, bounds scale by 2^exponent
    slope = f.new_tensor(-torch.inf)
    transform = torch.full_like(g, torch.inf)
    rows = max(1, BLOCK_ELEMENTS // len(y))
    for part, scores in zip(x.split(rows), f.split(rows)):
        distance = torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist")
        transform = torch.minimum(transform, (distance - scores[:, None]).amin(0))
        slopes = (scores[:, None] - g).div_(distance)
        slope = torch.maximum(slope, slopes.masked_fill_(distance == 0, -torch.inf).max())
    by_slope = (f.mean() - g.mean()) / slope if slope > 0 else torch.zeros_like(slope)
    return LowerBounds(times(by_slope, exponent), times(f.mean() + transform.mean(), exponent), slope)
