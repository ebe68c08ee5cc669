"""Figures of a distance: the plan as arrows, and the value with its null."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from earthworks.runs import EarthworksError, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARROWS = 500  # more would be illegible


class Drawn(Protocol):
    """The attributes of a `Distance` that are drawn."""

    name: str
    d: int
    unit: int
    plan: Tensor | None
    samples: tuple[Tensor, Tensor] | None
    null: Tensor | None
    p_value: float | None
    interval: tuple[float, float] | None

    def __float__(self) -> float: ...


def paint_plan(distance: Drawn, axes: "Axes") -> None:
    """Draw both clouds, and the ARROWS largest entries of the plan, heavier ones darker."""
    from earthworks.report.figures import MUTED, SERIES

    if distance.plan is None or distance.samples is None or distance.d != 2:
        raise EarthworksError(f"{distance.name} has no plan in two dimensions to draw: call assess() to draw its null")
    x, y = (each.cpu().numpy() for each in distance.samples)
    plan = distance.plan.detach().cpu().numpy()
    i, j = plan.nonzero()
    mass = plan[i, j]
    chosen = np.argsort(-mass, kind="stable")[:ARROWS]
    if len(mass) > ARROWS:  # evenly spaced ones where all are equal
        chosen = chosen if np.ptp(mass) > 0 else np.linspace(0, len(mass) - 1, ARROWS).astype(int)
    i, j, mass = i[chosen], j[chosen], mass[chosen]
    if distance.unit:
        axes.set_xlabel(f"in units of 2^{distance.unit}")
    ends = y[j] - x[i]
    axes.quiver(
        *x[i].T, *ends.T, color=MUTED, alpha=0.2 + 0.6 * mass / mass.max(),
        angles="xy", scale_units="xy", scale=1, width=0.0025,
    )  # fmt: skip
    axes.plot(*x.T, "o", color=SERIES[0], markersize=3, label=f"x ({len(x):,})")
    axes.plot(*y.T, "s", color=SERIES[1], markersize=3, label=f"y ({len(y):,})")
    axes.set_aspect("equal", "datalim")
    axes.set_title(f"{distance.name} = {float(distance):.4g}")
    axes.legend()


def paint_null(distance: Drawn, axes: "Axes") -> None:
    """Draw the value, its interval, and the null: values for one distribution."""
    from earthworks.report.figures import INK, MUTED, SERIES

    if distance.null is None or distance.interval is None:
        raise EarthworksError(f"{distance.name} has no null yet: call assess()")
    axes.hist(distance.null.numpy(), bins=25, color=MUTED, alpha=0.6, label=f"null, {len(distance.null)} values")
    axes.axvline(float(distance), color=SERIES[1], label=f"value {float(distance):.4g}")
    low, high = distance.interval
    if low <= high:  # not NaN
        axes.axvspan(low, high, color=SERIES[1], alpha=0.15, linewidth=0, label="95 % interval")
    axes.set_yticks([])
    axes.grid(False)
    axes.set_title(f"{distance.name}: p {distance.p_value:.2g}", color=INK)
    axes.legend(fontsize=8, frameon=True, framealpha=0.8, edgecolor="none")


def write_figure(distances: Sequence[Drawn], path: str | Path, *, new: bool = False) -> Path:
    """Write a .png file of panels: the first plan that can be drawn, and the null of each distance. `new`: refuse an
    existing file."""
    from earthworks.report.figures import draw

    path = Path(path)
    if path.suffix != ".png":
        raise EarthworksError(f"unsupported figure format: {path.name} (expected a name ending in .png)")
    panels = [(paint_plan, each) for each in distances if each.plan is not None and each.d == 2][:1]
    panels += [(paint_null, each) for each in distances if each.null is not None]
    if not panels:
        raise EarthworksError("nothing to draw: there is no two-dimensional plan and no null; call assess() first")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)

    def paint(axes: np.ndarray) -> None:
        for (painter, distance), each in zip(panels, axes.flat):
            painter(distance, each)
        for empty in axes.flat[len(panels) :]:
            empty.set_axis_off()

    description = "; ".join(str(each) for each in distances)
    drawing = draw(path.stem, description, paint, rows=rows, columns=columns, width=4.2 * columns, height=3.2 * rows)
    write_bytes(path, drawing.png, new=new)
    return path
