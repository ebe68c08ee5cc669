"""`earthworks evaluate scaling`: results of `compare_family` as tables, scaling.json and a page."""

from pathlib import Path
from typing import Any

from earthworks.evaluation.results import ready_to_write, write_result
from earthworks.evaluation.scaling.compare import MUCH_SMALLER, compare_family
from earthworks.evaluation.scaling.held_out import MEASURED_TOKENS
from earthworks.gopher.pretraining.family import members
from earthworks.report.numbers import short
from earthworks.report.page import common_folder
from earthworks.runs import RunFolder
from earthworks.runs.json_files import json_text

AXES = {"parameters": "N parameters without embeddings", "compute": "C operations", "tokens": "D tokens, one size"}


def scaling(
    runs: list[str],
    *,
    text: str | None = None,
    data: str | None = None,
    shots: str = "0",
    limit: int | None = None,
    much_smaller: float = MUCH_SMALLER,
    max_tokens: int = MEASURED_TOKENS,
    output: str | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    num_resamples: int = 1000,
    seed: int = 0,
    json: bool = False,
) -> str:
    """Compare a family: scaling-law fit, prediction of the largest model, and the tasks on which scale helped.

    Writes scaling.json and scaling.html to the folder of the family, or to the innermost folder that contains all runs.

    Args:
        runs: run folders, or the folder of a family for all of its runs.
        text: text that no run was trained on, to measure losses on; by default the runs' held-out text.
        data: the folder with the tasks' files: runs without tasks.json are measured first.
        shots: numbers of examples for those, such as 0,5; or `paper`.
        limit: maximum number of items per task for those.
        much_smaller: compare the largest with the best of those at most 1/N its size (the paper's N: 39).
        max_tokens: held-out tokens to measure losses on.
        output: folder to write to.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        num_resamples: resamples per bootstrap.
        seed: seed of the resamples.
        json: print everything as JSON.
    """
    from earthworks.evaluation.scaling.page import write_page
    from earthworks.evaluation.tasks.command import numbers

    folder = Path(output) if output else common_folder([RunFolder(each) for run in runs for each in members(run)])
    ready_to_write(folder, "scaling.json")
    result = compare_family(
        runs,
        text=text,
        data=data,
        shots=shots if shots == "paper" else numbers(shots),
        limit=limit,
        much_smaller=much_smaller,
        max_tokens=max_tokens,
        checkpoint=checkpoint,
        device=device,
        num_resamples=num_resamples,
        seed=seed,
    )
    write_result(folder, "scaling.json", result)
    page = write_page(result, folder)
    return json_text(result) if json else "\n".join([*lines(result), "", f"page {page}"])


def lines(result: dict[str, Any]) -> list[str]:
    """Tables of runs, laws and benefit."""
    said = [f"{'run':<28}{'N':>12}{'operations':>13}{'tokens':>13}{'seed':>6}{'bits/byte':>11}"]
    said += [
        f"{'/'.join(Path(each['run']).parts[-2:])[-27:]:<28}{short(each['parameters']):>12}{each['compute']:>13.2e}"
        f"{short(each['tokens']):>13}{each['seed']:>6}{each['bits_per_byte']:>11.4f}"
        for each in result["runs"]
    ]
    text = result["text"]
    said.append(f"all on the same {text['bytes']:,} bytes of held-out text; N without embeddings")
    for axis, law in result["laws"].items():
        said += ["", *law_lines(AXES[axis], law)]
    return [*said, "", *benefit_lines(result["benefit"], result["much_smaller"])]


def law_lines(axis: str, law: dict[str, Any]) -> list[str]:
    """The law with intervals, and the largest predicted by it and by the straight line."""
    if "law" not in law:
        return [f"bits per byte against {axis}: {law['reason']}"]
    each, told = law["law"], law["held_out"]
    said = [
        f"bits per byte against {axis}: L = E + A x^-alpha",
        f"  alpha {each['exponent']:.3f} {between(each['exponent_interval'])}   E {each['floor']:.3f} "
        f"{between(each['floor_interval'])}   A {each['scale']:.4g}",
        f"  straight line in log-log (E = 0): alpha {law['line']['exponent']:.4f} "
        f"{between(law['line']['exponent_interval'])}; squared relative misfit {law['line']['misfit']:.2e}, of the law "
        f"{each['misfit']:.2e}",
    ]
    if "reason" in told:
        return [*said, f"  the largest is not predicted: {told['reason']}"]
    said.append(f"  fitted without the largest ({short(told['size'])}), which measured {told['measured']:.4f}:")
    for name, what in (("law", "law"), ("line", "straight line")):
        row = told[name]
        where = "within" if row["within"] else "outside"
        said.append(
            f"    {what:<14} predicts {row['value']:.4f} {between(row['interval'], 4)}, off by {row['error']:+.4f}: {where}"
        )
    return [*said, f"  nearer: the {'law' if told['better'] == 'law' else 'straight line'}"]


def between(ends: list[float] | None, decimals: int = 3) -> str:
    return f"[{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]" if ends else "[no interval]"


def benefit_lines(benefit: dict[str, Any], much_smaller: float) -> list[str]:
    """By category, the largest against the best much smaller model; then the gain from examples."""
    said: list[str] = []
    if "held_out" in benefit:
        names = ", ".join(benefit["names"][str(size)] for size in benefit["small"])
        largest = benefit["names"][str(benefit["sizes"][-1])]
        said.append(f"{largest} against the best of {names} (at most 1/{much_smaller:g} its size)")
        saved = benefit["held_out"]
        said.append(
            f"  held-out text: {saved['percent']:.1f} % of the bits per byte saved {between(saved['interval'], 1)}"
        )
    if "reason" in benefit:
        return [*said, f"tasks are not compared: {benefit['reason']}"]
    said += [f"  {each['name']}: {each['percent']:+.1f} % of the bits per byte saved" for each in benefit["texts"]]
    said.append(f"  {'category':<24}{'tasks':>6}{'items':>8}{'points':>8}{'%':>8}   gain above chance    above chance")
    for name, each in benefit["categories"].items():
        percent = f"{each['percent']:+.1f}" if each["percent"] is not None else "-"
        said.append(
            f"  {name:<24}{each['tasks']:>6}{each['n']:>8,}{each['points']:>+8.1f}{percent:>8}   {each['gain']:+.3f} "
            f"{between(each['gain_interval'])}  {each['corrected'][-1]:+.3f} {between(each['above_chance_interval'])}  "
            f"{each['verdict']}"
        )
    for shots, each in benefit["few_shot"].items():
        gains = ", ".join(
            f"{benefit['names'][str(size)]} {gain:+.3f} {between(ends)}"
            for size, gain, ends in zip(benefit["sizes"], each["gain"], each["interval"])
        )
        said.append(f"  {shots} examples add, over {len(each['tasks'])} tasks: {gains}")
    return [*said, "", benefit["claim"]["sentence"]]
