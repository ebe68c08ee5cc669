"""Settings of a training command, each defined once: a field with its type, default, help and bound.

    @dataclass(frozen=True, kw_only=True)
    class TrainSettings(RunSettings):
        batch: int | None = setting(None, "sequences of one update.", AT_LEAST_ONE)

    @command(TrainSettings)
    def train(settings: TrainSettings) -> Path: ...

The type checker sees `train(batch=8)`; the flags, the keys of config.yaml, the help and the checks come from the same
fields. Settings that were not given are filled in by `dataclasses.replace`.
"""

import dataclasses
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, get_args

from earthworks.runs import EarthworksError

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R", covariant=True)

MOST = 1 << 31  # of any whole number but the seed: anything larger could not be indexed


@dataclass(frozen=True)
class Bound:
    """The allowed values of a setting, and their wording: `it must be WORDS`."""

    holds: Callable[[Any], bool]
    words: str


AT_LEAST_ONE = Bound(lambda value: value >= 1, "at least 1")
AT_LEAST_ZERO = Bound(lambda value: 0 <= value < math.inf, "at least 0")
ABOVE_ZERO = Bound(lambda value: 0 < value < math.inf, "above 0")
BELOW_ONE = Bound(lambda value: 0 <= value < 1, "at least 0 and below 1")
A_SHARE = Bound(lambda value: 0 <= value <= 1, "between 0 and 1")


def setting(default: Any, help: str, bound: Bound | None = None) -> Any:
    """A field of a dataclass of settings; its type is its annotation."""
    return dataclasses.field(default=default, metadata={"help": help, "bound": bound})


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings that every training command has."""

    run: str | None = setting(None, "the run folder (default: runs/NAME-DATE).")
    resume: str | None = setting(None, "a run folder to resume, bit-exactly; only --max_steps may be given with it.")
    minutes: float | None = setting(
        None,
        "training time (default 5, unless max_steps is given); other defaults are chosen for it, the data and the machine.",
        ABOVE_ZERO,
    )
    max_steps: int | None = setting(None, "number of updates.", AT_LEAST_ONE)
    horizon: int | None = setting(
        None,
        "the step from which the rates stay at their final value (default: max_steps of the first command).",
        AT_LEAST_ONE,
    )
    device: str = setting("auto", "`auto`, `cpu`, `cuda`, `mps`.")
    seed: int = setting(0, "random seed of weights, sample order, noise and split.", AT_LEAST_ZERO)
    evaluate_every: int | None = setting(None, "updates between validations.", AT_LEAST_ONE)
    sample_every: int | None = setting(None, "updates between samples.", AT_LEAST_ONE)
    save_every: int | None = setting(None, "updates between checkpoints.", AT_LEAST_ONE)
    tensorboard: bool = setting(False, "also write TensorBoard files (extra `tensorboard`).")


class Command(Protocol[P, R]):
    """A function whose parameters are those of its settings class."""

    __name__: str
    settings: type

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def command(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Command[P, R]]:
    """Give a function of one settings object the parameters of that object's class, and their help."""
    kind: Any = settings

    def decorate(function: Callable[[S], R]) -> Command[P, R]:
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(settings(*args, **kwargs))

        result: Any = called
        result.__name__, result.__qualname__, result.__module__ = (
            function.__name__,
            function.__name__,
            function.__module__,
        )
        result.__signature__ = inspect.signature(settings).replace(
            return_annotation=inspect.signature(function).return_annotation
        )
        result.__annotations__ = types_of(kind)
        help = {each.name: each.metadata["help"] for each in dataclasses.fields(kind)}
        lines = [f"{name}: {help[name]}" for name in types_of(kind)]
        wrapped = [textwrap.fill(line, 120, initial_indent=" " * 8, subsequent_indent=" " * 12) for line in lines]
        result.__doc__ = f"{function.__doc__}\n\n    Args:\n" + "\n".join(wrapped)
        result.settings = kind
        return result

    return decorate


@cache
def types_of(kind: type) -> dict[str, Any]:
    """The type of each setting of a class, in the order of its parameters."""
    base = next(
        each for each in kind.__mro__ if "__dataclass_params__" in each.__dict__
    )  # the class's own, not those of its settled subclasses
    hints = typing.get_type_hints(base)
    return {name: hints[name] for name in inspect.signature(kind).parameters}


def values(settings: RunSettings) -> dict[str, Any]:
    """The settings by name, as config.yaml has them."""
    return {name: getattr(settings, name) for name in types_of(type(settings))}


def check_settings(settings: RunSettings) -> None:
    """Raise EarthworksError for the first invalid setting, before anything is read or written."""
    for each in dataclasses.fields(settings):
        value, bound = getattr(settings, each.name), each.metadata["bound"]
        hint = types_of(type(settings))[each.name]
        if value is None:
            continue
        if bound is not None and not bound.holds(value):
            raise EarthworksError(f"--{each.name} is {value!r}; it must be {bound.words}")
        if isinstance(value, int) and each.name != "seed" and value >= MOST:
            raise EarthworksError(f"--{each.name} is {value}; it must be below {MOST:,}")
        if (choices := choices_of(hint)) and value not in choices:
            raise EarthworksError(f"--{each.name} is {value!r}; it must be one of {', '.join(choices)}")


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values of a `Literal`, or of an optional one."""
    if typing.get_origin(hint) is Literal:
        return get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return tuple(choice for each in get_args(hint) for choice in choices_of(each))
    return ()


def settled(kind: type[S], settings: RunSettings, source: str | Path) -> S:
    """The same settings as a class whose annotations state which of them every started run has.

    Raises EarthworksError when `source`, the file they are from, lacks one of those."""
    for each in kind.__mro__:
        if dataclasses.is_dataclass(each) and "__dataclass_params__" in each.__dict__:
            break
        for name in inspect.get_annotations(each):
            if getattr(settings, name) is None:
                raise EarthworksError(f"{source} has no {name}: it was altered; put the file back")
    return kind(**values(settings))
