"""What a run starts from: fresh weights or another run's; and, when it is continued, that its files fit each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earthworks.corpus import PackedTokens, Tokenizer
from earthworks.gopher.config import SIZES
from earthworks.gopher.inputs import weights_folder
from earthworks.gopher.model import Gopher
from earthworks.gopher.restoring import built, check_fits, described_model, load_weights, refuse_gan
from earthworks.gopher.settings import model_config
from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.folder import DERIVED
from earthworks.runs.progress import note
from earthworks.training import checkpoint
from earthworks.training.resumption import refuse_differing


def read_run(run: str, defaults: dict[str, Any]) -> tuple[RunFolder, dict[str, Any], dict[str, Any]]:
    """The folder of an existing Gopher run, its configuration, and the settings in it."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    refuse_gan(run, config)
    unknown = config.keys() - set(DERIVED) - defaults.keys()
    if config.get("kind") != "gopher" or unknown:
        odd = ", ".join(map(str, unknown))[:80] or "kind"
        raise EarthworksError(
            f"{folder.config_file} is not the configuration of a Gopher run ({odd}): put the file back, or start a new run"
        )
    return folder, config, {name: value for name, value in config.items() if name not in DERIVED}


def compare_with_checkpoint(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Before anything is built: refuse a config.yaml that is not that of the newest checkpoint, or a checkpoint whose
    tensors are not those of the model in its state."""
    path = checkpoint.newest(folder)
    if path is None:
        return
    with checkpoint.naming_what_to_remove(folder, path):
        state = checkpoint.read_state(path)
        config = described_model(path, state)
        check_fits(path, config, checkpoint.tensor_shapes(path / "model.safetensors"))
    if notice := refuse_differing(folder, settings, state):
        note(f"notice: {notice}")
    if model_config(settings, config.vocabulary) != config:
        now, was = model_config(settings, config.vocabulary).to_dict(), config.to_dict()
        differing = ", ".join(f"{name} {now[name]} for {was[name]}" for name in now if now[name] != was[name])
        raise EarthworksError(
            f"{folder.config_file} describes another model than {path} holds ({differing}): one of the two was altered"
        )


@dataclass(frozen=True)
class FirstWeights:
    """A run that another one takes its first weights from: its checkpoint, the name of its size, its model and tokenizer."""

    path: Path
    size: str
    model: Gopher
    tokenizer: Tokenizer


def first_weights(settings: dict[str, Any], started: RunFolder | None = None) -> FirstWeights | None:
    """What `--init` names, or None; for a run that was `started`, the very checkpoint that it recorded.

    Sets `tokenizer` to that run's, and refuses another one, or a vocabulary, beside `--init`."""
    init = settings["init"]
    if init is None:
        return None
    recorded = weights_folder(started, init) if started is not None else None
    other = RunFolder.open(init if recorded is None else recorded.parents[1])
    own = str(RunFolder(init).tokenizer)
    for name, allowed in (("tokenizer", own), ("vocabulary", None)):
        if settings[name] not in (None, allowed):
            raise EarthworksError(
                f"--init {init} brings the tokenizer that its weights were trained with; leave --{name} out"
            )
    settings["tokenizer"] = own
    _, config, _ = read_run(str(other.path), settings)
    path, tensors, state = checkpoint.load_chosen(other) if recorded is None else (recorded, *checkpoint.load(recorded))
    model = built(path, tensors, state)
    size, shape = str(config.get("size")), model.config
    if SIZES.get(size) != (shape.num_layers, shape.num_heads, shape.d_head, shape.d_model):
        raise EarthworksError(f"{other.config_file} says size {size[:80]}, which is not that of the weights in {path}")
    tokenizer = Tokenizer.load(other.tokenizer)
    if tokenizer.digest != state.get("tokenizer"):
        raise EarthworksError(f"{path} was trained with another tokenizer than {own}: one of the two was replaced")
    return FirstWeights(path, size, model, tokenizer)


def begin(model: Gopher, packed: PackedTokens, other: FirstWeights | None) -> None:
    """The weights at step 0: another run's, or fresh ones with the logits' bias at the log frequency of each token, so
    that the first loss is the entropy of single tokens and no step is spent on learning them."""
    if other is not None:
        load_weights(model, other.model.state_dict())
        return
    with torch.no_grad():
        model.logit_bias.copy_(torch.from_numpy(np.log(packed.token_frequencies())))
