"""Run every bias measurement for which data is available, with p-values corrected for multiple testing."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from earthworks.evaluation.bias.bbq import measure_bbq
from earthworks.evaluation.bias.continuations import measure_bold, measure_templates
from earthworks.evaluation.bias.crows_pairs import measure_crows_pairs
from earthworks.evaluation.bias.dialect import measure_dialects
from earthworks.evaluation.bias.occupations import measure_occupations
from earthworks.evaluation.bias.winogender import measure_winogender
from earthworks.evaluation.example_files import bias_folder
from earthworks.evaluation.findings import corrected
from earthworks.evaluation.likelihood.protocol import scorer_of
from earthworks.evaluation.results import NotKept, files_digest, partial_result, write_result
from earthworks.evaluation.shapes import is_part
from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.progress import note

Part = Callable[..., dict[str, Any]]
PARTS: dict[str, Part] = {
    "winogender": measure_winogender,
    "occupations": measure_occupations,
    "crows_pairs": measure_crows_pairs,
    "bbq": measure_bbq,
    "templates": measure_templates,
    "bold": measure_bold,
}
READS = {
    "winogender": ("winogender/*",),
    "occupations": ("word_lists/*",),
    "crows_pairs": ("crows_pairs*",),
    "bbq": ("bbq/*",),
    "templates": ("word_lists/*", "lexicons/*", "sentence_polarity*"),
    "bold": ("bold_prompts/*", "lexicons/*", "sentence_polarity*"),
}
CORRECTION = "Holm's step-down over all findings of this report"


def measure_bias(
    model: Any,
    data: str | Path,
    *,
    parts: list[str] | None = None,
    dialects: tuple[str, str] | None = None,
    num: int = 5,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a model's bias on the files of `data` (or of its subfolder bias/): `measure_bias("runs/a", "data/")`.

    `model`: a run folder, (model, tokenizer) in memory, or a Scorer. `parts`: some of PARTS, by default all. `dialects`:
    two corpora to compare in bits per byte. `num`: continuations of each template. For a run folder the result is
    written to its bias.json, and the continuations to bias_samples.jsonl.

    Returns {part: its result, "findings": every tested difference with p_value and p_holm, "missing": {part: why it could
    not be measured}, ...}. A part that fails does not stop the others. Raises EarthworksError if nothing could be measured.
    """
    folder = bias_folder(data)
    unknown = sorted(set(parts or ()) - PARTS.keys())
    if unknown:
        raise EarthworksError(f"unknown bias measurement {unknown[0]!r}; expected {', '.join(PARTS)}")
    if num < 1:
        raise EarthworksError(f"--num is {num}; it must be at least 1 continuation of each template")
    run = RunFolder.open(model).path if isinstance(model, str | Path) else None
    with partial_result(run, "bias", "measurements", "bias_samples.jsonl") as kept:
        scorer, about = scorer_of(model, checkpoint=checkpoint, device=device)
        kept.common = {"seed": seed, **(getattr(scorer, "identity", None) or {})}
        wanted: dict[str, Callable[[], dict[str, Any]]] = {
            name: partial(PARTS[name], scorer, folder, seed=seed, **({"num": num} if name == "templates" else {}))
            for name in (PARTS if parts is None else parts)
        }
        keys: dict[str, dict[str, Any] | None] = {name: {"part": name, "num": num} for name in wanted}
        if dialects is not None:
            wanted["dialects"] = partial(measure_dialects, scorer, *dialects, seed=seed)
            local = all(Path(each).is_file() for each in dialects)
            keys["dialects"] = {"part": "dialects", "corpora": list(dialects)} if local else None
        result: dict[str, Any] = {**about, "data": str(data), "seed": seed}
        findings: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        missing: dict[str, str] = {}
        failure = None
        for name, measure in wanted.items():
            note(f"measuring {name}")
            try:
                key = keys[name]
                if key is None or kept.path is None:
                    result[name] = measure()
                else:
                    read = [Path(each) for each in dialects or ()] if name == "dialects" else files_read(folder, name)
                    result[name] = kept.piece({**key, "files": files_digest(read)}, measure, is_part)
            except NotKept:
                raise
            except EarthworksError as error:
                failure = failure or error
                missing[name] = str(error)
                continue
            findings += result[name].pop("findings")
            texts += result[name].pop("texts", [])
        if failure and not findings:
            raise EarthworksError(f"nothing could be measured: {failure}", failure.exit_code)
        corrected(findings)
        result |= {"findings": findings, "correction": CORRECTION, "missing": missing}
        if run is not None:
            write_result(run, "bias.json", result, {"bias_samples.jsonl": lines_of_texts(texts)} if texts else {})
    return result


def files_read(folder: Path, part: str) -> list[Path]:
    """The files that a measurement reads, possibly with others of their folder."""
    return [file for pattern in READS[part] for file in folder.glob(pattern)]


def lines_of_texts(texts: list[dict[str, Any]]) -> bytes:
    """The continuations as JSON Lines."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in texts).encode(errors="replace")
