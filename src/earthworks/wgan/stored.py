"""Comparison of a checkpoint with the run's config.yaml, before anything is built from it."""

from typing import Any

import torch
from torch import nn

from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.progress import note
from earthworks.training import checkpoint as checkpoints
from earthworks.training.command_settings import RunSettings
from earthworks.training.resumption import refuse_differing
from earthworks.wgan.networks import build

Shapes = dict[str, tuple[int, ...]]
NETWORKS = ("generator", "critic", "average")


def check_resumable(folder: RunFolder, config: dict[str, Any], settings: RunSettings) -> None:
    """Compare the newest checkpoint with the settings: those it records, and the shapes of its weights.

    Raises EarthworksError that names the settings changed in config.yaml since the checkpoint was written.
    """
    newest = checkpoints.newest(folder)
    if newest is None:
        return
    with checkpoints.naming_what_to_remove(folder, newest):
        state = checkpoints.read_state(newest)
        shapes = {name: checkpoints.tensor_shapes(newest / f"{name}.safetensors") for name in NETWORKS}
    if notice := refuse_differing(folder, settings, state):
        note(f"notice: {notice}")
    check_networks(config, shapes, folder)


def build_stored(
    config: dict[str, Any], tensors: dict[str, dict[str, torch.Tensor]], folder: RunFolder
) -> tuple[nn.Module, nn.Module]:
    """The averaged generator and the critic of a checkpoint. Raises EarthworksError if the weights do not
    match config.yaml, before any memory is allocated for its networks."""
    check_networks(config, shapes_of(tensors), folder)
    generator, critic = networks_of(config)
    generator.load_state_dict(tensors["average"])
    critic.load_state_dict(tensors["critic"])
    return generator, critic


def shapes_of(tensors: dict[str, dict[str, torch.Tensor]]) -> dict[str, Shapes]:
    return {name: {key: tuple(value.shape) for key, value in tensors.get(name, {}).items()} for name in NETWORKS}


def check_networks(config: dict[str, Any], stored: dict[str, Shapes], folder: RunFolder) -> None:
    """Raise EarthworksError unless the networks of a configuration match the stored weights."""
    altered = EarthworksError(
        f"the weights in {', '.join(f'{name}.safetensors' for name in NETWORKS)} of the checkpoint do not fit the "
        f"networks in {folder.config_file}: one of them was altered"
    )
    if config["network"] == "mlp" and config["depth"] > len(
        stored["generator"]
    ):  # even layers without weights cost time
        raise altered
    try:
        with torch.device("meta"):
            generator, critic = networks_of(config)
    except EarthworksError:
        raise
    except (RuntimeError, TypeError, ValueError, OverflowError):  # impossible tensor sizes
        raise altered from None
    for name, network in (("generator", generator), ("average", generator), ("critic", critic)):
        if {key: tuple(value.shape) for key, value in network.state_dict().items()} != stored[name]:
            raise altered


def networks_of(config: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    sizes = {name: config[name] for name in ("noise", "width", "depth")}
    return build(config["network"], config["shape"], **sizes, batch_norm=config["critic_batch_norm"])
