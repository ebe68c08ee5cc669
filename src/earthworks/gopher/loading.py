"""Loading of a trained model from its run folder."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earthworks.corpus import Tokenizer
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.model import Gopher
from earthworks.runs import EarthworksError, RunFolder
from earthworks.training import checkpoint

DTYPES = (torch.float32, torch.bfloat16)  # of weights in a checkpoint


def load(run: str | Path, which: str = "best", device: str | torch.device = "cpu") -> tuple[Gopher, Tokenizer]:
    """The model and tokenizer of a run: `model, tokenizer = load("runs/a")`.

    `which` is `best` (lowest validation; the last where nothing was held out), `last`, or a step. Every file is checked
    against its SHA-256. Raises EarthworksError when there is no run, no checkpoint, when a file was altered, when the
    tokenizer is not the one that the model was trained with, or when weights are not finite (exit code 1).
    """
    folder = RunFolder.open(run)
    refuse_gan(run, folder.read_config())  # which refuses a format that this version does not know
    path, tensors, state = checkpoint.load_chosen(folder, which)
    tokenizer = Tokenizer.load(folder.tokenizer)
    model = built(path, tensors, state)
    if tokenizer.digest != state.get("tokenizer"):
        raise EarthworksError(
            f"{path} was trained with another tokenizer than {folder.tokenizer}: one of them was replaced; put it back"
        )
    return model.to(device).eval(), tokenizer


def refuse_gan(run: str | Path, config: dict[str, Any]) -> None:
    """EarthworksError for the configuration of a GAN, where a language model is wanted."""
    if config.get("kind") == "wgan":
        raise EarthworksError(
            f"{run} is the run of a GAN, not of a language model: use earthworks wgan sample, wgan evaluate or wgan diagnose"
        )


def built(path: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Gopher:
    """The model of a checkpoint, built only once its tensors are those of the model that its state describes."""
    config, weights = described_model(path, state), tensors.get("model", {})
    check_fits(path, config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    model = Gopher(config)
    load_weights(model, weights)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise EarthworksError(
                f"the weights in {path} are not finite (NaN or infinity in {name}): the training diverged or the file was "
                "altered; choose another checkpoint with --checkpoint, or train with a lower --learning_rate",
                exit_code=1,
            )
    return model


def described_model(path: Path, state: dict[str, Any]) -> GopherConfig:
    """The configuration that the state of a checkpoint holds."""
    try:
        return GopherConfig.from_dict(dict(state["model"]))
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, EarthworksError) else "its model entry is missing or not a mapping"
        raise EarthworksError(f"{path / 'state.json'} does not describe a Gopher ({reason}): it was altered") from None


def check_fits(path: Path, config: GopherConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise EarthworksError when a checkpoint's tensors and its model differ in their number of parameters, before
    anything is allocated for the model."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    if config.num_parameters() != numbers or config.num_layers > len(shapes):
        raise EarthworksError(
            f"{path / 'state.json'} describes a model of {config.num_layers:,} layers and {config.num_parameters():,} "
            f"parameters, but its weights are {len(shapes):,} tensors of {numbers:,} numbers: one of the two was "
            "altered"
        )


def load_weights(model: Gopher, tensors: dict[str, Tensor]) -> None:
    """Copy weights in, by name and shape; EarthworksError when they belong to another model."""
    own = model.state_dict()
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    shapes = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unknown or shapes:
        odd = sorted(missing | unknown | set(shapes))
        raise EarthworksError(
            f"the checkpoint's weights do not fit this model: {len(odd)} tensors differ, the first is {odd[0]}; put "
            "its files back, or choose another with --checkpoint"
        )
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise EarthworksError(
                f"the checkpoint's weights {name} are {tensor.dtype}; a Gopher's are float32 or bfloat16: it was altered; "
                "put the file back, or choose another with --checkpoint"
            )
    model.load_state_dict(tensors)
