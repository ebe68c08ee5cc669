"""Critic made of envelopes of cones: 1-Lipschitz by construction, and universal among 1-Lipschitz functions."""

import torch
from torch import Tensor, nn

FEW_DIMENSIONS = 16  # up to here differences take at most twice as long as the product


class Cones(nn.Module):
    """f(x) = w_1 min_k (|x - a_k| + b_k) + w_2 max_k (c_k - |x - e_k|) + w_3 <v, x> / |v|,    w = softmax of three numbers.

    Each part is 1-Lipschitz whatever its parameters, and so is their mean. The first two are McShane's and Whitney's
    extensions: with apexes dense enough either is any 1-Lipschitz function on a bounded set, and almost everywhere its
    gradient has norm 1, as an optimal critic's has where mass must move. The first fits fast where mass gathers (in
    its funnels), the second where it spreads from peaks, the plane where it is shifted; training chooses w.

    During training the minimum is soft, -t log sum_k exp(-(|x - a_k| + b_k) / t), `temperature` t falling to 0, so that
    every cone near a point learns from it; a softened minimum is 1-Lipschitz too.
    `low`, `high` (k, d): initial upward and downward apexes, points of the samples. (n, d) to (n,);
    O(n k d) time and O(n k) memory.
    """

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.upward, self.downward = nn.Parameter(low.clone()), nn.Parameter(high.clone())
        self.lifts, self.drops = nn.Parameter(low.new_zeros(len(low))), nn.Parameter(low.new_zeros(len(high)))
        self.normal = nn.Parameter(high.mean(0) - low.mean(0) + torch.finfo(low.dtype).eps)
        self.mixture = nn.Parameter(low.new_zeros(3))
        self.temperature = 0.0

    def forward(self, x: Tensor) -> Tensor:
        lower = self.minimum(self.distances(x, self.upward) + self.lifts)
        upper = -self.minimum(self.distances(x, self.downward) - self.drops)
        plane = x @ (self.normal / self.normal.norm())
        return torch.stack([lower, upper, plane], 1) @ self.mixture.softmax(0)

    def minimum(self, values: Tensor) -> Tensor:
        t = self.temperature
        return values.amin(1) if t == 0 else -t * torch.logsumexp(values / -t, 1)

    def distances(self, x: Tensor, apexes: Tensor) -> Tensor:
        """|x_i - a_k|, by differences; while training in many dimensions by |x|^2 - 2 x.a + |a|^2, six times as fast at
        d = 64 and inaccurate only within a thousandth of the spread from an apex, where there are few points."""
        if not self.training or x.shape[1] <= FEW_DIMENSIONS:
            return torch.cdist(x, apexes, compute_mode="donot_use_mm_for_euclid_dist")
        squares = torch.addmm(x.square().sum(1, keepdim=True) + apexes.square().sum(1), x, apexes.mT, alpha=-2)
        return squares.clamp(min=1e-5).sqrt()
