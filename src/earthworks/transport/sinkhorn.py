"""Entropic transport by Sinkhorn's iteration, and the Sinkhorn divergence: converged, or saying that it is not.

OT_eps(a, b) = min_P <P, C> + eps KL(P | a b^T)  =  max_{f, g} <a, f> + <b, g>    (at f, g with marginals a and b)
f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),   g_j likewise,   P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_clouds, check_order, check_weights
from earthworks.transport.result import Distance

STORED = 1 << 25  # pairs whose costs are kept, 256 MiB in float64; more are computed again at every iteration
BLOCK = 1 << 18  # pairs handled at once, 2 MiB: a block stays in cache through the passes of a log-sum-exp
SHARE = 0.05  # of the median cost: the default strength. At 0.05, 70 iterations reach 1e-8; at 0.01, hundreds
SCALING = 4.0  # by which the strength falls between two levels of the warm start
WINDOW = 20  # iterations between two estimates of the rate, from which the over-relaxation follows
STRONGEST = 1.95  # over-relaxation: 2 is where it stops converging
RANGE = 50.0  # |log u| beyond which u is taken into the potential: exp(-745) is the least number float64 holds


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
    |x_i - y_j|^p (of at most 1,000 points a side). Values at unlike eps do not compare.

    x (n, d), y (m, d); weights a (n,), b (m,) sum to 1, uniform by default. Computed in float64. Differentiable once in
    x, y, a and b: by the envelope theorem the optimal plan and potentials count as constants, and so does eps.
    `tolerance` bounds the marginal violation |P 1 - a|_1 + |P^T 1 - b|_1 of each of the three problems. Where
    `max_iterations` end first, `converged` is False and `solver` says so: the value is then too low or too high by
    some part of the violation times the spread of the costs, and can be negative.

    The result is of kind `cost`. `potentials` are the entropic f and g of (x, y). `plan` is the rounded plan, a coupling
    to rounding error (None above 2^25 pairs). `details`: regularization, iterations (most of the three), violation
    (worst of the three), entropic_cost OT_eps(x, y), and a bracket lower_bound <= W_p(x, y) <= upper_bound of the
    distance proper, from the c-transform of f and from the rounded plan.

    Raises EarthworksError for bad clouds, weights, p < 1, regularization or tolerance not positive.
    O(n m) a sweep, plus O(n m d) for the costs (at each sweep above 2^25 pairs, whose memory is then O(n + m)).
    Source: Feydy et al. 2019, eq. 3 (debiasing); Peyré and Cuturi 2019, 4.4 (log domain); Thibault et al. 2021
    (over-relaxation); Altschuler et al. 2017, algorithm 2 (rounding). Scaling of eps only warms the start here:
    solvers that stop after one such descent are biased (by a third for p = 1 at common settings).
    """
    x, y = check_clouds(x, y)
    weights = check_weights(a, len(x), x.double()), check_weights(b, len(y), y.double())
    p = check_order(p)
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
    between = problems[0]
    with torch.no_grad():
        lower, upper, plan = bracket(between)
    violation, iterations = max(q.violation for q in problems), max(q.iterations for q in problems)
    converged = violation <= tolerance
    solver = f"sinkhorn, regularization {settings.eps:.3g}, {iterations} iterations"
    if not converged:
        solver += f", NOT converged: marginal violation {violation:.1e} > {tolerance:.1e}"
    return Distance(
        name="sinkhorn_divergence",
        value=value,
        kind="cost",
        n=len(x),
        m=len(y),
        d=x.shape[1],
        p=p,
        solver=solver,
        converged=converged,
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
        statistic=None if a is not None or b is not None else Statistic(settings),
    )


@dataclass(frozen=True)
class Settings:
    p: float
    eps: float
    max_iterations: int
    tolerance: float


@dataclass(frozen=True)
class Statistic:
    """The divergence of other samples at the same settings."""

    settings: Settings

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = check_clouds(x, y)
        uniform = check_weights(None, len(x), x.double()), check_weights(None, len(y), y.double())
        return divergence(x, y, *uniform, self.settings)[0]


def default_regularization(x: Tensor, y: Tensor, p: float) -> float:
    """0.05 of the median cost; of the mean where the median is 0, and 1 where all costs are: any strength gives 0."""
    x, y = (z.detach()[:: math.ceil(len(z) / 1000)].double() for z in (x, y))
    costs = distances(x, y) ** p
    return SHARE * float(costs.median()) or SHARE * float(costs.mean()) or 1.0


def divergence(x: Tensor, y: Tensor, a: Tensor, b: Tensor, settings: Settings) -> tuple[Tensor, list["Problem"]]:
    """S_eps with its first derivatives, and the three problems (x, y), (x, x), (y, y) it is made of."""
    x, y = x.double(), y.double()
    centre = torch.cat([x, y]).detach().mean(0)  # far from the origin x - y would cancel
    x, y = x - centre, y - centre
    problems = [Problem(x, y, a, b, settings), Problem(x, x, a, a, settings), Problem(y, y, b, b, settings)]
    between, within_x, within_y = problems
    return between.cost - (within_x.cost + within_y.cost) / 2, problems


