"""The interface of a language model to measurements: likelihoods and texts. `Scorer` implements it for a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.likelihood.scorer import Likelihood, Pair, Scorer
from earthworks.gopher import load
from earthworks.runs import EarthworksError, Progress, RunFolder
from earthworks.runs.files import sha256
from earthworks.runs.manifest import MANIFEST
from earthworks.training import checkpoint as checkpoints
from earthworks.training.precision import choose_device

TRIES = 3  # to read a checkpoint that may be removed meanwhile


class AnyScorer(Protocol):
    """Interface of scorers: tasks use all methods but the last, bias the first and the last."""

    def score(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Likelihood]:
        """log P(continuation | context) of each (context, continuation); "" is the start of a document."""
        ...

    def roll(self, texts: Sequence[str], progress: Progress | None = None) -> list[list[Likelihood]]:
        """log P(text) of each text, by windows."""
        ...

    def write(
        self, prompts: Sequence[str], max_tokens: int, progress: Progress | None = None
    ) -> list[tuple[str, bool]]:
        """The greedy line after each prompt, and whether the prompt was too long."""
        ...

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, top_p: float, temperature: float, seed: int, num: int
    ) -> list[list[str]]:
        """`num` random continuations of each prompt, without the prompt."""
        ...


def scorer_of(
    model: Any,
    *,
    window: int | None = None,
    batch: int = 64,
    checkpoint: str = "best",
    device: str = "auto",
) -> tuple[AnyScorer, dict[str, Any]]:
    """A Scorer from a run folder, a (model, tokenizer) pair, or an object that already is one, plus notes for the report."""
    if not isinstance(model, str | Path | tuple):
        return model, {"window": getattr(model, "window", None)}
    about: dict[str, Any] = {}
    identity: dict[str, Any] = {}
    if isinstance(model, str | Path):
        about = {"run": str(model), "checkpoint": checkpoint}
        model, identity = restored(model, checkpoint, device)
    model, tokenizer = model
    scorer = Scorer(model, tokenizer, window=window, batch=batch)
    if identity:
        scorer.identity = {**identity, "tokenizer": tokenizer.digest, "window": scorer.window, "batch": batch}
    if hasattr(tokenizer, "digest"):
        about["tokenizer"] = tokenizer.digest
    if hasattr(model, "config") and hasattr(model.config, "num_parameters"):
        about["parameters"] = model.config.num_parameters()
    return scorer, {**about, "window": scorer.window}


def restored(run: str | Path, checkpoint: str, device: str) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """Model and tokenizer of a run, and the identity of the weights.

    A run in training removes its older checkpoints: if the chosen one disappears while it is read, another is chosen.
    """
    where = choose_device(device)
    for attempt in range(TRIES):
        path = checkpoints.choose(RunFolder.open(run), checkpoint)
        try:
            weights = sha256(path / MANIFEST)
            loaded = load(run, path.name.removeprefix("step-"), where)
        except (EarthworksError, OSError) as error:
            if path.is_dir() or attempt == TRIES - 1:
                if isinstance(error, EarthworksError):
                    raise
                raise EarthworksError(f"{path} cannot be read: {error.strerror or error}", 1) from None
            continue
        return loaded, {"checkpoint": path.name, "weights": weights, "device": where.type}
    raise AssertionError("the last try returns or raises")


def log_likelihoods(scorer: AnyScorer, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Log-likelihoods of the pairs, (pairs,), in nats; EarthworksError if they are not comparable."""
    return values_of(likelihoods(scorer, pairs))


def differences(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """scores[..., 0] - scores[..., 1] of log-likelihoods; 0 if they are equal, also if both are -inf."""
    with np.errstate(invalid="ignore"):
        return np.where(scores[..., 0] == scores[..., 1], 0.0, scores[..., 0] - scores[..., 1])


def likelihoods(scorer: AnyScorer, pairs: Sequence[Pair]) -> list[Likelihood]:
    """A likelihood for each pair; EarthworksError if the number differs."""
    with Progress("scoring", unit="sequences") as progress:
        found = scorer.score(pairs, progress)
    if len(found) != len(pairs):
        raise EarthworksError(f"the model gave {len(found)} log-likelihoods for {len(pairs)} continuations", 1)
    return found


def values_of(found: Sequence[Likelihood]) -> NDArray[np.float64]:
    """The log-likelihoods; EarthworksError for NaN, values above 0 or a continuation without tokens; -inf is valid."""
    if empty := sum(not each.tokens for each in found):
        raise EarthworksError(f"the tokenizer leaves {empty} of {len(found)} continuations no token of their own", 1)
    values = np.array([each.log_likelihood for each in found], dtype=np.float64)
    if np.isnan(values).any():
        raise EarthworksError(f"{int(np.isnan(values).sum())} of {len(values)} log-likelihoods are NaN", 1)
    if (values > 1e-6).any():
        raise EarthworksError(f"a log-likelihood of {values.max():.3g} is above 0: the probability would exceed 1", 1)
    return values
