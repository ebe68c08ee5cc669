"""The settings of `gopher train`, and the model that they describe."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from earthworks.corpus.tokens.sample_order import Sampling
from earthworks.gopher.config import GopherConfig, Norm, Positions
from earthworks.runs import EarthworksError
from earthworks.training.command_settings import (
    A_SHARE,
    ABOVE_ZERO,
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    BELOW_ONE,
    RunSettings,
    check_settings,
    setting,
    values,
)
from earthworks.training.optimizer import Kind
from earthworks.training.precision import BF16_WEIGHTS, Precision
from earthworks.training.schedule import Shape

ARCHITECTURE = ("context", "d_position", "max_distance", "norm", "positions", "tied")  # in addition to the size


@dataclass(frozen=True)
class TrainSettings(RunSettings):
    """The settings of one training run of a language model, or of a family of sizes."""

    data: str | None = setting(
        None,
        "a file or folder of .txt, .jsonl, .parquet, .html or .warc (also .gz, .xz, .zst), `-`, a URL, `hf:owner/name`, "
        "`python-docs`, a packed folder, or several of these with sampling weights: `books.jsonl=0.7,web/=0.3`.",
    )
    _: KW_ONLY
    init: str | None = setting(None, "a run folder to take weights, architecture and tokenizer from.")
    size: str | None = setting(None, "one of the sizes of `GopherConfig.preset`.")
    family: str | None = setting(
        None, "several sizes, separated by commas, each trained on the same tokens into RUN/SIZE (docs/scaling.md)."
    )
    tokenizer: str | None = setting(None, "`bpe` (default), `bytes`, or a tokenizer.json.")
    vocabulary: int | None = setting(None, "number of tokens of a trained bpe tokenizer.")
    validation: float = setting(0.05, "held-out fraction: of the documents, or the end of a single one.", BELOW_ONE)
    sampling: Sampling = setting(
        "windows",
        "`windows` (every token once per epoch) or `documents` (the paper's: all documents equally often).",
    )
    context: int | None = setting(None, "tokens per training sequence.", AT_LEAST_ONE)
    batch: int | None = setting(None, "sequences per update.", AT_LEAST_ONE)
    micro_batch: int | None = setting(None, "sequences per forward pass; gradients are accumulated.", AT_LEAST_ONE)
    first_batch: int | None = setting(
        None, "sequences per update before `ramp_step` (the paper's 280B doubled its batch).", AT_LEAST_ONE
    )
    ramp_step: int | None = setting(None, "the update from which `batch` applies.", AT_LEAST_ZERO)
    optimizer: Kind = setting("muon", "`adam` (the paper's), `adamw` or `muon`.")
    learning_rate: float | None = setting(None, "peak learning rate of the matrices.", ABOVE_ZERO)
    embedding_rate: float | None = setting(None, "peak learning rate of embeddings, gains and biases.", ABOVE_ZERO)
    momentum: float | None = setting(None, "Muon's.", BELOW_ONE)
    beta1: float = setting(0.9, "Adam's decay of the first moment.", BELOW_ONE)
    beta2: float = setting(0.95, "Adam's decay of the second moment.", BELOW_ONE)
    weight_decay: float = setting(0.0, "decoupled weight decay of the matrices (adamw, muon).", AT_LEAST_ZERO)
    clip: float = setting(1.0, "maximum global gradient norm.", ABOVE_ZERO)
    schedule: Shape = setting("linear", "`linear` (short runs) or `gopher` (warm-up from 1e-7, cosine to a tenth).")
    warmup_steps: int | None = setting(None, "updates with rising rate (1,500 for `gopher`).", AT_LEAST_ZERO)
    final_share: float | None = setting(None, "final rate as a share of the peak (a tenth for `gopher`).", A_SHARE)
    precision: Precision = setting(
        "auto",
        "`fp32`; `bf16` (products in bf16, weights in float32); `bf16-sr` and `bf16-master` (weights in bf16, updated by "
        "stochastic rounding or from a float32 copy); or `auto`, fp32 or bf16, whichever is faster here.",
    )
    d_position: int | None = setting(None, "width of the position sinusoid (default: the model's width).")
    max_distance: int | None = setting(None, "clamp greater distances to this one.")
    norm: Norm | None = setting(None, "`rms` (default) or `layer`.")
    positions: Positions | None = setting(None, "`relative` (default), `absolute` or `none`.")
    tied: bool | None = setting(None, "share one matrix between embedding and logits (default).")
    validation_tokens: int | None = setting(None, "held-out tokens read at each validation.", AT_LEAST_ONE)
    verify: bool = setting(
        False, "check every file of packed data against its SHA-256 first, not only size, time and 64 blocks."
    )


class SettledFamily(TrainSettings):
    """The settings of a started family, in which these are always set."""

    data: str
    max_steps: int
    horizon: int
    context: int
    batch: int


class Settled(SettledFamily):
    """The settings of a started run, in which these are always set."""

    size: str
    micro_batch: int
    final_share: float
    learning_rate: float
    embedding_rate: float
    momentum: float
    warmup_steps: int
    ramp_step: int
    evaluate_every: int
    validation_tokens: int
    sample_every: int
    save_every: int


def check(settings: TrainSettings) -> None:
    """Raise EarthworksError for the first invalid setting, before anything is read or written."""
    check_settings(settings)
    if settings.optimizer == "rmsprop" and settings.precision in BF16_WEIGHTS:
        raise EarthworksError(
            f"--optimizer rmsprop needs float32 weights, and --precision {settings.precision} has none: use adam, adamw "
            "or muon, or --precision bf16"
        )
    model_config(replace(settings, size=settings.size or "44M", context=settings.context or 1), vocabulary=1)


def model_config(settings: TrainSettings, vocabulary: int) -> GopherConfig:
    """The model that the settings describe, with `GopherConfig`'s defaults."""
    assert settings.size is not None
    given = {name: getattr(settings, name) for name in ARCHITECTURE if getattr(settings, name) is not None}
    return GopherConfig.preset(settings.size, vocabulary=vocabulary, **given)


def architecture(settings: TrainSettings, init: tuple[str, GopherConfig] | None) -> TrainSettings:
    """The settings with the architecture filled in: from the run that the weights are taken from, if any, else the
    defaults. Raises EarthworksError naming a setting that contradicts that run."""
    if init is None:
        return replace(
            settings,
            norm=settings.norm or GopherConfig.norm,
            positions=settings.positions or GopherConfig.positions,
            tied=GopherConfig.tied if settings.tied is None else settings.tied,
        )
    size, config = init
    found = {"size": size, **{name: getattr(config, name) for name in ARCHITECTURE if name != "context"}}
    if config.positions == "absolute":  # a vector was learned for each of them
        found["context"] = config.context
    for name, value in found.items():
        given = getattr(settings, name)
        if given not in (None, value):
            raise EarthworksError(
                f"--{name} is {given}, but the model of --init {settings.init} has {value} and its weights fit no other: "
                f"leave --{name} out"
            )
    return replace(settings, **found)


def written(settings: TrainSettings) -> dict[str, Any]:
    """The settings that config.yaml keeps: all but those of a single command."""
    return {name: value for name, value in values(settings).items() if name != "verify"}
