"""Measures from nearest neighbours: fidelity and diversity (precision, recall, density, coverage), and memorisation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.statistics import bootstrap_ratio, wilson_interval
from earthworks.wgan.measures.measure import RESAMPLES, Measure, percentiles
from earthworks.wgan.measures.quality import features

BLOCK = 1 << 22  # distances held at once, 32 MiB
ROUNDING = 1e-13  # of |x|^2 + |y|^2: a smaller squared distance is rounding, and the points are the same
TIE = 1 + 1e-9  # tolerance of squared distances: points on the sphere belong to the ball


def precision_recall_density_coverage(real: Tensor, generated: Tensor, *, k: int = 5) -> dict[str, Measure]:
    """Four shares of the features x_i, real (n, d), and y_j, generated (m, d), with B(x_i) the closed ball around x_i
    up to its k-th nearest neighbour among the other real samples, B(y_j) likewise:

        precision = share of y_j in some B(x_i)              recall   = share of x_i in some B(y_j)
        density   = sum_j #{i: y_j in B(x_i)} / (k m)        coverage = share of B(x_i) that contain some y_j

    For equal continuous distributions density is 1 and coverage 1 - prod_{i=1..k} (n - i) / (m + n - i) on average, in
    any dimension (details["expected"]; 0.969 at k = 5, n = m); precision and recall have no such value: about 0.5 for
    Gaussians in 1,000 dimensions. One outlier's ball inflates precision; density corrects this. Compare at equal n, m,
    k.

    Intervals: over the samples that a share counts, the other sample fixed (Wilson's; bootstrap for density). They ignore
    the variation of the other sample, so the true ones are at least this wide.
    Raises EarthworksError for bad clouds and for samples of at most k points. Float64, O((n + m)^2 d) time, blocks of
    memory. Source: Kynkäänniemi et al. 2019 (k = 3); Naeem et al. 2020, eq. 4 to 6 and lemma 2 (k = 5).
    """
    real, generated = features(real, generated)
    n, m = len(real), len(generated)
    if not 1 <= k < min(n, m):
        raise EarthworksError(f"k is {k}; expected at least 1 and fewer than the {n} real and {m} generated samples")
    radius_real = nearest(real, real, k, same=True)[0][:, -1] ** 2 * TIE
    radius_generated = nearest(generated, generated, k, same=True)[0][:, -1] ** 2 * TIE

    containing = torch.zeros(m, device=real.device)  # number of real balls that contain y_j
    recalled, covered = torch.zeros(n, device=real.device), torch.zeros(n, device=real.device)
    for rows, squared in squared_distances(real, generated):
        inside = squared <= radius_real[rows, None]
        containing += inside.sum(0)
        covered[rows] = inside.any(1).float()
        recalled[rows] = (squared <= radius_generated).any(1).float()

    expected = 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    density = (containing / k).cpu().numpy()

    def share(name: str, hits: Tensor, **details: float) -> Measure:
        interval = wilson_interval(float(hits.sum()), len(hits))
        return Measure(name=name, value=float(hits.mean()), interval=interval, n=n, m=m, details={"k": k, **details})

    return {
        "precision": share("precision", (containing > 0).float()),
        "recall": share("recall", recalled),
        "density": Measure(
            name="density",
            value=float(density.mean()),
            interval=bootstrap_ratio(density, np.ones(m)),
            n=n,
            m=m,
            details={"k": k, "expected": 1.0},
        ),
        "coverage": share("coverage", covered, expected=expected),
    }


@dataclass(frozen=True)
class Memorisation:
    """`ratio` of median distances to the nearest training sample, generated over held out: 1 for a perfect
    generator, near 0 for one that copies. `p_value`: one-sided, that generated samples are as near by chance.
    `distances` and `indices` (m, k) of each generated sample's k nearest training samples, nearest first."""

    ratio: Measure
    p_value: float
    distances: Tensor
    indices: Tensor

    def __str__(self) -> str:
        return (
            f"{self.ratio}, p {self.p_value:.2g} that generated samples are nearer to the training data than fresh ones"
        )


def nearest_training(samples: Tensor, training: Tensor, held_out: Tensor, *, k: int = 1, seed: int = 0) -> Memorisation:
    """Test whether samples (m, d) are nearer to the training data (n, d) than held-out real data of the same
    distribution.

        ratio = median_j min_i |y_j - x_i| / median_h min_i |z_h - x_i|,    x training, y generated, z held out,

    with a bootstrap interval over y and z, and the one-sided Mann-Whitney test that the nearest distances of y are
    smaller: given the training data both are independent draws, with the same distribution for a perfect generator. A
    low ratio can also mean that samples cluster at the centre of the data: inspect the neighbours (`indices`) before
    calling them copies. Raises EarthworksError for bad clouds, different dimensions, k above n. Float64, O((m + held
    out) n d). Source: Mann and Whitney 1947; the comparison follows Meehan et al. 2020 without cells.
    """
    from scipy.stats import mannwhitneyu

    samples, training = features(samples, training)
    held_out, _ = features(held_out, training)
    if not 1 <= k <= len(training):
        raise EarthworksError(f"k is {k}; expected 1 to {len(training)}, the number of training samples")
    distances, indices = nearest(samples, training, k)
    mine, fresh = (z.cpu().numpy() for z in (distances[:, 0], nearest(held_out, training, 1)[0][:, 0]))
    random = np.random.default_rng(seed)

    def ratio(mine: np.ndarray, fresh: np.ndarray) -> float:
        return float(np.median(mine) / np.median(fresh)) if np.median(fresh) > 0 else math.nan

    resampled = [ratio(random.choice(mine, len(mine)), random.choice(fresh, len(fresh))) for _ in range(RESAMPLES)]
    measure = Measure(
        name="memorisation_ratio",
        value=ratio(mine, fresh),
        interval=percentiles(resampled),
        n=len(training),
        m=len(samples),
        details={
            "held_out": len(held_out),
            "median": float(np.median(mine)),
            "median_held_out": float(np.median(fresh)),
        },
    )
    return Memorisation(measure, float(mannwhitneyu(mine, fresh, alternative="less").pvalue), distances, indices)


def nearest(x: Tensor, y: Tensor, k: int, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and indices (n, k) of the k nearest y of each x, nearest first. `same`: y is x, and no point is its own
    neighbour."""
    found = []
    for rows, squared in squared_distances(x, y):
        if same:
            index = torch.arange(len(squared), device=x.device)
            squared[index, index + rows.start] = math.inf
        found.append(squared.topk(k, largest=False))
    return torch.cat([f.values for f in found]).sqrt(), torch.cat([f.indices for f in found])


def squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """|x_i - y_j|^2 by blocks of rows, from |x|^2 + |y|^2 - 2 x . y about the common mean: one matrix product."""
    centre = y.mean(0)
    x, y = x - centre, y - centre
    norms_x, norms_y = x.square().sum(1), y.square().sum(1)
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        scale = norms_x[rows, None] + norms_y
        squared = torch.addmm(scale, x[rows], y.T, alpha=-2)
        yield rows, squared.masked_fill_(squared <= ROUNDING * scale, 0.0)
