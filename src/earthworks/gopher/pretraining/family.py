"""A family: several sizes trained on the same tokens in the same order, so that nothing differs but the model.

RUN/config.yaml holds what all share, RUN/data the packed tokens, RUN/SIZE is an ordinary run folder for each size.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earthworks.corpus import PackedTokens, is_packed, sources
from earthworks.gopher.config import FAMILY, SIZES, GopherConfig
from earthworks.gopher.cost import training_flops
from earthworks.gopher.inputs import open_tokens, record_inputs
from earthworks.gopher.pretraining import budget, run
from earthworks.gopher.pretraining.budget import MIN_STEPS, TIMED_SHARE, UPDATE_SHARE, settle, time_steps
from earthworks.gopher.pretraining.run import prepare
from earthworks.gopher.pretraining.settings import SettledFamily, TrainSettings, architecture, check, written
from earthworks.gopher.pretraining.starting import kept_settings, read_run
from earthworks.runs import EarthworksError, RunFolder, inside
from earthworks.runs.folder import default_run
from earthworks.runs.progress import duration, note
from earthworks.runs.terminal import typed
from earthworks.training.command_settings import settled, types_of, values
from earthworks.training.precision import choose_device, choose_precision, matmul_ceiling, product_dtype

PAPER_RATES = (6e-4, 6e-4, 2e-4, 2e-4, 1.2e-4, 4e-5)  # peak rate of each size of FAMILY: Rae et al. 2021, Table 1
# settings that a single size does not take from the family: its place, its size, and how the text was tokenised
OWN = ("data", "run", "resume", "init", "minutes", "size", "family", "tokenizer", "vocabulary", "validation")
MAY_DIFFER = ("run", "resume", "device", "tensorboard", "verify")  # when the same command is given again


def paper_rate(size: str) -> float:
    """The paper's peak rate for a size: of its six, exactly; between two of them log rate is linear in log N, with N the
    count that gives the sizes their names. Below 44M it is 6e-4, because the two smallest share it: the table has no trend
    there to extrapolate."""
    counts = [GopherConfig.preset(name).num_parameters(full=False) for name in FAMILY]
    count = GopherConfig.preset(size).num_parameters(full=False)
    return float(np.exp(np.interp(np.log(count), np.log(counts), np.log(PAPER_RATES))))


def start(settings: TrainSettings, started: float) -> Path:
    """Pack once, choose one batch, context and number of steps for all, train each size; the folder of the family.

    Equal steps of equal batches are equal tokens, and as the sample order is a function of the seed, the same ones. With
    `minutes`, a step of every size is timed and the steps are as many as all of them together can make.
    The same command with the same `run` resumes: finished runs are left as they are. Raises EarthworksError when the
    command differs.
    """
    sizes = sizes_of(settings)
    place, data = settings.run, settings.data
    assert data is not None
    if place is not None and RunFolder(place).config_file.exists():
        with RunFolder.open(place).writing() as folder:
            return resume(folder, started_before(folder, settings))
    settings = architecture(settings, None)
    parts = [] if is_packed(data) else sources(data)
    device = choose_device(settings.device)
    named = default_run(data.split(",")[0].split("=")[0], "text")
    with RunFolder.create(place, otherwise=named).writing() as folder:
        note(f"family of {len(sizes)} in {folder.path}")
        with folder.beginning():
            packed, settings = prepare(folder, parts, settings)
            settings = replace(settings, run=str(folder.path), precision=choose_precision(settings.precision, device))
            chosen = settle_family(settings, sizes, packed, device, started)
            record_inputs(folder, data, None)
            folder.write_config({"kind": "gopher", **written(chosen)})
        return resume(folder, chosen)


def sizes_of(settings: TrainSettings) -> list[str]:
    """The sizes named, each checked."""
    sizes = [size.strip() for size in (settings.family or "").split(",") if size.strip()]
    for name in ("size", "init"):
        if getattr(settings, name) is not None:
            raise EarthworksError(f"--family trains several sizes from fresh weights; leave out --{name}")
    for size in sizes:
        check(replace(settings, size=size))
    if len(set(sizes)) < max(2, len(sizes)):
        raise EarthworksError(
            f"--family is {settings.family}; expected two or more different sizes, separated by commas"
        )
    return sizes


def started_before(folder: RunFolder, settings: TrainSettings) -> SettledFamily:
    """The settings of the family that this command started; the defaults chosen then are kept."""
    config = read_run(folder)
    kept = {**values(settings), **{name: value for name, value in config.items() if name in types_of(TrainSettings)}}
    for name, value in values(settings).items():
        if name not in MAY_DIFFER and value not in (None, "auto") and value != kept[name]:
            raise EarthworksError(
                f"{folder.path} was started with --{name} {kept[name]}, not {value}: choose another --run, or continue it "
                f"with --resume {typed(folder.path)}"
            )
    return settled(SettledFamily, TrainSettings(**{**kept, "device": settings.device}), folder.config_file)


def settle_family(
    settings: TrainSettings, sizes: list[str], packed: PackedTokens, device: torch.device, started: float
) -> SettledFamily:
    """Choose one context, batch and number of steps for all sizes, unless given."""
    if settings.max_steps is None and settings.minutes is None:
        settings = replace(settings, minutes=budget.DEFAULT_MINUTES)
    seconds = 60 * (settings.minutes or budget.DEFAULT_MINUTES)
    ceiling = matmul_ceiling(device, product_dtype(settings.precision))
    vocabulary = packed.tokenizer.vocabulary
    context = settings.context or budget.turn(seconds, ceiling, packed.train_tokens, vocabulary, size=sizes[0]).context
    batch = settings.batch
    if batch is None:
        configs = [GopherConfig.preset(size, vocabulary=vocabulary, context=context) for size in sizes]
        tokens = budget.EFFICIENCY * seconds * ceiling / sum(training_flops(config, context) for config in configs)
        batch = max(4, round(budget.batch_tokens(tokens) / context))
    settings, max_steps = replace(settings, context=context, batch=batch), settings.max_steps
    if max_steps is None:
        step_seconds = 0.0
        for size in sizes:
            timed, _ = settle(replace(settings, size=size, max_steps=1000), packed, device, started)
            step_seconds += time_steps(timed, packed, device, enough=TIMED_SHARE * seconds / len(sizes))[0]
        left = seconds - (time.perf_counter() - started)
        max_steps = max(MIN_STEPS, int(UPDATE_SHARE * left / step_seconds))
        note(f"{max_steps:,} steps of every size: {duration(max_steps * step_seconds)}")
    horizon = settings.horizon or max_steps  # kept, should max_steps be raised later
    return settled(SettledFamily, replace(settings, max_steps=max_steps, horizon=horizon), "the command")


def resume(folder: RunFolder, settings: SettledFamily) -> Path:
    """Train the unfinished runs of a family whose lock is held, in the order of the sizes."""
    packed = open_tokens(folder, verify=settings.verify)
    for size in sizes_of(settings):
        member, started = RunFolder(inside(folder.path, size)), time.perf_counter()
        if finished(member, settings.max_steps, measured=packed.has_validation):
            note(f"{member.path} is finished")
            continue
        try:
            if member.config_file.exists():
                given = TrainSettings(
                    resume=str(member.path),
                    max_steps=settings.max_steps,
                    device=settings.device,
                    verify=settings.verify,
                )
                with RunFolder.open(member.path).writing() as held:
                    run.resume(held, kept_settings(held, given), choose_device(settings.device), started)
            else:
                own = of_member(settings, size)
                given = TrainSettings(str(packed.path), run=str(member.path), size=size, **own)
                check(given)
                run.start(given, started)
        except EarthworksError as error:  # name the command that resumes the family, not only this member
            sentence = str(error).replace(f"--resume {typed(member.path)}", f"--resume {typed(folder.path)}")
            raise EarthworksError(sentence, error.exit_code) from None
    note(f"next: earthworks evaluate scaling {typed(folder.path)}")
    return folder.path


def finished(member: RunFolder, max_steps: int, *, measured: bool) -> bool:
    """Whether all steps are done, held-out text (if any) is measured, and the report is written."""
    wanted = [member.report, *([member.path / "evaluation.json"] if measured else [])]
    return all(file.exists() for file in wanted) and max(member.steps(), default=0) >= max_steps


def of_member(settings: TrainSettings, size: str) -> dict[str, Any]:
    """Settings of one size: the family's, with the paper's rate if the paper's recipe is asked for."""
    own = {name: value for name, value in values(settings).items() if name not in OWN}
    if (own["optimizer"], own["schedule"], own["learning_rate"]) == ("adam", "gopher", None):
        own["learning_rate"] = paper_rate(size)
        own["embedding_rate"] = own["embedding_rate"] or own["learning_rate"]
    return own


def members(run: str | Path) -> list[Path]:
    """The runs in a folder: those of a family, or the folder itself."""
    folder = RunFolder.open(run)
    family = folder.read_config().get("family")
    if family is None:
        return [folder.path]
    sizes = [size.strip() for size in family.split(",")] if isinstance(family, str) else []
    if not sizes or not SIZES.keys() >= set(sizes):
        raise EarthworksError(
            f"{folder.config_file} has the family {str(family)[:80]!r}; it must be sizes of `gopher train`, separated "
            "by commas: put the file back"
        )
    return [inside(folder.path, size) for size in sizes]
