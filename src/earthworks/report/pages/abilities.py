"""Section on task results, from tasks.json: bars by category, and accuracy by number of examples."""

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from earthworks.report.figures import DASHES, INK, MUTED, SERIES, Drawing, draw
from earthworks.report.numbers import known, with_interval
from earthworks.report.page import Section, Table
from earthworks.report.reading import Reading, read_mapping
from earthworks.runs import EarthworksError

MOST_LINES = 6  # per panel: the number of colours
MOST_BARS, MOST_PANELS, MOST_RESULTS = 200, 24, 5000  # limits of what is drawn
Result = dict[str, Any]


def abilities(reading: Reading) -> Section | None:
    """The section, if the run has a tasks.json."""
    found = read_mapping(reading.folder, "tasks.json")
    if found is None:
        return None
    results = found["results"]
    drawings = [
        reading.attempt("tasks.json", lambda: bars(found), None),
        reading.attempt("tasks.json", lambda: few_shot(results), None),
    ]
    window = f", window {found['window']} tokens" if found.get("window") else ""
    limit = f"at most {found['limit']:,} items of a task, " if found["limit"] else ""
    note = (
        f"Measured by evaluate tasks: {limit}seed {found['seed']}{window}. Chance is the mean of 1 / options; a model "
        "without knowledge may differ from it, because options differ in length. In brackets: 95% interval over items. If "
        "chance is –, the answer is open and guessing gives 0."
    )
    parts = [each for each in drawings if each]
    return Section("Tasks", note, [*parts, table(results), missing(found)])


def bars(found: dict[str, Any]) -> Drawing | None:
    """Mean accuracy of each category by number of examples, with tasks as dots and chance as a line across the bar."""
    categories = {
        name: {shots: row for shots, row in by_shots.items() if row["accuracy"] is not None}
        for name, by_shots in found["categories"].items()
    }
    categories = {name: rows for name, rows in categories.items() if rows}
    if not categories:
        return None
    count = sum(map(len, categories.values()))
    if count > MOST_BARS or len(found["results"]) > MOST_RESULTS:
        raise EarthworksError(
            f"tasks.json has {count:,} bars of {len(found['results']):,} results, more than the {MOST_BARS} and "
            f"{MOST_RESULTS:,} that are drawn"
        )
    numbers = sorted(
        {shots for rows in categories.values() for shots in rows}, key=lambda name: int(name.split("-")[0])
    )
    height = 0.8 / len(numbers)

    def paint(panels: np.ndarray) -> None:
        axes = panels[0, 0]
        for place, (category, rows) in enumerate(categories.items()):
            for position, (shots, row) in enumerate(rows.items()):
                i = numbers.index(shots)
                y = place + (position - (len(rows) - 1) / 2) * height
                axes.barh(y, row["accuracy"], height=0.9 * height, color=SERIES[i % 6], alpha=0.75)
                axes.plot([row["chance"]] * 2, [y - height / 2, y + height / 2], color=INK, linewidth=2)
                dots = [
                    each["value"]
                    for each in found["results"]
                    if each["category"] == category
                    and f"{each['shots']}-shot" == shots
                    and each["metric"] != "bits_per_byte"
                ]
                if len(dots) > 1:
                    axes.plot(dots, [y] * len(dots), "o", color="white", markeredgecolor=INK, markersize=3.5)
        axes.set_yticks(range(len(categories)), list(categories))
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1)
        axes.set_xlabel("accuracy, mean over the tasks of a category")
        handles: list[Any] = [Patch(color=SERIES[i % 6], alpha=0.75, label=shots) for i, shots in enumerate(numbers)]
        handles.append(Line2D([], [], color=INK, linewidth=2, label="chance"))
        dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "white", "markeredgecolor": INK}
        handles.append(Line2D([], [], markersize=3.5, label="one task", **dot))
        axes.figure.legend(handles=handles, loc="outside lower center", ncols=6)

    description = "Accuracy by category: the mean over its tasks, each task as a dot, chance as a vertical line."
    return draw("abilities", description, paint, height=1.0 + len(categories) * (0.2 + 0.17 * len(numbers)))


