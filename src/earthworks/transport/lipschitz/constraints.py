"""Weight constraints that bound a critic's slope: clipping, spectral normalization, orthonormal weights with sorting."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from earthworks.runs import EarthworksError

BJORCK_ITERATIONS = 15  # Anil et al. 2019: from spectral norm 1, singular values above 0.05 reach 1 within 1e-3


@torch.no_grad()
def clip_weights(module: nn.Module, bound: float = 0.01) -> None:
    """w <- min(max(w, -c), c) for every parameter, after each critic step.

    Bounds the slope by some unknown constant, far from 1: a network of h x h layers has spectral norms up to c h, a
    typical one has c sqrt(h) and loses the signal. Arjovsky et al. 2017, Algorithm 1, c = 0.01. O(number of weights).
    """
    if not bound > 0:
        raise EarthworksError(f"weights are clipped to [-c, c] with c > 0; got c = {bound}")
    for parameter in module.parameters():
        parameter.clamp_(-bound, bound)


def spectral_normalize(module: nn.Module, *, num_iterations: int = 1) -> nn.Module:
    """W <- W / sigma_max(W) for every linear and convolutional layer, sigma by power iteration; returns `module`.

    Linear layers have spectral norm 1 up to the iteration's error, so with ReLU between them the critic's slope is at
    most 1; in practice it is far lower, because each ReLU halves its signal (see benchmarks/critics.py).
    For a convolution the norm is that of the kernel as a matrix (out, in k k), as in Miyato et al. 2018, which alone
    bounds nothing. `num_iterations` power iterations at every forward pass in training mode.
    """
    for layer in linear_layers(module):
        parametrizations.spectral_norm(layer, n_power_iterations=num_iterations)
    return module


def orthonormalize(module: nn.Module, *, num_iterations: int = BJORCK_ITERATIONS) -> nn.Module:
    """Replace every linear layer's weight by the nearest matrix with orthonormal rows or columns (see `bjorck`); returns
    `module`. With norm-preserving activations (`GroupSort`) between such layers the critic's slope is at most 1 by
    construction, and can be 1 everywhere. Anil et al. 2019.
    """
    for layer in linear_layers(module):
        if not isinstance(layer, nn.Linear):
            raise EarthworksError(
                f"orthonormal weights need linear layers only; the critic has a {type(layer).__name__}"
            )
        parametrize.register_parametrization(layer, "weight", Orthonormal(num_iterations))
    return module


def linear_layers(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]


class Orthonormal(nn.Module):
    def __init__(self, num_iterations: int):
        super().__init__()
        self.num_iterations = num_iterations

    def forward(self, weight: Tensor) -> Tensor:
        return bjorck(weight, num_iterations=self.num_iterations)


def bjorck(weight: Tensor, *, num_iterations: int = BJORCK_ITERATIONS) -> Tensor:
    """The orthonormal matrix nearest to W: U V^T for W = U S V^T, by Björck's iteration from W / s,

        W <- 3/2 W - 1/2 W W^T W,    s = sqrt(max_i sum_j |W W^T|_ij) >= |W|.

    (rows, columns) to the same; rows are orthonormal when there are no more of them than columns, else columns. One row
    (a critic's last layer) is divided by its norm. Singular values rise to 1 from below and never exceed it: the slope
    is at most 1 even after too few iterations. Differentiable.
    O(num_iterations rows columns min(rows, columns)). Björck and Bowie 1971; Anil et al. 2019 (beta = 1/2).
    """
    if min(weight.shape) == 1:
        return weight / weight.norm()
    tall = weight.shape[0] > weight.shape[1]
    w = weight.mT if tall else weight
    with torch.no_grad():
        bound = (w @ w.mT).abs().sum(1).max().sqrt()
    w = w / bound
    for _ in range(num_iterations):
        w = torch.addmm(w, w @ w.mT, w, beta=1.5, alpha=-0.5)
    return w.mT if tall else w


@torch.no_grad()
def retract(module: nn.Module) -> None:
    """Replace each stored weight by its orthonormal matrix, after each step, so that fewer iterations are enough: 4 instead
    of 15 at Adam's usual rates."""
    for layer in linear_layers(module):
        for chain in getattr(layer, "parametrizations", {}).values():
            if any(isinstance(link, Orthonormal) for link in chain):
                chain.original.copy_(chain())


class GroupSort(nn.Module):
    """Sort the features within groups of `size` (2 is MaxMin; None sorts them all): 1-Lipschitz, and norm-preserving for
    gradients, because it is a permutation at every point. (n, h) to (n, h), h a multiple of `size`. Anil et al. 2019.
    """

    def __init__(self, size: int | None = 2):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if self.size is None:
            return x.sort(dim=-1).values
        if x.shape[-1] % self.size:
            raise EarthworksError(f"{x.shape[-1]} features do not divide into groups of {self.size}")
        if self.size == 2:  # any pairing will do, and halves are faster to read than neighbours
            low, high = x.chunk(2, dim=-1)
            return torch.cat([torch.minimum(low, high), torch.maximum(low, high)], dim=-1)
        return x.unflatten(-1, (-1, self.size)).sort(dim=-1).values.flatten(-2)
