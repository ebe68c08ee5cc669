"""Benefit of scale: the largest of a family against the best much smaller model, and the gain from examples by size.

The paper compares its 280B with the best of its models up to 7.1B, task by task (Rae et al. 2021, section 4). Here the
differences are of (accuracy - chance) / (1 - chance), with intervals over the items, which are the same for all models.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.scaling.laws import interval
from earthworks.evaluation.shapes import read_tasks_json
from earthworks.runs import EarthworksError

Array = NDArray[np.float64]
BLOCK = 1 << 18  # item draws at once, to bound memory
MOST = ("reading comprehension", "fact checking")  # gain most and least from scale, by the paper's abstract
LEAST = ("logic and maths", "common sense")


def measure_benefit(
    runs: Sequence[dict[str, Any]], *, much_smaller: float, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Results from each run's tasks.json: {"held_out", "tasks", "texts", "categories", "few_shot", "claim"}, or "reason".

    Runs without tasks.json are left out if another of their size has one; runs of one size are averaged, by item. Each
    task has the accuracy of every size, `points` and `percent` of the largest over the best much smaller model, and `gain`,
    the difference of corrected accuracies, with a 95 % interval that resamples items and reselects the best smaller model
    each time. A category is the mean over its tasks. Texts are compared by the percentage of bits per byte saved, for the
    held-out text with an interval over its documents.
    """
    sizes = sorted({each["parameters"] for each in runs})
    small = [size for size in sizes if size * much_smaller <= sizes[-1]]
    if not small:
        return {"reason": f"no size is at most 1/{much_smaller:g} of the largest: lower --much_smaller"}
    common = {
        "sizes": sizes,
        "names": {str(each["parameters"]): each["size"] for each in runs},
        "small": small,
        "held_out": saved_on_held_out(runs, sizes, small, num_resamples, seed),
    }
    measured = [each for each in runs if (Path(each["run"]) / "tasks.json").exists()]
    missing = [each["run"] for each in runs if each["parameters"] not in {one["parameters"] for one in measured}]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason = f"{missing[0]}{more} has no tasks.json: give --data, the folder with the tasks' files"
        return {**common, "reason": reason}
    runs = measured
    found = {each["run"]: results_of(Path(each["run"])) for each in runs}
    keys = [key for key in next(iter(found.values())) if all(key in results for results in found.values())]
    if not keys:
        return {**common, "reason": "no task was measured on all of these runs"}
    tasks, texts, draws = [], [], {}
    for key in keys:
        by_size = {size: [found[each["run"]][key] for each in runs if each["parameters"] == size] for size in sizes}
        if by_size[sizes[0]][0]["metric"] == "bits_per_byte":
            texts.append(compare_text(by_size, small))
            continue
        # one seed per task, so that the same items are drawn with and without examples
        random = np.random.default_rng([seed, zlib.crc32(key[0].encode())])
        task, drawn = compare_task(by_size, small, random, num_resamples)
        tasks.append(task)
        draws[key] = drawn
    categories = by_category(tasks, draws)
    return {
        **common,
        "tasks": tasks,
        "texts": texts,
        "categories": {name: part["shown"] for name, part in categories.items()},
        "few_shot": few_shot(tasks, draws, sizes),
        "claim": claim(categories),
    }


