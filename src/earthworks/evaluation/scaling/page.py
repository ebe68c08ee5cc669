"""scaling.html: the comparison by size, with figures and tables."""

from pathlib import Path
from typing import Any

from earthworks.evaluation.scaling import scaling_figures as pictures
from earthworks.report import writing
from earthworks.report.numbers import short, with_interval
from earthworks.report.page import Page, Section, Table, render

LAW_NOTE = (
    "L = E + A x^-alpha, least relative squares; E is the irreducible loss. The 95% intervals of alpha and E resample the "
    "held-out documents and the noise of runs; the band and the predictions resample that noise only, on this exact text. "
    "Square and diamond: the largest predicted from all the others, by the law and by the straight line in log-log."
)


def write_page(result: dict[str, Any], folder: Path) -> Path:
    """FOLDER/scaling.html, and each figure as FOLDER/figures/NAME.png."""
    page = describe(result)
    writing.write_figures(folder / "figures", {drawing.name: drawing.png for drawing in page.drawings})
    return writing.write_page(folder / "scaling.html", render(page))


def describe(result: dict[str, Any]) -> Page:
    """The page."""
    runs, benefit = result["runs"], result["benefit"]
    losses = [each["bits_per_byte"] for each in runs]
    tiles = [("Runs", f"{len(runs)}", f"{short(runs[0]['parameters'])} to {short(runs[-1]['parameters'])} parameters")]
    tiles.append(("Held-out bits per byte", f"{min(losses):.3f}", f"best; worst {max(losses):.3f}"))
    page = Page(f"A family of {len({each['size'] for each in runs})} sizes", headline(result), tiles)
    sections = [
        Section(
            "Loss and size",
            LAW_NOTE,
            [pictures.laws(result, ["parameters", "compute"], "scaling-laws"), law_table(result)],
        ),
    ]
    tokens = result["laws"]["tokens"]
    if len({x for x, _ in tokens["points"]}) > 1:
        note = "Runs of one size with different numbers of tokens, each with its own schedule."
        sections.append(Section("Loss and data", note, [pictures.laws(result, ["tokens"], "scaling-tokens")]))
    if benefit.get("categories"):
        names = ", ".join(benefit["names"][str(size)] for size in benefit["small"])
        note = (
            f"The largest against the best of {names}, on the same items. Accuracies are rescaled to 0 at chance and 1 at "
            "all right. Intervals resample the items and reselect the best smaller model each time."
        )
        sections.append(Section("Where scale helped", note, [pictures.benefit(benefit), category_table(benefit)]))
        sections.append(
            Section("By size", "Means over tasks; 0 is chance.", [pictures.by_size(benefit), task_table(benefit)])
        )
    if benefit.get("few_shot"):
        note = "Corrected accuracy with k examples minus that without, mean over tasks measured both ways."
        sections.append(Section("Gain from examples", note, [pictures.few_shot(benefit)]))
    rows = [
        (each["run"], short(each["parameters"]), f"{each['compute']:.2e}", short(each["tokens"]), str(each["seed"]),
         f"{each['bits_per_byte']:.4f}")
        for each in runs
    ]  # fmt: skip
    header = ("run", "parameters without embeddings", "operations", "tokens", "seed", "bits per byte")
    sections.append(Section("Runs", "All measured on the same text.", [Table("Runs", header, rows)]))
    page.sections = sections
    return page


def headline(result: dict[str, Any]) -> str:
    """Sentences on the law and its prediction, then the claim."""
    law = result["laws"]["parameters"]
    said = f"No scaling law: {law['reason']}." if "law" not in law else ""
    if "law" in law:
        each = law["law"]
        said = f"Loss falls as N^-{each['exponent']:.3f} towards {each['floor']:.3f} bits per byte."
        told = law["held_out"]
        if "law" in told:
            where = "within" if told["law"]["within"] else "outside"
            predicted = with_interval(told["law"]["value"], told["law"]["interval"], 3)
            said += (
                f" From the smaller sizes the largest was predicted to have {predicted}"
                f" and measured {told['measured']:.3f}, {where} the interval; a straight line in log-log predicted "
                f"{told['line']['value']:.3f}."
            )
    benefit = result["benefit"]
    return f"{said} {benefit['claim']['sentence'] if 'claim' in benefit else 'Tasks: ' + benefit['reason'] + '.'}"


def law_table(result: dict[str, Any]) -> Table:
    rows = []
    for axis, law in result["laws"].items():
        for name in ("law", "line"):
            if name in law:
                each, told = law[name], law["held_out"].get(name)
                rows.append(
                    (
                        f"{axis}, {'law' if name == 'law' else 'straight line'}",
                        with_interval(each["exponent"], each["exponent_interval"], 3),
                        with_interval(each["floor"], each["floor_interval"], 3) if name == "law" else "0",
                        f"{each['misfit']:.2e}",
                        with_interval(told["value"], told["interval"], 3) if told else "–",
                        f"{told['error']:+.4f}" if told else "–",
                    )
                )
    header = ("", "alpha", "E", "squared relative misfit", "the largest, predicted", "off by")
    return Table("Laws", header, rows, empty="Too few sizes for a law.")


def category_table(benefit: dict[str, Any]) -> Table:
    rows = [
        (
            name,
            f"{each['tasks']}",
            f"{each['n']:,}",
            f"{each['points']:+.1f}",
            f"{each['percent']:+.1f}" if each["percent"] is not None else "–",
            with_interval(each["gain"], each["gain_interval"], 3),
            with_interval(each["corrected"][-1], each["above_chance_interval"], 3),
            each["verdict"],
        )
        for name, each in benefit["categories"].items()
    ]
    header = ("category", "tasks", "items", "points", "%", "gain", "largest above chance", "")
    return Table("By category", header, rows)


def task_table(benefit: dict[str, Any]) -> Table:
    names = [benefit["names"][str(size)] for size in benefit["sizes"]]
    rows = [
        (
            f"{each['name']}, {each['shots']}-shot",
            f"{each['chance']:.3f}" if each["chance"] is not None else "–",
            *(f"{value:.3f}" for value in each["by_size"]),
            with_interval(each["gain"], each["gain_interval"], 3),
        )
        for each in benefit["tasks"]
    ]
    rows += [
        (
            f"{each['name']}, bits per byte",
            "",
            *(f"{value:.3f}" for value in each["by_size"]),
            f"{each['percent']:+.1f} %",
        )
        for each in benefit["texts"]
    ]
    return Table("Accuracy by task and size", ("task", "chance", *names, "gain"), rows)
