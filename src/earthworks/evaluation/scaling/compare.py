"""`compare_family`: scaling-law fit, prediction of the largest model, and the tasks on which scale helped."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.evaluation.scaling.benefit import measure_benefit
from earthworks.evaluation.scaling.held_out import MEASURED_TOKENS, held_out
from earthworks.evaluation.scaling.laws import describe_law, interval, predict, resampled
from earthworks.evaluation.shapes import read_tasks_json
from earthworks.evaluation.tasks.evaluation import evaluate_run
from earthworks.gopher.pretraining.family import members
from earthworks.runs import EarthworksError

Runs = list[dict[str, Any]]
SIZES_OF_A_LAW = 4  # a law has three numbers, which three sizes could not check
MUCH_SMALLER = 4.0  # the paper's is 39: 280B against the best of those up to 7.1B


def compare_family(
    runs: Sequence[str | Path],
    *,
    text: str | None = None,
    data: str | Path | None = None,
    shots: Sequence[int] | str = (0,),
    limit: int | None = None,
    much_smaller: float = MUCH_SMALLER,
    max_tokens: int = MEASURED_TOKENS,
    checkpoint: str = "best",
    device: str = "auto",
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare runs of several sizes; a folder of `gopher train --family` stands for all of its runs.

    Losses are bits per byte of the same held-out text (at most `max_tokens` of it, or all of `text`). The family is the
    runs with the token count that most sizes share, including several seeds of a size; loss against tokens uses the size
    with the most token counts. Returns
    * "runs", each with size, parameters without embeddings, operations, tokens, seed, bits_per_byte and interval;
    * "laws": by "parameters", "compute" and "tokens" the law L = E + A N^-alpha with intervals, the straight line in
    log-log, and the largest predicted from all others by both; or a "reason" why there is none;
    * "benefit": the largest against the best of those at most 1 / `much_smaller` its size, by category
      (`measure_benefit`), from each run's tasks.json; with `data`, the folder of the tasks' files, runs without one
      are measured (`shots`, `limit`).
      Raises EarthworksError for fewer than two runs, runs that read different text, and invalid settings.
    """
    if not much_smaller >= 1 or max_tokens < 1 or num_resamples < 1:
        raise EarthworksError(
            f"much_smaller is {much_smaller}, max_tokens {max_tokens}, num_resamples {num_resamples}: expected at least 1"
        )
    paths = [path for run in runs for path in members(run)]
    places = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, places):
        if places.count(place) > 1:
            raise EarthworksError(f"{path} is given twice and would count as two runs: give each run once")
    if len(paths) < 2:
        raise EarthworksError("scaling needs at least two runs: earthworks evaluate scaling RUN RUN ..., or a family")
    found = [held_out(path, text=text, max_tokens=max_tokens, checkpoint=checkpoint, device=device) for path in paths]
    same_text(found)
    for each in found:
        each["bits_per_byte"] = loss(each)
    family, series = family_of(found), series_of(found)
    common = {"num_resamples": num_resamples, "seed": seed}
    laws = {
        "parameters": law_over(family, "parameters", **common),
        "compute": law_over(family, "compute", **common),
        "tokens": law_over(series, "tokens", **common),
    }
    if data is not None:
        measure_tasks(family, data, shots, limit, checkpoint, device)
    benefit = measure_benefit(family, much_smaller=much_smaller, num_resamples=num_resamples, seed=seed)
    shown = [{name: each[name] for name in each if name not in ("nats", "bytes")} for each in found]
    return {
        "runs": sorted(shown, key=lambda each: (each["parameters"], each["tokens"], each["seed"])),
        "text": {"unit": found[0]["unit"], "units": len(found[0]["bytes"]), "bytes": round(sum(found[0]["bytes"]))},
        "family_tokens": family[0]["tokens"],
        "laws": laws,
        "benefit": benefit,
        "much_smaller": much_smaller,
        "seed": seed,
    }


def loss(run: dict[str, Any]) -> float:
    return math.fsum(run["nats"]) / math.fsum(run["bytes"]) / math.log(2)


def same_text(runs: Runs) -> None:
    """Check that all read the same bytes; if their windows differ (another context), the text becomes one unit."""
    first = runs[0]
    for each in runs:
        if each["text"] != first["text"]:
            raise EarthworksError(
                f"{each['run']} and {first['run']} held out different text, so their losses are not comparable: give text "
                "that neither has seen with --text"
            )
    if len({(each["unit"], len(each["bytes"])) for each in runs}) > 1:
        for each in runs:
            each["nats"], each["bytes"] = [sum(each["nats"])], [sum(each["bytes"])]


