"""Neural dual estimate of W1: a critic trained on part of the points and measured on held-out ones."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import times
from earthworks.transport.lipschitz import (
    GroupSort,
    clip_weights,
    gradient_norms,
    interpolate,
    lower_bounds,
    orthonormalize,
    penalize,
    retract,
    spectral_normalize,
)
from earthworks.transport.lipschitz.cones import Cones
from earthworks.transport.lipschitz.penalty import Sided
from earthworks.transport.magnitude import any_magnitude
from earthworks.transport.result import Distance

Constraint = Literal["one-sided", "two-sided", "clipping", "spectral", "sort", "full-sort", "cones"]

PENALTY_WEIGHT = 10.0  # Gulrajani et al. 2017
CLIP_BOUND = 0.04  # Korotin et al. 2022
K = 256  # cones of each kind
STEADY = (0.9, 0.99)  # momentum pays: a critic with bounded slope has a smooth objective
SOFTNESS = 0.3  # initial temperature of the cones, in units of the spread of a coordinate
FEW_ITERATIONS = 4  # of Björck's iteration, after a retraction
BOUND_POINTS = 4096  # held-out points per side for the feasible bounds


@dataclass(frozen=True)
class Recipe:
    """How a critic's slope is bounded, and its learning rate."""

    network: Callable[[Tensor, Tensor], nn.Module]  # built from points of both samples
    penalty: Sided | None = None
    clipped: bool = False
    certified: bool = False  # 1-Lipschitz by construction
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.9)


