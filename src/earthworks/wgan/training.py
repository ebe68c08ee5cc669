"""Samples in, a trained generator out: one run, from its command to its report."""

import importlib
import inspect
import time
from pathlib import Path
from typing import Any

import torch

from earthworks.report import write_report
from earthworks.runs import EarthworksError, RunFolder, read_metrics
from earthworks.runs.folder import DERIVED, default_run
from earthworks.runs.lock import unless_busy
from earthworks.runs.progress import duration, note
from earthworks.runs.terminal import typed
from earthworks.training.loop import Cadence, fit
from earthworks.training.precision import choose_device, choose_precision
from earthworks.training.resumption import settings_to_resume
from earthworks.wgan.datasets import Dataset, load_dataset, located
from earthworks.wgan.sampling import wgan_run
from earthworks.wgan.settings import check, fill, networks, settle
from earthworks.wgan.stored import check_resumable
from earthworks.wgan.task import Adversarial


def train(
    data: str | None = None,
    *,
    run: str | None = None,
    resume: str | None = None,
    preset: str | None = None,
    objective: str | None = None,
    minutes: float | None = None,
    max_steps: int | None = None,
    network: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    noise: int | None = None,
    batch: int | None = None,
    generator_batch: int | None = None,
    critic_steps: int | None = None,
    penalty: float | None = None,
    clip: float | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    critic_learning_rate: float | None = None,
    beta1: float | None = None,
    beta2: float | None = None,
    hold: float | None = None,
    horizon: int | None = None,
    average: float | None = None,
    dequantize: bool | None = None,
    validation: float = 0.1,
    precision: str = "auto",
    device: str = "auto",
    channels_last: bool | None = None,
    compile: bool = False,
    seed: int = 0,
    evaluate_every: int | None = None,
    sample_every: int | None = None,
    save_every: int | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train a Wasserstein GAN, or a standard one, and write everything about it into one run folder, which is returned.

    Args:
        data: `digits`, `ring`, `grid`, `swiss-roll`, a .npy or .npz file, an IDX file or a folder of them, CIFAR-10's
            binary batches, a folder of images, or `hf:owner/name`.
        run: the run folder; by default runs/NAME-DATE.
        resume: a run folder to go on with, to the bit; only --max_steps may be given beside it.
        preset: the settings of a paper: `wgan`, `wgan-gp`, `wgan-gp-toy-code`, `mnist`, `cifar-dcgan`, `cifar-resnet`.
        objective: `gp` (default), `lp` (one-sided), `clip`, `minimax` or `non-saturating`.
        minutes: how long to train (5 if max_steps is not given), turned into steps after a timed warm-up.
        max_steps: updates of the generator to make.
        network: `mlp`, `dcgan` or `resnet`; by default by the data.
        width: hidden units of the mlp, channels of the convolutions.
        depth: hidden layers of the mlp.
        noise: dimension of the generator's input.
        batch: real samples of one update of the critic.
        generator_batch: generated samples of one update of the generator.
        critic_steps: updates of the critic for one of the generator.
        penalty: weight of the gradient penalty.
        clip: bound of the critic's weights (objective `clip`).
        optimizer: `adam`, `adamw` or `rmsprop`.
        learning_rate: of the generator.
        critic_learning_rate: of the critic; by default the same.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        hold: share of the run after which the rates fall linearly to a hundredth; 1 keeps them. By default half, and
            on points at most 8,000 steps.
        horizon: the step at which they are lowest, where they stay; by default max_steps of the first command.
        average: decay of the moving average of the generator's weights, from which samples are drawn.
        dequantize: add noise of one level to images of bytes.
        validation: held-out fraction, where the data have no test part.
        precision: `fp32`, `bf16` (autocast; norms of gradients stay in fp32), or `auto`: fp32 for an mlp, whose products
            are too small to gain, otherwise what is faster here.
        device: `auto`, `cpu`, `cuda`, `mps`.
        channels_last: memory layout of images; by default yes.
        compile: compile the generator by torch.compile; the critic is differentiated twice, which it cannot do.
        seed: of weights, noise, sample order and split.
        evaluate_every: updates between measurements.
        sample_every: updates between pictures.
        save_every: updates between checkpoints.
        tensorboard: also write TensorBoard files (extra `tensorboard`).
    """
    settings = {name: value for name, value in locals().items() if name in inspect.signature(train).parameters}
    importlib.import_module("torch._dynamo")  # torch.optim does so at its first use: 1.3 s that are not training
    begun = time.perf_counter()
    if resume is not None:
        with RunFolder.open(resume).writing() as folder:
            return go_on(folder, settings, choose_device(device), begun)
    if data is None:
        raise EarthworksError("train needs --data (digits, grid, a folder of images, ...), or --resume RUN")
    check(settings)
    samples = load_dataset(data, validation=validation, seed=seed)
    chosen_device = choose_device(device)
    settings = fill(settings, samples)
    settings["precision"] = choose_precision(settings["precision"], chosen_device)
    networks(settings, samples)  # refuses what does not fit before anything is written
    with RunFolder.create(run, otherwise=default_run(data, "images")).writing() as folder:
        note(f"run folder {folder.path}")
        with folder.beginning():
            settings, step_seconds = settle(settings, samples, chosen_device, begun)
            settings |= {"run": str(folder.path), "data": located(data)}
            parameters = [sum(p.numel() for p in module.parameters()) for module in networks(settings, samples)]
            found = {"parameters": sum(parameters), "shape": list(samples.shape), "data_digest": samples.digest}
            folder.write_config({"kind": "wgan", **found, **settings})
        steps = settings["max_steps"]
        note(f"{steps:,} steps of about {step_seconds:.3f} s: {duration(steps * step_seconds)}")
        return conduct(folder, samples, settings, chosen_device, begun)


def go_on(folder: RunFolder, given: dict[str, Any], device: torch.device, begun: float) -> Path:
    """Continue a run whose lock is held."""
    resume = str(folder.path)
    _, settings = settings_to_resume(resume, given, train=train, read=read_run, check=check)
    check_resumable(folder, settings)
    samples = load_dataset(settings["data"], validation=settings["validation"], seed=settings["seed"])
    if list(samples.shape) != list(settings["shape"]):
        raise EarthworksError(
            f"{settings['data']} holds samples of shape {samples.shape} now, {resume} started with {settings['shape']}"
        )
    if samples.digest != settings["data_digest"]:
        raise EarthworksError(f"{settings['data']} no longer holds the samples that {resume} started with")
    return conduct(folder, samples, settings, device, begun)


def read_run(run: str, defaults: dict[str, Any]) -> tuple[RunFolder, dict[str, Any], dict[str, Any]]:
    """The folder of an existing GAN run, its configuration, and the settings in it, found ones among them."""
    folder, config = wgan_run(run)
    unknown = config.keys() - set(DERIVED) - defaults.keys()
    if unknown:
        raise EarthworksError(f"{folder.config_file} holds settings that no option has: {', '.join(sorted(unknown))}")
    return folder, config, config


def conduct(folder: RunFolder, samples: Dataset, settings: dict[str, Any], device: torch.device, begun: float) -> Path:
    """Say what is about to happen, train, report."""
    torch.manual_seed(settings["seed"])
    generator, critic = networks(settings, samples)
    counts = [sum(p.numel() for p in module.parameters()) for module in (generator, critic)]
    note(
        f"{settings['objective']}, {settings['network']}: generator {counts[0]:,} and critic {counts[1]:,} parameters, "
        f"{len(samples.train):,} training samples of shape {' x '.join(map(str, samples.shape))}, "
        f"{len(samples.held_out):,} held out, batch {settings['batch']}, {settings['critic_steps']} critic steps, "
        f"{settings['max_steps']:,} steps, {settings['precision']} on {device}"
    )
    task = Adversarial(generator, critic, samples, folder, settings, device)
    fit(
        task,
        folder,
        max_steps=settings["max_steps"],
        cadence=Cadence(
            evaluate=settings["evaluate_every"], sample=settings["sample_every"], save=settings["save_every"]
        ),
        command=f"earthworks wgan train --resume {typed(folder.path)}",
        begun=begun,
        tensorboard=settings["tensorboard"],
    )
    with unless_busy(f"earthworks report {typed(folder.path)}"):
        note(f"report {write_report([folder.path])}")
    if (last := read_metrics(folder.metrics_file)[-1:]) and last[0].get("loss") is None:
        raise EarthworksError(
            f"{folder.path} diverged: the critic's loss is no finite number, so its last updates were left out; everything "
            "is saved, so ask earthworks wgan diagnose, and start a new run with a lower --learning_rate",
            exit_code=1,
        )
    note(f"next: earthworks wgan sample {typed(folder.path)} --num 64 --output samples.png")
    return folder.path
