"""`evaluate_tasks`: measure a model on many tasks and list those that could not be measured."""

from collections.abc import Sequence
from functools import partial as bound
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.evaluation.likelihood.protocol import scorer_of
from earthworks.evaluation.results import NotKept, Partial, partial_result, write_result
from earthworks.evaluation.shapes import is_result
from earthworks.evaluation.tasks.measuring import measure
from earthworks.evaluation.tasks.task_file import CATEGORIES, Task, located, read_tasks, shipped_tasks
from earthworks.runs import EarthworksError, RunFolder, sha256


def evaluate_tasks(
    model: str | Path | tuple[Any, Any] | Any,
    data: str | Path,
    tasks: Sequence[str | Task] | None = None,
    *,
    shots: Sequence[int] | str = (0,),
    limit: int | None = None,
    seed: int = 0,
    window: int | None = None,
    batch: int = 64,
    checkpoint: str = "best",
    device: str = "auto",
    partial: Partial | None = None,
) -> dict[str, Any]:
    """Measure a model on tasks: {"results": [...], "categories": {...}, "absent": [...], and the settings}.

    `model`: a run folder, a pair (model, tokenizer) in memory, or a Scorer. `data`: the folder with the tasks' files.
    `tasks`: names, categories, YAML files or Tasks; by default all tasks of the package. `shots`: numbers of examples, each
    of which is measured, or "paper" for the paper's number for each task; tasks for which examples make no sense are
    measured zero-shot. `limit`: maximum number of items per task. `seed` draws the items and the examples.

    A result has n, `missing` by reason, `truncated` (items whose context was cut on the left to fit the window), `split`
    (items in which one token spans the end of the context and the start of the answer), `metric`, `value`, 95 % `interval`
    (Wilson's; bootstrap for texts), `chance`, `majority`, for choices `accuracy` by all four rules (`metrics`), the task's
    `digest`, and `items` with their `credit`, for paired comparisons. A category has the unweighted means over its tasks of
    the value and of (value - chance) / (1 - chance). `absent` lists what could not be measured, with the reason.
    `partial` stores the results of a run task by task (`evaluate_run` passes one).
    Raises EarthworksError if no task could be measured, or if a task does not exist.
    """
    if limit is not None and limit < 1:
        raise EarthworksError(f"limit is {limit}; it must be at least 1")
    if not Path(data).is_dir():
        raise EarthworksError(f"--data {data} is not a folder; expected the folder with the tasks' files")
    if shots != "paper" and (not shots or isinstance(shots, str) or min(shots) < 0):
        raise EarthworksError(f"shots is {shots!r}; expected numbers of examples such as (0, 5), or 'paper'")
    scorer, about = scorer_of(model, window=window, batch=batch, checkpoint=checkpoint, device=device)
    partial = partial or Partial(None)
    partial.common = {"limit": limit, "seed": seed, **(getattr(scorer, "identity", None) or {})}
    results: list[dict[str, Any]] = []
    absent: list[dict[str, Any]] = []
    failure = None
    for task in chosen(tasks, absent):
        for number in shots_of(task, shots):
            try:
                key = {"task": task.digest, "shots": number}
                if partial.path:
                    key |= {name: sha256(located(name, Path(data))) for name in task.files}
                compute = bound(measure, scorer, task, Path(data), shots=number, limit=limit, seed=seed)
                results.append(partial.piece(key, compute, is_result))
            except NotKept:
                raise
            except EarthworksError as error:
                failure = error if error.exit_code == 1 else failure  # caused by the model, not by a file
                absent.append({"name": task.name, "category": task.category, "shots": number, "reason": str(error)})
    if not results:
        reason, code = (str(failure), 1) if failure else (absent[0]["reason"], 2)
        raise EarthworksError(f"no task could be measured; first failure: {reason}", code)
    return {
        **about,
        "data": str(data),
        "limit": limit,
        "seed": seed,
        "results": results,
        "categories": categories(results),
        "absent": absent,
    }


def evaluate_run(run: str | Path, data: str | Path, tasks: Sequence[str | Task] | None = None, **settings: Any) -> Any:
    """`evaluate_tasks` for a run folder: store results task by task, then write tasks.json."""
    folder = RunFolder.open(run).path
    with partial_result(folder, "tasks", "tasks") as partial:
        result = evaluate_tasks(run, data, tasks, partial=partial, **settings)
        write_result(folder, "tasks.json", result)
    return result


def chosen(tasks: Sequence[str | Task] | None, absent: list[dict[str, Any]] | None = None) -> list[Task]:
    """The tasks selected by name, category or file, without duplicates, in category order. `absent`: see `read_tasks`."""
    shipped = shipped_tasks()
    if tasks is None:
        return shipped
    if not tasks:
        raise EarthworksError("--tasks is empty; omit it to run every task")
    found: dict[str, Task] = {}
    for each in tasks:
        if isinstance(each, Task):
            wanted = [each]
        elif each.endswith((".yaml", ".yml")):
            wanted = read_tasks(each, absent)
        else:
            wanted = [task for task in shipped if each.lower() in (task.name, task.category.lower())]
            if not wanted:
                names = ", ".join(task.name for task in shipped)
                raise EarthworksError(f"unknown task {each!r}; give a category, a .yaml file, or one of {names}")
        found.update((task.name, task) for task in wanted)
    return sorted(found.values(), key=lambda task: place(task.category))


def place(category: str) -> int:
    """Sort key: the paper's categories first, then the user's own."""
    return CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES)


def shots_of(task: Task, shots: Sequence[int] | str) -> list[int]:
    if not task.few_shot or task.kind == "text":
        return [0]
    return [task.shots] if isinstance(shots, str) else list(dict.fromkeys(shots))


def categories(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Unweighted means of value and of value above chance, by category and number of examples.

    Bits per byte are averaged separately from accuracies.
    """
    found: dict[str, dict[str, Any]] = {}
    for category in sorted({each["category"] for each in results}, key=lambda name: (place(name), name)):
        for shots in sorted({each["shots"] for each in results if each["category"] == category}):
            part = [each for each in results if (each["category"], each["shots"]) == (category, shots)]
            accuracies = [each for each in part if each["metric"] != "bits_per_byte"]
            texts = [each["value"] for each in part if each["metric"] == "bits_per_byte"]
            above = [(each["value"] - (each["chance"] or 0)) / (1 - (each["chance"] or 0)) for each in accuracies]
            found.setdefault(category, {})[f"{shots}-shot"] = {
                "tasks": len(part),
                "accuracy": float(np.mean([each["value"] for each in accuracies])) if accuracies else None,
                "chance": float(np.mean([each["chance"] or 0 for each in accuracies])) if accuracies else None,
                "above_chance": float(np.mean(above)) if accuracies else None,
                "bits_per_byte": float(np.mean(texts)) if texts else None,
            }
    return found