def results_of(run: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Results of a run by task and number of examples."""
    return {(each["name"], each["shots"]): each for each in read_tasks_json(run)["results"]}


def saved_on_held_out(
    runs: Sequence[dict[str, Any]], sizes: list[int], small: list[int], num_resamples: int, seed: int
) -> dict[str, Any]:
    """Percentage of bits per byte that the largest saves on the family's held-out text; the interval resamples documents."""
    num_bytes = np.array(runs[0]["bytes"], float)
    nats = np.array([np.mean([each["nats"] for each in runs if each["parameters"] == size], axis=0) for size in sizes])
    smaller = [sizes.index(size) for size in small]

    def percent(bits: Array) -> Array:
        best = bits[..., smaller].min(axis=-1)
        return 100 * (best - bits[..., -1]) / best

    units = len(num_bytes)
    random = np.random.default_rng(seed)
    drawn = [np.bincount(random.integers(units, size=units), minlength=units) for _ in range(num_resamples)]
    redrawn = np.array([(nats @ each) / (num_bytes @ each) for each in drawn])
    return {
        "percent": float(percent(nats.sum(axis=1))),
        "interval": interval(percent(redrawn)) if units > 1 else None,
        "by_size": (nats.sum(axis=1) / num_bytes.sum() / np.log(2)).tolist(),
    }


def compare_text(by_size: dict[int, list[dict[str, Any]]], small: list[int]) -> dict[str, Any]:
    """Bits per byte of each size, and the percentage that the largest saves."""
    values = {size: float(np.mean([each["value"] for each in parts])) for size, parts in by_size.items()}
    best = min(values[size] for size in small)
    first = next(iter(by_size.values()))[0]
    saved = 100 * (best - values[max(values)]) / best
    return {"name": first["name"], "category": first["category"], "by_size": list(values.values()), "percent": saved}


def compare_task(
    by_size: dict[int, list[dict[str, Any]]], small: list[int], random: np.random.Generator, num_resamples: int
) -> tuple[dict[str, Any], Array]:
    """Comparison on one task, and the corrected accuracies by resample and size (R, sizes)."""
    parts = [each for several in by_size.values() for each in several]
    first = parts[0]
    if len({(each["digest"], each["metric"]) for each in parts}) > 1:
        raise EarthworksError(
            f"task {first['name']} was measured with different settings across runs; re-run them with the same settings"
        )
    credit = [dict(zip(each["items"], each["credit"])) for each in parts]
    items = sorted(set(credit[0]).intersection(*credit[1:]))
    if not items:
        raise EarthworksError(
            f"task {first['name']} was measured on different items across runs; re-run them with the same --limit"
        )
    rows = iter(credit)
    table = np.array([np.mean([[row[item] for item in items] for row in take(rows, len(several))], axis=0)
                      for several in by_size.values()])  # fmt: skip
    chance = first["chance"] or 0.0
    values, sizes = table.mean(axis=1), list(by_size)
    drawn = (resample_means(table, random, num_resamples) - chance) / (1 - chance)
    corrected = (values - chance) / (1 - chance)
    smaller = [sizes.index(size) for size in small]
    best = max(smaller, key=lambda index: values[index])
    return {
        **{name: first[name] for name in ("name", "category", "shots", "metric")},
        "n": len(items),
        "chance": first["chance"],
        "by_size": values.tolist(),
        "corrected": corrected.tolist(),
        "best_of_small": sizes[best],
        "points": 100 * float(values[-1] - values[best]),
        "percent": 100 * float(values[-1] / values[best] - 1) if values[best] else None,
        "gain": float(corrected[-1] - corrected[best]),
        "gain_interval": interval(drawn[:, -1] - drawn[:, smaller].max(axis=1)),
        "above_chance_interval": interval(drawn[:, -1]),
        "small": smaller,
    }, drawn


def take(rows: Any, count: int) -> list[Any]:
    return [next(rows) for _ in range(count)]


def resample_means(table: Array, random: np.random.Generator, num_resamples: int) -> Array:
    """(R, rows): mean of each row over columns drawn with replacement, the same columns for all rows."""
    n = table.shape[1]
    means = np.empty((num_resamples, len(table)))
    rows = max(1, BLOCK // n)
    for start in range(0, num_resamples, rows):
        drawn = random.integers(n, size=(min(rows, num_resamples - start), n))
        means[start : start + rows] = np.stack([row[drawn].mean(axis=1) for row in table], axis=1)
    return means


def by_category(tasks: list[dict[str, Any]], draws: dict[tuple[str, int], Array]) -> dict[str, Any]:
    """Means over the tasks of each category, each task with the smallest number of examples it was measured with."""
    found: dict[str, Any] = {}
    for category in dict.fromkeys(each["category"] for each in tasks):
        own = [each for each in tasks if each["category"] == category]
        least = [each for each in own if each["shots"] == min(o["shots"] for o in own if o["name"] == each["name"])]
        redrawn = [draws[each["name"], each["shots"]] for each in least]
        gains = np.mean(
            [part[:, -1] - part[:, each["small"]].max(axis=1) for part, each in zip(redrawn, least)], axis=0
        )
        above = np.mean([part[:, -1] for part in redrawn], axis=0)
        percents = [each["percent"] for each in least if each["percent"] is not None]
        shown = {
            "tasks": len(least),
            "n": sum(each["n"] for each in least),
            "corrected": np.mean([each["corrected"] for each in least], axis=0).tolist(),
            "above_chance_interval": interval(above),
            "points": float(np.mean([each["points"] for each in least])),
            "percent": float(np.mean(percents)) if percents else None,
            "gain": float(np.mean([each["gain"] for each in least])),
            "gain_interval": interval(gains),
        }
        found[category] = {"shown": {**shown, "verdict": verdict(shown)}, "gains": gains}
    return found


def verdict(category: dict[str, Any]) -> str:
    low, high = category["gain_interval"]
    if category["above_chance_interval"][0] <= 0:
        return "the largest is not above chance"
    return "scale helps" if low > 0 else "scale harms" if high < 0 else "no difference seen"


def few_shot(
    tasks: list[dict[str, Any]], draws: dict[tuple[str, int], Array], sizes: list[int]
) -> dict[str, dict[str, Any]]:
    """Gain in corrected accuracy from k examples: mean over the tasks measured with and without, by k and size.

    Both sides draw the same items, unless some are missing on one.
    """
    measured = {(each["name"], each["shots"]): each for each in tasks}
    found: dict[str, dict[str, Any]] = {}
    for shots in sorted({each["shots"] for each in tasks if each["shots"]}):
        names = [name for name, number in measured if number == shots and (name, 0) in measured]
        if not names:
            continue
        with_, without = (np.array([measured[name, number]["corrected"] for name in names]) for number in (shots, 0))
        redrawn = np.mean([draws[name, shots] - draws[name, 0] for name in names], axis=0)
        found[str(shots)] = {
            "tasks": names,
            "gain": (with_ - without).mean(axis=0).tolist(),
            "interval": [interval(redrawn[:, column]) for column in range(len(sizes))],
        }
    return found


def claim(categories: dict[str, Any]) -> dict[str, Any]:
    """The paper's ranking: reading comprehension and fact checking gain more than logic, maths and common sense.

    `difference` of the mean gains with its interval, and a sentence on the conclusion at this scale.
    """
    sides = [[categories[name] for name in side if name in categories] for side in (MOST, LEAST)]
    if not all(sides):
        absent = [name for name in (*MOST, *LEAST) if name not in categories]
        return {"sentence": f"The paper's ranking of categories cannot be tested: {', '.join(absent)} not measured."}
    gains = [np.mean([part["gains"] for part in side], axis=0) for side in sides]
    values = [float(np.mean([part["shown"]["gain"] for part in side])) for side in sides]
    spread = interval(gains[0] - gains[1])
    assert spread is not None
    at_chance = [
        name for name in (*MOST, *LEAST)
        if name in categories and categories[name]["shown"]["above_chance_interval"][0] <= 0
    ]  # fmt: skip
    seen = [name for name, part in categories.items() if part["shown"]["verdict"] == "scale helps"]
    helped = f"Scale helps in {', '.join(seen)}. " if seen else "No category is seen to gain from scale. "
    numbers = f"{values[0] - values[1]:+.3f} [{spread[0]:+.3f}, {spread[1]:+.3f}]"
    ranking = (
        f"The paper's ranking (reading comprehension and fact checking before logic, maths, common sense): {numbers}"
    )
    if all(name in at_chance for name in MOST if name in categories):
        state = "undecided at this scale"
        sentence = f"{helped}{ranking}; undecided at this scale, because in {', '.join(at_chance)} the largest model "
        sentence += "is not above chance."
    else:
        state = "supported" if spread[0] > 0 else "contradicted" if spread[1] < 0 else "undecided at this scale"
        sentence = f"{helped}{ranking}; {state}."
    return {"difference": values[0] - values[1], "interval": spread, "state": state, "sentence": sentence}
