"""Divergences of histograms, in nats, exact for given probabilities; for comparison with the Wasserstein distance.

    KL(P | Q) = sum_i p_i log(p_i / q_i)        JS = KL(P | M) / 2 + KL(Q | M) / 2, M = (P + Q) / 2        TV = |P - Q|_1 / 2

For disjoint distributions they are infinity, log 2 and 1, however near the points are: two parallel lines a distance
theta apart have the same Jensen-Shannon divergence at every theta, and no gradient to follow (Arjovsky et al. 2017,
Example 1). Between *samples* they depend on the bins: histograms of many bins and few samples are biased upwards.
"""

import math

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.result import Distance, Kind

SMALLEST = 5e-324  # the least float64, half of which is rounded to 0


def kullback_leibler(p: Tensor, q: Tensor) -> Distance:
    """KL(P | Q) = sum_i p_i log(p_i / q_i), nats; 0 log 0 = 0, infinity where p_i > 0 = q_i. Kind `cost`, not symmetric.

    p, q: probabilities over the same k bins, of any equal shape, each summing to 1. Differentiable; bins with p_i = 0
    get a gradient of 0, although the one-sided derivative in p_i is -infinity. O(k). Raises EarthworksError for different
    shapes, an empty histogram, negative or NaN entries, and sums other than 1.
    """
    p, q = check_histograms(p, q)
    return of_histograms("kullback_leibler", relative_entropy(p, q).sum(), "cost", p)


def jensen_shannon(p: Tensor, q: Tensor) -> Distance:
    """JS(P, Q) = KL(P | M) / 2 + KL(Q | M) / 2 with M = (P + Q) / 2, nats: from 0 to log 2 (disjoint distributions).

    Divide by log 2 for bits. Kind `cost`: its root is a metric; it is not. Arguments, gradient, cost and errors as
    `kullback_leibler`, but never infinite. Source: Lin 1991; Goodfellow et al. 2014, theorem 1.
    """
    p, q = check_histograms(p, q)
    mixture = ((p + q) / 2).clamp(min=SMALLEST)
    value = (relative_entropy(p, mixture) + relative_entropy(q, mixture)).sum() / 2
    return of_histograms("jensen_shannon", value, "cost", p)


def total_variation(p: Tensor, q: Tensor) -> Distance:
    """TV(P, Q) = sum_i |p_i - q_i| / 2 = max_A P(A) - Q(A): from 0 to 1. A distance. Arguments and errors as above."""
    p, q = check_histograms(p, q)
    return of_histograms("total_variation", (p - q).abs().sum() / 2, "distance", p)


def relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """p_i log(p_i / q_i) for each bin, with finite gradients where p_i = 0."""
    present = p > 0
    safe_p, safe_q = torch.where(present, p, 1.0), torch.where(present, q, 1.0)
    return torch.where(present, safe_p * (safe_p.log() - safe_q.log()), 0.0)


def of_histograms(name: str, value: Tensor, kind: Kind, p: Tensor) -> Distance:
    return Distance(name=name, value=value, kind=kind, n=len(p), m=len(p), d=1, solver=f"sum over {len(p)} bins")


def check_histograms(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 vectors (k,)."""
    p, q = torch.as_tensor(p), torch.as_tensor(q)
    if p.shape != q.shape or not p.numel():
        raise EarthworksError(
            f"histograms of shapes {tuple(p.shape)} and {tuple(q.shape)}: expected probabilities of the same bins"
        )
    for name, histogram in (("p", p), ("q", q)):
        total = float(histogram.detach().double().sum())
        if not (histogram >= 0).all():
            raise EarthworksError(f"histogram {name} has negative or NaN entries; expected probabilities")
        if abs(total - 1) > max(1e-6, 1e-7 * math.sqrt(histogram.numel())):
            raise EarthworksError(f"histogram {name} sums to {total:.6g}, expected 1: divide counts by their sum")
    return p.double().flatten(), q.to(p.device).double().flatten()
