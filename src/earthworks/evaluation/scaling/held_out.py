"""Losses of each run of a family on the same held-out text, document by document, for paired comparisons."""

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus import PackedTokens, sources
from earthworks.evaluation.results import already_there, ready_to_write, write_result
from earthworks.evaluation.shapes import HELD_OUT, misfit
from earthworks.gopher import GopherConfig, load
from earthworks.gopher.cost import training_flops
from earthworks.gopher.evaluating import encoded, up_to
from earthworks.gopher.inputs import open_tokens
from earthworks.gopher.scoring import FEW_DOCUMENTS, score_documents, units
from earthworks.runs import EarthworksError, Progress, RunFolder
from earthworks.runs.manifest import manifest_files
from earthworks.runs.terminal import typed
from earthworks.training import checkpoint as checkpoints
from earthworks.training.precision import choose_device

CONFIG = {"max_steps": int, "size": str, "seed": int}
STATE = {"model": dict, "tokens_seen": int}
MEASURED_TOKENS = 262_144  # of the held-out part of the corpus


def held_out(run: str | Path, *, text: str | None, max_tokens: int, checkpoint: str, device: str) -> dict[str, Any]:
    """A run's size, tokens and operations, and its nats and bytes on each document (or window) of the held-out text.

    {"run", "size", "seed", "parameters" (without embeddings), "tokens" trained on, "compute" (operations), "text" (a digest
    of it), "unit", "nats", "bytes"}. `text`: text to read, in full, instead of the run's own held-out part. Stored in
    RUN/held_out.json, and reused while checkpoint and text are the same.
    Raises EarthworksError for a run that is not of a Gopher, not finished, or without held-out text.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    if config.get("kind") != "gopher" or config.get("family"):
        raise EarthworksError(f"{run} is not a run of one language model; scaling compares runs of gopher train")
    if odd := misfit(config, CONFIG):
        raise EarthworksError(f"{folder.config_file} lacks {odd.lstrip('.')}: it was altered")
    path = checkpoints.choose(folder, checkpoint)
    done = folder.steps()[-1]
    if done < config["max_steps"]:
        raise EarthworksError(
            f"{run} has made {done} of {config['max_steps']} steps: finish it with "
            f"earthworks gopher train --resume {typed(run)}"
        )
    last, chosen = map(state_of, (folder.checkpoint(done), path))
    try:
        model = GopherConfig.from_dict(chosen["model"])
    except (TypeError, KeyError, AttributeError) as error:
        raise EarthworksError(f"{path / 'state.json'} does not describe a model ({error}): it was altered") from None
    packed = None if text else open_tokens(folder)
    if packed and not packed.has_validation:
        raise EarthworksError(
            f"{run} has no held-out text (--validation 0); give text that no run has seen with --text"
        )
    key = {"checkpoint": path.name, "text": digest_of(text, packed), "max_tokens": None if text else max_tokens}
    measured = already_there(folder.path, "held_out.json")
    if measured.get("key") != key or misfit(measured, HELD_OUT):
        ready_to_write(folder.path, "held_out.json")
        measured = {"key": key, **score(folder, text, packed, max_tokens, path.name.removeprefix("step-"), device)}
        write_result(folder.path, "held_out.json", measured)
    if not (len(measured["nats"]) == len(measured["bytes"]) > 0 and sum(measured["bytes"]) > 0):
        file = folder.path / "held_out.json"
        raise EarthworksError(f"{file} does not hold losses on a text: move or delete it")
    return {
        "run": str(run),
        "size": config["size"],
        "seed": config["seed"],
        "parameters": model.num_body_parameters(),
        "all_parameters": model.num_parameters(),
        "tokens": last["tokens_seen"],
        "compute": training_flops(model, model.context) * last["tokens_seen"],
        "text": key["text"],
        **{name: measured[name] for name in ("unit", "nats", "bytes")},
    }


def state_of(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint, verified against its manifest."""
    state = checkpoints.read_state(checkpoint)
    if odd := misfit(state, STATE):
        raise EarthworksError(
            f"{checkpoint / 'state.json'} lacks {odd.lstrip('.')}: it was altered, measure another run"
        )
    return state


def digest_of(text: str | None, packed: PackedTokens | None) -> str:
    """Identity of a text: sizes and SHA-256 of the packed files, or name, size and date of the given files."""
    if packed:
        files = manifest_files(packed.path)
        content: Any = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in files.items()}
    else:
        path = Path(str(text))
        content = [str(path.resolve()), path.stat().st_size, path.stat().st_mtime] if path.exists() else str(text)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def score(
    folder: RunFolder, text: str | None, packed: PackedTokens | None, max_tokens: int, checkpoint: str, device: str
) -> dict[str, Any]:
    model, tokenizer = load(folder.path, checkpoint, choose_device(device))
    if packed:
        parts = [subset.name for subset in packed.subsets if subset.validation.documents]
        documents = [
            document
            for name in parts
            for document in up_to(
                ((tokens[:-1], size, words) for tokens, size, words in packed.validation_documents(name)),
                max(1, max_tokens // len(parts)),
                tokenizer,
            )
        ]
    else:
        documents = list(chain.from_iterable(encoded(tokenizer, each.location) for each in sources(str(text))))
    context = model.config.context
    total = sum(len(tokens) for tokens, _, _ in documents)
    with Progress(f"reading {folder.path.name}", total=total, unit="tokens") as progress:
        scored = score_documents(
            model, documents, end_of_document=tokenizer.end_of_document, context=context, progress=progress
        )
    if not scored:
        raise EarthworksError(f"{folder.path} has no text to measure: every document is empty")
    unit = "document" if len(scored) >= FEW_DOCUMENTS else "window"
    nats, num_bytes = units(scored, unit, context)
    if not np.isfinite(nats).all():
        raise EarthworksError(
            f"the loss of {folder.path} on the held-out text is NaN: its training diverged, so leave it out",
            1,
        )
    return {"unit": unit, "nats": nats.tolist(), "bytes": num_bytes.tolist()}
