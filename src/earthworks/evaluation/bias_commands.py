"""`earthworks evaluate bias`, `toxicity`, `classifier` and `detection`: the measurements as tables."""

import json as to_json
import math
from typing import Any

from earthworks.evaluation.bias import measure_bias
from earthworks.runs import EarthworksError


def bias(
    run: str,
    *,
    data: str,
    parts: str | None = None,
    dialects: str | None = None,
    num: int = 5,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
    json: bool = False,
) -> str:
    """Measure whom a model treats unlike whom: pronouns, occupations, stereotypes, sentiment by group, dialects.

    Writes bias.json into the run, and what the model wrote to bias_samples.jsonl, which may offend and is not printed.

    Args:
        run: the run folder.
        data: a folder that holds winogender/, word_lists/, crows_pairs.jsonl, bbq/, bold_prompts/, lexicons/ (or bias/).
        parts: only these, with commas between: winogender, occupations, crows_pairs, bbq, templates, bold.
        dialects: two corpora with a comma between, to compare in bits per byte.
        num: continuations of each filled template.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: of sampling, permutations and resamples.
        json: print everything as JSON.
    """
    pair = None
    if dialects is not None:
        first, _, second = dialects.partition(",")
        if not first or not second:
            raise EarthworksError(f"--dialects {dialects} is not two corpora with a comma between, such as a.jsonl,b.jsonl")
        pair = (first, second)
    result = measure_bias(
        run,
        data,
        parts=parts.split(",") if parts is not None else None,
        dialects=pair,
        num=num,
        checkpoint=checkpoint,
        device=device,
        seed=seed,
    )
    return to_json.dumps(result, indent=2) if json else "\n".join(bias_lines(result))


def bias_lines(result: dict[str, Any]) -> list[str]:
    """Levels by part, then the findings."""
    lines: list[str] = []
    if "winogender" in result:
        lines += [result["winogender"]["what"]]
        lines += [f"  {name:<34}{row['value']:>8.3f}  n {row['n']}" for name, row in result["winogender"]["accuracy"].items()]
    if "occupations" in result:
        lines += ["", result["occupations"]["what"], f"  {'':<22}{'mean |b|':>10}{'mean b':>10}{'spread':>10}"]
        lines += [
            f"  {name:<22}{row['mean_absolute']:>10.3f}{row['mean']:>10.3f}{row['spread']:>10.3f}"
            for name, row in result["occupations"]["pairs"].items()
        ]
    if "crows_pairs" in result:
        lines += ["", result["crows_pairs"]["what"]]
        lines += [
            f"  {name:<34}{row['value']:>8.3f}  n {row['n']}"
            for name, row in result["crows_pairs"]["stereotype_preferred"].items()
        ]
    if "bbq" in result:
        lines += ["", result["bbq"]["what"], f"  {'':<36}{'accuracy':>10}{'bias':>10}{'unknown':>10}"]
        lines += [
            f"  {f'{category}, {context}':<36}{row['accuracy']:>10.3f}{row['bias_score']:>10.3f}{row['unknown_answers']:>10.3f}"
            for category, contexts in result["bbq"]["categories"].items()
            for context, row in contexts.items()
        ]
    for part in ("templates", "bold"):
        if part in result:
            lines += ["", *sentiment_lines(result[part])]
    if "dialects" in result:
        lines += ["", result["dialects"]["what"]]
        lines += [
            f"  {name[-34:]:<36}{row['bits_per_byte']:>10.4f}  {row['documents']:,} documents, {row['bytes']:,} bytes"
            for name, row in result["dialects"]["corpora"].items()
        ]
    lines += ["", *finding_lines(result["findings"], result["correction"])]
    lines += [f"missing: {part}: {why}" for part, why in result["missing"].items()]
    return lines


def sentiment_lines(part: dict[str, Any]) -> list[str]:
    scorer = part["scorer"]
    quality = "unknown" if scorer["auc"] is None else f"{scorer['auc']:.3f}"
    lines = [part["what"], f"  scored by {scorer['name']}; its AUC on {scorer['checked_on']}: {quality}"]
    for attribute, row in part["attributes"].items():
        templates = f"{row['templates']} templates, " if row["templates"] else ""
        lines.append(
            f"  {attribute}: {len(row['groups'])} groups, {templates}{row['prompts']} prompts, {row['samples']} continuations, "
            f"{100 * row['without_sentiment']:.0f} % of them without a word of sentiment"
        )
        means = sorted(row["groups"].items(), key=lambda item: item[1]["mean"])
        shown = means if len(means) <= 6 else [*means[:3], *means[-3:]]
        lines.append("    " + "; ".join(f"{name} {group['mean']:.3f}" for name, group in shown))
        lines += [
            f"    {kind} fairness (mean W1): {row[key]['value']:.4f}, by chance {row[key]['null_mean']:.4f}"
            for kind, key in (("individual", "individual_fairness"), ("group", "group_fairness"))
        ]
    return lines


def finding_lines(findings: list[dict[str, Any]], correction: str) -> list[str]:
    """A line each; a star where the corrected p-value is at most 0.05."""
    width = max(len(each["name"]) for each in findings)
    lines = [f"{'differences looked at':<{width}}{'value':>9}  {'95 % interval':<19}{'p':>8}{'p Holm':>9}   n"]
    for each in findings:
        ends = each["interval"]
        interval = "" if ends is None or math.isnan(ends[0]) else f"[{ends[0]:.3f}, {ends[1]:.3f}]"
        star = "*" if each["p_holm"] <= 0.05 else " "
        lines.append(
            f"{each['name']:<{width}}{each['value']:>9.3f}  {interval:<19}{each['p_value']:>8.4f}{each['p_holm']:>8.4f}{star}"
            f"   {each['n']} {each['unit']}"
        )
    seen = sum(each["p_holm"] <= 0.05 for each in findings)
    return [*lines, f"{seen} of {len(findings)} remain at 0.05 after {correction}"]
