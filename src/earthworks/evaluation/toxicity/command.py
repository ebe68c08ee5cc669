"""`earthworks evaluate bias`, `toxicity`, `classifier` and `detection`, with results as tables."""

from pathlib import Path
from typing import Any

from earthworks.evaluation.bias.suite import measure_bias
from earthworks.evaluation.toxicity.classifier import headline, no_claim, train_classifier
from earthworks.evaluation.toxicity.detection import measure_detection
from earthworks.evaluation.toxicity.prompts import measure_toxicity
from earthworks.report import write_report
from earthworks.runs import EarthworksError
from earthworks.runs.json_files import json_text
from earthworks.runs.lock import unless_busy
from earthworks.runs.progress import note
from earthworks.runs.terminal import typed


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
    """Measure how differently a model treats groups: pronouns, occupations, stereotypes, sentiment by group, dialects.

    Writes bias.json into the run, and the continuations, which may offend and are not printed, to bias_samples.jsonl.

    Args:
        run: the run folder.
        data: a folder with winogender/, word_lists/, crows_pairs.jsonl, bbq/, bold_prompts/, lexicons/ (or bias/).
        parts: only these, comma-separated: winogender, occupations, crows_pairs, bbq, templates, bold.
        dialects: two comma-separated corpora, to compare in bits per byte.
        num: continuations of each filled template.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: seed of sampling, permutations and resamples.
        json: print everything as JSON.
    """
    pair = None
    if dialects is not None:
        first, _, second = dialects.partition(",")
        if not first or not second:
            raise EarthworksError(f"--dialects {dialects} is not two comma-separated corpora, such as a.jsonl,b.jsonl")
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
    with unless_busy(f"earthworks report {typed(run)}"):
        note(f"report {write_report([run])}")
    return json_text(result) if json else "\n".join(bias_lines(result))


def bias_lines(result: dict[str, Any]) -> list[str]:
    """Values by part, then the findings."""
    lines: list[str] = []
    if "winogender" in result:
        lines += [result["winogender"]["what"]]
        lines += [
            f"  {name:<34}{row['value']:>8.3f}  n {row['n']}" for name, row in result["winogender"]["accuracy"].items()
        ]
    if "occupations" in result:
        lines += ["", result["occupations"]["what"], f"  {'':<22}{'mean |b|':>10}{'mean b':>10}{'spread':>10}"]
        lines += [
            f"  {name:<22}{row['mean_absolute']:>10.3f}{row['mean']:>10.3f}{row['spread']:>10.3f}"
            for name, row in result["occupations"]["pairs"].items()
        ]
    if "crows_pairs" in result:
        lines += ["", result["crows_pairs"]["what"]]
        lines += share_lines(result["crows_pairs"]["stereotype_preferred"])
    if "bbq" in result:
        lines += ["", result["bbq"]["what"], f"  {'':<36}{'accuracy':>10}{'bias':>10}{'unknown':>10}"]
        lines += [
            f"  {f'{category}, {context}':<36}{row['accuracy']:>10.3f}{row['bias_score']:>10.3f}"
            f"{row['unknown_answers']:>10.3f}"
            for category, contexts in result["bbq"]["categories"].items()
            for context, row in contexts.items()
        ]
        lines += [f"  {name}: not measured: {why}" for name, why in result["bbq"].get("not_measured", {}).items()]
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


def share_lines(rows: dict[str, dict[str, Any]]) -> list[str]:
    return [f"  {name:<34}{row['value']:>8.3f}  n {row['n']}" for name, row in rows.items()]


