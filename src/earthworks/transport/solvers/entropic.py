"""Solver of the entropic transport problem: potentials whose plan has the given marginals.

    OT_eps(a, b) = min_P <P, C> + eps KL(P | a b^T)  =  max_{f, g} <a, f> + <b, g>    (at f, g with marginals a and b)
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),   g_j likewise,   P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)

Three methods in turn: log-sum-exps while eps falls, for a starting point; scalings with over-relaxation, five times as
fast and usually sufficient; and Newton's method where these converge slowly, as when the plan is nearly a permutation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

STORED = 1 << 25  # pairs whose costs are stored, 256 MiB in float64; more are recomputed at every iteration
BLOCK = 1 << 18  # pairs per block, 2 MiB: a block stays in cache through the passes of a log-sum-exp
SCALING = 4.0  # factor by which the strength falls between two levels of the warm start
WINDOW = 20  # iterations between two estimates of the rate, which sets the over-relaxation
STRONGEST = 1.9  # over-relaxation: 2 is where it stops converging
RANGE = 50.0  # |log u| beyond which u is absorbed into the potential: exp(-745) is the least float64
ROUGH, ROUGH_ITERATIONS = 0.01, 20  # tolerance and iterations of the intermediate levels
PATIENCE = 60  # iterations before Newton's method takes over
NEWTON = 1 << 33  # n^2 m up to which it is used: 2,048 points a side, half a second a step on one core
RIDGE = 1e-2  # share of the violation: keeps parts of the plan with correct marginals in place
NEWTON_STEPS = 100  # at most; two to ten are typical
STEP = 20.0  # largest change of a potential in a Newton step, in units of eps


@dataclass(frozen=True)
class Settings:
    p: float
    eps: float
    max_iterations: int
    tolerance: float


class Problem:
    """Solution of OT_eps between (x, a) and (y, b): potentials `f`, `g`, the `cost` with its first derivatives, the number
    of `iterations` and the `violation` of the marginals. For a cloud with itself g = f."""

    def __init__(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, settings: Settings):
        self.x, self.y, self.a, self.b, self.settings = x.detach(), y.detach(), a.detach(), b.detach(), settings
        self.costs = Costs(self.x, self.y, settings.p)
        with torch.no_grad():
            solve = solve_symmetric if x is y else descend
            self.f, self.g, self.iterations, self.violation = solve(self)
        # <a, f> + <b, g> is the value; with f and g constant it has the derivatives in a and b
        cost = (a * self.f).sum() + (b * self.g).sum()
        if x.requires_grad or y.requires_grad:
            with torch.no_grad():
                slope_x, slope_y = slopes(self)
            cost = cost + first_order(x, slope_x) + first_order(y, slope_y)
        self.cost = cost


class Costs:
    """C_ij = |x_i - y_j|^p: a matrix of at most STORED entries, else computed block by block."""

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
        """Consecutive rows and their costs; a block may be a view of the matrix, so do not modify it."""
        step = max(1, BLOCK // len(self.y))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            yield rows, self.between(self.x[rows], self.y) if self.stored is None else self.stored[rows]


class Kernel:
    """K_ij = exp((f_i + g_j - C_ij) / eps), as a matrix or block by block, for products with vectors.

    Near the solution the products are of order 1: the iteration on the scalings u and v of K is the iteration on
    f + eps log u and g + eps log v, in a fifth of the time of log-sum-exps, and equally stable while u and v stay in RANGE.
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
        # below exp(-700) numbers are subnormal and products ten times slower; such a pair carries no mass
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


def descend(problem: Problem) -> tuple[Tensor, Tensor, int, float]:
    """Solve at strengths that fall from the largest cost to the requested one, each starting from the previous potentials:
    roughly at first, to the tolerance at the end. Only iterations of the last level are counted."""
    costs, a, b, settings = problem.costs, problem.a, problem.b, problem.settings
    small = costs.stored is not None and len(a) ** 2 * len(b) <= NEWTON
    g = torch.zeros_like(b)
    level = max(SCALING * settings.eps, *(float(block.max()) for _, block in costs.blocks()))
    while True:
        level = max(level / SCALING, settings.eps)
        final = level == settings.eps
        tolerance, most = (settings.tolerance, settings.max_iterations) if final else (ROUGH, ROUGH_ITERATIONS)
        f = softmin(costs, b.log() + g / level, level)
        g = softmin(costs.T, a.log() + f / level, level)
        f, g, iterations, violation = scale(problem, f, g, level, tolerance, min(most, PATIENCE) if small else most)
        if violation > tolerance and small:
            left = most - iterations if final else ROUGH_ITERATIONS
            f, g, steps, violation = newton(problem, f, level, tolerance, min(left, NEWTON_STEPS))
            iterations += steps
        if final:
            return f, g, iterations, violation


