"""Sampling from a trained generator."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earthworks.runs import EarthworksError, RunFolder, write_bytes
from earthworks.runs.files import refuse_existing
from earthworks.runs.memory import refuse_beyond_memory
from earthworks.training import checkpoint as checkpoints
from earthworks.training.precision import choose_device
from earthworks.wgan.data.batches import noise_generator
from earthworks.wgan.objectives import OBJECTIVES
from earthworks.wgan.sample_grid import array_bytes, grid, png, to_bytes
from earthworks.wgan.stored import build_stored

CHUNK = 256  # samples per pass; does not affect the result
COPIES = 3  # of all samples held at once: the chunks, their concatenation, and the content of the file
MOST_PICTURED = 400
# required keys of config.yaml
REQUIRED = (
    *("data", "shape", "objective", "network", "width", "depth", "noise", "batch", "generator_batch", "critic_steps"),
    *("optimizer", "learning_rate", "critic_learning_rate", "beta1", "beta2", "hold", "horizon", "max_steps"),
    *("data_digest", "average", "validation", "seed", "critic_batch_norm", "channels_last"),
    *("evaluate_every", "sample_every", "save_every"),
)
OPTIONAL = ("penalty", "clip", "dequantize", "parameters")  # may be null
KINDS = (  # types of the settings
    (("width", "depth", "noise", "batch", "generator_batch", "critic_steps", "horizon"), int, "a whole number above 0"),
    (
        ("max_steps", "seed", "evaluate_every", "sample_every", "save_every", "parameters"),
        int,
        "a whole number above 0",
    ),
    (("learning_rate", "critic_learning_rate", "beta1", "beta2", "hold", "average"), int | float, "a number"),
    (("validation", "penalty", "clip", "minutes"), int | float, "a number"),
    (("critic_batch_norm", "channels_last", "dequantize", "compile", "tensorboard"), bool, "true or false"),
    (("data", "objective", "network", "optimizer", "data_digest", "precision", "device"), str, "text"),
    (("shape",), list, "a list of whole numbers"),
)
LARGEST_SIDE = 1 << 32


def load(run: str | Path, *, checkpoint: str = "last", device: str = "auto") -> tuple[nn.Module, nn.Module]:
    """The averaged generator and the critic of a run, in evaluation mode: noise (n, noise) to samples, samples to scores."""
    folder, config = wgan_run(run)
    tensors, _ = checkpoints.load(checkpoints.choose(folder, checkpoint))
    generator, critic = build_stored(config, tensors, folder)
    where = choose_device(device)
    return generator.to(where).eval().requires_grad_(False), critic.to(where).eval()


def wgan_run(run: str | Path) -> tuple[RunFolder, dict[str, Any]]:
    """The folder of a run and its configuration. Raises EarthworksError for another kind of run, or for missing keys."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    if config.get("kind") != "wgan":
        raise EarthworksError(f"{run} is a {config.get('kind')} run, not a GAN run: give one of wgan train")
    missing = [name for name in REQUIRED if config.get(name) is None]
    missing += [name for name in OPTIONAL if name not in config]
    if missing:
        raise EarthworksError(f"{folder.config_file} lacks {', '.join(missing)}: it was altered")
    for names, kind, words in KINDS:
        for name in names:
            value = config.get(name)
            if value is not None and not of_kind(value, kind, least=0 if name == "seed" else 1):
                raise EarthworksError(f"{folder.config_file} has {name} {str(value)[:40]!r}; expected {words}")
    shape = config["shape"]
    if len(shape) not in (1, 3) or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in shape):
        raise EarthworksError(f"{folder.config_file} has the impossible shape {str(shape)[:40]}: it was altered")
    if config["objective"] not in OBJECTIVES:
        raise EarthworksError(
            f"{folder.config_file} has the unknown objective {config['objective'][:40]!r}: it was altered"
        )
    return folder, config


def of_kind(value: Any, kind: Any, least: int) -> bool:
    """Whether a setting has its type, numbers being finite and integers at least `least`."""
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return False
    return value >= least if kind is int else not isinstance(value, float) or math.isfinite(value)


def sample(run: str | Path, num: int, *, seed: int = 0, checkpoint: str = "last", device: str = "auto") -> Tensor:
    """`num` samples of the averaged generator, (num, *shape) in float32: images of one channel in [0, 1], of more in
    [-1, 1], points unscaled. The same seed gives the same samples; fewer are the first of more."""
    if num < 1:
        raise EarthworksError(f"--num is {num}; it must be at least 1")
    if seed < 0:
        raise EarthworksError(f"--seed is {seed}; it must be at least 0")
    config = wgan_run(run)[1]
    refuse_beyond_memory(f"--num {num:,}", COPIES * 4 * num * math.prod(config["shape"]))
    generator, _ = load(run, checkpoint=checkpoint, device=device)
    return draw(generator, num, seed=seed, noise=config["noise"])


@torch.no_grad()
def draw(generator: nn.Module, num: int, *, seed: int, noise: int) -> Tensor:
    """Samples (num, *shape), drawn in whole chunks, so that fewer samples are the first of more."""
    device = next(generator.parameters()).device
    random = noise_generator(seed, 0, device, purpose=1)
    parts = [generator(torch.randn(CHUNK, noise, device=device, generator=random)) for _ in range(0, num, CHUNK)]
    return torch.cat(parts)[:num].float().cpu()


def sample_file(
    run: str,
    *,
    num: int = 64,
    output: str = "samples.png",
    seed: int = 0,
    checkpoint: str = "last",
    device: str = "auto",
) -> str:
    """Draw samples from a run's generator into a file.

    Args:
        run: the run folder.
        num: samples to draw.
        output: a new file: .npy (float32, images in [0, 1] or [-1, 1]), or .png (a grid of images).
        seed: seed of the noise.
        checkpoint: `last`, `best` (lowest validation), or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
    """
    path = Path(output)
    if path.suffix not in (".npy", ".png"):
        raise EarthworksError(f"--output is {output}; expected a name ending in .npy or .png")
    refuse_existing(path)
    if path.suffix == ".png" and len(wgan_run(run)[1]["shape"]) == 1:
        raise EarthworksError("these samples are points, not images: write them to a .npy file")
    if path.suffix == ".png" and num > MOST_PICTURED:
        raise EarthworksError(
            f"--num is {num:,}, but a picture holds at most {MOST_PICTURED} images; write them to a .npy file"
        )
    samples = sample(run, num, seed=seed, checkpoint=checkpoint, device=device)
    if path.suffix == ".npy":
        content = array_bytes(np.ascontiguousarray(samples.numpy()))
    else:
        content = png(grid(to_bytes(samples)))
    write_bytes(path, content, new=True)
    return f"{num:,} samples of shape {' x '.join(map(str, samples.shape[1:]))} in {path}"
