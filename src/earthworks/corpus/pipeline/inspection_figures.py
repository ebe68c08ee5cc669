"""Figures of the inspection page."""

from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter, NullFormatter

from earthworks.report.figures import DASHES, INK, MUTED, SERIES, Drawing, draw

COLUMNS = 4


def flow(manifest: dict[str, Any]) -> Drawing:
    """Documents of each subset: in the corpus, and dropped at each stage, as shares of those read."""
    subsets = list(manifest["subsets"].items())
    stages = ("in the corpus", "filters", "exact copies", "near copies", "test material")

    def paint(axes: np.ndarray) -> None:
        bars = axes[0, 0]
        left = np.zeros(len(subsets))
        for k, stage in enumerate(stages):
            share = np.array([parts(each)[stage] / max(each["documents"], 1) for _, each in subsets])
            bars.barh(
                range(len(subsets)), share, left=left, color=(MUTED, *SERIES)[(k + 1) % 6], label=stage, height=0.6
            )
            left += share
        bars.set_yticks(range(len(subsets)), [name for name, _ in subsets])
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bars.grid(visible=False, axis="y")
        bars.legend(ncols=len(stages), loc="lower left", bbox_to_anchor=(0, 1))

    description = "Documents of each subset in the corpus, and dropped at each stage, as shares of those read."
    return draw("stages", description, paint, height=1.2 + 0.4 * len(subsets))


def parts(counts: dict[str, Any]) -> dict[str, int]:
    """Number of documents by outcome."""
    return {
        "in the corpus": counts["final"],
        "filters": counts["documents"] - counts["kept"],
        "exact copies": counts["exact_copies"],
        "near copies": counts["near_copies"],
        "test material": counts["contaminated"],
    }


def histograms(manifest: dict[str, Any], bounds: dict[str, tuple[float, float]]) -> Drawing:
    """The distribution of every rule's value, with its bounds; counts on a logarithmic axis."""
    names = list(manifest["histograms"])
    rows = -(-len(names) // COLUMNS)

    def paint(axes: np.ndarray) -> None:
        for panel in axes.flat[len(names) :]:
            panel.set_axis_off()
        for panel, name in zip(axes.flat, names):
            edges, counts = np.array(manifest["edges"][name]), np.array(manifest["histograms"][name])
            panel.stairs(counts, edges, fill=True, color=SERIES[0])
            panel.set_title(name)
            if counts.any():
                panel.set_yscale("log")
                panel.set_ylim(0.5, max(counts.max() * 2, 10))
                panel.yaxis.set_major_formatter(EngFormatter(sep=""))
                panel.yaxis.set_minor_formatter(NullFormatter())
            if name == "words":
                panel.set_xscale("log")
                panel.set_xlim(1, 1e6)
                panel.xaxis.set_major_formatter(EngFormatter(sep=""))
                panel.xaxis.set_minor_formatter(NullFormatter())
            for bound in bounds[name]:
                if edges[0] < bound < edges[-1]:
                    panel.axvline(bound, color=SERIES[1], linestyle=DASHES[1], linewidth=1.3)
            panel.tick_params(labelsize=8, labelcolor=INK)

    description = "Documents by the value of every rule, counts on a logarithmic axis; dashed: the bounds."
    return draw("rules", description, paint, rows=rows, columns=COLUMNS, height=1.65 * rows)
