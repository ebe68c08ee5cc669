"""GAN runs of one second for tests: settings, fixtures, and comparison of two runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earthworks.runs import RunFolder, read_json, read_metrics, verify_manifest
from earthworks.wgan.budget import with_steps
from earthworks.wgan.data.datasets import Dataset, load_dataset
from earthworks.wgan.settings import Filled, TrainSettings, check, fill, networks
from earthworks.wgan.task import Adversarial
from earthworks.wgan.training import train

ANT: dict[str, Any] = {
    **{"network": "mlp", "width": 16, "depth": 2, "noise": 4, "batch": 16, "critic_steps": 2, "max_steps": 10},
    **{"evaluate_every": 5, "sample_every": 5, "save_every": 3, "learning_rate": 1e-3, "average": 0.9},
    **{"precision": "fp32", "device": "cpu"},
}
TIMINGS = {"seconds", "elapsed", "images_per_second", "log"}  # and the digest of a log that holds them


def make(data: object, run: Path, **changes: Any) -> Path:
    return train(str(data), run=str(run), **{**ANT, **changes})


def settled(data: Dataset, **given: Any) -> Filled:
    """The settings that a run with these options gets, but for what a timed warm-up would add."""
    settings = TrainSettings("unused", **given)
    check(settings)
    return fill(settings, data)


def task(data: Dataset | str = "ring", **changes: Any) -> Adversarial:
    """A GAN in training, without a run folder."""
    data = load_dataset(data) if isinstance(data, str) else data
    settings = settled(data, **{**ANT, "horizon": 100, "hold": 0.5, **changes})
    torch.manual_seed(settings.seed)
    whole = with_steps(settings, data, settings.max_steps or 10, 1.0)
    return Adversarial(*networks(whole, data), data, RunFolder("unused"), whole, torch.device("cpu"))


def weights(*modules: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def few_images(path: Path, num: int = 50, side: int = 8, channels: int = 1) -> Path:
    """A .npy of `num` random images of bytes."""
    shape = (num, side, side) if channels == 1 else (num, side, side, channels)
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


def results(run: Path) -> dict[str, Any]:
    """All that a run computed, timings left out. Files stand for their bytes by SHA-256: equal means equal to the bit."""
    folder = RunFolder.open(run)
    last = folder.checkpoint(folder.steps()[-1])
    verify_manifest(last)
    digests = {name: entry["sha256"] for name, entry in read_json(last / "manifest.json")["files"].items()}
    names = ("generator", "critic", "average", "generator_optimizer", "critic_optimizer", "random")
    assert digests.keys() == {*(f"{name}.safetensors" for name in names), "state.json"}
    del digests["state.json"]  # holds the seconds
    records = read_metrics(folder.metrics_file)
    assert [record["step"] for record in records] == list(range(1, folder.steps()[-1] + 1))  # none twice, none missing
    return {
        "tensors": digests,
        "state": {key: value for key, value in read_json(last / "state.json").items() if key not in TIMINGS},
        "metrics": [json.dumps({key: record[key] for key in record if key not in TIMINGS}) for record in records],
        "samples": {file.name: file.read_bytes() for file in folder.samples.iterdir()},
        "best": read_json(folder.checkpoints / "best.json") if (folder.checkpoints / "best.json").exists() else None,
    }
