"""A trained model back from its run folder."""

from pathlib import Path

import torch
from torch import Tensor

from earthworks.corpus import Tokenizer
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.model import Gopher
from earthworks.runs import EarthworksError, RunFolder
from earthworks.training import checkpoint


def load(run: str | Path, which: str = "best", device: str | torch.device = "cpu") -> tuple[Gopher, Tokenizer]:
    """The model and tokenizer of a run: `model, tokenizer = load("runs/a")`.

    `which` is `best` (lowest validation; the last where nothing was held out), `last`, or a step. Every file is checked
    against its SHA-256. Raises EarthworksError when there is no run, no checkpoint, when a file was altered, or when the
    tokenizer is not the one that the model was trained with.
    """
    folder = RunFolder.open(run)
    path = checkpoint.choose(folder, which)
    tensors, state = checkpoint.load(path)
    tokenizer = Tokenizer.load(folder.tokenizer)
    if tokenizer.digest != state["tokenizer"]:
        raise EarthworksError(
            f"{path} was trained with another tokenizer than {folder.tokenizer}: one of the two was replaced"
        )
    model = Gopher(GopherConfig.from_dict(state["model"]))
    load_weights(model, tensors["model"])
    return model.to(device).eval(), tokenizer


def load_weights(model: Gopher, tensors: dict[str, Tensor]) -> None:
    """Copy weights in, by name and shape; one sentence when they belong to another model."""
    own = model.state_dict()
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    shapes = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unknown or shapes:
        odd = sorted(missing | unknown | set(shapes))
        raise EarthworksError(
            f"the checkpoint's weights do not fit this model: {len(odd)} tensors differ, the first is {odd[0]}"
        )
    model.load_state_dict(tensors)
