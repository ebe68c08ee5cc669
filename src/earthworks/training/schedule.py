"""Learning rate and batch size as pure functions of the step, so that a resumed run matches an uninterrupted one."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from earthworks.runs import EarthworksError

Shape = Literal["gopher", "linear"]

GOPHER_WARMUP_STEPS = 1500  # Rae et al. 2021, section 3
GOPHER_FIRST_RATE = 1e-7
GOPHER_FINAL_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The factor by which each step multiplies the learning rate.

    `gopher` (the paper): linear from 1e-7 to the peak m over 1,500 steps, then m/10 + 0.45 m (1 + cos(pi p)), where p
    runs from 0 to 1 over the rest. `linear` (short runs): linear from 0 over `warmup_steps`, held until the share `hold`
    of the run, then linear to `final_share` of the peak. Past `max_steps` both stay at their final rate.
    """

    shape: Shape
    max_steps: int
    peak: float
    warmup_steps: int
    final_share: float
    hold: float = 0.0  # 1: the rate never falls

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise EarthworksError(f"schedule is {self.shape!r}; it must be one of {', '.join(get_args(Shape))}")
        if self.max_steps < 1:
            raise EarthworksError(f"max_steps is {self.max_steps}; a run needs at least one step")

    def factor(self, step: int) -> float:
        """Rate of update number `step` (from 0) divided by the peak rate."""
        if step < self.warmup_steps:
            if self.shape == "gopher":
                first = GOPHER_FIRST_RATE / self.peak
                return first + (1 - first) * step / self.warmup_steps
            return (step + 1) / (self.warmup_steps + 1)
        falling = max(self.warmup_steps, self.hold * self.max_steps)
        progress = min(1.0, max(0.0, step - falling) / max(1, self.max_steps - falling))
        if self.shape == "gopher":
            return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - (1 - self.final_share) * progress


@dataclass(frozen=True, kw_only=True)
class BatchRamp:
    """Sequences per step: `batch` throughout, or `first` for the steps before `ramp_step`.

    The paper's 280B started at 3M tokens and continued at 6M (section 3); Hoffmann et al. 2022 say it doubled midway.
    """

    batch: int
    first: int | None = None
    ramp_step: int = 0

    def size(self, step: int) -> int:
        """Sequences of update number `step`."""
        return self.first if self.first is not None and step < self.ramp_step else self.batch

    def before(self, step: int) -> int:
        """Sequences of all updates before `step`: its start in the sample order."""
        if self.first is None:
            return step * self.batch
        early = min(step, self.ramp_step)
        return early * self.first + (step - early) * self.batch
