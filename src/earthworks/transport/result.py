"""Result type of every distance: value, kind, sample sizes, null and interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import times
from earthworks.transport.resampling import OnPool, bootstrap_interval, influence_interval, p_value, permuted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["distance", "cost", "lower bound", "upper bound", "estimate"]
Statistic = Callable[[Tensor, Tensor], Tensor]  # two samples -> a 0-d tensor, larger for distributions further apart

ROUNDING = 1e-10  # values below it, computed from numbers near 1, may be pure rounding error
OF_DISTRIBUTIONS = "this number between the two distributions"
OF_MEAN = "the mean of this number over samples of these sizes"


@dataclass(eq=False, kw_only=True)
class Distance:
    """A distance between two distributions, or a bound or an estimate of one.

    `value` is a 0-d tensor (with grad where the quantity has one); `kind` relates it to the population or batch
    quantity called `name`; `n` and `m` are the sample sizes, `d` the dimension, `p` the order, `solver` the method used;
    `plan` (n, m) and `potentials` (n,), (m,) are set where the solver has them; `details` holds other results of the
    solver (iterations, marginal violation, standard error) as plain numbers. Potentials and details outside the range of
    float64 (very large or small points) are None. After `assess()`: `null` (B,), `p_value`, `interval`, and its target,
    `interval_of`.
    """

    name: str
    value: Tensor
    kind: Kind
    n: int
    m: int
    d: int
    p: float | None = None
    solver: str = ""
    converged: bool = True
    plan: Tensor | None = None
    potentials: tuple[Tensor, Tensor] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    samples: tuple[Tensor, Tensor] | None = None  # permuted and resampled by `assess`
    statistic: Statistic | None = None
    on_pool: Callable[[Tensor], OnPool] | None = None  # the same statistic by index, where evaluations can share work
    influence: tuple[Tensor, Tensor] | None = None  # d value / d weight of each point, (n,) and (m,)
    null: Tensor | None = None
    p_value: float | None = None
    interval: tuple[float, float] | None = None
    interval_of: str = ""
    degree: float = 1  # power of length: 1 for a distance, p for a cost, 0 for a number without unit
    unit: int = 0  # samples, statistic and influence are in units of 2^unit (`magnitude.py`)

    def __float__(self) -> float:
        return float(self.value.detach())

    def assess(self, num_permutations: int = 200, seed: int = 0) -> "Distance":
        """Add the null, its p-value and a 95 % interval; returns self.

        The null is this statistic for `num_permutations` random divisions of all n + m points into n and m: the values
        for two samples of one distribution at these sizes. Where value and null agree, the value is bias. The p-value
        is exact (`permutation_test`).

        The interval has one of two targets, named by `interval_of`.
        * *This number between the two distributions*, for statistics whose bias vanishes faster than their noise: in one
          dimension, sliced, Gaussian. The basic bootstrap, `num_permutations` resamples of either sample;
          where the permutation test does not reject at 5 % it reaches down to 0, because there the bootstrap fails.
        * *The mean of this number over samples of these sizes*, for the exact distance in d >= 2, the max-sliced
          one and Sinkhorn, whose bias no resampling removes. It contains the distance between the distributions only
          where the null is small compared with the value. Normal, from the variance of the potentials: del Barrio and
          Loubes 2019.

        Takes `num_permutations` further evaluations, and as many again for the bootstrap. NaN ends for a sample of one
        point. Raises EarthworksError for weighted samples, whose weights do not state how many observations they
        represent, and for results that were not computed from two samples.
        """
        if self.samples is None or self.statistic is None:
            reason = "it has weights" if self.samples is not None else "it was not computed from two samples"
            raise EarthworksError(f"{self.name} has no null and no interval: {reason}")
        statistic = self.statistic
        pool = torch.cat(self.samples).detach()
        on_pool = self.on_pool(pool) if self.on_pool else lambda i, j: statistic(pool[i], pool[j])
        value = times(float(self), -self.unit * self.degree)
        self.null = permuted(on_pool, self.n, self.m, num_permutations, seed)
        self.p_value = p_value(value, self.null)
        if self.influence is not None:
            self.interval = influence_interval(value, *self.influence)
            self.interval_of = OF_MEAN
        else:
            power = 1 if self.kind == "cost" else self.p or 1
            self.interval = bootstrap_interval(value, on_pool, self.n, self.m, num_permutations, seed, power)
            self.interval_of = OF_DISTRIBUTIONS
            if self.p_value > 0.05 and not math.isnan(self.interval[0]):
                self.interval = (min(0.0, self.interval[0]), self.interval[1])
        if self.unit:
            ends = [times(end, self.unit * self.degree) for end in self.interval]
            if out_of_range(self.interval[1], ends[1]):
                raise not_held(self, ends[1])
            self.null, self.interval = times(self.null, self.unit * self.degree), (ends[0], ends[1])
        return self

    def restore(self, exponent: int) -> None:
        """Convert from units of 2^exponent to those of the points. The samples stay unchanged, for `assess`."""
        self.unit = exponent
        exact = times(self.value.double(), exponent * self.degree)
        if out_of_range(float(self), float(exact.detach())):
            raise not_held(self, float(exact.detach()))
        narrow = exact.to(self.value.dtype)
        fits = torch.finfo(narrow.dtype).tiny <= abs(float(narrow.detach())) < math.inf
        self.value = narrow if fits or not float(exact.detach()) else exact
        if self.potentials is not None:
            f, g = (times(each.double(), exponent * (self.p or 1)) for each in self.potentials)
            self.potentials = (f, g) if bool(f.isfinite().all() and g.isfinite().all()) else None

    def __str__(self) -> str:
        """`wasserstein_1 = 0.947 (distance; n=500, m=500, d=2; assignment; null 0.21, p 0.005; 95 % interval ...)`."""
        parts = [self.kind, f"n={self.n}, m={self.m}, d={self.d}", self.solver]
        if not self.converged and "converged" not in self.solver:
            parts.append("NOT converged")
        if self.null is not None:
            parts.append(f"null {float(self.null.mean()):.3g}, p {self.p_value:.2g}")
        if self.interval is not None:
            what = "95 % interval" if self.interval_of == OF_DISTRIBUTIONS else "95 % interval at this n"
            low, high = self.interval
            parts.append("no interval: one point" if math.isnan(low) else f"{what} [{low:.3g}, {high:.3g}]")
        return f"{self.name} = {float(self):.4g} ({'; '.join(part for part in parts if part)})"

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Plot the null as a histogram with the value after `assess()`; before it, the plan of a 2-D cloud as arrows."""
        from earthworks.transport.plan_figure import paint_null, paint_plan

        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(5, 4), layout="constrained").add_subplot()
        (paint_plan if self.null is None else paint_null)(self, axes)
        return axes

    def figure(self, path: str | Path) -> Path:
        """Write the plan and the null, as far as available, to a .png file."""
        from earthworks.transport.plan_figure import write_figure

        return write_figure([self], path)


def out_of_range(before: float, after: float) -> bool:
    """Whether a number that was more than rounding became infinity or 0 in another unit."""
    return math.isfinite(before) and (math.isinf(after) or (after == 0 and abs(before) > ROUNDING))


def not_held(found: Distance, after: float) -> EarthworksError:
    power = "" if found.degree == 1 else f", which grows with their power {found.degree:g},"
    return EarthworksError(
        f"the points are as large as 1e{round(found.unit * math.log10(2))}, and their {found.name}{power} is too "
        f"{'small' if after == 0 else 'large'} for a float64: scale both clouds by a constant that brings them near 1"
    )
