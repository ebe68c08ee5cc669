"""Settings of `wgan train`; defaults come from a paper's preset, or depend on the kind of data."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import nn

from earthworks.runs import EarthworksError
from earthworks.training.command_settings import (
    A_SHARE,
    ABOVE_ZERO,
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    BELOW_ONE,
    Bound,
    RunSettings,
    check_settings,
    setting,
    settled,
    values,
)
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.networks import Network, build
from earthworks.wgan.objectives import OBJECTIVES, Objective

# Settings of the papers, by name; both versions where a paper and its code differ.
GULRAJANI = {
    "objective": "gp",
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "beta2": 0.9,
    "critic_steps": 5,
    "hold": 1.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Arjovsky et al. 2017, Algorithm 1
    "wgan": {
        **{"objective": "clip", "optimizer": "rmsprop", "learning_rate": 5e-5, "clip": 0.01},
        **{"batch": 64, "critic_steps": 5, "hold": 1.0},
    },
    # Gulrajani et al. 2017, Algorithm 1: weight 10, beta1 0
    "wgan-gp": {**GULRAJANI, "penalty": 10.0, "beta1": 0.0, "batch": 64},
    # its code for the toy problems: weight 0.1, beta1 0.5, four layers of 512
    "wgan-gp-toy-code": {
        **GULRAJANI,
        **{"penalty": 0.1, "beta1": 0.5, "batch": 256, "network": "mlp", "width": 512, "depth": 3, "noise": 2},
    },
    # its code for MNIST
    "mnist": {
        **GULRAJANI,
        **{"penalty": 10.0, "beta1": 0.5, "batch": 50, "network": "dcgan", "width": 64, "noise": 128},
    },
    # its code for CIFAR-10, the convolutional network
    "cifar-dcgan": {
        **GULRAJANI,
        **{"penalty": 10.0, "beta1": 0.5, "batch": 64, "network": "dcgan", "width": 128, "noise": 128},
    },
    # its appendix F for CIFAR-10, the residual network: rate falls to 0 over the run, generator batch twice as large
    "cifar-resnet": {
        **{**GULRAJANI, "learning_rate": 2e-4, "hold": 0.0},
        **{"penalty": 10.0, "beta1": 0.0, "batch": 64, "generator_batch": 128},
        **{"network": "resnet", "width": 128, "noise": 128, "dequantize": True},
    },
}

# Our defaults for settings that no preset gives; fitted in docs/log.md.
SMALL_IMAGE = 16  # pixels: smaller images get an mlp
POINTS = {
    **{"network": "mlp", "width": 128, "depth": 3, "noise": 2},
    **{"batch": 128, "generator_batch": 512, "learning_rate": 2e-3, "penalty": 1.0, "critic_steps": 2},
}
IMAGES = {
    **{"network": "dcgan", "depth": 3, "noise": 128},
    **{"batch": 64, "learning_rate": 4e-4, "penalty": 10.0, "critic_steps": 2},
}
SMALL_IMAGES = {**IMAGES, "network": "mlp", "width": 256, "learning_rate": 5e-4}
BY_OBJECTIVE: dict[str, dict[str, Any]] = {
    "minimax": {"critic_steps": 1, "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999},  # Radford et al. 2016
    "non-saturating": {"critic_steps": 1, "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999},
    "clip": {"optimizer": "rmsprop", "learning_rate": 5e-5, "critic_steps": 5, "hold": 1.0},
    "gp": {},
    "lp": {},
}
COMMON: dict[str, Any] = {
    **{"objective": "gp", "optimizer": "adam", "beta1": 0.0, "beta2": 0.9, "critic_steps": 5, "clip": 0.01},
    **{"average": 0.999, "dequantize": False},
}

Optimizer = Literal["adam", "adamw", "rmsprop"]


@dataclass(frozen=True)
class TrainSettings(RunSettings):
    """The settings of one training run of a GAN."""

    data: str | None = setting(
        None,
        "`digits`, `ring`, `grid`, `swiss-roll`, a .npy or .npz file, an IDX file or a folder of them, CIFAR-10's binary "
        "batches, a folder of images, or `hf:owner/name`.",
    )
    _: KW_ONLY
    preset: str | None = setting(
        None, "the settings of a paper: `wgan`, `wgan-gp`, `wgan-gp-toy-code`, `mnist`, `cifar-dcgan`, `cifar-resnet`."
    )
    objective: Objective | None = setting(
        None, "`gp` (default), `lp` (one-sided), `clip`, `minimax` or `non-saturating`."
    )
    network: Network | None = setting(None, "`mlp`, `dcgan` or `resnet`; by default chosen by the data.")
    width: int | None = setting(None, "hidden units of the mlp, channels of the convolutions.", AT_LEAST_ONE)
    depth: int | None = setting(None, "hidden layers of the mlp.", AT_LEAST_ONE)
    noise: int | None = setting(None, "dimension of the generator's input.", AT_LEAST_ONE)
    batch: int | None = setting(None, "real samples per update of the critic.", AT_LEAST_ONE)
    generator_batch: int | None = setting(None, "generated samples per update of the generator.", AT_LEAST_ONE)
    critic_steps: int | None = setting(None, "updates of the critic per update of the generator.", AT_LEAST_ONE)
    penalty: float | None = setting(None, "weight of the gradient penalty.", AT_LEAST_ZERO)
    clip: float | None = setting(None, "bound of the critic's weights (objective `clip`).", ABOVE_ZERO)
    optimizer: Optimizer | None = setting(None, "`adam`, `adamw` or `rmsprop`.")
    learning_rate: float | None = setting(None, "learning rate of the generator.", ABOVE_ZERO)
    critic_learning_rate: float | None = setting(None, "learning rate of the critic; by default the same.", ABOVE_ZERO)
    beta1: float | None = setting(None, "Adam's decay of the first moment.", BELOW_ONE)
    beta2: float | None = setting(None, "Adam's decay of the second moment.", BELOW_ONE)
    hold: float | None = setting(
        None,
        "share of the run after which the rates fall linearly to a hundredth; 1 keeps them constant. By default half, "
        "and on points at most 8,000 steps.",
        A_SHARE,
    )
    average: float | None = setting(
        None, "decay of the moving average of the generator's weights, from which samples are drawn.", BELOW_ONE
    )
    dequantize: bool | None = setting(None, "add noise of one level to 8-bit images.")
    validation: float = setting(
        0.1,
        "held-out fraction, for data without a test part.",
        Bound(lambda value: 0 < value < 1, "between 0 and 1"),
    )
    precision: str = setting(
        "auto",
        "`fp32`, `bf16` (autocast; norms of gradients stay in fp32), or `auto`: fp32 for an mlp, which is too small "
        "to gain, otherwise the faster one on this machine.",
        Bound(
            lambda value: value in ("auto", "fp32", "bf16"),
            "auto, fp32 or bf16: gradients of gradients overflow fp16",
        ),
    )
    channels_last: bool | None = setting(None, "memory layout of images; by default yes.")
    compile: bool = setting(
        False, "compile the generator with torch.compile, which cannot compile the twice-differentiated critic."
    )


@dataclass(frozen=True)
class GanSettings(TrainSettings):
    """The settings as in config.yaml, including the derived one."""

    critic_batch_norm: bool = setting(False, "use batch normalization in the critic.")


class Filled(GanSettings):
    """The settings after `fill`, with these known."""

    data: str
    objective: Objective
    network: Network
    width: int
    depth: int
    noise: int
    batch: int
    generator_batch: int
    critic_steps: int
    optimizer: Optimizer
    learning_rate: float
    critic_learning_rate: float
    beta1: float
    beta2: float
    average: float
    channels_last: bool


class Settled(Filled):
    """The settings of a started run, with these known too."""

    hold: float
    horizon: int
    max_steps: int
    evaluate_every: int
    sample_every: int
    save_every: int


def check(settings: TrainSettings) -> None:
    """Raise EarthworksError for the first invalid setting, before anything is read or written."""
    check_settings(settings)
    if settings.preset is not None and settings.preset not in PRESETS:
        raise EarthworksError(f"--preset is {settings.preset!r}; it must be one of {', '.join(PRESETS)}")


def fill(settings: TrainSettings, data: Dataset) -> Filled:
    """Fill in missing settings: from the preset, then the objective, the data, and the common defaults."""
    given = values(settings)
    preset = PRESETS.get(settings.preset or "", {})
    layers = [{"generator_batch": settings.batch or preset["batch"], **preset} if preset else {}]
    objective = settings.objective or layers[0].get("objective", COMMON["objective"])
    for layer in (*layers, BY_OBJECTIVE[objective], suited(data.shape), COMMON):
        given |= {name: value for name, value in layer.items() if given[name] is None}
    given["batch"] = min(given["batch"], len(data.train))
    given["generator_batch"] = given["generator_batch"] or given["batch"]
    given["critic_learning_rate"] = given["critic_learning_rate"] or given["learning_rate"]
    # in both networks unless a penalty forbids it: Radford et al. 2016; the code of Gulrajani et al. 2017 for clipping
    batch_norm = OBJECTIVES[objective].penalty is None and given["network"] == "dcgan"
    if given["network"] == "mlp" and given["precision"] == "auto":
        given["precision"] = "fp32"
    if given["channels_last"] is None:
        given["channels_last"] = len(data.shape) == 3
    return settled(Filled, GanSettings(**given, critic_batch_norm=batch_norm), "the command")


def suited(shape: tuple[int, ...]) -> dict[str, Any]:
    """Defaults for samples of this shape."""
    if len(shape) == 1:
        return POINTS
    if min(shape[1:]) < SMALL_IMAGE:
        return SMALL_IMAGES
    return {**IMAGES, "width": 64 if shape[0] == 1 else 128}


def networks(settings: Filled, data: Dataset) -> tuple[nn.Module, nn.Module]:
    """Generator and critic of these settings. Raises EarthworksError for settings that do not fit."""
    pair = build(
        settings.network,
        data.shape,
        noise=settings.noise,
        width=settings.width,
        depth=settings.depth,
        batch_norm=settings.critic_batch_norm,
    )
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for each in pair for module in each.modules())
    if normalized and min(settings.batch, settings.generator_batch) < 2:
        raise EarthworksError(
            f"the batch normalization of --network {settings.network} needs more than one sample per batch: "
            "set --batch and --generator_batch to at least 2, or use --network mlp"
        )
    return pair