def softmin(costs: Costs, h: Tensor, eps: float) -> Tensor:
    """-eps log sum_j exp(h_j - C_ij / eps) for each i."""
    found = torch.empty(len(costs.x), dtype=h.dtype, device=h.device)
    for rows, block in costs.blocks():
        exponent = block.div(-eps).add_(h)
        top = exponent.amax(1, keepdim=True)
        found[rows] = exponent.sub_(top).exp_().sum(1).log_().add_(top[:, 0])
    return found.mul_(-eps)


def scale(
    problem: Problem, f: Tensor, g: Tensor, eps: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, int, float]:
    """u <- u^(1-w) (K b v)^-w, v likewise, until the marginals match. w = 1 is Sinkhorn's iteration; its rate r,
    estimated from the fall of the violation, gives the best w = 2 / (1 + sqrt(1 - r)), which reduces the number of
    iterations to its square root."""
    a, b = problem.a, problem.b
    kernel = Kernel(problem.costs, f, g, eps)
    u, v = torch.ones_like(a), torch.ones_like(b)
    relaxation, before, iteration = 1.0, math.inf, 0
    mass_x = kernel.rows(b * v)
    mass_y = kernel.columns(a * u)
    while True:
        violation = float((a * (u * mass_x - 1).abs()).sum() + (b * (v * mass_y - 1).abs()).sum())
        if violation <= tolerance or iteration == max_iterations:
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
    """The best relaxation for the rate observed with `current`: s = (s + w - 1)^2 / (s w^2) is the rate at w = 1."""
    if before == math.inf:
        return current
    seen = (violation / before) ** (1 / WINDOW)
    if seen >= 1:
        return 1.0  # over-relaxed too early
    plain = min((seen + current - 1) ** 2 / (seen * current**2), 1.0)
    return min(2 / (1 + math.sqrt(1 - plain)), STRONGEST)


def newton(
    problem: Problem, f: Tensor, eps: float, tolerance: float, max_steps: int
) -> tuple[Tensor, Tensor, int, float]:
    """Newton's method on f alone, with g optimal for f, so that the columns of P always match: with r = a - P 1,

        (L + h diag(a)) df = eps r,    L = diag(P 1) - P diag(1/b) P^T,    h = |r|_1 / 100,

    and the step halved until <a, f> + <b, g> does not fall. L is the Laplacian of the graph with weights
    P diag(1/b) P^T, its diagonal summed from these: nearly separate parts of the plan, whose masses Sinkhorn balances over
    thousands of iterations, stay accurate. h keeps parts with correct marginals in place.
    At 0.001 of the median cost, where scaling takes 10^5 iterations, it takes 2 to 10 steps. O(n^2 m + n^3) a step.
    """
    a, b = problem.a, problem.b

    def answer(f: Tensor) -> tuple[Tensor, float]:
        g = softmin(problem.costs.T, a.log() + f / eps, eps)
        return g, float((a * f).sum() + (b * g).sum())

    g, height = answer(f)
    taken = 0
    while True:
        plan = Kernel(problem.costs, f, g, eps).stored
        assert plan is not None
        plan *= a[:, None] * b
        missing = a - plan.sum(1)
        violation = float(missing.abs().sum() + (b - plan.sum(0)).abs().sum())
        if violation <= tolerance or taken == max_steps:
            return f, g, taken, violation
        step = eps * solve_laplacian(plan, b, max(RIDGE * violation, 1e-12) * a, missing)
        share = min(1.0, STEP * eps / float(step.abs().max()))
        slack = 1e-13 * (abs(height) + eps)  # near the maximum the increase is below rounding
        g, found = answer(f + share * step)
        while found < height - slack and share > 1e-12:
            share /= 2
            g, found = answer(f + share * step)
        f, height = f + share * step, found
        taken += 1


def solve_laplacian(plan: Tensor, b: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """(L + diag(ridge))^-1 right, L the Laplacian with weights P diag(1/b) P^T, by Cholesky where the ridge is positive."""
    half = plan / b.sqrt().clamp(min=1e-150)
    weights = (half @ half.T).fill_diagonal_(0)
    nodes = ridge.nonzero()[:, 0]
    matrix = torch.diagonal_scatter(-weights, weights.sum(1) + ridge)[nodes][:, nodes]
    scale = matrix.diagonal().rsqrt()  # to a unit diagonal
    factor = torch.linalg.cholesky(matrix * scale[:, None] * scale)
    found = torch.zeros_like(right)
    found[nodes] = scale * torch.cholesky_solve((scale * right[nodes])[:, None], factor)[:, 0]
    return found


def solve_symmetric(problem: Problem) -> tuple[Tensor, Tensor, int, float]:
    """u <- sqrt(u / (K a u)): between a cloud and itself f = g, averaging converges in a few iterations, and f is
    within a few eps of 0, because every point can stay in place."""
    a, eps, settings = problem.a, problem.settings.eps, problem.settings
    f = softmin(problem.costs, a.log(), eps) / 2
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


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| by differences: expanding the square would lose precision for nearby points."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
