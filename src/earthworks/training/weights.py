"""Where the optimizer keeps float32 weights: in the parameters, in a master copy, or nowhere (stochastic rounding).

bf16 keeps 8 significant bits, so an update below 2^-9 of a weight is lost when the sum is rounded to the nearest. The paper
(Rae et al. 2021, C.2) compares two remedies: round up or down at random, so that the stored value equals the sum on average
(`StochasticWeights`, the paper's 7.1B and 280B), or keep the sum in a float32 copy (`MasterWeights`, which the authors
recommend in hindsight). docs/precision.md lists what each costs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from earthworks.runs import EarthworksError

LARGEST = torch.finfo(torch.bfloat16).max
PIECE, ACCELERATOR_PIECE = 1 << 16, 1 << 24  # numbers rounded at once: intermediates stay in the cache, or small
GENERATOR = "rounding/generator"


def stochastic_round(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """float32 -> bf16, to one of the two neighbours a <= x <= b, b with probability (x - a) / (b - a): E[result] = x.

    A bf16 number is the upper half of a float32 one. So 16 random bits are added to the lower half, and their carry into
    the upper half is the rounding: for either sign (bits hold the magnitude), for subnormals, and never for a number that
    bf16 holds, whose lower half is 0. Numbers beyond the largest bf16 number, and NaN, are rounded as torch does.
    """
    assert x.dtype == torch.float32
    rounded = torch.empty(x.shape, dtype=torch.bfloat16, device=x.device)
    length = PIECE if x.device.type == "cpu" else ACCELERATOR_PIECE
    for part, place in zip(x.reshape(-1).split(length), rounded.view(-1).split(length)):
        words = torch.empty(-(-len(part) // 4), dtype=torch.int64, device=x.device)  # four numbers a draw are faster
        words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
        noise = words.view(torch.int16)[: len(part)]  # from -2^15, which the next line shifts to 0
        upper = (part.view(torch.int32) + noise).add_(1 << 15).bitwise_right_shift_(16).to(torch.int16)
        torch.where(part.abs() <= LARGEST, upper.view(torch.bfloat16), part.to(torch.bfloat16), out=place)
    return rounded


class Weights:
    """float32 parameters, updated directly."""

    def adopt(self, name: str, parameter: Tensor) -> None:
        """Register a parameter of the model, before the first update."""

    def together(self, parameters: list[Tensor]) -> list[list[Tensor]]:
        """The parameters in groups, each updated at once."""
        return [parameters] if parameters else []

    def exact(self, parameter: Tensor) -> Tensor:
        """The float32 value to update."""
        return parameter

    def write(self, parameter: Tensor, exact: Tensor) -> None:
        """Store `exact`, the updated value."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold in addition to the parameters."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""


class MasterWeights(Weights):
    """bf16 parameters, each rounded from its float32 master copy: 2 + 4 bytes per parameter, and lossless updates."""

    def __init__(self) -> None:
        self.masters: dict[Tensor, Tensor] = {}
        self.names: dict[str, Tensor] = {}

    def adopt(self, name: str, parameter: Tensor) -> None:
        self.names[f"{name}/master"] = self.masters[parameter] = parameter.detach().clone()
        narrow(parameter)

    def exact(self, parameter: Tensor) -> Tensor:
        return self.masters[parameter]

    def write(self, parameter: Tensor, exact: Tensor) -> None:
        parameter.copy_(exact)

    def state(self) -> dict[str, Tensor]:
        return self.names

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        for name, master in self.names.items():
            if name not in tensors or tensors[name].shape != master.shape:
                raise EarthworksError(
                    f"the checkpoint has no float32 copy {name} of this model's weights: it was altered"
                )
            master.copy_(tensors[name])


class StochasticWeights(Weights):
    """bf16 parameters without a copy: 2 bytes each. One parameter at a time is updated in float32 and rounded
    stochastically, by a separate generator that is the same on every rank and whose state is saved in the checkpoint."""

    def __init__(self, seed: int, device: torch.device):
        self.generator = torch.Generator(device).manual_seed(seed)

    def adopt(self, name: str, parameter: Tensor) -> None:
        narrow(parameter)

    def together(self, parameters: list[Tensor]) -> list[list[Tensor]]:
        return [[parameter] for parameter in parameters]

    def exact(self, parameter: Tensor) -> Tensor:
        return parameter.float()

    def write(self, parameter: Tensor, exact: Tensor) -> None:
        parameter.copy_(stochastic_round(exact, self.generator))

    def state(self) -> dict[str, Tensor]:
        return {GENERATOR: self.generator.get_state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        if GENERATOR not in tensors:
            raise EarthworksError("the checkpoint has no generator state for stochastic rounding: it was altered")
        if tensors[GENERATOR].shape == self.generator.get_state().shape:  # else it was saved on another kind of device
            self.generator.set_state(tensors[GENERATOR])


def narrow(parameter: Tensor) -> None:
    """Convert a parameter to bf16 in place; its gradients still add up in float32, over microbatches too."""
    parameter.data = parameter.data.to(torch.bfloat16)
    parameter.grad_dtype = torch.float32


def weights_for(precision: str, seed: int, device: torch.device) -> Weights:
    """The weight storage of a precision."""
    if precision == "bf16-sr":
        return StochasticWeights(seed, device)
    return MasterWeights() if precision == "bf16-master" else Weights()
