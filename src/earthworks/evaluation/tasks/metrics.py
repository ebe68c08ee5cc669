"""Accuracies from likelihoods: the winning option by each rule, and baselines without any knowledge.

raw            log P(option | context)
per_character  raw divided by the option's characters
per_byte       raw divided by its UTF-8 bytes
unconditional  log P(option | context) - log P(option), the latter after an empty context
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.tasks.items import Item

TIE = 1e-9  # relative difference up to which scores count as equal: rounding of the last digits


def credit(scores: Sequence[float], gold: int) -> float:
    """1 if `gold` has the highest score, 1/t if it ties with t - 1 others, else 0.

    Sharing makes the score independent of the order of the options, and gives a model that ties all of them chance.
    """
    values = np.asarray(scores, float)
    best = values.max()
    tied = values >= best - TIE * max(1.0, abs(best)) if np.isfinite(best) else values == best
    return float(tied[gold] / tied.sum())


def credits_of(item: Item, conditional: Sequence[float], unconditional: Sequence[float] | None) -> dict[str, float]:
    """Credit of one item by each rule. If all options share the continuation, only `raw` is meaningful."""
    scores = np.asarray(conditional, float)
    found = {"raw": credit(scores.tolist(), item.gold)}
    if len(set(item.contexts)) > 1:
        return found
    characters = np.array([len(option) for option in item.options])
    num_bytes = np.array([len(option.encode()) for option in item.options])
    found["per_character"] = credit((scores / characters).tolist(), item.gold)
    found["per_byte"] = credit((scores / num_bytes).tolist(), item.gold)
    if unconditional is not None:
        found["unconditional"] = credit((scores - np.asarray(unconditional)).tolist(), item.gold)
    return found


def chance(items: Sequence[Item]) -> float:
    """Expected accuracy of a uniform choice: the mean of 1 / options."""
    return float(np.mean([1 / len(item.options) for item in items]))


def majority(items: Sequence[Item]) -> float | None:
    """Share of the most frequent right index; None if it is always the same, by construction of the file."""
    counts = np.bincount([item.gold for item in items])
    return float(counts.max() / len(items)) if (counts > 0).sum() > 1 else None


def commonest(answers: Sequence[str]) -> float:
    """Share of the most frequent right answer: the accuracy of always giving the same one."""
    return float(np.unique(list(answers), return_counts=True)[1].max() / len(answers))


def means(values: NDArray[np.float64], groups: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Size and mean of each group, by name."""
    found: dict[str, list[float]] = {}
    for each, group in zip(values.tolist(), groups):
        found.setdefault(group, []).append(each)
    return {group: {"n": len(part), "value": float(np.mean(part))} for group, part in sorted(found.items())}
