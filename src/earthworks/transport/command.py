"""`earthworks transport measure`: every distance that applies between two files of points."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthworks.runs import EarthworksError, Progress, json_text
from earthworks.runs.files import refuse_existing
from earthworks.runs.memory import refuse_beyond_memory
from earthworks.transport.clouds import cloud
from earthworks.transport.critic import critic_estimate
from earthworks.transport.exact import wasserstein
from earthworks.transport.gaussian import gaussian_wasserstein
from earthworks.transport.plan_figure import write_figure
from earthworks.transport.readers.arrays import read_npy
from earthworks.transport.readers.tables import read_csv
from earthworks.transport.result import OF_DISTRIBUTIONS, Distance
from earthworks.transport.sinkhorn import sinkhorn_divergence
from earthworks.transport.sliced import max_sliced_wasserstein, sliced_wasserstein


def measure(
    a: str,
    b: str,
    *,
    points: int = 500,
    num_permutations: int = 200,
    num_directions: int = 200,
    critic: bool = False,
    seed: int = 0,
    json: bool = False,
    figure: str | None = None,
) -> str:
    """Measure how far apart two clouds of points are: a table of distances, each with its kind, null and interval.

    The null is the value for one distribution at the same sizes; a value near it is no evidence. Distances that cost more
    than a sort (exact, max-sliced, Sinkhorn) use at most `points` random points of each file, as n shows.

    Args:
        a: the first cloud, .npy or .csv: one point per row; images (four axes) are flattened. Column names and an unnamed
            index in a .csv are not coordinates.
        b: the second cloud.
        points: maximum number of points of each file for the exact, max-sliced and Sinkhorn distances.
        num_permutations: random divisions of the pooled points for the null; no p-value is below 1 / (1 + this).
        num_directions: directions of the sliced distances.
        critic: also train a critic (a minute), and show its estimate of wasserstein_1 on held-out points.
        seed: seed of subsamples, directions, permutations and resamples.
        json: print a list of JSON records instead of a table.
        figure: a .png to write the plan (for clouds in the plane) and the nulls to.
    """
    if figure is not None and Path(figure).suffix != ".png":
        raise EarthworksError(f"--figure {figure} cannot be written: expected a name ending in .png")
    if figure is not None:
        refuse_existing(figure)
    for name, value in (("points", points), ("num_permutations", num_permutations), ("num_directions", num_directions)):
        if value < 1:
            raise EarthworksError(f"--{name} {value} is too few; expected at least 1")
    x, y = read_cloud(a), read_cloud(b)
    if x.shape[1] != y.shape[1]:
        raise EarthworksError(f"{a} has points of dimension {x.shape[1]}, {b} of dimension {y.shape[1]}")
    refuse_beyond_memory(f"--num_directions {num_directions:,}", 3 * 8 * num_directions * x.shape[1])
    refuse_beyond_memory(f"--num_permutations {num_permutations:,}", 3 * 8 * num_permutations)
    found = []
    with Progress("measuring", quiet=0) as progress:
        for name, compute in applicable(x, y, points, num_directions, critic, seed):
            progress.show(f"measuring {name}", force=True)
            with torch.no_grad() if name != "critic_estimate" else torch.enable_grad():
                found.append(compute())
        for distance in found:
            progress.show(f"measuring the null of {distance.name}", force=True)
            distance.assess(num_permutations, seed)
    if figure is not None:
        write_figure(found, figure, new=True)
    if json:
        return json_text([record(each) for each in found])
    return table(found, len(x), len(y))


def applicable(
    x: Tensor, y: Tensor, points: int, num_directions: int, critic: bool, seed: int
) -> list[tuple[str, Callable[[], Distance]]]:
    """(name, function that computes it). In one dimension the exact distance is a sort, and slicing adds nothing."""
    generator = torch.Generator().manual_seed(seed)
    few = min(len(x), len(y), points)
    u, v = (z[torch.randperm(len(z), generator=generator)[:few]] for z in (x, y))
    chosen: list[tuple[str, Callable[[], Distance]]]
    if x.shape[1] == 1:
        chosen = [(f"wasserstein_{p}", lambda p=p: wasserstein(x, y, p=p)) for p in (1, 2)]
    else:

        def sliced(p: int) -> Distance:
            return sliced_wasserstein(x, y, p=p, num_directions=num_directions, seed=seed)

        chosen = [
            *((f"wasserstein_{p}", lambda p=p: wasserstein(u, v, p=p)) for p in (1, 2)),
            *((f"sliced_wasserstein_{p}", lambda p=p: sliced(p)) for p in (1, 2)),
            ("max_sliced_wasserstein_2", lambda: max_sliced_wasserstein(u, v, seed=seed)),
        ]
    chosen += [
        ("sinkhorn_divergence", lambda: sinkhorn_divergence(u, v)),
        ("gaussian_wasserstein", lambda: gaussian_wasserstein(x, y)),
    ]
    if critic:
        chosen.append(("critic_estimate", lambda: critic_estimate(x, y, seed=seed)))
    return chosen


def read_cloud(file: str) -> Tensor:
    """The points of a .npy or .csv file as (n, d). Raises EarthworksError for anything that is not points."""
    path = Path(file)
    if path.suffix not in (".npy", ".csv"):
        raise EarthworksError(f"unsupported file type: {file} (expected .npy or .csv)")
    if path.suffix == ".csv":
        return cloud(torch.from_numpy(read_csv(path)), file)
    values = read_npy(path)
    single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return cloud(torch.from_numpy(values.astype(np.float32 if single else np.float64, order="C")), file)


def record(distance: Distance) -> dict[str, Any]:
    """A distance as a JSON record; `null` is the mean of the null."""
    assert distance.null is not None
    assert distance.interval is not None
    return {
        "name": distance.name,
        "value": float(distance),
        "kind": distance.kind,
        "null": float(distance.null.mean()),
        "interval": list(distance.interval),
        "interval_of": distance.interval_of,
        "p_value": distance.p_value,
        "n": distance.n,
        "m": distance.m,
        "d": distance.d,
        "solver": distance.solver,
        "converged": distance.converged,
    }


def table(found: list[Distance], n: int, m: int) -> str:
    width = max(len(each.name) for each in found)
    lines = [
        f"{n:,} points and {m:,} points, d = {found[0].d}",
        "",
        f"{'':<{width}} {'value':>9} {'null':>9} {'p':>6}  {'95 % interval':<20}  {'n':>7} {'m':>7}  kind: solver",
    ]
    for each in found:
        assert each.null is not None
        assert each.interval is not None
        low, high = each.interval
        mark = "" if each.interval_of == OF_DISTRIBUTIONS else "*"
        interval = "none: one point" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]{mark}"
        lines.append(
            f"{each.name:<{width}} {float(each):>9.4g} {float(each.null.mean()):>9.3g} {each.p_value:>6.3f}  "
            f"{interval:<20}  {each.n:>7,} {each.m:>7,}  {each.kind}: {each.solver}"
        )
    lines += [
        "",
        "null: the mean of the same number for random divisions of the pooled points, as if from one distribution.",
        "* interval of the mean of this number over samples of these sizes; the others: of the true distance.",
    ]
    return "\n".join(lines)
