"""Pairs of clouds with a distance known without a solver: x, and x mapped by a function that is optimal for every x."""

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor, float | None, float | None]  # x, y, W_1, W_2


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def translation(n: int, d: int) -> Pair:
    x, shift = normal(n, d), normal(1, d, 1)
    return x, x + shift, float(shift.norm()), float(shift.norm())


def scaling(n: int, d: int) -> Pair:
    x = normal(n, d)
    return x, 3 * x, 2 * float(x.norm(dim=1).mean()), 2 * float(x.square().sum(1).mean().sqrt())


def positive_matrix(n: int, d: int) -> Pair:
    x, root = normal(n, d), normal(d, d, 1)
    y = x @ (root @ root.T)
    return x, y, None, float((x - y).square().sum(1).mean().sqrt())


def convex_gradient(n: int, d: int) -> Pair:
    """The gradient of log-sum-exp over random affine functions, plus |x|^2 / 2."""
    x, slopes = normal(n, d), normal(5, d, 1)
    y = x + torch.softmax(x @ slopes.T, dim=1) @ slopes
    return x, y, None, float((x - y).square().sum(1).mean().sqrt())


def monotone_coordinates(n: int, d: int) -> Pair:
    x = normal(n, d)
    y = torch.sinh(x) + x.sign()
    return x, y, None, float((x - y).square().sum(1).mean().sqrt())


def contraction_along_rays(n: int, d: int) -> Pair:
    x = normal(n, d)
    radii = x.norm(dim=1, keepdim=True)
    y = x * (radii / 5) ** 3 / radii if bool((radii < 5).all()) else x / (1 + radii)
    return x, y, float((x - y).norm(dim=1).mean()), None


def spheres(n: int, d: int) -> Pair:
    x = torch.nn.functional.normalize(normal(n, d), dim=1)
    return 2 * x, 5 * x, 3.0, 3.0


def one_point(n: int, d: int) -> Pair:
    x, at = normal(n, d), normal(1, d, 1)
    apart = (x - at).norm(dim=1)
    return x, at.expand(n, d), float(apart.mean()), float(apart.square().mean().sqrt())


def crossed_lines(n: int, d: int) -> Pair:
    """x on the first axis, y on the second, both at u: every coupling costs the same for W_2."""
    u = torch.linspace(-1, 1, n, dtype=torch.float64)
    x, y = torch.zeros(n, d, dtype=torch.float64), torch.zeros(n, d, dtype=torch.float64)
    x[:, 0], y[:, 1] = u, u
    return x, y, 2**0.5 * float(u.abs().mean()), float((2 * u.square().mean()).sqrt())


MAPS: list[Callable[[int, int], Pair]] = [
    translation, scaling, positive_matrix, convex_gradient, monotone_coordinates, contraction_along_rays, spheres,
    one_point, crossed_lines,
]  # fmt: skip


def shuffled(y: Tensor, seed: int = 7) -> Tensor:
    return y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
