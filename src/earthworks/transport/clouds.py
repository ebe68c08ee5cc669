"""Validation of the arguments of every distance: two clouds of points, and their weights."""

import math
from typing import TypeVar

import torch
from torch import Tensor

from earthworks.runs import EarthworksError

Number = TypeVar("Number", float, Tensor)
# |log2| up to which squares of costs are exact: about half of the exponent range of the type
ROOM = {torch.float32: 60, torch.float64: 500}
STEP = 100  # largest exponent applied at once: 2^100 fits float32


def check_clouds(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two samples as (n, d) and (m, d) of one floating dtype, on the device of `x`.

    Takes (n,) as n numbers (d = 1) and (n, c, h, w) as n flattened images; any array becomes a tensor. Integers become
    float64, half precision float32; gradients flow through. Raises EarthworksError for an empty cloud, other shapes,
    different d, and NaN or infinity. O((n + m) d).
    """
    x, y = cloud(x, "x"), cloud(y, "y")
    if x.shape[1] != y.shape[1]:
        raise EarthworksError(f"x has points of dimension {x.shape[1]}, y of dimension {y.shape[1]}: they must agree")
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(x.device, dtype)


def cloud(x: Tensor, name: str) -> Tensor:
    """One sample as (n, d), floating, finite, not empty."""
    try:
        x = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EarthworksError(f"{name} is a {type(x).__name__}, not an array of numbers ({error})") from None
    if x.ndim not in (1, 2, 4):
        raise EarthworksError(
            f"{name} has shape {tuple(x.shape)}; expected (n,), (n, d), or images (n, channels, height, width)"
        )
    x = x[:, None] if x.ndim == 1 else x.flatten(1)
    if not x.numel():
        raise EarthworksError(f"{name} is empty, of shape {tuple(x.shape)}: a distance needs at least one point")
    if x.is_complex():
        raise EarthworksError(f"{name} holds complex numbers; expected real ones")
    if not x.is_floating_point():
        x = x.to(torch.float64)
    elif x.dtype in (torch.float16, torch.bfloat16):
        x = x.to(torch.float32)
    if not x.detach().isfinite().all():
        bad = (~x.detach().isfinite()).any(dim=1)
        raise EarthworksError(
            f"{name} holds NaN or infinity in {int(bad.sum())} of {len(x)} points, "
            f"the first is point {int(bad.nonzero()[0])}"
        )
    return x


def check_weights(weights: Tensor | None, n: int, like: Tensor, name: str = "the weights") -> Tensor:
    """The weights (n,) in the dtype and on the device of `like`, scaled to sum to 1 to the last bit; None is uniform.

    Raises EarthworksError unless there is one for each of the n points, none is negative or NaN, and they sum to 1
    within 1e-6, or what float32 leaves of a sum of n. Zeros are allowed.
    """
    if weights is None:
        return torch.full((n,), 1 / n, dtype=like.dtype, device=like.device)
    weights = torch.as_tensor(weights).to(like.device, like.dtype)
    values = weights.detach()
    if values.shape != (n,):
        raise EarthworksError(f"{name} have shape {tuple(values.shape)}; expected one for each of the {n} points")
    if not (values >= 0).all():
        raise EarthworksError(f"{name} must not be negative or NaN; the smallest is {float(values.min())}")
    total = float(values.double().sum())
    if abs(total - 1) > max(1e-6, 1e-7 * math.sqrt(n)):
        raise EarthworksError(f"{name} sum to {total:.6g}; expected 1 (divide them by their sum)")
    return weights / weights.sum()


def check_order(p: float) -> float:
    """The order p >= 1 of a distance. Raises EarthworksError for anything else, infinity included."""
    try:
        fits = 1 <= p < math.inf
    except TypeError:  # text or None
        fits = False
    if not fits:
        raise EarthworksError(f"p is {p!r}; a Wasserstein distance needs a finite order p >= 1")
    return p


def times(x: Number, power: float) -> Number:
    """x 2^power, applied in steps, because 2^power itself may be beyond the range of the type."""
    while power:
        step = max(-STEP, min(STEP, power))
        x, power = x * 2.0**step, power - step
    return x


def unit(x: Tensor, y: Tensor, p: float, smallest: float = -math.inf) -> int:
    """The exponent of the unit to compute in: 0 for ordinary points, otherwise that of the largest coordinate.

    `smallest`: log2 of the least p-th power that the computation distinguishes from 0, where that exceeds float64's.
    """
    largest = max(float(points.detach().abs().max()) for points in (x, y))
    if largest == 0:
        return 0
    exponent = math.frexp(largest)[1]
    room = ROOM[x.dtype] / max(p, 2)
    return 0 if max(-room, smallest / p) <= exponent <= room else exponent
