"""One training run of a Gopher, from its documents to its report."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from earthworks.corpus import PackedTokens, Source, Tokenizer, is_packed, pack, sample_text, sources
from earthworks.corpus.tokens.validation_split import split_sources
from earthworks.gopher.cost import training_memory
from earthworks.gopher.evaluating import evaluate_packed, figures
from earthworks.gopher.inputs import open_tokens, record_inputs
from earthworks.gopher.loading import load
from earthworks.gopher.model import Gopher
from earthworks.gopher.pretraining import budget
from earthworks.gopher.pretraining.budget import settle
from earthworks.gopher.pretraining.settings import Settled, TrainSettings, architecture, model_config, written
from earthworks.gopher.pretraining.starting import FirstWeights, begin, compare_with_checkpoint, first_weights
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.report import write_report
from earthworks.runs import EarthworksError, Progress, RunFolder, lock, write_bytes, write_result
from earthworks.runs.folder import default_run
from earthworks.runs.lock import PATIENCE, unless_busy
from earthworks.runs.progress import duration, note
from earthworks.runs.terminal import typed
from earthworks.training.command_settings import settled
from earthworks.training.loop import Cadence, fit
from earthworks.training.precision import choose_device, choose_precision

MEASURED_TOKENS = 262_144  # held-out tokens measured at the end of a run, or a tenth of what it trained on


def start(settings: TrainSettings, started: float) -> Path:
    """Start a run from checked settings, and train it; `started`: start time of the command."""
    assert settings.data is not None
    data, other = settings.data, first_weights(settings)
    if other is not None:
        settings = replace(settings, tokenizer=other.tokenizer_file)
    settings = architecture(settings, other and (other.size, other.model.config))
    parts = [] if is_packed(data) else sources(data)
    device = choose_device(settings.device)
    named = default_run(data.split(",")[0].split("=")[0], "text")
    with RunFolder.create(settings.run, otherwise=named).writing() as folder:
        note(f"run folder {folder.path}")
        with folder.beginning():
            packed, settings = prepare(folder, parts, settings, other)
            settings = replace(settings, run=str(folder.path), precision=choose_precision(settings.precision, device))
            chosen, step_seconds = settle(settings, packed, device, started)
            torch.manual_seed(chosen.seed)
            model = Gopher(model_config(chosen, packed.tokenizer.vocabulary))
            begin(model, packed, other)
            write_bytes(folder.tokenizer, packed.tokenizer.file_content(), new=True)
            record_inputs(folder, data, other and (str(chosen.init), other.path))
            folder.write_config({"kind": "gopher", "parameters": model.config.num_parameters(), **written(chosen)})
        note(f"{chosen.max_steps:,} steps of about {step_seconds:.3f} s: {duration(chosen.max_steps * step_seconds)}")
        return conduct(folder, model, packed, chosen, device, started)


def resume(folder: RunFolder, kept: TrainSettings, device: torch.device, started: float) -> Path:
    """Continue a run whose lock is held, with the settings that it was started with."""
    settings = settled(Settled, kept, folder.config_file)
    compare_with_checkpoint(folder, settings)
    packed = open_tokens(folder, verify=settings.verify)
    if Tokenizer.load(folder.tokenizer).digest != packed.tokenizer.digest:
        raise EarthworksError(f"{folder.tokenizer} is not the tokenizer of {packed.path}: put the original back")
    saved = bool(folder.steps())  # else it was killed before its first checkpoint
    other = None if saved else first_weights(settings, folder)  # as at the start, before the generator is seeded
    torch.manual_seed(settings.seed)
    model = Gopher(model_config(settings, packed.tokenizer.vocabulary))
    if not saved:
        begin(model, packed, other)
    return conduct(folder, model, packed, settings, device, started)


def prepare(
    folder: RunFolder, parts: list[Source], settings: TrainSettings, other: FirstWeights | None = None
) -> tuple[PackedTokens, TrainSettings]:
    """The tokens to train on (a packed folder as it is, or text tokenised into `RUN/data`), and the settings with the
    tokenizer filled in."""
    if not parts:
        assert settings.data is not None
        packed = PackedTokens.open(settings.data, verify=settings.verify)
        if other is not None and other.tokenizer.digest != packed.tokenizer.digest:
            raise EarthworksError(
                f"{settings.data} was tokenised by another tokenizer than that of --init {settings.init}: give "
                "the text that it was made from"
            )
        return packed, settings
    kind = settings.tokenizer or "bpe"
    split = split_sources(parts, settings.validation, settings.seed)
    if other is not None:
        tokenizer = other.tokenizer
    elif kind == "bytes":
        tokenizer = Tokenizer.bytes()
    elif kind == "bpe":
        texts = sample_text(parts, seed=settings.seed, validation=settings.validation, split=split)
        vocabulary = settings.vocabulary or budget.vocabulary(sum(len(text.encode()) for text in texts))
        note(f"training a tokenizer of {vocabulary:,} tokens")
        tokenizer = Tokenizer.train(texts, vocabulary)
    else:
        tokenizer = Tokenizer.load(kind)
    with Progress("packing", unit="MB") as progress:
        held_out = {"validation": settings.validation, "seed": settings.seed, "split": split}
        pack(parts, tokenizer, folder.data, **held_out, progress=progress)
    packed = PackedTokens.open(folder.data)
    if notice := packed.reading.notice():
        note(f"notice: {notice}")
    return packed, replace(settings, tokenizer=kind)


def conduct(
    folder: RunFolder,
    model: Gopher,
    packed: PackedTokens,
    settings: Settled,
    device: torch.device,
    started: float,
) -> Path:
    """Announce the run, train, measure, report."""
    config = model.config
    task = Pretraining(model.to(device), packed, folder, settings, device)
    memory = training_memory(
        config,
        settings.micro_batch,
        settings.context,
        optimizer=settings.optimizer,
        precision=settings.precision,
        device=device.type,
    )
    note(
        f"{settings.size}: {config.num_parameters():,} parameters ({config.num_layers} layers, width {config.d_model}), "
        f"{packed.train_tokens:,} training tokens, batch {settings.batch} x {settings.context} tokens, "
        f"{settings.max_steps:,} steps, {settings.precision} on {device}, about {memory / 2**30:.2f} GiB"
    )
    samples = task.ramp.before(settings.max_steps)
    repeated = {name: times for name, times in packed.epochs(samples, config.context).items() if times > 1}
    if repeated:
        said = ", ".join(f"{name} {times:.1f} times" for name, times in repeated.items())
        note(f"notice: at their sampling weights, some subsets are read more than once: {said}")
    cadence = Cadence(evaluate=settings.evaluate_every, sample=settings.sample_every, save=settings.save_every)
    command = f"earthworks gopher train --resume {typed(folder.path)}"
    fit(
        task,
        folder,
        max_steps=settings.max_steps,
        cadence=cadence,
        command=command,
        started=started,
        tensorboard=settings.tensorboard,
    )
    finish(folder, task)
    return folder.path


def finish(folder: RunFolder, task: Pretraining) -> None:
    """Measure the best checkpoint on the held-out text, colour a passage of it, and write the report."""
    diverged = False
    if task.data.has_validation:
        model, tokenizer = load(folder.path, device=task.device)
        most = max(MEASURED_TOKENS, task.tokens_seen // 10)
        result, passage = evaluate_packed(
            model, tokenizer, task.data, context=model.config.context, windows="sliding", max_tokens=most
        )
        with (
            unless_busy(f"earthworks gopher train --resume {typed(folder.path)}"),
            lock(folder.path, "evaluation.json", patience=PATIENCE),
        ):
            write_result(folder.path / "evaluation.json", result)
            write_result(folder.path / "passage.json", passage)
        note(f"held-out text: {figures(result)}")
        diverged = not math.isfinite(result["nats_per_token"])
    with unless_busy(f"earthworks report {typed(folder.path)}"):
        note(f"report {write_report([folder.path])}")
    if diverged:
        raise EarthworksError(
            f"the model of {folder.path} diverged: its held-out loss is not finite. Everything is saved; see its "
            "report, and start a new run with a lower --learning_rate",
            exit_code=1,
        )
    note(f'next: earthworks gopher generate {typed(folder.path)} --prompt "..."')
