"""Gradient penalty: deviation of a critic's slope from 1 between real and generated samples."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from earthworks.runs import EarthworksError

Critic = Callable[[Tensor], Tensor]  # (n, *) -> raw scores, (n,) or (n, 1)
Sided = Literal["one", "two"]


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    *,
    sided: Sided = "two",
    epsilon: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Penalty on the critic's slope between real and generated samples,

        two-sided   E (|grad f(z)| - 1)^2,            one-sided   E max(0, |grad f(z)| - 1)^2,
        z = e x + (1 - e) y,   e uniform on [0, 1], one for each pair (x, y),

    with the norm over all axes but the batch axis, and the mean taken after the norm.

    `critic` maps (n, *) to raw scores (n,) or (n, 1), before any sigmoid, each from its own sample alone; `real` and
    `fake` are (n, *) of one shape, and get no gradient; `epsilon` is (n,), by default drawn from
    `generator`. Returns a 0-d tensor with its graph: multiply it by the weight (10 in the papers) and add it to the loss.

    In float32, or in bfloat16 under autocast: there the critic runs in bfloat16, and norms and mean in float32. Under
    float16 autocast the critic runs in float32 here, because gradients of gradients overflow float16.
    Raises EarthworksError for a critic with batch normalization (its score of one sample depends on the others), float16
    weights, unequal shapes, no samples, or not one score per sample.
    The penalty with its backward pass costs four passes through a piecewise linear critic: see `Straight`.
    Sources: Gulrajani et al. 2017, Algorithm 1 (two-sided); Petzka et al. 2018, eq. 8 (one-sided).
    """
    points = interpolate(real, fake, epsilon=epsilon, generator=generator)
    return penalize(gradient_norms(critic, points, create_graph=True), sided)


def interpolate(
    real: Tensor, fake: Tensor, *, epsilon: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """z_i = e_i x_i + (1 - e_i) y_i, e_i uniform on [0, 1]: one e per pair, the same for all pixels and channels.

    (n, *) and (n, *) to (n, *), detached; `epsilon` (n,) replaces the draw from `generator`.
    """
    if real.shape != fake.shape or not real.ndim or not len(real):
        raise EarthworksError(
            f"the gradient penalty pairs real with generated samples: expected two non-empty batches of one shape, "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if epsilon is None:
        epsilon = torch.rand(len(real), device=real.device, dtype=real.dtype, generator=generator)
    elif epsilon.shape != real.shape[:1]:
        raise EarthworksError(f"epsilon has shape {tuple(epsilon.shape)}; expected one number per pair, ({len(real)},)")
    epsilon = epsilon.to(real).view(-1, *[1] * (real.ndim - 1))
    return torch.lerp(fake.detach(), real.detach(), epsilon)


def gradient_norms(critic: Critic, points: Tensor, *, create_graph: bool = False) -> Tensor:
    """|grad f(z_i)| of each point, (n, *) to (n,): the Euclidean norm over all axes but the first.

    With `create_graph` the norms can be differentiated with respect to the critic's weights, also where a gradient is
    zero (the norm's derivative is taken as 0 there). One forward and one backward pass, without gradients of the weights.
    """
    return gradients(critic, points, create_graph=create_graph).flatten(1).norm(dim=1)


def gradients(critic: Critic, points: Tensor, *, create_graph: bool = False) -> Tensor:
    """grad f(z_i) of each point, (n, *) to (n, *), in the dtype of `points`."""
    refuse_coupled_samples(critic)
    points = points.detach().requires_grad_()
    with torch.enable_grad(), wide_enough(points), Straight():
        scores = critic(points)
        if scores.numel() != len(points):
            raise EarthworksError(
                f"the critic returned shape {tuple(scores.shape)}; expected one raw score per sample, {len(points)} in all"
            )
        if scores.dtype == torch.float16:
            raise EarthworksError("gradients of gradients overflow float16: keep the critic in float32 or bfloat16")
        (gradient,) = torch.autograd.grad(scores.sum(), points, create_graph=create_graph)
    return gradient


def penalize(norms: Tensor, sided: Sided) -> Tensor:
    """mean (|g| - 1)^2, or mean max(0, |g| - 1)^2: (n,) to a 0-d tensor."""
    if sided not in get_args(Sided):
        raise EarthworksError(f"sided is {sided!r}; expected 'one' or 'two'")
    excess = norms - 1
    return (excess.clamp(min=0) if sided == "one" else excess).square().mean()


def refuse_coupled_samples(critic: Critic) -> None:
    """Refuse batch normalization: it mixes samples, so d(sum of scores)/d(z_i) is not the gradient of f at z_i."""
    for name, module in critic.named_modules() if isinstance(critic, nn.Module) else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise EarthworksError(
                f"a gradient penalty needs independent samples, but the critic's {type(module).__name__} {name!r} "
                f"mixes the samples of a batch; use LayerNorm, GroupNorm or no normalization"
            )


def wide_enough(points: Tensor) -> AbstractContextManager[Any]:
    """Use float32 where autocast would use float16."""
    kind = points.device.type
    narrow = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return torch.autocast(kind, enabled=False) if narrow else nullcontext()


class Straight(TorchFunctionMode):
    """Treat ReLU and leaky ReLU as a product with a constant, y = m x with m = 1 or the slope, while a critic runs.

    Their second derivative is zero, but torch's double backward computes that zero as a tensor and propagates it
    through every layer: a full backward pass, weights included, that adds nothing. A product with a constant has no
    such path, so a penalty costs four passes (forward, to the input, its tangent, into the weights) instead of six.
    The values are bit-identical.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.relu, torch.relu, Tensor.relu):
            return times_slope(args[0] if args else kwargs["input"], 0.0)
        if func is F.leaky_relu:
            return leaky(*args, **kwargs)
        return func(*args, **kwargs)


def leaky(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return times_slope(input, negative_slope)


def times_slope(x: Tensor, slope: float) -> Tensor:
    with torch.no_grad():
        multiplier = (x > 0).to(x.dtype)
        if slope:
            multiplier.mul_(1 - slope).add_(slope)
    return x * multiplier
