"""Initial weights of a run, fresh or from another run; and consistency checks of its files when it is resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earthworks.corpus import PackedTokens, Tokenizer
from earthworks.gopher.config import SIZES
from earthworks.gopher.inputs import weights_folder
from earthworks.gopher.loading import built, check_fits, described_model, load_weights, refuse_gan
from earthworks.gopher.model import Gopher
from earthworks.gopher.pretraining.settings import Settled, TrainSettings, check, model_config
from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.folder import DERIVED
from earthworks.runs.progress import note
from earthworks.training import checkpoint
from earthworks.training.command_settings import types_of
from earthworks.training.resumption import refuse_differing, settings_to_resume


def read_run(folder: RunFolder) -> dict[str, Any]:
    """The configuration of an existing Gopher run."""
    config = folder.read_config()
    refuse_gan(folder.path, config)
    unknown = config.keys() - set(DERIVED) - types_of(TrainSettings).keys()
    if config.get("kind") != "gopher" or unknown:
        odd = ", ".join(map(str, unknown))[:80] or "kind"
        raise EarthworksError(
            f"{folder.config_file} is not the configuration of a Gopher run ({odd}): put the file back, or start a new run"
        )
    return config


def kept_settings(folder: RunFolder, given: TrainSettings) -> TrainSettings:
    """The settings of a resumed run or family; `given` are those of the resuming command."""
    return settings_to_resume(folder, given, TrainSettings, read_run(folder), check)


def compare_with_checkpoint(folder: RunFolder, settings: Settled) -> None:
    """Before anything is built, refuse a config.yaml that does not match the newest checkpoint, or a checkpoint whose
    tensors do not match the model in its state."""
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
            f"{folder.config_file} describes another model than {path} holds ({differing}): put the original back"
        )


@dataclass(frozen=True)
class FirstWeights:
    """A run that provides another one's initial weights: its checkpoint, the name of its size, its model, its tokenizer,
    and the tokenizer's file."""

    path: Path
    size: str
    model: Gopher
    tokenizer: Tokenizer
    tokenizer_file: str


def first_weights(settings: TrainSettings, started: RunFolder | None = None) -> FirstWeights | None:
    """The run that `--init` names, or None; for a run that was `started`, the exact checkpoint that it recorded.

    Refuses `--init` together with a vocabulary or another tokenizer than that run's."""
    init = settings.init
    if init is None:
        return None
    recorded = weights_folder(started, init) if started is not None else None
    other = RunFolder.open(init if recorded is None else recorded.parents[1])
    own = str(RunFolder(init).tokenizer)
    for name, allowed in (("tokenizer", own), ("vocabulary", None)):
        if getattr(settings, name) not in (None, allowed):
            raise EarthworksError(
                f"--init {init} uses the tokenizer that its weights were trained with; leave --{name} out"
            )
    config = read_run(other)
    path, tensors, state = checkpoint.load_chosen(other) if recorded is None else (recorded, *checkpoint.load(recorded))
    model = built(path, tensors, state)
    size, shape = str(config.get("size")), model.config
    if SIZES.get(size) != (shape.num_layers, shape.num_heads, shape.d_head, shape.d_model):
        raise EarthworksError(f"{other.config_file} has size {size[:80]}, which does not fit the weights in {path}")
    tokenizer = Tokenizer.load(other.tokenizer)
    if tokenizer.digest != state.get("tokenizer"):
        raise EarthworksError(
            f"{path} was trained with another tokenizer than {own}: one of them was replaced; put it back"
        )
    return FirstWeights(path, size, model, tokenizer, own)


def begin(model: Gopher, packed: PackedTokens, other: FirstWeights | None) -> None:
    """Set the weights of step 0: another run's, or fresh ones with the logits' bias at the log frequency of each token,
    so that the first loss is the unigram entropy and no steps are spent on learning it."""
    if other is not None:
        load_weights(model, other.model.state_dict())
        return
    with torch.no_grad():
        model.logit_bias.copy_(torch.from_numpy(np.log(packed.token_frequencies())))
