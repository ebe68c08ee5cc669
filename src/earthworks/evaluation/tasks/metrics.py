"""From likelihoods to accuracies: which option wins by each rule, and what knowing nothing would give.

raw            log P(option | context)
per_character  the same over the option's characters
per_byte       over its UTF-8 bytes
unconditional  log P(option | context) - log P(option), the second after nothing at all
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.tasks.items import Item

TIE = 1e-9  # options whose scores differ by no more, relatively, have the same score: rounding of the last digits only


def credit(scores: Sequence[float], gold: int) -> float:
    """1 if `gold` has the highest score, 1/t if it shares that with t - 1 others, else 0.

    Sharing makes a score independent of the order of the options, and gives a model that knows nothing its expectation.
    """
    values = np.asarray(scores, float)
    best = values.max()
    tied = values >= best - TIE * max(1.0, abs(best)) if np.isfinite(best) else values == best
    return float(tied[gold] / tied.sum())


def credits_of(item: Item, conditional: Sequence[float], unconditional: Sequence[float] | None) -> dict[str, float]:
    """The credit of one item by each rule. Where the continuation is the same for all, only `raw` says anything."""
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
    """The expectation of a uniform choice: the mean of 1 / options."""
    return float(np.mean([1 / len(item.options) for item in items]))


def majority(items: Sequence[Item]) -> float | None:
    """The share of the most frequent right index; None where it is always the same one, by construction of the file."""
    counts = np.bincount([item.gold for item in items])
    return float(counts.max() / len(items)) if (counts > 0).sum() > 1 else None


def commonest(answers: Sequence[str]) -> float:
    """The share of the most frequent right answer: what always saying the same would give."""
    return float(np.unique(list(answers), return_counts=True)[1].max() / len(answers))


def means(values: NDArray[np.float64], groups: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """n and mean of each group, by name."""
    found: dict[str, list[float]] = {}
    for each, group in zip(values.tolist(), groups):
        found.setdefault(group, []).append(each)
    return {group: {"n": len(part), "value": float(np.mean(part))} for group, part in sorted(found.items())}
