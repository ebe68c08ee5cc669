"""Scaling laws: loss against parameters, operations or tokens, and the uncertainty of predictions.

    L(N) = E + A N^-alpha,    E, A >= 0, alpha > 0

E is the irreducible loss (Kaplan et al. 2020 have E = 0, a straight line in log-log; Hoffmann et al. 2022, section 3.3,
do not).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
EXPONENTS = np.geomspace(0.005, 8.0, 80)  # initial grid; the search is refined between the neighbours of the best
REFINEMENTS = 40  # golden sections of that bracket
GOLDEN = (5**0.5 - 1) / 2
FLAT = 1e-9  # a smaller relative fall in loss counts as none
ROWS = 512  # rows fitted at once, to bound memory


@dataclass(frozen=True)
class Fit:
    """One law, or one for each of R rows of losses; every field is then an array (R,).

    `floor` E and `scale` A as in the law, but with A for N in units of `unit`; a row that does not fall has `scale` 0 and
    exponent nan. `misfit`: sum of squared relative residuals.
    """

    floor: Array
    scale: Array
    exponent: Array
    misfit: Array
    unit: float

    def at(self, sizes: ArrayLike) -> Array:
        """(sizes,) or (R, sizes): the losses predicted by the law."""
        relative = np.asarray(sizes, float) / self.unit
        power = relative ** -np.nan_to_num(self.exponent[..., None], nan=1.0)
        return self.floor[..., None] + self.scale[..., None] * power


def fit_law(sizes: ArrayLike, losses: ArrayLike, *, straight: bool = False) -> Fit:
    """Fit the law by least relative squares, sum_i ((L_i - E - A N_i^-alpha) / L_i)^2; `straight`: with E = 0.

    `sizes`: (n,) positive; `losses`: (n,) or (R, n) positive, R fits at once. For a given alpha the law is linear in E and
    A, which then have a closed form (bounded below by 0); so only alpha is searched, over all of [0.005, 8] on a grid and
    then by golden section, without starting values or local minima in E and A.
    Raises ValueError for fewer than 3 different sizes (2 if straight), values that are not positive and finite, and a
    single row of losses that do not fall with size. O(R n (grid + sections)).
    """
    sizes, losses = np.asarray(sizes, float), np.asarray(losses, float)
    needed = 2 if straight else 3
    if sizes.ndim != 1 or losses.shape[-1:] != sizes.shape or losses.ndim > 2:
        raise ValueError(f"expected losses of {sizes.shape} sizes, got shape {losses.shape}")
    if not all(np.isfinite(each).all() and (each > 0).all() for each in (sizes, losses)):
        raise ValueError("sizes and losses must be positive and finite")
    if len(np.unique(sizes)) < needed:
        raise ValueError(f"{len(np.unique(sizes))} different sizes do not determine a law; it needs {needed} or more")
    rows = np.atleast_2d(losses)
    unit = float(np.exp(np.log(sizes).mean()))
    relative = sizes / unit
    found = [fit_rows(relative, rows[start : start + ROWS], straight) for start in range(0, len(rows), ROWS)]
    floor, scale, exponent, misfit = (np.concatenate(part) for part in zip(*found))
    flat = scale * (relative.min() ** -exponent - relative.max() ** -exponent) <= FLAT * rows.max(axis=1)
    scale, exponent = np.where(flat, 0.0, scale), np.where(flat, np.nan, exponent)
    if losses.ndim == 1:
        if flat[0]:
            raise ValueError("the losses do not fall with size, so there is no exponent")
        floor, scale, exponent, misfit = floor[0], scale[0], exponent[0], misfit[0]
    return Fit(np.asarray(floor), np.asarray(scale), np.asarray(exponent), np.asarray(misfit), unit)


def fit_rows(relative: Array, losses: Array, straight: bool) -> tuple[Array, Array, Array, Array]:
    """E, A, alpha and misfit of each row (R, n): grid search, then golden sections between the neighbours of the best."""
    grid = np.stack([linear(relative, losses, np.full(len(losses), each), straight)[2] for each in EXPONENTS], axis=1)
    best = grid.argmin(axis=1)
    low = EXPONENTS[np.maximum(best - 1, 0)]
    high = EXPONENTS[np.minimum(best + 1, len(EXPONENTS) - 1)]
    for _ in range(REFINEMENTS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        lower = linear(relative, losses, left, straight)[2] <= linear(relative, losses, right, straight)[2]
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    exponent = (low + high) / 2
    return *linear(relative, losses, exponent, straight)[:2], exponent, linear(relative, losses, exponent, straight)[2]


def linear(relative: Array, losses: Array, exponent: Array, straight: bool) -> tuple[Array, Array, Array]:
    """E, A >= 0 and misfit of each row for its alpha: weighted least squares of L on N^-alpha, weights 1 / L^2."""
    power = relative ** -exponent[:, None]
    weight = losses**-2
    total = weight.sum(axis=1)
    through_zero = (weight * power * losses).sum(axis=1) / (weight * power**2).sum(axis=1)
    if straight:
        floor, scale = np.zeros(len(losses)), through_zero
    else:
        mean_power, mean_loss = (weight * power).sum(axis=1) / total, (weight * losses).sum(axis=1) / total
        off = power - mean_power[:, None]
        scale = (weight * off * (losses - mean_loss[:, None])).sum(axis=1) / (weight * off**2).sum(axis=1)
        floor = mean_loss - scale * mean_power
        rising, negative = scale < 0, floor < 0
        scale = np.where(negative, through_zero, np.where(rising, 0.0, scale))
        floor = np.where(negative, 0.0, np.where(rising, mean_loss, floor))
    residual = (losses - floor[:, None] - scale[:, None] * power) / losses
    return floor, scale, (residual**2).sum(axis=1)


def resampled(
    sizes: ArrayLike,
    nats: ArrayLike,
    amounts: ArrayLike,
    *,
    straight: bool = False,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[Fit, Fit, Array]:
    """The law of n runs, R resampled laws, and the relative noise of each.

    `nats` (n, u): loss of run i on unit j of the text, `amounts` (u,): bytes of the units; the loss of a run is sum nats /
    sum amounts. Each of R resamples redraws
    * the text: units with replacement, the same for all runs, because they all read the same text;
    * the runs (seeds, and misfit of the law): L_i = law(N_i) (1 + s e_i), e_i standard normal, with s^2 = misfit / v drawn
    as misfit / chi^2_v, v = n - parameters, so that few runs widen the interval as Student's t would. With v = 0 there is
    no noise of runs: s is 0 and the intervals cover only the text.
    The noise is that of single runs. Error shared by the runs of one size (a width that suits the law badly) is included if
    most sizes have one run, and underestimated if they have many.
    """
    sizes, nats, amounts = (np.asarray(each, float) for each in (sizes, nats, amounts))
    losses = nats.sum(axis=1) / amounts.sum()
    law = fit_law(sizes, losses, straight=straight)
    random = np.random.default_rng(seed)
    free = len(sizes) - (2 if straight else 3)
    noise = np.zeros(num_resamples)
    if free > 0:
        noise = np.sqrt(float(law.misfit) / random.chisquare(free, num_resamples))
    units = len(amounts)
    texts = np.ones((num_resamples, len(sizes)))
    if units > 1:
        for row in range(num_resamples):
            drawn = np.bincount(random.integers(units, size=units), minlength=units)
            texts[row] = (nats @ drawn) / (amounts @ drawn) / losses
    redrawn = law.at(sizes) * texts * (1 + noise[:, None] * random.standard_normal((num_resamples, len(sizes))))
    return law, fit_law(sizes, np.maximum(redrawn, 1e-12), straight=straight), noise


def describe_law(law: Fit, redrawn: Fit, level: float = 0.95) -> dict[str, Any]:
    """The law as JSON: exponent and floor with intervals, and A for N in single units."""
    return {
        "exponent": float(law.exponent),
        "exponent_interval": interval(redrawn.exponent, level),
        "floor": float(law.floor),
        "floor_interval": interval(redrawn.floor, level),
        "scale": float(law.scale * law.unit**law.exponent),
        "misfit": float(law.misfit),
    }


def interval(values: Array, level: float = 0.95) -> list[float] | None:
    """The percentile interval, without values that are not finite; more than a tenth of these leave no interval."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def predict(
    sizes: ArrayLike,
    nats: ArrayLike,
    amounts: ArrayLike,
    wanted: float,
    *,
    runs: int = 1,
    straight: bool = False,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The predicted mean loss of `runs` new runs of size `wanted` on the same text, with a 95 % interval from the noise of
    both the fitted and the new runs.

    The text is not resampled: the prediction is for this exact text.
    """
    nats, amounts = np.asarray(nats, float), np.asarray(amounts, float)
    whole = nats.sum(axis=1, keepdims=True), amounts.sum(keepdims=True)
    law, redrawn, noise = resampled(sizes, *whole, straight=straight, num_resamples=num_resamples, seed=seed)
    new = 1 + noise * np.random.default_rng([seed, 1]).standard_normal(num_resamples) / runs**0.5
    return {"value": float(law.at([wanted])[0]), "interval": interval(redrawn.at([wanted])[:, 0] * new)}
