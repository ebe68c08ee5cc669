"""Sections on bias and toxicity, from bias.json, toxicity.json and ..._samples.jsonl."""

from collections.abc import Sized
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from earthworks.report.figures import DASHES, INK, MUTED, SERIES, Drawing, draw
from earthworks.report.numbers import LONGEST, cut_to, known, readable, with_interval
from earthworks.report.page import Section, Table, Veiled
from earthworks.report.reading import Reading, lines_of, read_mapping
from earthworks.runs import EarthworksError, inside
from earthworks.runs.json_files import parse_json

SIGNIFICANT = 0.05
SHOWN = 5  # number of texts with the highest and with the lowest scores
MOST_LINES = 200_000  # of samples to read
MOST_DRAWN = 200
Scored = tuple[float, int, str]  # sort key, line number, text
UNITS = {  # prefix of a finding's name: unit of the difference; each has its own axis
    "winogender: lean": "correlation",
    "winogender": "accuracy",
    "occupations": "nats",
    "CrowS-Pairs": "share of pairs beyond 1/2",
    "BBQ": "bias score, -1 to 1",
    "sentiment": "Wasserstein-1 between groups, 0 to 1",
    "dialect": "bits per byte",
}


def bias(reading: Reading) -> Section | None:
    found = read_mapping(reading.folder, "bias.json")
    if found is None:
        return None
    findings = found["findings"]
    seen = sum(each["p_holm"] <= SIGNIFICANT for each in findings)
    note = (
        f"{len(findings)} differences were tested; {seen} remain at 0.05 after {found['correction']} (filled). An "
        "unfilled mark does not show absence of bias: few units cannot show a small difference. A distance between groups "
        "is above 0 by chance alone: the grey stroke marks its value by chance."
    )
    rows = [
        (
            each["name"],
            with_interval(each["value"], each["interval"], 3),
            f"{by_chance(found).get(each['name'], 0):.3f}",
            f"{each['p_value']:.4f}",
            f"{each['p_holm']:.4f}",
            f"{each['n']:,} {each['unit']}",
        )
        for each in findings
    ]
    header = ("difference", "value", "without one", "p", "p corrected", "over")
    absent = [(name, why) for name, why in dict(found["missing"]).items()]
    drawing = reading.attempt("bias.json", lambda: forest(found), None)
    parts: list[Any] = [drawing] if drawing else []
    parts.append(Table("All tested differences", header, rows))
    parts.append(Table("Not measured", ("part", "why"), absent, "Every requested part was measured.", "words"))
    texts = samples(reading, "bias_samples.jsonl", "sentiment")
    return Section("Bias", note, [*parts, *texts])


def by_chance(found: dict[str, Any]) -> dict[str, float]:
    """{name of a finding about distances: mean of its null}."""
    return {
        f"sentiment ({what}), {attribute}: {kind} fairness, W1": row[f"{kind}_fairness"]["null_mean"]
        for part, what in (("templates", "templates"), ("bold", "BOLD"))
        for attribute, row in found.get(part, {}).get("attributes", {}).items()
        for kind in ("individual", "group")
    }


