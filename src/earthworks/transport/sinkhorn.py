"""The Sinkhorn divergence: debiased entropic transport, with an explicit convergence flag."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_clouds, check_weights
from earthworks.transport.magnitude import any_magnitude
from earthworks.transport.result import Distance
from earthworks.transport.solvers.entropic import Kernel, Problem, Settings, distances

SHARE = 0.05  # default regularization, as a share of the median cost; about 70 iterations reach 1e-8


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    *,
    p: float = 2,
    regularization: float | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    max_iterations: int = 5000,
    tolerance: float = 1e-6,
) -> Distance:
    """The debiased entropic cost of moving x to y, on the scale of W_p^p: **no root is taken**,

        S_eps(x, y) = OT_eps(x, y) - OT_eps(x, x) / 2 - OT_eps(y, y) / 2,    C_ij = |x_i - y_j|^p,

    0 for equal clouds, >= 0 for p in {1, 2}, W_p^p as eps -> 0, and |m|^2 for y = x + m and p = 2 at every eps.
    eps = `regularization` multiplies KL(P | a b^T) and has the unit of the cost; the default is 0.05 of the median
    |x_i - y_j|^p (of at most 1,000 points a side). Values at different eps are not
    comparable.

    x (n, d), y (m, d); weights a (n,), b (m,) sum to 1, uniform by default. Computed in float64. Differentiable once in
    x, y, a and b: by the envelope theorem the optimal plan and potentials are treated as constants, and so is eps.
    `tolerance` bounds the marginal violation |P 1 - a|_1 + |P^T 1 - b|_1 of each of the three problems. If
    `max_iterations` is reached first, `converged` is False and `solver` reports it: the value is then off by up to
    the violation times the spread of the costs, and can be negative.

    The result is of kind `cost`. `potentials` are the entropic f and g of (x, y). `plan` is the rounded plan, a coupling
    to rounding error (None above 2^25 pairs). `details`: regularization, iterations (most of the three), violation
    (worst of the three), entropic_cost OT_eps(x, y), and a bracket lower_bound <= W_p(x, y) <= upper_bound of the
    distance itself, from the c-transform of f and from the rounded plan.

    Raises EarthworksError for bad clouds, weights, p < 1, regularization or tolerance not positive.
    O(n m) an iteration, plus O(n m d) once for the costs (at each iteration above 2^25 pairs, in O(n + m) memory); after
    60 iterations Newton's method where n^2 m <= 2^33, at O(n^2 m) a step.
    Source: Feydy et al. 2019, eq. 3 (debiasing); Peyré and Cuturi 2019, 4.4 (log domain); Thibault et al. 2021
    (over-relaxation); Altschuler et al. 2017, algorithm 2 (rounding). Scaling of eps is only a warm start here:
    solvers that stop after one such descent are biased (by a third for p = 1 at common settings).
    """
    found = debiased(
        x, y, p=p, regularization=regularization, a=a, b=b, max_iterations=max_iterations, tolerance=tolerance
    )
    eps, iterations, violation = (found.details[name] for name in ("regularization", "iterations", "violation"))
    strength = "" if eps is None else f"regularization {eps:.3g}, "
    found.solver = f"sinkhorn, {strength}{iterations} iterations"
    if not found.converged:
        found.solver += f", NOT converged: marginal violation {violation:.1e} > {tolerance:.1e}"
    return found


@any_magnitude(
    options=("regularization",), lengths=("lower_bound", "upper_bound"), costs=("regularization", "entropic_cost")
)
def debiased(
    x: Tensor,
    y: Tensor,
    *,
    p: float,
    regularization: float | None,
    a: Tensor | None,
    b: Tensor | None,
    max_iterations: int,
    tolerance: float,
) -> Distance:
    weights = check_weights(a, len(x), x.double()), check_weights(b, len(y), y.double())
    if regularization is None:
        regularization = default_regularization(x, y, p)
    for name, number in (
        ("regularization", regularization),
        ("tolerance", tolerance),
        ("max_iterations", max_iterations),
    ):
        if not 0 < number < math.inf:
            raise EarthworksError(f"{name} is {number}; expected a positive number")
    settings = Settings(p, float(regularization), max_iterations, tolerance)

    value, problems = divergence(x, y, *weights, settings)
    between, within_x, within_y = problems
    weighted = a is not None or b is not None
    with torch.no_grad():
        lower, upper, plan = bracket(between)
    violation, iterations = max(q.violation for q in problems), max(q.iterations for q in problems)
    return Distance(
        name="sinkhorn_divergence",
        value=value,
        kind="cost",
        n=len(x),
        m=len(y),
        d=x.shape[1],
        p=p,
        degree=p,
        converged=violation <= tolerance,
        plan=plan,
        potentials=(between.f, between.g),
        details={
            "regularization": settings.eps,
            "iterations": iterations,
            "violation": violation,
            "entropic_cost": float(between.cost.detach()),
            "lower_bound": lower ** (1 / p),
            "upper_bound": upper ** (1 / p),
        },
        samples=(x, y),
        statistic=None if weighted else Statistic(settings),
        influence=None if weighted else (between.f - within_x.f, between.g - within_y.g),
    )


@dataclass(frozen=True)
class Statistic:
    """The divergence as a function of the samples, at fixed settings."""

    settings: Settings

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = check_clouds(x, y)
        uniform = check_weights(None, len(x), x.double()), check_weights(None, len(y), y.double())
        return divergence(x, y, *uniform, self.settings)[0]


def default_regularization(x: Tensor, y: Tensor, p: float) -> float:
    """0.05 of the median cost; of the mean where the median is 0; 1 where all costs are 0, as any strength then gives 0."""
    x, y = (z.detach()[:: math.ceil(len(z) / 1000)].double() for z in (x, y))
    costs = distances(x, y) ** p
    return SHARE * float(costs.median()) or SHARE * float(costs.mean()) or 1.0


def divergence(x: Tensor, y: Tensor, a: Tensor, b: Tensor, settings: Settings) -> tuple[Tensor, list[Problem]]:
    """S_eps with its first derivatives, and its three problems (x, y), (x, x), (y, y)."""
    x, y = x.double(), y.double()
    centre = torch.cat([x, y]).detach().mean(0)  # far from the origin x - y would lose digits
    x, y = x - centre, y - centre
    problems = [Problem(x, y, a, b, settings), Problem(x, x, a, a, settings), Problem(y, y, b, b, settings)]
    between, within_x, within_y = problems
    return between.cost - (within_x.cost + within_y.cost) / 2, problems


def bracket(problem: Problem) -> tuple[float, float, Tensor | None]:
    """Bounds of the unregularised cost W_p^p, and the coupling that gives the upper one (None where nothing is stored).

    Below: <a, f> + <b, f^c>, f^c_j = min_i C_ij - f_i. Above: P scaled down to marginals of at most a and b, and the
    missing mass e_a, e_b put back as e_a e_b^T / |e_a|_1 (Altschuler et al. 2017, algorithm 2).
    """
    a, b, costs = problem.a, problem.b, problem.costs
    kernel = Kernel(costs, problem.f, problem.g, problem.settings.eps)
    rows_scale = a * (1 / kernel.rows(b)).clamp(max=1)  # u, v = 1: min(a_i / r_i, 1) a_i K_ij b_j, r_i = a_i (K b)_i
    columns_scale = b * (1 / kernel.columns(rows_scale)).clamp(max=1)
    missing_a = (a - rows_scale * kernel.rows(columns_scale)).clamp(min=0)
    missing_b = (b - columns_scale * kernel.columns(rows_scale)).clamp(min=0)
    missing_b = missing_b / missing_b.sum().clamp(min=1e-300)
    reached = torch.where(a > 0, problem.f, -math.inf)  # a point without mass gives no bound
    moved, transform = torch.zeros_like(a[0]), torch.full_like(b, math.inf)
    plan = None if costs.stored is None else torch.empty_like(costs.stored)
    for rows, block in costs.blocks():
        part = kernel.of(rows, block) * rows_scale[rows, None] * columns_scale + missing_a[rows, None] * missing_b
        moved += (part * block).sum()
        transform = torch.minimum(transform, (block - reached[rows, None]).amin(0))
        if plan is not None:
            plan[rows] = part
    below = (a * problem.f).sum() + (b * transform).sum()
    return max(float(below), 0.0), float(moved), plan
