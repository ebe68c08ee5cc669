"""`wgan train`: one run, from its command to its report."""

import importlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from earthworks.report import write_report
from earthworks.runs import EarthworksError, RunFolder, read_metrics
from earthworks.runs.folder import DERIVED, default_run
from earthworks.runs.lock import unless_busy
from earthworks.runs.progress import duration, note
from earthworks.runs.terminal import typed
from earthworks.training.command_settings import command, settled, types_of, values
from earthworks.training.loop import Cadence, fit
from earthworks.training.precision import choose_device, choose_precision
from earthworks.training.resumption import settings_to_resume
from earthworks.wgan.budget import settle
from earthworks.wgan.data.datasets import Dataset, load_dataset, located
from earthworks.wgan.sampling import wgan_run
from earthworks.wgan.settings import GanSettings, Settled, TrainSettings, check, fill, networks
from earthworks.wgan.stored import check_resumable
from earthworks.wgan.task import Adversarial


@command(TrainSettings)
def train(settings: TrainSettings) -> Path:
    """Train a Wasserstein or standard GAN. Writes everything into one run folder and returns its path."""
    importlib.import_module("torch._dynamo")  # torch.optim imports it at first use: 1.3 s that are not training
    started = time.perf_counter()
    if settings.resume is not None:
        with RunFolder.open(settings.resume).writing() as folder:
            return resume(folder, settings, choose_device(settings.device), started)
    if settings.data is None:
        raise EarthworksError("--data is missing: give digits, grid, a folder of images, ..., or --resume RUN")
    check(settings)
    return start(settings, settings.data, started)


def start(settings: TrainSettings, data: str, started: float) -> Path:
    """Start a run from checked settings, and train it; `started`: when the command started."""
    samples = load_dataset(data, validation=settings.validation, seed=settings.seed)
    device = choose_device(settings.device)
    filled = fill(settings, samples)
    filled = replace(filled, precision=choose_precision(filled.precision, device))
    networks(filled, samples)  # refuses what does not fit before anything is written
    with RunFolder.create(settings.run, otherwise=default_run(data, "images")).writing() as folder:
        note(f"run folder {folder.path}")
        with folder.beginning():
            chosen, step_seconds = settle(filled, samples, device, started)
            chosen = replace(chosen, run=str(folder.path), data=located(data))
            parameters = sum(p.numel() for module in networks(chosen, samples) for p in module.parameters())
            found = {"parameters": parameters, "shape": list(samples.shape), "data_digest": samples.digest}
            folder.write_config({"kind": "wgan", **found, **values(chosen)})
        note(f"{chosen.max_steps:,} steps of about {step_seconds:.3f} s: {duration(chosen.max_steps * step_seconds)}")
        return conduct(folder, samples, chosen, device, started)


def resume(folder: RunFolder, given: TrainSettings, device: torch.device, started: float) -> Path:
    """Continue a run whose lock is held."""
    config = read_run(folder)
    kept = settings_to_resume(folder, given, GanSettings, config, check)
    settings = settled(Settled, kept, folder.config_file)
    check_resumable(folder, config, settings)
    samples = load_dataset(settings.data, validation=settings.validation, seed=settings.seed)
    if list(samples.shape) != list(config["shape"]):
        raise EarthworksError(
            f"{settings.data} now holds samples of shape {samples.shape}, but {folder.path} started with {config['shape']}"
        )
    if samples.digest != config["data_digest"]:
        raise EarthworksError(f"{settings.data} no longer holds the samples that {folder.path} started with")
    return conduct(folder, samples, settings, device, started)


def read_run(folder: RunFolder) -> dict[str, Any]:
    """The configuration of an existing GAN run."""
    _, config = wgan_run(folder.path)
    unknown = config.keys() - set(DERIVED) - types_of(GanSettings).keys()
    if unknown:
        raise EarthworksError(f"{folder.config_file} holds unknown settings: {', '.join(sorted(unknown))}")
    return config


def conduct(folder: RunFolder, samples: Dataset, settings: Settled, device: torch.device, started: float) -> Path:
    """Print a summary, train, write the report."""
    torch.manual_seed(settings.seed)
    generator, critic = networks(settings, samples)
    counts = [sum(p.numel() for p in module.parameters()) for module in (generator, critic)]
    note(
        f"{settings.objective}, {settings.network}: generator {counts[0]:,} and critic {counts[1]:,} parameters, "
        f"{len(samples.train):,} training samples of shape {' x '.join(map(str, samples.shape))}, "
        f"{len(samples.held_out):,} held out, batch {settings.batch}, {settings.critic_steps} critic steps, "
        f"{settings.max_steps:,} steps, {settings.precision} on {device}"
    )
    task = Adversarial(generator, critic, samples, folder, settings, device)
    fit(
        task,
        folder,
        max_steps=settings.max_steps,
        cadence=Cadence(evaluate=settings.evaluate_every, sample=settings.sample_every, save=settings.save_every),
        command=f"earthworks wgan train --resume {typed(folder.path)}",
        started=started,
        tensorboard=settings.tensorboard,
    )
    with unless_busy(f"earthworks report {typed(folder.path)}"):
        note(f"report {write_report([folder.path])}")
    if (last := read_metrics(folder.metrics_file)[-1:]) and last[0].get("loss") is None:
        raise EarthworksError(
            f"{folder.path} diverged: the critic's loss is not finite, and its last updates were skipped; everything is "
            "saved: run earthworks wgan diagnose, then start a new run with a lower --learning_rate",
            exit_code=1,
        )
    note(f"next: earthworks wgan sample {typed(folder.path)} --num 64 --output samples.png")
    return folder.path
