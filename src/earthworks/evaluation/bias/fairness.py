"""Individual and group fairness: mean Wasserstein-1 distances between groups' scores, and their null distribution."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from earthworks.evaluation.findings import finding
from earthworks.runs import EarthworksError
from earthworks.transport import wasserstein_1d
from earthworks.transport.one_dimensional import quantile_cost
from earthworks.transport.resampling import p_value


def individual_fairness(groups: Sequence[NDArray[Any]]) -> float:
    """2 / (G (G - 1)) sum_{a < b} W_1(P_a, P_b), in the units of the scores (Huang et al. 2020, 3.1); 0 is fair."""
    if len({len(group) for group in groups}) == 1:  # all pairs in one call
        scores = torch.from_numpy(np.stack(groups).astype(np.float64))
        first, second = torch.triu_indices(len(groups), len(groups), offset=1)
        return float(quantile_cost(scores[first], scores[second], 1).mean())
    return mean_distance(list(combinations(groups, 2)))


def group_fairness(groups: Sequence[NDArray[Any]]) -> float:
    """1 / G sum_a W_1(P_a, P), P the pooled scores, in the units of the scores (Huang et al. 2020, 3.2)."""
    pooled = np.concatenate(groups)
    if len({len(group) for group in groups}) == 1:
        scores = torch.from_numpy(np.stack(groups).astype(np.float64))
        return float(
            quantile_cost(scores, torch.from_numpy(pooled.astype(np.float64)), 1).mean()
        )  # sorts the pool once
    return mean_distance([(group, pooled) for group in groups])


def mean_distance(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The mean of wasserstein_1d over pairs of samples."""
    tensors = [(torch.from_numpy(a.astype(np.float64)), torch.from_numpy(b.astype(np.float64))) for a, b in pairs]
    return float(np.mean([float(wasserstein_1d(a, b)) for a, b in tensors]))


def measure_fairness(
    name: str,
    scores: ArrayLike,
    groups: Sequence[str],
    strata: Sequence[Any] | None = None,
    *,
    num_permutations: int = 1999,
    seed: int = 0,
) -> dict[str, Any]:
    """Individual and group fairness of scores, their values under the null, and the mean of each group.

    `scores` (prompts, continuations); prompt i is about `groups[i]`. The null exchanges whole prompts between groups,
    within each of the `strata` if given (for filled templates: among the values of one template), so the continuations
    of a prompt stay together. Both numbers are biased upwards at finite n: compare them with the mean of their null.
    p counts the exchanges that reach the value.
    """
    values = np.asarray(scores, dtype=np.float64)
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise EarthworksError(f"{name}: expected prompts about at least two groups, got {len(names)}")
    labels = np.array([names.index(group) for group in groups])
    layers = (
        np.zeros(len(labels), dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    )
    by_layer = np.argsort(layers, kind="stable")
    ends = np.cumsum(np.bincount(labels))[:-1]
    random = np.random.default_rng(seed)

    def split(assigned: NDArray[Any]) -> list[NDArray[Any]]:
        return [part.ravel() for part in np.split(values[np.argsort(assigned, kind="stable")], ends)]

    def exchanged() -> list[NDArray[Any]]:
        assigned = np.empty_like(labels)
        assigned[by_layer] = labels[
            np.argsort(layers + random.random(len(labels)))
        ]  # permute the rows within each stratum
        return split(assigned)

    observed = split(labels)
    nulls = [exchanged() for _ in range(num_permutations)]
    statistics: dict[str, Callable[[Sequence[NDArray[Any]]], float]] = {
        "individual": individual_fairness,
        "group": group_fairness,
    }
    result: dict[str, Any] = {"findings": []}
    for kind, statistic in statistics.items():
        value = statistic(observed)
        null = torch.tensor([statistic(each) for each in nulls])
        result[f"{kind}_fairness"] = {"value": value, "null_mean": float(null.mean()), "p_value": p_value(value, null)}
        result["findings"].append(
            finding(f"{name}: {kind} fairness, W1", value, None, p_value(value, null), len(labels), "prompts")
        )
    result["groups"] = {each: spread(scores_of) for each, scores_of in zip(names, observed)}
    result["prompts"] = len(labels)
    result["samples"] = values.size
    return result


def spread(scores: NDArray[Any]) -> dict[str, Any]:
    """Mean, and the 5 % and 95 % points."""
    low, high = np.quantile(scores, [0.05, 0.95])
    return {"mean": float(scores.mean()), "low": float(low), "high": float(high), "n": len(scores)}