class Problem:
    """OT_eps between (x, a) and (y, b), solved: potentials `f`, `g`, the `cost` with its first derivatives, how many
    `iterations` it took and the `violation` of the marginals. A problem of a cloud with itself has g = f."""

    def __init__(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, settings: Settings):
        self.x, self.y, self.a, self.b, self.settings = x.detach(), y.detach(), a.detach(), b.detach(), settings
        self.costs = Costs(self.x, self.y, settings.p)
        with torch.no_grad():
            self.f, self.g = warm_start(self)
            solve = iterate_symmetric if x is y else iterate
            self.f, self.g, self.iterations, self.violation = solve(self)
        # <a, f> + <b, g> has the value and, f and g held constant, the derivatives in a and b
        cost = (a * self.f).sum() + (b * self.g).sum()
        if x.requires_grad or y.requires_grad:
            with torch.no_grad():
                slope_x, slope_y = slopes(self)
            cost = cost + first_order(x, slope_x) + first_order(y, slope_y)
        self.cost = cost


class Costs:
    """C_ij = |x_i - y_j|^p: a matrix where it has at most STORED entries, else computed block by block."""

    def __init__(self, x: Tensor, y: Tensor, p: float, stored: Tensor | None = None):
        self.x, self.y, self.p = x, y, p
        self.stored = stored
        if stored is None and len(x) * len(y) <= STORED:
            self.stored = self.between(x, y)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        found = distances(x, y)
        return found if self.p == 1 else found.pow_(self.p)

    @property
    def T(self) -> "Costs":
        return Costs(self.y, self.x, self.p, None if self.stored is None else self.stored.T)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive rows and their costs; what is yielded may be a view of the matrix, so leave it as it is."""
        step = max(1, BLOCK // len(self.y))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            yield rows, self.between(self.x[rows], self.y) if self.stored is None else self.stored[rows]


class Kernel:
    """K_ij = exp((f_i + g_j - C_ij) / eps), as a matrix or block by block, for products with vectors.

    Near the solution the products are of order 1: the iteration on the scalings u and v of K is the iteration on
    f + eps log u and g + eps log v, at a fifth of the time of log-sum-exps, and as stable while u and v stay in RANGE.
    """

    def __init__(self, costs: Costs, f: Tensor, g: Tensor, eps: float):
        self.costs, self.f, self.g, self.eps = costs, f, g, eps
        self.stored = None
        if costs.stored is not None:
            self.stored = torch.empty_like(costs.stored)
            for rows, block in costs.blocks():
                self.stored[rows] = self.of(rows, block)

    def of(self, rows: slice, costs: Tensor) -> Tensor:
        exponent = costs.neg().add_(self.f[rows, None]).add_(self.g).div_(self.eps)
        # below exp(-700) numbers lose their digits and products slow down tenfold; such a pair carries no mass
        return exponent.masked_fill_(exponent < -700, -math.inf).exp_()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if self.stored is not None:
            yield slice(None), self.stored
        else:
            for rows, block in self.costs.blocks():
                yield rows, self.of(rows, block)

    def rows(self, weights: Tensor) -> Tensor:
        """K w."""
        return torch.cat([block @ weights for _, block in self.blocks()])

    def columns(self, weights: Tensor) -> Tensor:
        """K^T w."""
        total = torch.zeros_like(self.g)
        for rows, block in self.blocks():
            total += weights[rows] @ block
        return total


def warm_start(problem: Problem) -> tuple[Tensor, Tensor]:
    """Two sweeps of log-sum-exps at each strength from the largest cost down to the one asked for."""
    costs, a, b, eps = problem.costs, problem.a, problem.b, problem.settings.eps
    g = torch.zeros_like(b)
    level = max(SCALING * eps, *(float(block.max()) for _, block in costs.blocks()))
    f = torch.zeros_like(a)
    while level > eps:
        level = max(level / SCALING, eps)
        for _ in range(2):
            f = softmin(costs, b.log() + g / level, level)
            g = softmin(costs.T, a.log() + f / level, level)
    return f, g


def softmin(costs: Costs, h: Tensor, eps: float) -> Tensor:
    """-eps log sum_j exp(h_j - C_ij / eps) for each i."""
    found = torch.empty(len(costs.x), dtype=h.dtype, device=h.device)
    for rows, block in costs.blocks():
        exponent = block.div(-eps).add_(h)
        top = exponent.amax(1, keepdim=True)
        found[rows] = exponent.sub_(top).exp_().sum(1).log_().add_(top[:, 0])
    return found.mul_(-eps)


def iterate(problem: Problem) -> tuple[Tensor, Tensor, int, float]:
    """u <- u^(1-w) (K b v)^-w, v likewise, until the marginals fit. w = 1 is Sinkhorn's iteration; of its rate r, seen in
    the fall of the violation, follows the best w = 2 / (1 + sqrt(1 - r)), which takes the square root of the
    number of iterations (4,268 became 270 for two clouds of 256 points at 0.01 of the median cost)."""
    a, b, eps, settings = problem.a, problem.b, problem.settings.eps, problem.settings
    kernel = Kernel(problem.costs, problem.f, problem.g, eps)
    u, v = torch.ones_like(a), torch.ones_like(b)
    relaxation, before, iteration = 1.0, math.inf, 0
    mass_x = kernel.rows(b * v)
    mass_y = kernel.columns(a * u)
    while True:
        violation = float((a * (u * mass_x - 1).abs()).sum() + (b * (v * mass_y - 1).abs()).sum())
        if violation <= settings.tolerance or iteration == settings.max_iterations:
            return kernel.f + eps * u.log(), kernel.g + eps * v.log(), iteration, violation
        if iteration % WINDOW == 0:
            relaxation, before = over_relaxation(relaxation, violation, before), violation
            if max(float(u.log().abs().max()), float(v.log().abs().max())) > RANGE:
                kernel = Kernel(problem.costs, kernel.f + eps * u.log(), kernel.g + eps * v.log(), eps)
                u, v = torch.ones_like(a), torch.ones_like(b)
                mass_x = kernel.rows(b * v)
        u = u ** (1 - relaxation) * mass_x**-relaxation
        mass_y = kernel.columns(a * u)
        v = v ** (1 - relaxation) * mass_y**-relaxation
        mass_x = kernel.rows(b * v)
        iteration += 1


def over_relaxation(current: float, violation: float, before: float) -> float:
    """The best relaxation for the rate that `current` shows: s = (s + w - 1)^2 / (s w^2) is the rate at w = 1."""
    if before == math.inf:
        return current
    seen = (violation / before) ** (1 / WINDOW)
    if seen >= 1:
        return 1.0  # too bold, too early
    plain = min((seen + current - 1) ** 2 / (seen * current**2), 1.0)
    return min(2 / (1 + math.sqrt(1 - plain)), STRONGEST)


def iterate_symmetric(problem: Problem) -> tuple[Tensor, Tensor, int, float]:
    """u <- sqrt(u / (K a u)): between a cloud and itself f = g, and averaging converges in a few iterations."""
    a, eps, settings = problem.a, problem.settings.eps, problem.settings
    f = (problem.f + problem.g) / 2
    kernel = Kernel(problem.costs, f, f, eps)
    u, iteration = torch.ones_like(a), 0
    while True:
        mass = kernel.rows(a * u)
        violation = 2 * float((a * (u * mass - 1).abs()).sum())
        if violation <= settings.tolerance or iteration == settings.max_iterations:
            f = f + eps * u.log()
            return f, f, iteration, violation
        u = (u / mass).sqrt()
        iteration += 1


def slopes(problem: Problem) -> tuple[Tensor, Tensor]:
    """d OT_eps / dx_i = sum_j P_ij p |x_i - y_j|^(p-2) (x_i - y_j), and the same for y; 0 where x_i = y_j."""
    x, y, p, eps = problem.x, problem.y, problem.settings.p, problem.settings.eps
    slope_x, slope_y = torch.empty_like(x), torch.zeros_like(y)
    kernel = Kernel(problem.costs, problem.f, problem.g, eps)
    for rows, costs in problem.costs.blocks():
        pull = kernel.of(rows, costs) * problem.a[rows, None] * problem.b * p
        if p != 2:
            pull = torch.where(costs > 0, pull * costs ** ((p - 2) / p), 0.0)
        slope_x[rows] = pull.sum(1, keepdim=True) * x[rows] - pull @ y
        slope_y += pull.sum(0)[:, None] * y - pull.T @ x[rows]
    return slope_x, slope_y


def first_order(x: Tensor, slope: Tensor) -> Tensor:
    """Zero, with the derivative `slope`."""
    moved = (x * slope).sum()
    return moved - moved.detach()


def bracket(problem: Problem) -> tuple[float, float, Tensor | None]:
    """Bounds of the unregularised cost W_p^p, and the coupling behind the upper one (None where nothing is stored).

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
    moved, transform = torch.zeros_like(a[0]), torch.full_like(b, math.inf)
    plan = None if costs.stored is None else torch.empty_like(costs.stored)
    for rows, block in costs.blocks():
        part = kernel.of(rows, block) * rows_scale[rows, None] * columns_scale + missing_a[rows, None] * missing_b
        moved += (part * block).sum()
        transform = torch.minimum(transform, (block - problem.f[rows, None]).amin(0))
        if plan is not None:
            plan[rows] = part
    below = (a * problem.f).sum() + (b * transform).sum()
    return max(float(below), 0.0), float(moved), plan


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| by differences: the square expanded loses nearby points to rounding."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
