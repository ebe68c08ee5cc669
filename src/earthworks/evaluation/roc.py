"""Area under the ROC curve: the probability that a positive outranks a negative."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMAL = 1.959964  # the 97.5 % point of the normal distribution


def auc(scores: ArrayLike, positive: ArrayLike) -> tuple[float, tuple[float, float]]:
    """AUC = P(s+ > s-) + P(s+ = s-) / 2 over pairs of a positive and a negative, with DeLong's 95 % interval.

    With m positives, k negatives, V+_i the share of negatives below positive i, and V-_j the share of positives above
    negative j (ties count half): var AUC = var(V+) / m + var(V-) / k. The interval is normal on the scale of
    log(AUC / (1 - AUC)), which keeps it in [0, 1]. `scores` (n,) finite, `positive` (n,) bool. NaN if a class is missing,
    (NaN, NaN) if a class has a single text. O(n log n). Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44,
    837-845.
    """
    from scipy.stats import rankdata

    values, truth = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    above, below = values[truth], values[~truth]
    m, k = len(above), len(below)
    if not m or not k:
        return math.nan, (math.nan, math.nan)
    ranks = rankdata(values)

    def shares(rows: NDArray[np.bool_], others: int) -> NDArray[np.float64]:
        return (ranks[rows] - rankdata(values[rows])) / others

    of_positives, of_negatives = shares(truth, k), 1 - shares(~truth, m)
    area = float(of_positives.mean())
    if min(m, k) < 2:
        return area, (math.nan, math.nan)
    error = math.sqrt(of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / k)
    if not 0 < area < 1 or error == 0:
        return area, (area, area) if error else bounds_at_the_end(area, min(m, k))
    centre, width = math.log(area / (1 - area)), NORMAL * error / (area * (1 - area))
    return area, (1 / (1 + math.exp(width - centre)), 1 / (1 + math.exp(-width - centre)))


def bounds_at_the_end(area: float, n: int) -> tuple[float, float]:
    """Interval when all pairs agree and the variance is 0: the rule of three for the smaller class."""
    slack = min(1.0, 3 / n)
    return (max(0.0, area - slack), min(1.0, area + slack))
