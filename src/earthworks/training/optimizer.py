"""Adam, AdamW, RMSProp and Muon behind one interface: named parameters in, `step`, tensors out for the checkpoint."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from earthworks.runs import EarthworksError
from earthworks.training.weights import Weights

Kind = Literal["adam", "adamw", "muon", "rmsprop"]

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan et al. 2024: quintic whose iterates reach singular values in [0.7, 1.2]
NEWTON_SCHULZ_STEPS = 5
RMSPROP_DECAY = 0.99  # torch's default, as in the code of Arjovsky et al. 2017
STATE = {  # state of each optimizer per parameter
    "Muon": ("momentum_buffer",),
    "RMSprop": ("step", "square_avg"),
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
}


class Optimizer:
    """One or two torch optimizers, each with the peak rate of its parameters.

    `adam` is Gopher's (no weight decay); `adamw` decays the matrices inside the `blocks`; `muon` orthogonalises the
    updates of these and leaves embeddings, gains and biases to AdamW at `embedding_rate` (by default `learning_rate`).
    `rmsprop` (decay 0.99) is that of the Wasserstein GAN, at one rate for all, and for float32 parameters only.
    `weights` determines where the float32 weights are kept; moments are always float32.
    """

    def __init__(
        self,
        kind: Kind,
        parameters: Iterable[tuple[str, Tensor]],
        *,
        learning_rate: float,
        embedding_rate: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        weights: Weights | None = None,
    ):
        if kind not in get_args(Kind):
            raise EarthworksError(f"optimizer is {kind!r}; it must be one of {', '.join(get_args(Kind))}")
        self.names = {parameter: name for name, parameter in parameters if parameter.requires_grad}
        self.weights = weights or Weights()
        for parameter, name in self.names.items():
            self.weights.adopt(name, parameter)
        hidden = [p for p, name in self.names.items() if p.ndim == 2 and "blocks." in name and "bias" not in name]
        others = [p for p in self.names if not any(p is h for h in hidden)]
        decay = 0.0 if kind == "adam" else weight_decay
        fused = all(p.device.type in ("cpu", "cuda") for p in self.names)
        betas = (float(betas[0]), float(betas[1]))  # torch refuses an integer 0
        adam: dict[str, Any] = {"betas": betas, "epsilon": epsilon, "fused": fused, "weights": self.weights}
        self.parts: list[torch.optim.Optimizer] = []
        if kind == "rmsprop":
            assert type(self.weights) is Weights
            self.parts.append(torch.optim.RMSprop(list(self.names), lr=learning_rate, alpha=RMSPROP_DECAY, eps=epsilon))
            rest = []
        elif kind == "muon":
            own = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
            self.parts.append(Muon(hidden, **own, weights=self.weights))
            rest = [{"params": others, "lr": embedding_rate or learning_rate, "weight_decay": 0.0}]
        else:
            rest = [
                {"params": hidden, "lr": learning_rate, "weight_decay": decay},
                {"params": others, "lr": embedding_rate or learning_rate, "weight_decay": 0.0},
            ]
        if rest:
            self.parts.append(AdamW([group for group in rest if group["params"]], **adam))
        for group in self.groups():
            group["peak"] = group["lr"]

    def groups(self) -> Iterable[dict[str, Any]]:
        return (group for part in self.parts for group in part.param_groups)

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak rates; gradients are dropped."""
        for group in self.groups():
            group["lr"] = group["peak"] * factor
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def zero_grad(self) -> None:
        """Drop the gradients without an update."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by parameter name: `NAME/exp_avg` etc."""
        tensors = self.weights.state().copy()
        for part in self.parts:
            for parameter, values in part.state.items():
                for key, value in values.items():
                    tensors[f"{self.names[parameter]}/{key}"] = torch.as_tensor(value)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned. Raises EarthworksError when it belongs to another model or optimizer."""
        self.weights.load_state(tensors)
        tensors = {name: value for name, value in tensors.items() if name not in self.weights.state()}
        if not tensors:  # saved before the first update
            return
        places = {
            f"{self.names[parameter]}/{key}": (part, parameter, key)
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
            for key in STATE[type(part).__name__]
        }
        odd = [
            *sorted(tensors.keys() ^ places.keys()),
            *(n for n, (_, p, key) in places.items() if n in tensors and key != "step" and tensors[n].shape != p.shape),
        ]
        if odd:
            raise EarthworksError(
                f"the checkpoint's optimizer state belongs to another model or optimizer: {len(odd)} tensors differ, "
                f"the first is {odd[0]}"
            )
        for name, (part, parameter, key) in places.items():
            # Adam's step count stays on the CPU unless fused on an accelerator; everything else has its parameter's device
            # and memory layout, because fused Adam pairs weights and moments by memory position, channels last included
            value = tensors[name]
            place = torch.empty_like(value if key == "step" else parameter, device=parameter.device, dtype=value.dtype)
            part.state[parameter][key] = place.copy_(value)


class AdamW(torch.optim.Optimizer):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- (1 - lr wd) w - lr m' / (sqrt(v') + eps).

    With m' = m / (1 - b1^t) and v' = v / (1 - b2^t) (Loshchilov & Hutter 2019, algorithm 2), by torch's kernel, on the
    float32 numbers behind the parameters.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        epsilon: float,
        fused: bool,
        weights: Weights,
    ):
        super().__init__(groups, {})
        self.betas, self.epsilon, self.fused, self.weights = betas, epsilon, fused, weights

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore
        for group in self.param_groups:
            for parameters in self.weights.together([p for p in group["params"] if p.grad is not None]):
                exact = [self.weights.exact(parameter) for parameter in parameters]
                for parameter, number in zip(parameters, exact):
                    if not self.state[parameter]:
                        count = torch.zeros((), device=number.device if self.fused else "cpu")
                        moments = {name: torch.zeros_like(number) for name in ("exp_avg", "exp_avg_sq")}
                        self.state[parameter] = {"step": count, **moments}
                kept = [self.state[parameter] for parameter in parameters]
                adamw(
                    exact,
                    [parameter.grad for parameter in parameters if parameter.grad is not None],
                    [state["exp_avg"] for state in kept],
                    [state["exp_avg_sq"] for state in kept],
                    [],
                    [state["step"] for state in kept],
                    lr=group["lr"],
                    weight_decay=group["weight_decay"],
                    eps=self.epsilon,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    amsgrad=False,
                    maximize=False,
                    fused=self.fused,
                    foreach=False,
                )
                for parameter, number in zip(parameters, exact):
                    self.weights.write(parameter, number)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: M <- mu M + (1 - mu) G;  W <- W (1 - lr wd) - lr s O((1 - mu) G + mu M).

    O(X) = U V^T of X = U S V^T, approximated by five Newton-Schulz iterations, and s = sqrt(max(1, rows / columns))
    (Jordan et al. 2024). The same update as `torch.optim.Muon` (a test compares them), which iterates in bf16 one
    matrix at a time; here matrices of one shape are iterated as one batch, in float32 on a processor without bf16:
    five times as fast there for a 128 x 512 matrix.
    """

    def __init__(self, parameters: list[Tensor], *, lr: float, momentum: float, weight_decay: float, weights: Weights):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.weights = weights

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    state, gradient = self.state[parameter], parameter.grad
                    assert gradient is not None
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(gradient)
                    momentum = state["momentum_buffer"]
                    momentum.lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(momentum, group["momentum"]))
                orthogonal = orthogonalize(torch.stack(updates))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, orthogonal):
                    exact = self.weights.exact(parameter)
                    if group["weight_decay"]:
                        exact.mul_(1 - group["lr"] * group["weight_decay"])
                    exact.add_(update.to(exact.dtype), alpha=-rate)
                    self.weights.write(parameter, exact)


def orthogonalize(x: Tensor) -> Tensor:
    """Newton-Schulz on a batch of matrices (n, rows, columns): singular values become about 1, singular vectors stay.

    X <- a X + (b A + c A^2) X with A = X X^T, on the side where A is smaller, from X / |X|_F.
    """
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[-2] > x.shape[-1]
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x.mT.contiguous() if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
