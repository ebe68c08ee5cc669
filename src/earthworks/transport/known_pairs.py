"""Pairs of distributions, in any dimension, for which W1 and an optimal critic are known exactly.

After Korotin, Kolesov and Burnaev, "Kantorovich strikes back! Wasserstein GANs are not optimal transport?", NeurIPS 2022.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from earthworks.runs import EarthworksError


@dataclass(frozen=True)
class Rays:
    """The transport ray through each point x: from `start` (n, D), the centre of its funnel, in `direction` (n, D), unit,
    x at `distance` (n,) along the ray's `length` (n,). `active` (n,): the index of the funnel."""

    start: Tensor
    direction: Tensor
    distance: Tensor
    length: Tensor
    active: Tensor


@dataclass(frozen=True)
class Funnels:
    """P uniform on a domain, and Q = T#P, P contracted along the rays of N funnels:

        u(x) = min_k (|x - a_k| + b_k),      T(a_k + t l v) = a_k + t^q l v,   0 <= t <= 1,

    k the active funnel of x, v = (x - a_k) / |x - a_k| = grad u(x), l the length of the ray: it ends at the wall of the
    domain or where another funnel becomes active. u is 1-Lipschitz, and u(x) - u(T(x)) = |x - T(x)| at every x, hence
    W1(P, Q) = E |x - T(x)| = E u(x) - E u(T(x)), T is an optimal map and u an optimal critic.

    `centres` (N, D) and `offsets` (N,), float64; the domain is the cube [-L, L]^D or the ball of radius L about 0, with
    L = `half_width`; `exponent` is q > 1. O(n N D) time and memory each.
    """

    centres: Tensor
    offsets: Tensor
    half_width: float = 2.5
    exponent: float = 8.0
    domain: Literal["cube", "ball"] = "cube"

    @classmethod
    def random(cls, dimension: int, num_funnels: int, *, seed: int) -> "Funnels":
        """The published family: centres uniform on [-2.5, 2.5]^D, offsets 0.1 N(0, 1), q = 8. D, N of 2 and 4 upward."""
        if dimension < 1 or num_funnels < 1:
            raise EarthworksError(f"expected at least one dimension and one funnel, got {dimension} and {num_funnels}")
        random = torch.Generator().manual_seed(
            2206_07767 + seed
        )  # a stream apart from the samples', whose seed may be the same
        centres = torch.rand(num_funnels, dimension, generator=random, dtype=torch.float64) * 5 - 2.5
        return cls(centres, 0.1 * torch.randn(num_funnels, generator=random, dtype=torch.float64))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of P, (n, D) float64."""
        dimension = self.centres.shape[1]
        if self.domain == "cube":
            uniform = torch.rand(n, dimension, generator=generator, dtype=torch.float64)
            return (2 * uniform - 1) * self.half_width
        direction = torch.randn(n, dimension, generator=generator, dtype=torch.float64)
        radius = torch.rand(n, 1, generator=generator, dtype=torch.float64) ** (1 / dimension)
        return self.half_width * radius * direction / direction.norm(dim=1, keepdim=True)

    def potential(self, x: Tensor) -> Tensor:
        """u(x), (n, D) to (n,)."""
        return self.funnel_values(x).amin(1)

    def funnel_values(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.centres, compute_mode="donot_use_mm_for_euclid_dist") + self.offsets

    def gradient(self, x: Tensor) -> Tensor:
        """grad u(x), a unit vector almost everywhere, (n, D) to (n, D); 0 at a centre, where it does not exist."""
        away = x - self.centres[self.funnel_values(x).argmin(1)]
        return away / away.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)

    def contract(self, x: Tensor) -> Tensor:
        """T(x), (n, D) to (n, D)."""
        rays = self.rays(x)
        left = rays.distance * (rays.distance / rays.length) ** (self.exponent - 1)
        return rays.start + left[:, None] * rays.direction

    def rays(self, x: Tensor) -> Rays:
        """The rays through x (n, D). Beyond x, funnel n takes over after r_n, where |x + r v - a_n| + b_n = u(x) + r:

        r_n = (|w_n|^2 - s_n^2) / 2 (s_n - v.w_n)   if s_n > v.w_n, else never,   w_n = x - a_n, s_n = u(x) - b_n.
        """
        values = self.funnel_values(x)
        u, active = values.min(1)
        start = self.centres[active]
        distance = (x - start).norm(dim=1)
        direction = self.gradient(x)
        s = u[:, None] - self.offsets
        along = (direction * x).sum(1, keepdim=True) - direction @ self.centres.T  # v.w_n
        closing = s - along
        crosses = closing > 0
        crosses[torch.arange(len(x)), active] = False  # 0/0 there: a ray does not cross into its own funnel
        squares = (values - self.offsets).square() - s.square()
        after = torch.where(crosses, squares / (2 * torch.where(crosses, closing, 1)), torch.inf).amin(1)
        return Rays(start, direction, distance, distance + torch.minimum(after, self.wall(x, direction)), active)

    def wall(self, x: Tensor, direction: Tensor) -> Tensor:
        """Distance from x to the boundary of the domain in that direction, (n,)."""
        if self.domain == "cube":
            ahead = torch.sign(direction) * self.half_width - x
            return torch.where(direction != 0, ahead / torch.where(direction != 0, direction, 1), torch.inf).amin(1)
        along = (x * direction).sum(1)
        return (along.square() + self.half_width**2 - x.square().sum(1)).sqrt() - along

    def distance(self, *, n: int = 1 << 18, seed: int = 0) -> tuple[float, float]:
        """W1(P, Q) = E |x - T(x)| by Monte Carlo over n points, and its standard error."""
        x = self.sample(n, torch.Generator().manual_seed(seed))
        moved = torch.cat([(part - self.contract(part)).norm(dim=1) for part in x.split(1 << 14)])
        return moved.mean().item(), (moved.std() / n**0.5).item()
