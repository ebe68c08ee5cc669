"""The divergence frontier: implausible samples of a model against modes that it misses.

Samples of features are quantised together into k clusters, P and Q their histograms, R_l = l P + (1 - l) Q, and

    frontier = { (exp(-c KL(Q | R_l)), exp(-c KL(P | R_l))) : 0 < l < 1 },    area under it in (0, 1], 1 where P = Q.

KL(Q | R_l) penalises mass only in Q (the model's implausible samples), KL(P | R_l) mass only in P (missed modes).
"""

import math

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.divergences.f_divergences import relative_entropy
from earthworks.transport.magnitude import any_magnitude
from earthworks.transport.result import Distance

MOST_CLUSTERS = 500  # Pillutla et al. 2021: a tenth of the samples, at most 500
PER_CLUSTER = 10
POINTS = 100  # on the frontier: area to 5e-5


@any_magnitude()
def divergence_frontier(
    x: Tensor, y: Tensor, *, num_clusters: int | None = None, scale: float = 5.0, num_seeds: int = 5, seed: int = 0
) -> Distance:
    """1 - area under the divergence frontier of the features x (n, d), real, and y (m, d), generated: 0 for equal
    distributions, towards 1 for disjoint ones. The mean over `num_seeds` clusterings; kind `estimate`. Not differentiable.

    `num_clusters` (default a tenth of the smaller sample, from 2 to 500) k-means clusters of both samples together; counts
    are smoothed as (count + 1/2) / (n + k/2) (Krichevsky and Trofimov); `scale` is c. Clusters use Euclidean distances
    between features, so put features on one scale. `details`: num_clusters, area (the mean), standard_deviation of
    the area over the clusterings. `frontier(*quantise(x, y, k, seed), scale)` is the curve itself.

    The value depends on n, m, k and c: the null at the same sizes (`assess`) is its value for equal distributions.
    Differences from the published program: no PCA or row scaling before k-means, and the spread over seeds is reported.
    Raises EarthworksError for bad clouds, fewer than 2 clusters or seeds below 1. O(num_seeds (n + m) k d) an iteration.
    Source: Pillutla et al. 2021, eq. 2 to 4; smoothing and its error: Liu et al. 2021; Pillutla et al. 2023, section 4.
    """
    k = max(2, min(MOST_CLUSTERS, min(len(x), len(y)) // PER_CLUSTER)) if num_clusters is None else num_clusters
    if k < 2 or num_seeds < 1 or not 0 < scale < math.inf:
        raise EarthworksError(
            f"num_clusters={k}, num_seeds={num_seeds}, scale={scale}; expected at least 2 clusters, 1 seed, a positive scale"
        )

    def over_seeds(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([area(frontier(*quantise(x, y, k, seed + i), scale)) for i in range(num_seeds)])

    areas = over_seeds(x, y)
    return Distance(
        name="divergence_frontier",
        value=1 - areas.mean(),
        kind="estimate",
        n=len(x),
        m=len(y),
        d=x.shape[1],
        degree=0,
        solver=f"k-means, {k} clusters, {num_seeds} seeds",
        details={
            "num_clusters": k,
            "area": float(areas.mean()),
            "standard_deviation": float(areas.std()) if num_seeds > 1 else math.nan,
        },
        samples=(x, y),
        statistic=lambda x, y: 1 - over_seeds(x, y).mean(),
    )


def quantise(x: Tensor, y: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Smoothed histograms of both samples over the clusters of their union: (k,) and (k,)."""
    from sklearn.cluster import KMeans

    pool = torch.cat([x, y]).detach().cpu().numpy()
    k = min(k, len(torch.unique(torch.from_numpy(pool), dim=0)))
    # one start per seed: the reported spread is over starts
    labels = torch.from_numpy(KMeans(k, n_init=1, random_state=seed).fit(pool).labels_).long()  # pyright: ignore[reportArgumentType]
    counts = [torch.bincount(part, minlength=k).double() for part in labels.split([len(x), len(y)])]
    p, q = ((count + 0.5) / (count.sum() + k / 2) for count in counts)
    return p, q


def frontier(p: Tensor, q: Tensor, scale: float) -> Tensor:
    """(POINTS, 2): the pairs exp(-c KL(Q | R_l)), exp(-c KL(P | R_l)) for l from 1 down to 0, so the first one rises."""
    weight = torch.linspace(1, 0, POINTS, dtype=p.dtype)[:, None]
    mixture = weight * p + (1 - weight) * q
    return torch.stack(
        [(-scale * relative_entropy(histogram.expand_as(mixture), mixture).sum(1)).exp() for histogram in (q, p)], dim=1
    )


def area(curve: Tensor) -> Tensor:
    """Area under the frontier, extended to (0, 1) and (1, 0): the limits for distributions that share less and less."""
    corner = torch.eye(2, dtype=curve.dtype)
    points = torch.cat([corner[1:], curve, corner[:1]])
    return torch.trapezoid(points[:, 1], points[:, 0])
