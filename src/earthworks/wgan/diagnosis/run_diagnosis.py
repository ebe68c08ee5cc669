"""Diagnosis of a GAN run from its log and its last checkpoint."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from earthworks.runs import EarthworksError, RunFolder, json_text, read_metrics
from earthworks.runs.progress import note
from earthworks.training import checkpoint as checkpoints
from earthworks.training.command_settings import settled, types_of
from earthworks.wgan.data.datasets import load_dataset
from earthworks.wgan.diagnosis import from_checkpoint, from_log
from earthworks.wgan.diagnosis.findings import Diagnosis, Finding, Undecided
from earthworks.wgan.objectives import OBJECTIVES
from earthworks.wgan.sampling import wgan_run
from earthworks.wgan.settings import GanSettings, Settled, networks
from earthworks.wgan.stored import check_networks, shapes_of
from earthworks.wgan.task import Adversarial

FEWEST_STEPS = 100  # of the generator: with fewer, medians mean little and every critic lags


def diagnose(run: str | Path) -> Diagnosis:
    """Diagnose a run: faults with their evidence, and undecided questions. Nothing in its folder is changed.

    From metrics.jsonl: skipped steps; the sign of the critic's loss; a discriminator below chance; the generator's
    gradient compared with its start; the slope of a penalised critic. From the last checkpoint: the sign of the
    generator's step; the gain from further critic steps with a frozen generator (at most 20 seconds); scores of
    training against held-out samples; the diversity of samples. Thresholds and their reasons are in from_log.py and
    from_checkpoint.py; differences count from 4 standard errors on.

    Raises EarthworksError where there is no GAN run. Runs on the CPU. Sources: Arjovsky and Bottou 2017 (vanishing
    gradients); Arjovsky et al. 2017; Gulrajani et al. 2017, section 5 (train against held-out gap).
    """
    folder, config = wgan_run(run)
    records = read_metrics(folder.metrics_file) if folder.metrics_file.exists() else []
    if fault := checkpoints.altered_log(folder):
        note(f"notice: {fault}")
    answers = dict(answers_about(folder, config, records))
    return Diagnosis(
        run=str(run),
        steps=len(records),
        findings=[answer for answer in answers.values() if isinstance(answer, Finding)],
        undecided=[answer for answer in answers.values() if isinstance(answer, Undecided)],
        examined=[fault for fault, answer in answers.items() if answer is None],
    )


def answers_about(
    folder: RunFolder, config: dict[str, Any], records: list[dict[str, Any]]
) -> Iterator[tuple[str, Finding | Undecided | None]]:
    """Each possible fault of such a run with its finding; causes before consequences."""
    if not records:
        yield "any fault", Undecided("any fault", "the run has not made a step yet")
        return
    wasserstein = config["objective"] not in ("minimax", "non-saturating")
    yield "skipped steps", from_log.skipped_steps(records)
    if wasserstein:
        yield "critic's sign reversed", from_log.critic_sign(config, records)
    try:
        task, step = last_checkpoint(folder, config)
        recorded = next((record.get("generator_loss") for record in records if record["step"] == step), None)
        known = float(recorded) if isinstance(recorded, int | float) else None
        yield "generator's sign reversed", from_checkpoint.generator_sign(task, known)
    except EarthworksError as error:
        task = None
        yield "the networks", Undecided("critic, modes, sign of the generator", str(error))
    if len(records) < FEWEST_STEPS:
        reason = f"the run is too short, {len(records)} steps; at least {FEWEST_STEPS} are needed"
        yield "the rest", Undecided("critic, gradients, penalty, modes", reason)
        return
    if OBJECTIVES[config["objective"]].penalty:
        yield "penalty not biting", from_log.slope_of_the_critic(config, records)
    yield "vanishing or exploding generator gradient", from_log.generator_gradient(config, records)
    if not wasserstein:
        yield "critic under-trained", from_log.below_chance(records)
    if task is None:
        return
    if not task.data.fresh:  # freshly drawn batches cannot be memorised
        yield "critic overfitting", from_checkpoint.critic_memory(task)
    yield "collapsed modes", from_checkpoint.lost_modes(task, from_log.still_improving(records))
    if wasserstein:  # last, because it trains the critic
        yield "critic under-trained", from_checkpoint.critic_headroom(task)


def last_checkpoint(folder: RunFolder, config: dict[str, Any]) -> tuple[Adversarial, int]:
    """The networks of the newest checkpoint with their data and new optimizers, on the CPU, and its step."""
    newest = checkpoints.choose(folder, "last")
    tensors, state = checkpoints.load(newest)
    if type(state.get("step")) is not int:
        raise EarthworksError(f"{newest / 'state.json'} lacks its step: it was altered")
    data = load_dataset(config["data"], validation=config["validation"], seed=config["seed"])
    if list(data.shape) != list(config["shape"]) or data.digest != config["data_digest"]:
        raise EarthworksError(f"{config['data']} no longer holds the samples that {folder.path} was trained on")
    check_networks(config, shapes_of(tensors), folder)
    rate = max(config["learning_rate"], config["critic_learning_rate"])
    kept = GanSettings(**{name: config[name] for name in types_of(GanSettings) if name in config})
    kept = replace(kept, critic_learning_rate=rate, precision="fp32", compile=False)
    settings = settled(Settled, kept, folder.config_file)
    task = Adversarial(*networks(settings, data), data, folder, settings, torch.device("cpu"))
    task.load_networks(tensors)
    return task, state["step"]


def diagnose_run(run: str, *, json: bool = False) -> str:
    """Diagnose a run: critic under-trained or overfitted, gradients, modes, penalty, signs.

    Args:
        run: the run folder.
        json: print the findings with their evidence as JSON.
    """
    diagnosis = diagnose(run)
    return json_text(diagnosis.as_dict()) if json else str(diagnosis)