def multilayer(x: Tensor, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """d -> h -> h -> 1, h = max(2 d, 128): the critic of Korotin et al. 2022."""
    d = x.shape[1]
    h = max(2 * d, 128)
    return nn.Sequential(nn.Linear(d, h), activation(), nn.Linear(h, h), activation(), nn.Linear(h, 1))


def sorting(x: Tensor, size: int | None) -> nn.Module:
    return orthonormalize(multilayer(x, lambda: GroupSort(size)), num_iterations=FEW_ITERATIONS)


RECIPES: dict[str, Recipe] = {
    "one-sided": Recipe(lambda x, y: multilayer(x), penalty="one"),
    "two-sided": Recipe(lambda x, y: multilayer(x), penalty="two"),
    "clipping": Recipe(lambda x, y: multilayer(x), clipped=True),
    "spectral": Recipe(lambda x, y: spectral_normalize(multilayer(x))),
    "sort": Recipe(lambda x, y: sorting(x, 2), certified=True, learning_rate=5e-3, betas=STEADY),
    "full-sort": Recipe(lambda x, y: sorting(x, None), certified=True, learning_rate=5e-3, betas=STEADY),
    "cones": Recipe(lambda x, y: Cones(y[:K], x[:K]), certified=True, learning_rate=3e-2, betas=STEADY),
}


@dataclass(eq=False, kw_only=True)
class CriticEstimate(Distance):
    """A `Distance` with the critic that made it: `potential` maps points (k, d) to scores (k,) in the units of the data,
    higher on x's side; its gradient is the direction in which mass moves."""

    potential: Callable[[Tensor], Tensor]

    def restore(self, exponent: int) -> None:
        super().restore(exponent)
        scaled = self.potential
        self.potential = lambda points: times(scaled(times(points, -exponent)), exponent)


@any_magnitude(lengths=("train_gap", "standard_error", "by_slope", "by_c_transform"))
def critic_estimate(
    x: Tensor,
    y: Tensor,
    *,
    constraint: Constraint = "cones",
    steps: int = 1500,
    seconds: float | None = None,
    batch_size: int = 512,
    held_out: float = 0.25,
    seed: int = 0,
) -> CriticEstimate:
    """Critic estimate of W1: mean f(x) - mean f(y) on held-out points, f trained on the others to maximise it.

    | constraint | f | value |
    | --- | --- | --- |
    | `one-sided`, `two-sided` | ReLU network, slopes penalised | an estimate, above or below W1 |
    | `sort`, `full-sort` | orthonormal weights and sorting: 1-Lipschitz by construction | a lower bound of W1 |
    | `cones` | envelopes of cones: 1-Lipschitz by construction | a lower bound of W1 |
    | `spectral`, `clipping` | as published, for comparison | far too low, or of unknown scale |

    A lower bound holds in expectation: the held-out means have the standard error in `details`. With few training
    points all constraints give low values: a held-out value does not reward overfitting.
    On the pairs of `benchmarks/critics.py` `cones` is the closest at equal seconds. A penalised critic is steeper than 1
    where that pays: for distributions shifted by w, in units of a coordinate's spread, it gives w (1 + w / 20).

    x (n, d) and y (m, d) (or images, flattened), at least 2 points each; the share `held_out` of each is not trained
    on; training uses batches of `batch_size` of the rest for `steps` steps or `seconds`, whichever ends first, in
    float32 and the units of the data's spread. With `seconds` the result depends on the machine.
    Returns a `CriticEstimate`: `potential` the critic; `potentials` its dual values on the held-out points; `details`
    the gap on the training points (far above the held-out one: overfitting), the standard error, the largest
    slope and the two feasible lower bounds of `lower_bounds` on at most 4,096 held-out points (they bound W1 of those
    points, which in high dimension is far above that of the distributions). The value is differentiable in the held-out
    points with the critic fixed, which is W1's gradient at an optimal critic. `n` and `m` count the held-out points
    that are averaged; `assess` permutes them with the critic fixed, so that the test is exact and nothing is retrained,
    and its interval is of E f(x) - E f(y) for this critic. O(steps batch_size h (d + h)), h = max(2 d, 128). Raises
    EarthworksError for one point, unknown constraints. Source: Arjovsky et al. 2017, section 3; Korotin et al. 2022
    (network, and a comparison of the constraints).
    """
    if constraint not in get_args(Constraint):
        raise EarthworksError(f"constraint is {constraint!r}; it must be one of {', '.join(get_args(Constraint))}")
    if not 0 < held_out < 1:
        raise EarthworksError(f"held_out is {held_out}; expected the share of points held out, between 0 and 1")
    if min(len(x), len(y)) < 2:
        raise EarthworksError(
            f"the clouds have {len(x)} and {len(y)} points; a critic needs at least 2 in each cloud, "
            f"some to train on and others to be measured on"
        )
    generator = torch.Generator(x.device).manual_seed(seed)
    (x_train, x_held), (y_train, y_held) = (split(points, held_out, generator) for points in (x, y))
    pool = torch.cat([x_train, y_train]).detach()
    centre = pool.mean(0)
    scale = (pool - centre).square().mean().sqrt()
    scale = torch.where(scale > 0, scale, 1)  # all points coincide
    x_unit, y_unit = (((points.detach() - centre) / scale).float() for points in (x_train, y_train))

    def draw(n: int) -> tuple[Tensor, Tensor]:
        return pick(x_unit, n, generator), pick(y_unit, n, generator)

    started = time.perf_counter()
    critic, taken = fit_critic(
        constraint, draw, steps=steps, seconds=seconds, batch_size=batch_size, seed=seed, generator=generator
    )
    duration = time.perf_counter() - started

    def potential(points: Tensor) -> Tensor:
        return scale * critic(((points - centre) / scale).float()).flatten().to(points.dtype)

    def gap(x: Tensor, y: Tensor) -> Tensor:
        return potential(x).mean() - potential(y).mean()

    f, g = potential(x_held), potential(y_held)
    with torch.no_grad():
        few = slice(BOUND_POINTS)
        bounds = lower_bounds(f[few], g[few], x_held[few], y_held[few])
        details: dict[str, Any] = {
            "constraint": constraint,
            "train_gap": gap(x_train, y_train).item(),
            "standard_error": (f.var(correction=0) / len(f) + g.var(correction=0) / len(g)).sqrt().item(),
            "by_slope": bounds.by_slope.item(),
            "by_c_transform": bounds.by_c_transform.item(),
            "max_slope": bounds.max_slope.item(),
            "steps": taken,
            "seconds": duration,
            "trained_on": (len(x_train), len(y_train)),
        }
    return CriticEstimate(
        name="critic_estimate",
        value=f.mean() - g.mean(),
        kind="lower bound" if RECIPES[constraint].certified else "estimate",
        n=len(f),
        m=len(g),
        d=x.shape[1],
        p=1,
        solver=f"{constraint} critic, {taken} steps",
        potentials=(f.detach(), -g.detach()),
        details=details,
        samples=(x_held.detach(), y_held.detach()),
        statistic=torch.no_grad()(gap),
        influence=(f.detach(), -g.detach()),  # mean of f over x minus mean of f over y
        potential=potential,
    )


def split(points: Tensor, held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(training points, held-out points), in random order, at least one each."""
    order = torch.randperm(len(points), generator=generator, device=points.device)
    kept = min(max(round(held_out * len(points)), 1), len(points) - 1)
    return points[order[kept:]], points[order[:kept]]


def pick(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return points[torch.randint(len(points), (n,), generator=generator, device=points.device)]


def fit_critic(
    constraint: str,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    *,
    steps: int,
    generator: torch.Generator,
    seconds: float | None = None,
    batch_size: int = 512,
    seed: int = 0,
) -> tuple[nn.Module, int]:
    """Maximise mean f(x) - mean f(y) over batches under the constraint. Returns the critic in evaluation mode, and the
    number of steps taken. `draw(n)` gives x (n, d) and y (n, d), float32.

    Adam, its rate falling to 0 as cos^4(pi t / 2): the apexes of cones need small rates to converge fully.
    """
    recipe = RECIPES[constraint]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, y = draw(batch_size)
        critic = recipe.network(x, y).to(x.device)
    optimizer = torch.optim.Adam(critic.parameters(), recipe.learning_rate, recipe.betas, fused=True)
    started, step, done = time.perf_counter(), 0, 0.0
    while done < 1:
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * math.cos(math.pi / 2 * done) ** 4
        if isinstance(critic, Cones):
            critic.temperature = SOFTNESS * (1 - done)
        x, y = draw(batch_size)
        loss = critic_loss(critic, x, y, recipe.penalty, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recipe.clipped:
            clip_weights(critic, CLIP_BOUND)
        if recipe.certified:
            retract(critic)
        step += 1
        done = step / steps
        if seconds is not None:
            done = max(done, (time.perf_counter() - started) / seconds)
    if isinstance(critic, Cones):
        critic.temperature = 0.0
    return critic.eval().requires_grad_(False), step


def critic_loss(critic: nn.Module, x: Tensor, y: Tensor, penalty: Sided | None, generator: torch.Generator) -> Tensor:
    """mean f(y) - mean f(x), plus ten times the penalty if there is one."""
    scores = critic(torch.cat([x, y])).flatten()
    loss = scores[len(x) :].mean() - scores[: len(x)].mean()
    if penalty is None:
        return loss
    points = interpolate(x, y, generator=generator)
    return loss + PENALTY_WEIGHT * penalize(gradient_norms(critic, points, create_graph=True), penalty)
