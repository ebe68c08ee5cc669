"""Distances between very large or very small points, computed in a rescaled unit.

A power |x - y|^p leaves the range of float64 long before x does: at 1e155 for p = 2, at 1e20 in float32. W(c x, c y) is
c W(x, y), and scaling by a power of two is exact: such points are divided by one, and the result is multiplied by it.
Points of ordinary size are not rescaled.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.transport.clouds import check_clouds, check_order, times, unit
from earthworks.transport.result import Distance, out_of_range

P = ParamSpec("P")
D = TypeVar("D", bound=Distance)


def any_magnitude(
    *,
    options: tuple[str, ...] = (),
    lengths: tuple[str, ...] = (),
    costs: tuple[str, ...] = (),
    smallest: float = -math.inf,
) -> Callable[[Callable[Concatenate[Tensor, Tensor, P], D]], Callable[Concatenate[Tensor, Tensor, P], D]]:
    """Decorator that makes a distance exact for points of any magnitude.

    `options` names the arguments that are costs, in the unit |x|^p; `lengths` and `costs` the entries of `details` that
    are one or the other. An entry outside the range of float64 becomes None.
    """

    def decorate(measure: Callable[Concatenate[Tensor, Tensor, P], D]) -> Callable[Concatenate[Tensor, Tensor, P], D]:
        default = inspect.signature(measure).parameters.get("p")

        @functools.wraps(measure)
        def measured(x: Tensor, y: Tensor, *args: P.args, **kwargs: P.kwargs) -> D:
            x, y = check_clouds(x, y)
            p: Any = kwargs.get("p", default.default if default else 2)
            exponent = unit(x, y, check_order(p), smallest)
            if not exponent:
                return measure(x, y, *args, **kwargs)
            given: dict[str, Any] = dict(kwargs)
            for name in options:
                if given.get(name) is not None:
                    given[name] = scaled_option(name, given[name], -exponent * p)
            found = measure(times(x, -exponent), times(y, -exponent), *args, **given)  # pyright: ignore[reportCallIssue]
            found.restore(exponent)
            for names, degree in ((lengths, 1.0), (costs, p)):
                for name in names:
                    found.details[name] = held(float(found.details[name]), exponent * degree)
            return found

        return measured

    return decorate


def scaled_option(name: str, value: float, power: float) -> float:
    scaled = times(float(value), power)
    if value and (not scaled or math.isinf(scaled)):
        raise EarthworksError(
            f"{name} {value:g} is of another order than the costs of these points, which are about "
            f"2^{-power:g}: omit it, or bring points and {name} to the same scale"
        )
    return scaled


def held(before: float, power: float) -> float | None:
    after = times(before, power)
    return None if out_of_range(before, after) else after
