"""Measure one task: score its items and aggregate the results with their sample size."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus import read
from earthworks.evaluation.findings import ends
from earthworks.evaluation.likelihood.protocol import AnyScorer
from earthworks.evaluation.likelihood.scorer import Likelihood
from earthworks.evaluation.tasks.answers import matches, normalized
from earthworks.evaluation.tasks.items import Item, make_items, parts_of
from earthworks.evaluation.tasks.metrics import chance, commonest, credits_of, majority, means
from earthworks.evaluation.tasks.task_file import Task, located
from earthworks.runs import EarthworksError, Progress
from earthworks.statistics import bootstrap_ratio, wilson_interval

FEW_DOCUMENTS = 20  # with fewer, the interval of a text is over windows
BYTES_OF_LIMIT = 1000  # of text count as one item of --limit
NOT_FINITE = "a likelihood that is not a finite number"


def measure(
    scorer: AnyScorer, task: Task, data: Path, *, shots: int = 0, limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Result of a model on a task: n, missing items by reason, value with interval, and baselines.

    Raises EarthworksError if there is nothing to measure.
    """
    if task.kind == "text":
        result = measure_text(scorer, task, data, limit, seed)
    else:
        items = make_items(task, data, shots=shots, limit=limit, seed=seed)
        measured = {
            "choice": measure_choice,
            "contexts": measure_choice,
            "completion": measure_completion,
            "answer": measure_answer,
        }[task.kind]
        result = measured(scorer, task, items, shots)
    head = {"name": task.name, "category": task.category, "kind": task.kind, "file": task.file, "shots": shots}
    return {**head, "digest": task.digest, **result}


def measure_choice(scorer: AnyScorer, task: Task, items: list[Item], shots: int) -> dict[str, Any]:
    asked = [item for item in items if item.fault is None]
    pairs = [pair for item in asked for pair in zip(item.contexts, item.continuations)]
    # log P(option) is needed only if a context could change it
    alone = [("", text) for item in asked for text in item.continuations] if after_something(asked) else []
    with Progress(f"{task.name} {shots}-shot", unit="sequences") as progress:
        likelihoods = iter(scorer.score([*pairs, *alone], progress))
    conditional = [[next(likelihoods) for _ in item.options] for item in asked]
    unconditional = [[next(likelihoods) for _ in item.options] for item in asked] if alone else None
    kept, credits = [], []
    missing = Counter([item.fault for item in items if item.fault])
    for number, item in enumerate(asked):
        before = unconditional[number] if unconditional else None
        fault = fault_of([*conditional[number], *(before or [])])
        if fault:
            missing[fault] += 1
            continue
        kept.append(item)
        nats = [each.log_likelihood for each in conditional[number]]
        credits.append(credits_of(item, nats, [each.log_likelihood for each in before] if before else None))
    check(task, kept, missing)
    values = {rule: np.array([each[rule] for each in credits]) for rule in credits[0]}
    accuracy = {rule: with_interval(each) for rule, each in values.items()}
    metric = task.metric if task.metric in values else "raw"
    return {
        **counts(kept, missing, chain.from_iterable(conditional), [len(each) for each in conditional]),
        "metric": metric,
        **accuracy[metric],
        "chance": chance(kept),
        "majority": majority(kept),
        "accuracy": accuracy,
        **by_group(task, kept, values[metric]),
        **per_item(kept, values[metric]),
    }


def measure_completion(scorer: AnyScorer, task: Task, items: list[Item], shots: int) -> dict[str, Any]:
    asked = [item for item in items if item.fault is None]
    with Progress(f"{task.name} {shots}-shot", unit="sequences") as progress:
        found = scorer.score([(item.contexts[0], item.continuations[0]) for item in asked], progress)
    missing = Counter([item.fault for item in items if item.fault])
    faults = [fault_of([each]) for each in found]
    missing.update([fault for fault in faults if fault])
    kept = [item for item, fault in zip(asked, faults) if not fault]
    check(task, kept, missing)
    likelihoods = [each for each, fault in zip(found, faults) if not fault]
    values = np.array([float(each.greedy) for each in likelihoods])
    nats = -math.fsum(each.log_likelihood for each in likelihoods)
    return {
        **counts(kept, missing, found, [1] * len(found)),
        "metric": "greedy",
        **with_interval(values),
        "chance": None,
        "majority": commonest([item.answers[0] for item in kept]),
        "perplexity": math.exp(min(700.0, nats / len(kept))),  # per whole continuation, as is customary for LAMBADA
        "nats_per_token": nats / sum(each.tokens for each in likelihoods),
        **by_group(task, kept, values),
        **per_item(kept, values),
    }


def measure_answer(scorer: AnyScorer, task: Task, items: list[Item], shots: int) -> dict[str, Any]:
    asked = [item for item in items if item.fault is None]
    missing = Counter([item.fault for item in items if item.fault])
    check(task, asked, missing)
    with Progress(f"{task.name} {shots}-shot", total=len(asked), unit="answers") as progress:
        written = scorer.write([item.contexts[0] for item in asked], task.max_tokens, progress)
    values = np.array([float(matches(text, item.answers, task.extract)) for (text, _), item in zip(written, asked)])
    return {
        "n": len(asked),
        "missing": dict(missing),
        "truncated": sum(1 for _, truncated in written if truncated),
        "split": 0,
        "metric": "exact_match",
        **with_interval(values),
        "chance": None,
        "majority": commonest([normalized(item.answers[0]) for item in asked]),
        **by_group(task, asked, values),
        **per_item(asked, values),
    }


