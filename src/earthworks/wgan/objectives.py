"""Losses of critic and generator on raw scores, in the five forms of the papers.

    minimax          critic  -E log D(x) - E log(1 - D(G z))      generator  E log(1 - D(G z))       Goodfellow et al. 2014
    non-saturating   critic  the same                             generator  -E log D(G z)           ibid., section 3
    clip             critic  E f(G z) - E f(x), weights clipped   generator  -E f(G z)               Arjovsky et al. 2017
    gp               critic  ... + weight E(|grad f| - 1)^2       generator  -E f(G z)               Gulrajani et al. 2017
    lp               critic  ... + weight E max(0, |grad f| - 1)^2                                   Petzka et al. 2018

D = sigmoid(f), so log D = -softplus(-f) and log(1 - D) = -softplus(f): exact where a sigmoid would be 0 or 1. The critic is
high on real samples; adding a constant to f changes no gradient, so the generator's loss alone is not informative. The gap
E f(x) - E f(G z) is: at least 0 for an optimal critic, and an estimate of W1 for a 1-Lipschitz one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Objective = Literal["minimax", "non-saturating", "clip", "gp", "lp"]


@dataclass(frozen=True)
class Losses:
    """`critic(real scores, fake scores)` and `generator(fake scores)`, each to a 0-d tensor; scores are (n,).

    `penalty`: one- or two-sided penalty on the slope; `clips`: whether the critic's weights are clipped.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    penalty: Literal["one", "two"] | None = None
    clips: bool = False


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G z))."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_loss(fake: Tensor) -> Tensor:
    """E log(1 - D(G z)): its gradient vanishes where the discriminator is confident."""
    return -F.softplus(fake).mean()


def non_saturating_loss(fake: Tensor) -> Tensor:
    """-E log D(G z)."""
    return F.softplus(-fake).mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E f(G z) - E f(x): minus the gap."""
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-E f(G z)."""
    return -fake.mean()


OBJECTIVES: dict[Objective, Losses] = {
    "minimax": Losses(discriminator_loss, minimax_loss),
    "non-saturating": Losses(discriminator_loss, non_saturating_loss),
    "clip": Losses(critic_loss, generator_loss, clips=True),
    "gp": Losses(critic_loss, generator_loss, penalty="two"),
    "lp": Losses(critic_loss, generator_loss, penalty="one"),
}
