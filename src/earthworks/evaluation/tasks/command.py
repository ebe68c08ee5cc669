"""`earthworks evaluate tasks`: print the results of `evaluate_tasks` as a table and write tasks.json."""

from typing import Any

from earthworks.evaluation.tasks.evaluation import evaluate_run
from earthworks.report import write_report
from earthworks.runs import EarthworksError
from earthworks.runs.json_files import json_text
from earthworks.runs.lock import unless_busy
from earthworks.runs.progress import note
from earthworks.runs.terminal import typed

# column name and width of each accuracy rule of `metrics`
RULES = {"raw": ("raw", 7), "per_character": ("/char", 7), "per_byte": ("/byte", 7), "unconditional": ("-alone", 8)}


def tasks(
    run: str,
    *,
    data: str,
    tasks: str | None = None,
    shots: str = "0",
    limit: int | None = None,
    seed: int = 0,
    window: int | None = None,
    batch: int = 64,
    checkpoint: str = "best",
    device: str = "auto",
    json: bool = False,
) -> str:
    """Measure a run's model on tasks, by the paper's categories; write the results to RUN/tasks.json.

    Args:
        run: the run folder.
        data: the folder with the tasks' files.
        tasks: names, categories or YAML files, comma-separated; by default all shipped tasks.
        shots: numbers of examples, such as 0,5; or `paper` for the paper's number for each task.
        limit: maximum number of items per task, drawn with the seed.
        seed: seed for drawing items and examples.
        window: context length in tokens; by default the one it was trained with.
        batch: rows per forward pass.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        json: print the results, without the single items, as JSON.
    """
    result = evaluate_run(
        run,
        data,
        [each.strip() for each in tasks.split(",") if each.strip()] if tasks else None,
        shots=shots if shots == "paper" else numbers(shots),
        limit=limit,
        seed=seed,
        window=window,
        batch=batch,
        checkpoint=checkpoint,
        device=device,
    )
    with unless_busy(f"earthworks report {typed(run)}"):
        note(f"report {write_report([run])}")
    if json:
        without = [{key: each[key] for key in each if key not in ("items", "credit")} for each in result["results"]]
        return json_text({**result, "results": without})
    return table(result)


def numbers(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise EarthworksError(f"--shots is {text!r}; expected numbers such as 0,5, or paper") from None


def table(result: dict[str, Any]) -> str:
    """A line for each task, by category, then the missing tasks and notes."""
    widest = max(len(each["name"]) for each in [*result["results"], *result["absent"]]) + 2
    rules = "".join(f"{rule:>{width}}" for rule, width in RULES.values())
    lines = [
        f"{'':<{widest}} shots       n  value  95 % interval   chance majority   cut{rules}  measured as    template"
    ]
    for category, by_shots in result["categories"].items():
        lines += ["", category]
        for each in (each for each in result["results"] if each["category"] == category):
            lines += row(each, widest)
        for shots, mean in by_shots.items():
            if mean["accuracy"] is not None and mean["tasks"] > 1:
                name, above = f"mean of {mean['tasks']}, {shots}", mean["above_chance"]
                lines.append(
                    f"  {name:<{widest + 11}}  {mean['accuracy']:>6.3f}  {above:+.3f} of the way from chance to 1"
                )
    if result["absent"]:
        lines += ["", "not measured"]
        lines += [f"  {each['name']}, {each['shots']}-shot: {each['reason']}" for each in result["absent"]]
    notes = [note for each in result["results"] for note in warnings(each)]
    if notes:
        lines += ["", "Notes", *(f"  {note}" for note in notes)]
    limited = f"at most {result['limit']} items a task, " if result["limit"] else ""
    lines += [
        "",
        f"{limited}seed {result['seed']}, window {result['window']} tokens; cut: items that lost the start of",
    ]
    lines.append("their context to the window; template: a digest of everything that determines prompts and scoring")
    return "\n".join(lines)


def row(each: dict[str, Any], widest: int) -> list[str]:
    interval = "[{:>5.3f}, {:>5.3f}]".format(*each["interval"]) if each["interval"] else "no interval   "
    rules = "".join(
        f"{each['accuracy'][key]['value']:>{width}.3f}" if key in each.get("accuracy", {}) else " " * width
        for key, (_, width) in RULES.items()
    )
    cut = f"{each['truncated'] / each['n']:>5.0%}" if each["truncated"] else f"{'-':>5}"
    lines = [
        f"  {each['name']:<{widest - 2}} {each['shots']:>5} {each['n']:>7} {each['value']:>6.3f}  {interval} "
        f" {number(each['chance'])}  {number(each['majority'])} {cut}{rules}  {each['metric']:<13}  {each['digest']}"
    ]
    for name, group in each.get("groups", {}).items():
        shown = f"{group['value']:>6.3f}" if group["n"] else "  none"
        lines.append(f"    {name:<{widest - 4}} {'':>5} {group['n']:>7} {shown}")
    return lines


def number(value: float | None) -> str:
    return f"{value:>6.3f}" if value is not None else f"{'-':>6}"


def warnings(each: dict[str, Any]) -> list[str]:
    """Notes on a result: missing items, missing interval, boundaries inside a token."""
    name = f"{each['name']}, {each['shots']}-shot"
    notes = [f"{name}: {count} items are missing: {reason}" for reason, count in each["missing"].items()]
    if not each["interval"]:
        notes.append(f"{name}: no interval: one {each.get('interval_unit', 'item')}")
    if each["split"]:
        notes.append(
            f"{name}: in {each['split']} of {each['n']} items one token spans the end of the context and the answer"
        )
    return notes
