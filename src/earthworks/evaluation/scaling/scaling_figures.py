"""Figures of a comparison by size: laws, benefit by category, accuracy by size, gain from examples."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from earthworks.report.figures import DASHES, INK, MUTED, SERIES, Drawing, draw

LABELS = {"parameters": "parameters without embeddings", "compute": "operations", "tokens": "training tokens"}


def laws(result: dict[str, Any], axes_of: list[str], name: str) -> Drawing:
    """Loss against each of `axes_of`: the law with its band, the straight line, and the predictions of the largest."""

    def paint(axes: np.ndarray) -> None:
        for panel, axis in zip(axes[0], axes_of):
            paint_law(panel, result["laws"][axis])
            panel.set_xlabel(LABELS[axis])
        axes[0, 0].set_ylabel("bits per byte, held out")
        axes[0, 0].legend()

    what = " and ".join(LABELS[axis] for axis in axes_of)
    return draw(
        name, f"Held-out bits per byte against {what}, with the fitted laws.", paint, columns=len(axes_of), height=3.6
    )


def paint_law(panel: Axes, law: dict[str, Any]) -> None:
    x, y = np.array(law["points"]).T
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.plot(x, y, "o", color=INK, markersize=4.5, label="runs", zorder=4)
    if "law" in law:
        curve = np.array([[x, y] for x, y, _ in law["curve"]])
        panel.plot(*curve.T, color=SERIES[0], label="law E + A x^-alpha")
        if all(band for _, _, band in law["curve"]):
            low, high = np.array([band for _, _, band in law["curve"]]).T
            panel.fill_between(curve[:, 0], low, high, color=SERIES[0], alpha=0.15, linewidth=0)
        line = law["line"]
        panel.plot(
            curve[:, 0], line["scale"] * curve[:, 0] ** -line["exponent"], color=SERIES[1], linestyle=DASHES[1],
            label="straight line",
        )  # fmt: skip
        told = law["held_out"]
        for offset, (key, color, label) in enumerate(
            (("law", SERIES[0], "predicted by the law"), ("line", SERIES[1], "by the line"))
        ):
            if key in told:
                low, high = told[key]["interval"]
                value = told[key]["value"]
                panel.errorbar(
                    told["size"] * 1.06 ** (offset + 1), value, [[max(0, value - low)], [max(0, high - value)]],
                    fmt="D" if offset else "s", color=color, markersize=4.5, capsize=3, label=label, zorder=3,
                )  # fmt: skip
    marks(panel, x)
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def benefit(found: dict[str, Any]) -> Drawing:
    """Gain of the largest over the best much smaller model, by category, with interval; hollow if the largest is not above
    chance."""
    rows = sorted(found["categories"].items(), key=lambda item: item[1]["gain"])

    def paint(axes: np.ndarray) -> None:
        panel = axes[0, 0]
        panel.axvline(0, color=MUTED, linewidth=1)
        for place, (_, each) in enumerate(rows):
            low, high = each["gain_interval"]
            above = each["above_chance_interval"][0] > 0
            panel.plot([low, high], [place, place], color=SERIES[0], linewidth=1.6)
            panel.plot(each["gain"], place, "o", color=SERIES[0], markerfacecolor=SERIES[0] if above else "white")
        panel.set_yticks(range(len(rows)), [f"{name} ({each['tasks']})" for name, each in rows])
        panel.set_xlabel("gain in (accuracy - chance) / (1 - chance); hollow: the largest is not above chance")

    return draw(
        "scaling-benefit",
        "Gain of the largest model over the best much smaller one, by category, with 95% intervals.",
        paint,
        height=1.2 + 0.32 * len(rows),
    )


def by_size(found: dict[str, Any]) -> Drawing:
    """Accuracy above chance of each category against size."""

    def paint(axes: np.ndarray) -> None:
        panel = axes[0, 0]
        panel.axhline(0, color=MUTED, linewidth=1)
        for place, (name, each) in enumerate(found["categories"].items()):
            color, dash = SERIES[place % len(SERIES)], DASHES[(place // len(SERIES) + place) % len(DASHES)]
            panel.plot(
                found["sizes"], each["corrected"], color=color, linestyle=dash, marker="o", markersize=3, label=name
            )
        size_axis(panel, found["sizes"])
        panel.set_ylabel("(accuracy - chance) / (1 - chance)")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    return draw("scaling-categories", "Accuracy above chance of each category by model size.", paint, height=3.6)


def few_shot(found: dict[str, Any]) -> Drawing:
    """Gain from k examples, by size."""

    def paint(axes: np.ndarray) -> None:
        panel = axes[0, 0]
        panel.axhline(0, color=MUTED, linewidth=1)
        for place, (shots, each) in enumerate(found["few_shot"].items()):
            color = SERIES[place % len(SERIES)]
            low, high = np.array(each["interval"]).T
            panel.plot(found["sizes"], each["gain"], color=color, linestyle=DASHES[place % len(DASHES)], marker="o",
                       markersize=3, label=f"{shots} examples, {len(each['tasks'])} tasks")  # fmt: skip
            panel.fill_between(found["sizes"], low, high, color=color, alpha=0.15, linewidth=0)
        size_axis(panel, found["sizes"])
        panel.set_ylabel("gain over zero-shot, corrected accuracy")
        panel.legend()

    return draw(
        "scaling-few-shot", "Gain in accuracy from solved examples in the context, by model size.", paint, height=3.2
    )


def size_axis(panel: Axes, sizes: list[int]) -> None:
    panel.set_xscale("log")
    marks(panel, np.array(sizes, float))
    panel.set_xlabel(LABELS["parameters"])


def marks(panel: Axes, sizes: np.ndarray) -> None:
    """Ticks at the sizes only."""
    different = np.unique(sizes)
    text = EngFormatter(sep="", places=1)
    panel.set_xticks(different, [text(each) for each in different])
    panel.xaxis.set_minor_locator(NullLocator())