def family_of(runs: Runs) -> Runs:
    """The runs with the token count that has the most sizes (ties: the most tokens)."""
    groups = [
        [each for each in runs if each["tokens"] == tokens] for tokens in sorted({each["tokens"] for each in runs})
    ]
    return max(groups, key=lambda group: (len({each["parameters"] for each in group}), group[0]["tokens"]))


def series_of(runs: Runs) -> Runs:
    """The runs of the size with the most token counts (ties: the largest size)."""
    groups = [
        [each for each in runs if each["parameters"] == size] for size in sorted({each["parameters"] for each in runs})
    ]
    return max(groups, key=lambda group: (len({each["tokens"] for each in group}), group[0]["parameters"]))


def law_over(runs: Runs, axis: str, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """The scaling law along an axis, the straight line, and the largest predicted by both from all others."""
    runs = sorted(runs, key=lambda each: each[axis])
    sizes = np.array([each[axis] for each in runs], float)
    nats = np.array([each["nats"] for each in runs]) / math.log(2)  # bits
    amounts = np.array(runs[0]["bytes"])
    values = nats.sum(axis=1) / amounts.sum()
    result: dict[str, Any] = {"points": [[size, value] for size, value in zip(sizes.tolist(), values.tolist())]}
    different = np.unique(sizes)
    if len(different) < SIZES_OF_A_LAW:
        what = {"parameters": "sizes", "compute": "sizes", "tokens": "token counts of one size"}[axis]
        return {
            **result,
            "reason": f"a scaling law needs {SIZES_OF_A_LAW} or more different {what}, not {len(different)}",
        }
    common = {"num_resamples": num_resamples, "seed": seed}
    try:
        for name, straight in (("law", False), ("line", True)):
            law, redrawn, _ = resampled(sizes, nats, amounts, straight=straight, **common)
            result[name] = describe_law(law, redrawn)
        result["curve"] = curve(sizes, nats, amounts, **common)
        result["free"] = len(sizes) - 3
        result["held_out"] = predict_largest(sizes, nats, amounts, values, **common)
    except ValueError as error:
        return {"points": result["points"], "reason": str(error)}
    return result


def curve(sizes: Any, nats: Any, amounts: Any, **common: Any) -> list[list[Any]]:
    """[x, law, its interval by the noise of runs, on this exact text] along the sizes."""
    whole = nats.sum(axis=1, keepdims=True), amounts.sum(keepdims=True)
    law, redrawn, _ = resampled(sizes, *whole, **common)
    along = np.geomspace(sizes[0], sizes[-1], 60)
    bands = [interval(column) for column in redrawn.at(along).T]
    return [[x, y, band] for x, y, band in zip(along.tolist(), law.at(along).tolist(), bands)]


def predict_largest(sizes: Any, nats: Any, amounts: Any, values: Any, **common: int) -> dict[str, Any]:
    """The largest as predicted by the law and the line of all others, and as measured."""
    largest = sizes == sizes.max()
    if len(np.unique(sizes[~largest])) < SIZES_OF_A_LAW:
        return {"reason": f"without the largest there are fewer than {SIZES_OF_A_LAW}"}
    measured = float(values[largest].mean())
    found: dict[str, Any] = {"size": float(sizes.max()), "measured": measured, "runs": int(largest.sum())}
    for name, straight in (("law", False), ("line", True)):
        told = predict(
            sizes[~largest],
            nats[~largest],
            amounts,
            float(sizes.max()),
            runs=int(largest.sum()),
            straight=straight,
            **common,
        )
        low, high = told["interval"]
        found[name] = {**told, "error": told["value"] - measured, "within": bool(low <= measured <= high)}
    found["better"] = "law" if abs(found["law"]["error"]) < abs(found["line"]["error"]) else "line"
    return found


def measure_tasks(runs: Runs, data: str | Path, shots: Any, limit: int | None, checkpoint: str, device: str) -> None:
    """Measure tasks for each run that has no tasks.json, or one with other settings."""
    for each in runs:
        run = Path(each["run"])
        wanted = [0] if shots == "paper" else list(shots)
        if (run / "tasks.json").exists():
            there = read_tasks_json(run)
            has = {result["shots"] for result in there["results"]}
            if there.get("limit") == limit and (shots == "paper" or has.issuperset(wanted)):
                continue
        evaluate_run(run, data, shots=shots, limit=limit, checkpoint=checkpoint, device=device)
