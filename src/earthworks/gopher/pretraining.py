"""Documents in, a trained Gopher out: one run, from its command to its report."""

import importlib
import inspect
import math
import time
from pathlib import Path
from typing import Any

import torch

from earthworks.corpus import PackedTokens, Source, Tokenizer, is_packed, pack, sample_text, sources
from earthworks.corpus.splitting import split_sources
from earthworks.gopher import dial
from earthworks.gopher.cost import training_memory
from earthworks.gopher.evaluating import evaluate_packed, figures
from earthworks.gopher.inputs import open_tokens, record_inputs
from earthworks.gopher.model import Gopher
from earthworks.gopher.restoring import load
from earthworks.gopher.settings import architecture, check, check_settled, model_config, settle
from earthworks.gopher.starting import FirstWeights, begin, compare_with_checkpoint, first_weights, read_run
from earthworks.gopher.task import Pretraining
from earthworks.report import write_report
from earthworks.runs import EarthworksError, Progress, RunFolder, lock, write_bytes, write_result
from earthworks.runs.folder import default_run
from earthworks.runs.lock import PATIENCE, unless_busy
from earthworks.runs.progress import duration, note
from earthworks.runs.terminal import typed
from earthworks.training.loop import Cadence, fit
from earthworks.training.precision import choose_device, choose_precision
from earthworks.training.resumption import settings_to_resume

MEASURED_TOKENS = 262_144  # of the held-out part are measured at the end of a run, or a tenth of what it trained on


