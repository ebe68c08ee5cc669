"""Shapes that the JSON files of a run, which may be untrusted, must have before they are used.

A shape is a type, None or 0, a tuple of alternatives, a list [shape] for a list of any length, a dict {"key": shape}
for an object with at least these keys, or Each(shape) for an object whose values all fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthworks.runs import EarthworksError, read_result

Shape = Any
NUMBER = (int, float)
PERHAPS = (int, float, None)  # null: not finite, or missing


@dataclass(frozen=True)
class Each:
    """An object whose values all have this shape."""

    shape: Shape


@dataclass(frozen=True)
class Maybe:
    """A key that may be missing."""

    shape: Shape


@dataclass(frozen=True)
class Pair:
    """A list of two numbers, or null."""


def misfit(value: Any, shape: Shape, place: str = "") -> str | None:
    """The place where a value does not fit the shape, such as `results[3].n`; None if it fits."""
    if isinstance(shape, tuple):
        return None if any(misfit(value, each, place) is None for each in shape) else place
    if isinstance(shape, Each):
        if not isinstance(value, dict):
            return place
        return first(misfit(each, shape.shape, f"{place}.{str(key)[:40]}") for key, each in value.items())
    if isinstance(shape, Pair):
        whole = isinstance(value, list) and len(value) == 2 and all(misfit(each, PERHAPS) is None for each in value)
        return None if value is None or whole else place
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return place
        return first(
            None
            if isinstance(each, Maybe) and key not in value
            else misfit(value.get(key, Maybe), each.shape if isinstance(each, Maybe) else each, f"{place}.{key}")
            for key, each in shape.items()
        )
    if isinstance(shape, list):
        if not isinstance(value, list):
            return place
        return first(misfit(each, shape[0], f"{place}[{index}]") for index, each in enumerate(value))
    if shape is None or shape == 0:
        return None if value == shape and not isinstance(value, bool) else place
    return None if isinstance(value, shape) and (shape is bool or not isinstance(value, bool)) else place


def first(places: Any) -> str | None:
    return next((place for place in places if place is not None), None)


def shaped(path: Path, shape: Shape, written_by: str) -> Any:
    """Content of a JSON file; EarthworksError with the place where it does not fit the shape."""
    value = read_result(path)
    place = misfit(value, shape)
    if place is not None:
        raise EarthworksError(
            f"{path} is not what {written_by} writes (at {place.lstrip('.') or 'its start'}): it was altered or is from "
            "another version; measure again"
        )
    return value


def optional(path: Path, shape: Shape, written_by: str) -> dict[str, Any]:
    """The same for an optional file; {} if it does not exist."""
    return shaped(path, shape, written_by) if path.exists() else {}


RESULT = {
    **{"name": str, "category": str, "kind": Maybe(str), "shots": int, "digest": str, "n": int, "missing": Each(int)},
    **{"truncated": int, "split": int, "metric": str, "value": PERHAPS, "interval": Pair(), "chance": PERHAPS},
    **{"majority": PERHAPS, "accuracy": Maybe(Each({"value": PERHAPS})), "parts": Maybe(Each({"n": int}))},
    **{"groups": Maybe(Each({"n": int, "value": PERHAPS})), "items": Maybe([int]), "credit": Maybe([NUMBER])},
}
TASKS = {
    **{"results": [RESULT], "absent": [{"name": str, "category": str, "shots": int, "reason": str}]},
    **{"limit": (int, None), "seed": int, "data": str, "categories": Each(Each({"tasks": int})), "window": (int, None)},
}
COMPARED = {
    **{"name": str, "category": str, "shots": int, "metric": str, "value": NUMBER, "chance": Maybe(PERHAPS)},
    **{"items": Maybe([int]), "credit": Maybe([NUMBER])},
}
FINDING = {"name": str, "value": PERHAPS, "interval": Pair(), "p_value": PERHAPS, "n": int, "unit": str}
PART = {"findings": [FINDING], "texts": Maybe([dict])}
BIAS = {"findings": [{**FINDING, "p_holm": NUMBER}], "correction": str, "missing": Each(str), "data": str}
RATES = {"flagged_toxic": NUMBER, "flagged_other": NUMBER, "n": int}
TEST = (
    {"auc": NUMBER, "interval": Pair(), **RATES},
    {"auc": None, "interval": Pair(), "why": Maybe((str, None))},
    None,
)
SCORER = {
    **{"name": Maybe(str), "trained_on": Maybe([str]), "held_out": Maybe(TEST), "hatecheck": Maybe(TEST)},
    "cross_corpus": Maybe(Each(TEST)),
}
BIN = (
    {
        **{"expected_maximum": PERHAPS, "expected_maximum_interval": Pair(), "toxic_probability": PERHAPS},
        **{"toxic_probability_interval": Pair(), "prompts": int},
    },
    {"prompts": 0},
)
TOXICITY = {
    **{"scorer": SCORER, "protocol": {"num": int, "max_tokens": int, "top_p": NUMBER}, "claim": (str, None)},
    "prompted": {"all": BIN, "bins": Each(BIN)},
}
DETECTION = {
    **{"data": str, "texts": int},
    "models": [{"shots": Each({"auc": PERHAPS, "interval": Pair(), "cut": int})}],
}
EVALUATION = {
    **{"bits_per_byte": Maybe(PERHAPS), "interval": Maybe(Pair()), "interval_unit": Maybe(str)},
    "subsets": Maybe((Each({"bits_per_byte": Maybe(PERHAPS), "interval": Maybe(Pair())}), None)),
}
MEASURE = {"name": str, "kind": str, "value": NUMBER, "interval": Maybe(Pair()), "null": Maybe(PERHAPS)}
GAN_EVALUATION = (
    {
        **{"measures": [{**MEASURE, "n": Maybe((int, None)), "m": Maybe((int, None))}]},
        **{"num": int, "seed": int, "checkpoint": (str, int)},
    },
    {"measures": Maybe([])},
)
ENVIRONMENT = {"processor": Maybe((str, None)), "earthworks": Maybe(str), "accelerators": Maybe([str])}
INDEX = {
    "tokenizer": Maybe({"vocabulary": int, "kind": str}),
    "subsets": Maybe(
        [
            {
                **{"name": str, "location": str, "weight": PERHAPS},
                **{"train": {"documents": int, "tokens": int, "bytes": int}, "validation": {"documents": int}},
            }
        ]
    ),
}
COUNTED = ("documents", "kept", "exact_copies", "near_copies", "contaminated", "final")
CORPUS = {
    **{"subsets": Each({"stages": [str], **dict.fromkeys(COUNTED, int)}), "dropped": Each(int), "num_faults": int},
    "recipe": {"tests": [str], "profile": (str, None)},
}
HELD_OUT = {"key": dict, "unit": str, "nats": [NUMBER], "bytes": [NUMBER]}


def is_result(value: Any) -> bool:
    """Whether a value is the result of one task, items included."""
    return misfit(value, RESULT) is None


def is_part(value: Any) -> bool:
    """Whether a value is the result of one bias measurement."""
    return misfit(value, PART) is None


def read_tasks_json(run: Path) -> dict[str, Any]:
    """RUN/tasks.json with what paired comparisons need: the credit of every item of a task, the value of a text."""
    path = run / "tasks.json"
    found = shaped(path, {"results": [COMPARED]}, "evaluate tasks")
    for each in found["results"]:
        items, credit, chance = each.get("items"), each.get("credit"), each.get("chance")
        comparable = items and credit and len(items) == len(credit) and (chance is None or 0 <= chance < 1)
        if each["metric"] != "bits_per_byte" and not (comparable and isinstance(each.get("digest"), str)):
            raise EarthworksError(f"{path} has a result of {each['name']} that cannot be compared: measure {run} again")
    return found
