"""A model card as sections of Markdown, and the entries of its `model-index`."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Card:
    """`sections`: headings with Markdown. `missing`: what was not measured, and the command that measures it."""

    metadata: dict[str, Any]
    summary: str
    sections: list[tuple[str, str]]
    missing: list[tuple[str, str]]


def index(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """`model-index` for the metadata; empty if there is no result."""
    return {"model-index": [{"name": name, "results": results}]} if results else {}


def result(
    task: str, dataset: str, metric: str, value: float, name: str, more: dict[str, Any], config: str | None = None
) -> dict[str, Any]:
    """One entry of `model-index`; `more`, such as interval and n, goes under `args` of the metric."""
    return {
        "task": {"type": task},
        "dataset": {"type": dataset, "name": dataset, **({"config": config} if config else {})},
        "metrics": [{"type": metric, "name": name, "value": value, "args": more}],
    }
