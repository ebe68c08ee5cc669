"""What a checkpoint holds compared with what the run's config.yaml says, before anything is built from it."""

import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earthworks.runs import EarthworksError, RunFolder, read_json, verify_manifest
from earthworks.runs.files import open_regular
from earthworks.runs.json_files import parse_json
from earthworks.runs.progress import note
from earthworks.training import checkpoint as checkpoints
from earthworks.training.resumption import settings_differing
from earthworks.wgan.networks import build

Shapes = dict[str, list[int]]
NETWORKS = ("generator", "critic", "average")
LARGEST_HEADER = 100 << 20  # that safetensors itself reads


def check_resumable(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Compare the newest checkpoint with the settings: those it records, and the shapes of its weights.

    Raises EarthworksError, with the names, for settings that config.yaml did not have when the checkpoint was written.
    """
    newest = checkpoints.newest(folder)
    if newest is None:
        return
    try:
        verify_manifest(newest, names=["state.json"])
        state = read_json(newest / "state.json")
        written = state.get("settings") if isinstance(state, dict) else None
        if not isinstance(written, dict):
            note(f"notice: {newest} does not record its settings: they could not be compared with {folder.config_file}")
        elif names := settings_differing(settings, written):
            raise EarthworksError(
                f"{folder.config_file} was edited since the run was trained ({'; '.join(names)}): "
                "set it back, or start a new run"
            )
        files = [newest / f"{name}.safetensors" for name in NETWORKS]
        check_networks(settings, {file.stem: shapes_in(file) for file in files}, folder)
    except EarthworksError as error:
        if str(folder.config_file) in str(error):
            raise
        before = "the checkpoint before it" if len(folder.steps()) > 1 else "the beginning"
        raise EarthworksError(f"{error}; remove {newest} to continue from {before}") from None


def build_stored(
    config: dict[str, Any], tensors: dict[str, dict[str, torch.Tensor]], folder: RunFolder
) -> tuple[nn.Module, nn.Module]:
    """The averaged generator and the critic of a checkpoint. Raises EarthworksError for other weights than config.yaml
    says, before memory is taken for what it says."""
    shapes = {name: {key: list(t.shape) for key, t in tensors.get(name, {}).items()} for name in NETWORKS}
    check_networks(config, shapes, folder)
    generator, critic = networks_of(config)
    generator.load_state_dict(tensors["average"])
    critic.load_state_dict(tensors["critic"])
    return generator, critic


def check_networks(config: dict[str, Any], stored: dict[str, Shapes], folder: RunFolder) -> None:
    """Raise EarthworksError unless the networks of a configuration have the weights that are stored."""
    altered = EarthworksError(
        f"the checkpoint's weights are not those of the networks in {folder.config_file}: one of them was altered"
    )
    if config["network"] == "mlp" and config["depth"] > len(
        stored["generator"]
    ):  # layers cost time even without weights
        raise altered
    try:
        with torch.device("meta"):
            generator, critic = networks_of(config)
    except EarthworksError:
        raise
    except (RuntimeError, TypeError, ValueError, OverflowError):  # sizes that no tensor has
        raise altered from None
    for name, network in (("generator", generator), ("average", generator), ("critic", critic)):
        if {key: list(value.shape) for key, value in network.state_dict().items()} != stored[name]:
            raise altered


def networks_of(config: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    sizes = {name: config[name] for name in ("noise", "width", "depth")}
    return build(config["network"], config["shape"], **sizes, batch_norm=config["critic_batch_norm"])


def shapes_in(file: Path) -> Shapes:
    """The shapes of the tensors in a safetensors file, from its header."""
    try:
        with open_regular(file) as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = parse_json(stream.read(min(length, LARGEST_HEADER)))
        return {name: list(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except EarthworksError:
        raise
    except (ValueError, struct.error, TypeError, KeyError, AttributeError):
        raise EarthworksError(f"{file} is not a readable safetensors file: it was altered or cut short") from None