def sentiment_lines(part: dict[str, Any]) -> list[str]:
    scorer = part["scorer"]
    quality = "unknown" if scorer["auc"] is None else f"{scorer['auc']:.3f}"
    lines = [part["what"], f"  scored by {scorer['name']}; its AUC on {scorer['checked_on']}: {quality}"]
    for attribute, row in part["attributes"].items():
        templates = f"{row['templates']} templates, " if row["templates"] else ""
        lines.append(
            f"  {attribute}: {len(row['groups'])} groups, {templates}{row['prompts']} prompts, "
            f"{row['samples']} continuations, {100 * row['without_sentiment']:.0f} % of them without a sentiment word"
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
    """A line for each finding; a star if the corrected p-value is at most 0.05."""
    width = max(len(each["name"]) for each in findings)
    lines = [f"{'tested differences':<{width}}{'value':>9}  {'95 % interval':<19}{'p':>8}{'p Holm':>9}   n"]
    for each in findings:
        interval = "[{:.3f}, {:.3f}]".format(*each["interval"]) if each["interval"] else ""
        star = "*" if each["p_holm"] <= 0.05 else " "
        lines.append(
            f"{each['name']:<{width}}{each['value']:>9.3f}  {interval:<19}{each['p_value']:>8.4f}"
            f"{each['p_holm']:>8.4f}{star}   {each['n']} {each['unit']}"
        )
    seen = sum(each["p_holm"] <= 0.05 for each in findings)
    return [*lines, f"{seen} of {len(findings)} remain at 0.05 after {correction}"]


def toxicity(
    run: str,
    *,
    data: str,
    scorer: str = "linear",
    num: int = 25,
    max_prompts: int | None = None,
    unprompted: int = 1000,
    timeout: float = 120.0,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
    json: bool = False,
) -> str:
    """Measure the toxicity of a model's continuations by the protocol of RealToxicityPrompts; the scorer is tested first.

    Writes toxicity.json into the run, and the texts, which may offend and are not printed, to toxicity_samples.jsonl.

    Args:
        run: the run folder.
        data: a folder with real_toxicity_prompts*, and labelled collections to test the scorer on (or one with bias/).
        scorer: `linear` (trained on the spot from offensive_tweets_train), the folder of a trained one, or hf:NAME.
        num: continuations per prompt; the summaries grow with it.
        max_prompts: number of prompts to measure on, drawn with the seed.
        unprompted: number of texts without a prompt; the paper has 25000.
        timeout: time limit of the scorer for 64 texts, in seconds.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: seed of sampling and resamples.
        json: print everything as JSON.
    """
    result = measure_toxicity(
        run,
        data,
        scorer=scorer,
        num=num,
        max_prompts=max_prompts,
        unprompted=unprompted,
        timeout=timeout,
        checkpoint=checkpoint,
        device=device,
        seed=seed,
    )
    with unless_busy(f"earthworks report {typed(run)}"):
        note(f"report {write_report([run])}")
    return json_text(result) if json else "\n".join(toxicity_lines(result))


def toxicity_lines(result: dict[str, Any]) -> list[str]:
    """The scorer's own tests, then the numbers, then the claim or the reason why there is none."""
    lines = headline(result["scorer"])
    lines.append(result["no_claim"] or result["claim"])
    prompted, protocol = result["prompted"], result["protocol"]
    rows = {"all prompts": prompted["all"]}
    rows |= {f"prompt toxicity {name}": row for name, row in prompted["bins"].items()}
    rows |= {name: row for name, row in prompted["files"].items() if len(prompted["files"]) > 1}
    lines += [
        "",
        f"{protocol['num']} continuations of {protocol['max_tokens']} tokens, nucleus {protocol['top_p']}; "
        f"bins by {prompted['bins_by']}",
        f"{'':<30}{'expected maximum':>28}{'P(at least one toxic)':>28}{'mean':>8}{'prompts':>9}",
    ]
    for name, row in rows.items():
        if not row["prompts"]:
            lines.append(f"{name:<30}{'none':>28}")
            continue
        lines.append(
            f"{name:<30}{with_interval(row, 'expected_maximum'):>28}{with_interval(row, 'toxic_probability'):>28}"
            f"{row['mean']:>8.3f}{row['prompts']:>9,}"
        )
    for each in prompted["findings"]:
        low, high = each["interval"]
        lines.append(
            f"{each['name']}: {each['value']:+.3f} [{low:.3f}, {high:.3f}], p {each['p_value']:.4f} (one test)"
        )
    row = result["unprompted"]
    if row is not None and row["n"]:
        lines.append(
            f"unprompted: mean {with_interval(row, 'mean')}, median {row['median']:.3f}, 95 % point "
            f"{row['percentile_95']:.3f}, toxic {with_interval(row, 'toxic_share')}; n {row['n']:,}"
        )
    return [*lines, *(f"missing: {each}" for each in result["missing"])]


def with_interval(row: dict[str, Any], name: str) -> str:
    interval = row[f"{name}_interval"]
    return f"{row[name]:.3f}" + (" [{:.3f}, {:.3f}]".format(*interval) if interval else "")


def classifier(files: list[str], *, output: str, against: str | None = None, seed: int = 0) -> str:
    """Train a linear classifier of toxic texts on labelled files, and test it.

    Args:
        files: labelled texts, .jsonl, .csv or .tsv: text and label (1 toxic, 0 not), or a known collection.
        output: folder to write it to, for --scorer of earthworks evaluate toxicity.
        against: a file or folder of other labelled collections, including HateCheck, to test it on.
        seed: seed of the held-out split.
    """
    if Path(output).exists() and not (Path(output).is_dir() and not any(Path(output).iterdir())):
        raise EarthworksError(f"{output} already exists and is not an empty folder: choose another name, or delete it")
    trained = train_classifier(files, against=against, seed=seed)
    trained.save(output)
    verdict = no_claim(trained.measured) or "It passes HateCheck: claims can rest on it."
    return "\n".join([*headline(trained.measured), verdict, f"written to {output}"])


def detection(
    runs: list[str],
    *,
    data: str,
    shots: str = "0,1,5,10,20",
    max_texts: int = 500,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
    json: bool = False,
) -> str:
    """Ask models whether comments are toxic: AUC by number of examples, model size and subgroup.

    Args:
        runs: the run folders, for instance a family.
        data: a file of labelled texts.
        shots: numbers of answered examples in the prompt, comma-separated.
        max_texts: number of texts to measure on, half of them toxic.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: seed for drawing examples and texts.
        json: print everything as JSON.
    """
    try:
        counts = [int(each) for each in shots.split(",")]
    except ValueError:
        raise EarthworksError(f"--shots {shots} is not a list of numbers such as 0,5,20") from None
    result = measure_detection(
        runs, data, shots=counts, max_texts=max_texts, checkpoint=checkpoint, device=device, seed=seed
    )
    return json_text(result) if json else "\n".join(detection_lines(result))


def detection_lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"is a comment toxic? {result['texts']} texts of {result['data']}, {result['toxic']} toxic (chance 0.5)",
        f"{'run':<32}{'parameters':>12}{'shots':>7}  AUC",
    ]
    for model in result["models"]:
        size = "" if model["parameters"] is None else f"{model['parameters']:,}"
        for count, row in model["shots"].items():
            cells = with_interval({"auc": row["auc"], "auc_interval": row["interval"]}, "auc")
            cut = f"  {row['cut']} prompts were longer than the window" if row["cut"] else ""
            lines.append(f"{model['model'][-30:]:<32}{size:>12}{count:>7}  {cells}{cut}")
        most = max(model["shots"])
        measured = {name: row for name, row in model["subgroups"].items() if row["bpsn"]["auc"] is not None}
        if measured:
            lines.append(f"  subgroups at {most} shots{'subgroup':>17}{'BPSN':>8}{'BNSP':>8}   toxic, other")
        for name, row in measured.items():
            cells = "".join(
                f"{'-' if row[kind]['auc'] is None else format(row[kind]['auc'], '.3f'):>8}"
                for kind in ("subgroup", "bpsn", "bnsp")
            )
            lines.append(f"    {name:<28}{cells}   {row['toxic']}, {row['other']}")
    return lines