def forest(found: dict[str, Any]) -> Drawing:
    """Each difference with its interval, a panel per unit; filled if the corrected p-value is at most 0.05."""
    refuse_many("bias.json", found["findings"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in found["findings"]:
        groups.setdefault(next((key for key in UNITS if each["name"].startswith(key)), "other"), []).append(each)
    expected = by_chance(found)

    def paint(panels: np.ndarray) -> None:
        for axes, (group, findings) in zip(panels[:, 0], groups.items()):
            for place, each in enumerate(findings):
                clear = each["p_holm"] <= SIGNIFICANT
                if each["interval"]:
                    axes.plot(each["interval"], [place] * 2, color=SERIES[0], linewidth=1.6)
                face = {"markerfacecolor": SERIES[0] if clear else "white", "markeredgecolor": SERIES[0]}
                axes.plot([each["value"]], [place], "o", markersize=6, **face)
                if each["name"] in expected:
                    axes.plot([expected[each["name"]]] * 2, [place - 0.3, place + 0.3], color=MUTED, linewidth=2)
                x, place_of = 1.01, axes.get_yaxis_transform()
                axes.text(x, place, f"{each['p_holm']:.3f}", transform=place_of, va="center", color=INK, fontsize=8.5)
            axes.axvline(0, color=INK, linewidth=1)
            axes.set_yticks(range(len(findings)), [short_name(each["name"], group) for each in findings])
            axes.set_ylim(len(findings) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{group}, {UNITS.get(group, '')}".rstrip(", "))
        panels[0, 0].text(
            1.01, 1.02, "p corrected", transform=panels[0, 0].transAxes, color=MUTED, fontsize=8.5, va="bottom"
        )

    sizes = [len(each) for each in groups.values()]
    description = (
        "Each tested difference with its 95% interval; 0 is none. Filled: its p-value, corrected for the number of tests, "
        "is at most 0.05."
    )
    height = 0.75 * len(sizes) + 0.24 * sum(sizes)
    return draw(
        "bias", description, paint, rows=len(sizes), height=height, height_ratios=[0.6 + each for each in sizes]
    )


def short_name(name: str, group: str) -> str:
    """A finding's name without the part in the panel's title."""
    return name.removeprefix(group).lstrip(":, ") if group != "sentiment" else name.removeprefix("sentiment ")


def toxicity(reading: Reading) -> Section | None:
    found = read_mapping(reading.folder, "toxicity.json")
    if found is None:
        return None
    protocol = found["protocol"]
    note = (
        f"{found['no_claim'] or found['claim']} {protocol['num']} continuations of {protocol['max_tokens']} tokens, nucleus "
        f"{protocol['top_p']:g}, scored without the prompt; toxic is a score of {protocol['toxic_from']:g} or more. Bins by "
        f"{found['prompted']['bins_by']}."
    )
    rows = {"all prompts": found["prompted"]["all"]}
    rows |= {f"prompt toxicity {name}": row for name, row in found["prompted"]["bins"].items()}
    table = Table(
        "After prompts",
        ("prompts", "expected maximum", "P(at least one toxic)", "mean", "n", "missing"),
        [(name, *summary_cells(row)) for name, row in rows.items()],
    )
    parts: list[Any] = [worth(found["scorer"])]
    drawing = reading.attempt("toxicity.json", lambda: bins(found["prompted"]), None)
    parts += [drawing, table] if drawing else [table]
    alone = found["unprompted"]
    if alone and alone["n"]:
        cells = (
            with_interval(alone["mean"], alone["mean_interval"], 3),
            f"{alone['median']:.3f}",
            f"{alone['percentile_95']:.3f}",
            with_interval(alone["toxic_share"], alone["toxic_share_interval"], 3),
            f"{alone['n']:,}",
        )
        parts.append(Table("Unprompted", ("", "mean", "median", "95 % point", "toxic", "n"), [("texts", *cells)]))
    if found["missing"]:
        parts.append(Table("Missing", ("what",), [(each,) for each in found["missing"]], kind="words"))
    return Section("Toxicity", note, [*parts, *samples(reading, "toxicity_samples.jsonl", "toxicity")])


def summary_cells(row: dict[str, Any]) -> tuple[str, ...]:
    if not row["prompts"]:
        return ("–", "–", "–", "0", f"{row['missing']:,}")
    return (
        with_interval(row["expected_maximum"], row["expected_maximum_interval"], 3),
        with_interval(row["toxic_probability"], row["toxic_probability_interval"], 3),
        f"{row['mean']:.3f}",
        f"{row['prompts']:,}",
        f"{row['missing']:,}",
    )


def worth(scorer: dict[str, Any]) -> Table:
    """Test results of the scorer."""
    tests = {"held out": scorer.get("held_out")}
    tests |= {f"other corpus {name}": row for name, row in scorer.get("cross_corpus", {}).items()}
    tests["HateCheck"] = scorer.get("hatecheck")
    rows = []
    for name, row in tests.items():
        if row is None or row["auc"] is None:
            rows.append((name, "not measured", "–", "–", "–"))
            continue
        flags = ("–" if row[key] is None else f"{row[key]:.0%}" for key in ("flagged_toxic", "flagged_other"))
        rows.append((name, with_interval(row["auc"], row["interval"], 3), *flags, f"{row['n']:,}"))
    header = ("tested on", "AUC", "0.5 flags of the toxic", "of the others", "n")
    return Table(f"The scorer: {scorer.get('name', 'unnamed')}", header, rows)


def bins(prompted: dict[str, Any]) -> Drawing | None:
    """Both summaries by the prompt's toxicity."""
    rows = {name: row for name, row in {**prompted["bins"], "all": prompted["all"]}.items() if row["prompts"]}
    if not rows:
        return None
    refuse_many("toxicity.json", rows)

    def paint(axes: np.ndarray) -> None:
        for panel, key, title in (
            (axes[0, 0], "expected_maximum", "Expected maximum toxicity"),
            (axes[0, 1], "toxic_probability", "P(at least one toxic)"),
        ):
            for place, (name, row) in enumerate(rows.items()):
                panel.bar(place, row[key], width=0.7, color=MUTED if name == "all" else SERIES[1], alpha=0.75)
                if row[f"{key}_interval"]:
                    panel.plot([place] * 2, row[f"{key}_interval"], color=INK, linewidth=1.6)
            panel.set_xticks(range(len(rows)), [f"{name}\n{row['prompts']:,} prompts" for name, row in rows.items()])
            panel.tick_params(axis="x", length=0)
            panel.set_ylim(0, 1)
            panel.grid(visible=False, axis="x")
            panel.set_title(title)

    description = "Both summaries by the prompt's toxicity, with 95% intervals over prompts."
    return draw("toxicity", description, paint, columns=2, height=3.0)


def detection(reading: Reading) -> Section | None:
    """Toxicity detection by asking the model: AUC by number of examples, and by subgroup."""
    found = read_mapping(reading.folder, "toxicity_detection.json")
    if found is None:
        return None
    (model,) = found["models"]
    points = {int(count): row for count, row in model["shots"].items()}
    refuse_many("toxicity_detection.json", points)

    def paint(axes: np.ndarray) -> None:
        panel = axes[0, 0]
        shots = sorted(points)
        panel.plot(shots, [points[count]["auc"] for count in shots], "o-", color=SERIES[0])
        for count in shots:
            if points[count]["interval"]:
                panel.plot([count] * 2, points[count]["interval"], color=SERIES[0], linewidth=1.2)
        panel.axhline(0.5, color=MUTED, linestyle=DASHES[2])
        panel.set_ylim(0, 1)
        panel.set_xticks(shots)
        panel.set_xlabel("examples shown")
        panel.set_title("AUC of P(yes) when asked whether a comment is toxic")
        panel.legend(handles=[Line2D([], [], color=MUTED, linestyle=DASHES[2], label="chance")])

    rows = [
        (f"{count}", with_interval(row["auc"], row["interval"], 3), f"{row['cut']:,}") for count, row in points.items()
    ]
    groups = [
        (name, *(with_interval(row[kind]["auc"], row[kind]["interval"], 3) for kind in ("subgroup", "bpsn", "bnsp")))
        for name, row in model["subgroups"].items()
        if all(known(row[kind]["auc"]) for kind in ("subgroup", "bpsn", "bnsp"))
    ]
    note = (
        f"{found['texts']:,} texts of {found['data']}, {found['toxic']:,} of them toxic; 0.5 is chance. Subgroup: among "
        "texts that mention it; BPSN is low if harmless mentions count as toxic, BNSP if toxic ones are missed."
    )
    description = "AUC by the number of answered examples in the prompt, with 95% intervals."
    parts: list[Any] = [
        draw("detection", description, paint, width=6.4, height=2.8),
        Table("By examples", ("examples", "AUC", "prompts cut to the window"), rows),
        Table(
            f"By subgroup, at {max(points)} examples",
            ("mention of", "subgroup", "BPSN", "BNSP"),
            groups,
            "No subgroup has ten toxic and ten other texts.",
        ),
    ]
    return Section("Toxicity detection", note, parts)


def refuse_many(name: str, found: Sized) -> None:
    """EarthworksError if there are more marks than a figure can show."""
    if len(found) > MOST_DRAWN:
        raise EarthworksError(f"{name} has {len(found):,} values for one figure, more than the limit of {MOST_DRAWN}")


def samples(reading: Reading, name: str, key: str) -> list[Veiled]:
    """The texts with the highest and lowest scores, blurred."""
    return reading.attempt(name, lambda: read_samples(reading, name, key), [])


def read_samples(reading: Reading, name: str, key: str) -> list[Veiled]:
    path = inside(reading.folder.path, name)
    if not path.exists():
        return []
    kept: list[Scored] = []
    scored = damaged = 0
    for line in islice(lines_of(path), MOST_LINES):
        try:
            each = parse_json(line.decode(errors="replace"))
            value = each.get(key)
            text = f"{readable(each['prompt'])} ▸ {readable(each['text'])}"  # the mark ends the prompt
        except (ValueError, AttributeError, LookupError, TypeError):
            damaged += 1
            continue
        if not known(value):
            continue
        scored += 1
        kept.append((-value, scored, cut_to(text, LONGEST)))
        if len(kept) > 100 * SHOWN:
            kept = both_ends(kept)
    if damaged:
        reading.leave_out(f"{path} has {damaged:,} lines that are not samples written by Earthworks")
    texts = [(f"{key} {-value:.3f}", text) for value, _, text in both_ends(kept)]
    title = f"Samples: the highest and lowest of {scored:,} texts by {key}; they may offend"
    return [Veiled(title, texts)] if texts else []


def both_ends(scored: list[Scored]) -> list[Scored]:
    """The first and last of the sorted texts."""
    scored = sorted(scored)
    return scored[:SHOWN] + scored[max(SHOWN, len(scored) - SHOWN) :]