def train(
    data: str | None = None,
    *,
    run: str | None = None,
    resume: str | None = None,
    init: str | None = None,
    minutes: float | None = None,
    max_steps: int | None = None,
    size: str | None = None,
    family: str | None = None,
    tokenizer: str | None = None,
    vocabulary: int | None = None,
    validation: float = 0.05,
    sampling: str = "windows",
    context: int | None = None,
    batch: int | None = None,
    micro_batch: int | None = None,
    first_batch: int | None = None,
    ramp_step: int | None = None,
    optimizer: str = "muon",
    learning_rate: float | None = None,
    embedding_rate: float | None = None,
    momentum: float | None = None,
    beta1: float = 0.9,
    beta2: float = 0.95,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    schedule: str = "linear",
    horizon: int | None = None,
    warmup_steps: int | None = None,
    final_share: float | None = None,
    precision: str = "auto",
    device: str = "auto",
    seed: int = 0,
    d_position: int | None = None,
    max_distance: int | None = None,
    norm: str | None = None,
    positions: str | None = None,
    tied: bool | None = None,
    evaluate_every: int | None = None,
    validation_tokens: int | None = None,
    sample_every: int | None = None,
    save_every: int | None = None,
    tensorboard: bool = False,
    verify: bool = False,
) -> Path:
    """Train a Gopher on text and write everything about it into one run folder, which is returned.

    Args:
        data: a file or folder of .txt, .jsonl, .parquet, .html or .warc (also .gz, .xz, .zst), `-`, a URL, `hf:owner/name`,
            `python-docs`, a packed folder, or several of them with sampling weights: `books.jsonl=0.7,web/=0.3`.
        run: the run folder; by default runs/NAME-DATE.
        resume: a run folder to continue, to the bit; only --max_steps may be given beside it.
        init: a run folder to take weights, architecture and tokenizer from.
        minutes: the one dial: what is not given is chosen for this time, data and machine (5 if max_steps is not given).
        max_steps: updates to make.
        size: one of the sizes of `GopherConfig.preset`.
        family: several sizes with commas between, each trained on the same tokens into RUN/SIZE (docs/scaling.md).
        tokenizer: `bpe` (default), `bytes`, or a tokenizer.json.
        vocabulary: tokens of a bpe that is trained.
        validation: held-out fraction, of the documents or of the end of a single one.
        sampling: `windows` (every token once an epoch) or `documents` (the paper's: all documents equally often).
        context: tokens of a training sequence.
        batch: sequences of one update.
        micro_batch: sequences of one forward pass; their gradients are accumulated.
        first_batch: sequences of one update before `ramp_step` (the paper's 280B doubled its batch).
        ramp_step: the update from which `batch` holds.
        optimizer: `adam` (the paper's), `adamw` or `muon`.
        learning_rate: peak rate of the matrices.
        embedding_rate: peak rate of embeddings, gains and biases.
        momentum: Muon's.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        weight_decay: decoupled decay of the matrices (adamw, muon).
        clip: largest global gradient norm.
        schedule: `linear` (short runs) or `gopher` (warm-up from 1e-7, cosine to a tenth).
        horizon: the step at which the schedule reaches its final rate; by default max_steps of the first command.
        warmup_steps: updates of rising rate (1,500 for `gopher`).
        final_share: final rate as a share of the peak (a tenth for `gopher`).
        precision: `fp32`; `bf16` (products in bf16, weights in float32); `bf16-sr` and `bf16-master` (weights in bf16,
            updated by stochastic rounding or from a float32 copy); or `auto`, fp32 or bf16, whichever is faster here.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: of weights, sample order and split.
        d_position: width of the position sinusoid (the model's width).
        max_distance: distances beyond it count as it.
        norm: `rms` (default) or `layer`.
        positions: `relative` (default), `absolute` or `none`.
        tied: one matrix for embedding and logits (default).
        evaluate_every: updates between validations.
        validation_tokens: held-out tokens read at each of them.
        sample_every: updates between samples.
        save_every: updates between checkpoints.
        tensorboard: also write TensorBoard files (extra `tensorboard`).
        verify: compare every file of packed data with its SHA-256 first, not only size, time and 64 blocks.
    """
    settings = {name: value for name, value in locals().items() if name in inspect.signature(train).parameters}
    importlib.import_module("torch._dynamo")  # torch.optim does so at its first use: 1.3 s that are not training
    begun = time.perf_counter()
    if resume is not None:
        with RunFolder.open(resume).writing() as folder:
            return go_on(folder, settings, choose_device(device), begun)
    if data is None:
        raise EarthworksError("train needs --data (a file or folder of text, or python-docs), or --resume RUN")
    check(settings)
    if family is not None:
        return importlib.import_module("earthworks.gopher.family").train_family(settings, begun)
    other = first_weights(settings)
    settings = architecture(settings, other and (other.size, other.model.config))
    parts = [] if is_packed(data) else sources(data)
    chosen_device = choose_device(device)
    with RunFolder.create(run, otherwise=default_run(data.split(",")[0].split("=")[0], "text")).writing() as folder:
        note(f"run folder {folder.path}")
        with folder.beginning():
            packed = prepare(folder, parts, settings, other)
            settings["precision"] = choose_precision(precision, chosen_device)
            settings, step_seconds = settle(settings, packed, chosen_device, begun)
            torch.manual_seed(seed)
            model = Gopher(model_config(settings, packed.tokenizer.vocabulary))
            begin(model, packed, other)
            settings["run"] = str(folder.path)
            write_bytes(folder.tokenizer, packed.tokenizer.file_content(), new=True)
            record_inputs(folder, data, other and (str(init), other.path))
            folder.write_config({"kind": "gopher", "parameters": model.config.num_parameters(), **written(settings)})
        steps = settings["max_steps"]
        note(f"{steps:,} steps of about {step_seconds:.3f} s: {duration(steps * step_seconds)}")
        return conduct(folder, model, packed, settings, chosen_device, begun)


def go_on(folder: RunFolder, given: dict[str, Any], device: torch.device, begun: float) -> Path:
    """Continue a run, or the family that a folder holds, whose lock is held."""
    _, settings = settings_to_resume(str(folder.path), given, train=train, read=read_run, check=check)
    check_settled(settings, folder.config_file)
    if settings["family"] is not None:
        return importlib.import_module("earthworks.gopher.family").go_on(folder, settings)
    compare_with_checkpoint(folder, settings)
    packed = open_tokens(folder, verify=settings["verify"])
    if Tokenizer.load(folder.tokenizer).digest != packed.tokenizer.digest:
        raise EarthworksError(f"{folder.tokenizer} is not the tokenizer of {packed.path}: one of them was altered")
    started = bool(folder.steps())  # else it was killed before its first checkpoint
    other = None if started else first_weights(settings, folder)  # as at the start, before the generator is seeded
    torch.manual_seed(settings["seed"])
    model = Gopher(model_config(settings, packed.tokenizer.vocabulary))
    if not started:
        begin(model, packed, other)
    return conduct(folder, model, packed, settings, device, begun)