def measure_text(scorer: AnyScorer, task: Task, data: Path, limit: int | None, seed: int) -> dict[str, Any]:
    """Bits per byte = -log P(documents) / (ln 2 x UTF-8 bytes), with a bootstrap interval over documents or windows."""
    texts = texts_of(task, data, limit)
    with Progress(task.name, unit="windows") as progress:
        documents = scorer.roll(texts, progress)
    sizes = [len(text.encode()) for text in texts]
    nats = [-math.fsum(part.log_likelihood for part in parts) for parts in documents]
    if not all(math.isfinite(each) for each in nats):
        raise EarthworksError(
            f"the model's likelihood of {task.file} is NaN, so its training diverged: task {task.name} is missing",
            1,
        )
    unit = "document" if len(texts) >= FEW_DOCUMENTS else "window"
    if unit == "document":
        units = nats, sizes
    else:
        units = (
            [-part.log_likelihood for parts in documents for part in parts],
            [
                size * part.tokens / sum(each.tokens for each in parts)
                for parts, size in zip(documents, sizes)
                for part in parts
            ],
        )
    low, high = bootstrap_ratio(*units, seed=seed)
    total, tokens = math.fsum(nats), sum(part.tokens for parts in documents for part in parts)
    return {
        "n": len(texts),
        "missing": {},
        "truncated": 0,
        "split": 0,
        "metric": "bits_per_byte",
        "value": total / sum(sizes) / math.log(2),
        "interval": ends((low / math.log(2), high / math.log(2))),
        "interval_unit": unit,
        "chance": None,
        "majority": None,
        "nats_per_token": total / tokens,
        "tokens": tokens,
        "bytes": sum(sizes),
    }


def texts_of(task: Task, data: Path, limit: int | None) -> list[str]:
    """The documents of a task, cut to its last bytes if it names a number, or to the first ones that the limit allows."""
    texts = [document.text for document in read(str(located(task.file, data)))]
    if not texts:
        raise EarthworksError(f"{data / task.file} has no text: task {task.name} is missing")
    if task.last_bytes:
        texts = ["\n".join(texts).encode()[-task.last_bytes :].decode(errors="ignore")]
    return texts if limit is None else shortened(texts, limit * BYTES_OF_LIMIT)


def shortened(texts: list[str], most: int) -> list[str]:
    """The first `most` bytes of the texts, cut at a character boundary."""
    kept = []
    for text in texts:
        part = text.encode()[:most].decode(errors="ignore")
        if part:
            kept.append(part)
        most -= len(part.encode())
        if most <= 0:
            break
    return kept


def after_something(items: list[Item]) -> bool:
    """Whether each item has a single context and some of these are not empty."""
    return any(item.contexts[0] for item in items) and all(len(set(item.contexts)) == 1 for item in items)


def fault_of(likelihoods: Sequence[Likelihood]) -> str | None:
    """Why these likelihoods cannot be compared."""
    if any(not each.tokens for each in likelihoods):
        return "the tokenizer leaves the answer no token of its own"
    if not all(math.isfinite(each.log_likelihood) for each in likelihoods):
        return NOT_FINITE
    return None


def check(task: Task, kept: list[Item], missing: Counter[str]) -> None:
    if kept:
        return
    reason = f"every item is missing: {missing.most_common(1)[0][0]}" if missing else "there are no items"
    diverged = bool(missing) and set(missing) == {NOT_FINITE}
    said = f"{reason}: the model's training diverged" if diverged else reason
    raise EarthworksError(f"task {task.name} could not be measured: {said}", 1 if diverged else 2)


def with_interval(values: np.ndarray) -> dict[str, Any]:
    return {"value": float(values.mean()), "interval": list(wilson_interval(float(values.sum()), len(values)))}


def counts(kept: list[Item], missing: Counter[str], likelihoods: Any, widths: list[int]) -> dict[str, Any]:
    """n, missing items by reason, and the numbers of items with cut context or a boundary inside a token."""
    each = iter(likelihoods)
    items = [[next(each) for _ in range(width)] for width in widths]
    return {
        "n": len(kept),
        "missing": dict(missing),
        "truncated": sum(any(one.truncated for one in item) for item in items),
        "split": sum(any(one.split for one in item) for item in items),
    }


def by_group(task: Task, items: list[Item], values: np.ndarray) -> dict[str, Any]:
    """Results by group and by larger group; a group without items has n = 0."""
    if not task.group:
        return {}
    groups = [item.group or "" for item in items]
    found: dict[str, Any] = {"parts": means(values, groups)}
    if task.groups:
        above = parts_of(groups, dict(task.groups))
        empty = {name: {"n": 0, "value": None} for name in task.groups}
        found["groups"] = {**empty, **means(values, [above[group] for group in groups])}
    return found


def per_item(items: list[Item], values: np.ndarray) -> dict[str, Any]:
    """Row and credit of each item, for paired comparisons of models."""
    return {"items": [item.index for item in items], "credit": values.tolist()}