def few_shot(results: list[Result]) -> Drawing | None:
    """Accuracy by number of examples, a panel for each category with a task measured at several numbers."""
    tasks: dict[str, dict[str, list[Result]]] = {}
    for each in results:
        if each["metric"] != "bits_per_byte":
            tasks.setdefault(each["category"], {}).setdefault(each["name"], []).append(each)
    panels = []
    for category, by_name in tasks.items():
        curves = {name: rows for name, rows in by_name.items() if len({row["shots"] for row in rows}) > 1}
        names = list(curves)
        panels += [
            (category, {name: curves[name] for name in names[start : start + MOST_LINES]})
            for start in range(0, len(names), MOST_LINES)
        ]
    if not panels:
        return None
    if len(panels) > MOST_PANELS:
        raise EarthworksError(
            f"tasks.json has {len(panels):,} panels of tasks, more than the {MOST_PANELS} that are drawn"
        )
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)

    def paint(axes: np.ndarray) -> None:
        for each in axes.flat[len(panels) :]:
            each.set_visible(False)
        for each, (category, curves) in zip(axes.flat, panels):
            for i, (name, points) in enumerate(curves.items()):
                points = sorted(points, key=lambda row: row["shots"])
                shots, value = (np.array([row[key] for row in points], float) for key in ("shots", "value"))
                x = shots + (i - (len(curves) - 1) / 2) * 0.012 * shots.max()  # side by side, because intervals overlap
                low, high = np.array([row["interval"] for row in points]).T
                style = {"color": SERIES[i % 6], "linestyle": DASHES[i % 6]}
                each.plot(x, value, marker="o", markersize=3.5, label=name, **style)
                each.vlines(x, low, high, color=SERIES[i % 6], linewidth=1, alpha=0.6)
                if known(points[-1]["chance"]):
                    each.axhline(points[-1]["chance"], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
            each.set_title(category)
            each.set_ylim(0, 1)
            each.set_xlabel("examples shown")
            each.set_xticks(sorted({row["shots"] for points in curves.values() for row in points}))
            each.legend(fontsize=8)

    description = "Accuracy by number of examples before the question; vertical lines: 95% interval; dotted: chance."
    return draw("few-shot", description, paint, rows=rows, columns=columns, height=2.9 * rows)


def table(results: list[Result]) -> Table:
    """Table with a row for each task and number of examples."""
    rows = [
        (
            each["name"],
            f"{each['shots']}",
            f"{each['n']:,}",
            with_interval(each["value"], each["interval"], 3),
            f"{each['chance']:.3f}" if known(each["chance"]) else "–",
            f"{each['majority']:.3f}" if known(each["majority"]) else "–",
            *(accuracy(each, rule) for rule in ("raw", "per_character", "per_byte", "unconditional")),
            each["metric"].replace("_", " "),
        )
        for each in results
    ]
    header = (
        "task",
        "shots",
        "n",
        "value",
        "chance",
        "majority",
        "raw",
        "/character",
        "/byte",
        "- alone",
        "measured as",
    )
    return Table("Tasks", header, rows)


def accuracy(each: Result, rule: str) -> str:
    found = each.get("accuracy", {}).get(rule)
    return f"{found['value']:.3f}" if found else ""


def missing(found: dict[str, Any]) -> Table:
    """Table of missing tasks and items, and of cut contexts and split tokens."""
    rows = [(each["name"], f"{each['shots']}", each["reason"]) for each in found["absent"]]
    for each in found["results"]:
        name = each["name"], f"{each['shots']}"
        rows += [(*name, f"{count:,} items are missing: {reason}") for reason, count in each["missing"].items()]
        if each["truncated"]:
            rows.append((*name, f"{each['truncated']:,} of {each['n']:,} items lost the start of their context"))
        if each["split"]:
            rows.append((*name, f"in {each['split']:,} of {each['n']:,} items one token spans context and answer"))
    return Table("Missing and cut items", ("task", "shots", "what"), rows, "Nothing is missing.", "words")