def written(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that config.yaml keeps: not what concerns one command alone."""
    return {name: value for name, value in settings.items() if name != "verify"}


def prepare(
    folder: RunFolder, parts: list[Source], settings: dict[str, Any], other: FirstWeights | None = None
) -> PackedTokens:
    """The tokens to train on: a packed folder as it is, or text tokenised into `RUN/data`."""
    if not parts:
        packed = PackedTokens.open(settings["data"], verify=settings["verify"])
        if other is not None and other.tokenizer.digest != packed.tokenizer.digest:
            raise EarthworksError(
                f"{settings['data']} was made into tokens by another tokenizer than that of --init {settings['init']}: give "
                "the text that it was made from"
            )
        return packed
    kind = settings["tokenizer"] = settings["tokenizer"] or "bpe"
    split = split_sources(parts, settings["validation"], settings["seed"])
    if other is not None:
        tokenizer = other.tokenizer
    elif kind == "bytes":
        tokenizer = Tokenizer.bytes()
    elif kind == "bpe":
        texts = sample_text(parts, seed=settings["seed"], validation=settings["validation"], split=split)
        vocabulary = settings["vocabulary"] or dial.vocabulary(sum(len(text.encode()) for text in texts))
        note(f"training a tokenizer of {vocabulary:,} tokens")
        tokenizer = Tokenizer.train(texts, vocabulary)
    else:
        tokenizer = Tokenizer.load(kind)
    with Progress("packing", unit="MB") as progress:
        held_out = {"validation": settings["validation"], "seed": settings["seed"], "split": split}
        pack(parts, tokenizer, folder.data, **held_out, progress=progress)
    packed = PackedTokens.open(folder.data)
    if notice := packed.reading.notice():
        note(f"notice: {notice}")
    return packed


def conduct(
    folder: RunFolder,
    model: Gopher,
    packed: PackedTokens,
    settings: dict[str, Any],
    device: torch.device,
    begun: float,
) -> Path:
    """Say what is about to happen, train, measure, report."""
    config = model.config
    task = Pretraining(model.to(device), packed, folder, settings, device)
    memory = training_memory(
        config,
        settings["micro_batch"],
        settings["context"],
        optimizer=settings["optimizer"],
        precision=settings["precision"],
        device=device.type,
    )
    note(
        f"{settings['size']}: {config.num_parameters():,} parameters ({config.num_layers} layers, width {config.d_model}), "
        f"{packed.train_tokens:,} training tokens, batch {settings['batch']} x {settings['context']} tokens, "
        f"{settings['max_steps']:,} steps, {settings['precision']} on {device}, about {memory / 2**30:.2f} GiB"
    )
    samples = task.ramp.before(settings["max_steps"])
    repeated = {name: times for name, times in packed.epochs(samples, config.context).items() if times > 1}
    if repeated:
        said = ", ".join(f"{name} {times:.1f} times" for name, times in repeated.items())
        note(f"notice: with its share of the samples a subset is read more than once: {said}")
    cadence = Cadence(evaluate=settings["evaluate_every"], sample=settings["sample_every"], save=settings["save_every"])
    command = f"earthworks gopher train --resume {typed(folder.path)}"
    fit(
        task,
        folder,
        max_steps=settings["max_steps"],
        cadence=cadence,
        command=command,
        begun=begun,
        tensorboard=settings["tensorboard"],
    )
    finish(folder, task)
    return folder.path


def finish(folder: RunFolder, task: Pretraining) -> None:
    """Measure the best checkpoint on what was held out, colour a passage of it, and write the report."""
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
            f"the model of {folder.path} diverged: what it says of held-out text is no finite number; everything is saved, "
            "so see its report, and start a new run with a lower --learning_rate",
            exit_code=1,
        )
    note(f'next: earthworks gopher generate {typed(folder.path)} --prompt "..."')
