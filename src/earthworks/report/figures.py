"""The common style of figures, and thinning and smoothing of curves.

A figure is drawn once, in the light palette. Its PNG keeps those colours; in the SVG that goes into the page each
colour of the palette becomes a CSS variable, so that one drawing works in light, dark and print.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from earthworks import __version__
from earthworks.report.numbers import readable

# name: (light, dark). The series are distinguishable in grey too, by lightness and dash.
PALETTE = {
    "ink": ("#20262c", "#e4e8ec"),
    "muted": ("#5f6973", "#a0aab4"),
    "grid": ("#dde1e5", "#363d45"),
    "series-1": ("#1b66ab", "#6db3f2"),
    "series-2": ("#c2540a", "#f39a5c"),
    "series-3": ("#1f7f55", "#5fc794"),
    "series-4": ("#7d46a8", "#c59bea"),
    "series-5": ("#8d6b08", "#dbb74a"),
    "series-6": ("#b02a62", "#f087af"),
}
INK, MUTED, GRID, *SERIES = (light for light, _ in PALETTE.values())
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))

STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.8,
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "svg.fonttype": "none",  # text stays text: it uses the page's font, and screen readers and searches find it
    "text.color": INK,
    "text.parse_math": False,  # a subset or a run may have a dollar sign in its name
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


LONGEST_DESCRIPTION = 2000
LONGEST_LABEL = 120  # characters: a longer one leaves no room for the drawing


@dataclass
class Drawing:
    """A finished figure: file name without suffix, description, and the two renderings."""

    name: str
    description: str
    svg: str
    png: bytes
    macro: ClassVar[str] = "drawing"


def draw(
    name: str,
    description: str,
    paint: Callable[[np.ndarray], None],
    *,
    rows: int = 1,
    columns: int = 1,
    width: float = 9.6,
    height: float = 3.1,
    height_ratios: Sequence[float] | None = None,
) -> Drawing:
    """A figure of `rows` x `columns` panels (total size in inches); `paint` draws on the array of axes."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's fonts have these glyphs
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
        paint(figure.subplots(rows, columns, squeeze=False, height_ratios=height_ratios))
        make_legible(figure)
        png, svg = io.BytesIO(), io.StringIO()
        description = readable(description)[:LONGEST_DESCRIPTION]
        about = {"Software": f"Earthworks {__version__}", "Title": name, "Description": description}
        figure.savefig(png, format="png", facecolor="white", metadata=about)
        figure.set_layout_engine("none")  # keeps the layout, which takes longer than drawing
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
    return Drawing(name, description, for_page(svg.getvalue(), name, description), png.getvalue())


def make_legible(figure: Figure) -> None:
    """Make untrusted names safe for a figure: control characters visible, length limited."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FuncFormatter):  # used for labels given by name
                formatter.func = legibly(formatter.func)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(legible(text.get_text()))


def legible(label: str) -> str:
    label = "\n".join(readable(label).split("\n")[:3])
    return label if len(label) <= LONGEST_LABEL else f"{label[:LONGEST_LABEL]} …"


def legibly(function: Callable[..., str]) -> Callable[..., str]:
    return lambda value, place: legible(function(value, place))


def for_page(svg: str, name: str, description: str) -> str:
    """Adapt an SVG document for embedding: no XML header, unique identifiers, colours as CSS variables."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    for fixed in ("width", "height"):  # in points; the page sets the size, the viewBox keeps the proportions
        svg = re.sub(rf'(<svg[^>]*?) {fixed}="[^"]*"', r"\1", svg, count=1)
    svg = f'<svg role="img" aria-label="{escape(description)}"' + svg.removeprefix("<svg")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for variable, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{variable})")
    return svg


def thin(x: np.ndarray, y: np.ndarray, most: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve: the first, the last, and the two extremes of each of equal stretches.

    The result looks like the whole curve: no spike disappears, as it would if every k-th point were taken.
    """
    if len(x) <= most:
        return x, y
    kept = [0, len(x) - 1]
    for stretch in np.array_split(np.arange(1, len(x) - 1), (most - 2) // 2):
        kept += [stretch[y[stretch].argmin()], stretch[y[stretch].argmax()]]
    kept = np.unique(kept)
    return x[kept], y[kept]


def smooth(y: np.ndarray, share: float = 0.03) -> np.ndarray:
    """Running mean over a centred window of `share` of the points, truncated at both ends.

        s_i = mean(y_j : |i - j| <= h),    h = floor(share * n / 2)

    O(n) by running sums of differences from y_0, so that a constant stays exactly constant.
    """
    if not len(y):
        return y
    half = int(share * len(y) / 2)
    sums = np.concatenate([[0.0], np.cumsum(y - y[0])])
    centre = np.arange(len(y))
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(y))
    return y[0] + (sums[high] - sums[low]) / (high - low)


def finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points with finite coordinates; steps without a measurement are NaN."""
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def noisy_curve(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str | None = None, **line: Any) -> None:
    """Plot the measured values faintly, with their running mean on top."""
    x, y = finite(x, y)
    axes.plot(*thin(x, y), color=color, alpha=0.3, linewidth=0.7)
    axes.plot(*thin(x, smooth(y)), color=color, label=label, **line)


def count_axis(axes: Axes, what: str) -> None:
    """Format a horizontal axis of counts: commas for thousands, or k, M, B, T for large values."""
    axes.set_xlabel(what)
    largest = axes.get_xlim()[1]
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=largest > 5))
    if largest >= 1e5:
        axes.xaxis.set_major_formatter(EngFormatter())
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if largest > 5 else f"{value:g}"))


def log_axis(axes: Axes) -> None:
    """Logarithmic vertical axis with plain numbers; linear if the data span less than a factor of two, over which both
    look the same and linear ticks are rounder."""
    low, high = axes.dataLim.intervaly
    if high < 2 * low or low <= 0:
        return
    axes.set_yscale("log")
    if high < 1000 * low:
        marks = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high < 6 * low else (1, 1.5, 2, 3, 5, 7)
        marks = marks if high < 20 * low else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=marks))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
