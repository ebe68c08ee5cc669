"""Whom a language model harms: every measurement of bias that the data at hand allows, corrected for their number."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from earthworks.evaluation.bbq import measure_bbq
from earthworks.evaluation.bias_files import bias_folder
from earthworks.evaluation.continuations import measure_bold, measure_templates
from earthworks.evaluation.crows_pairs import measure_crows_pairs
from earthworks.evaluation.dialect import measure_dialects
from earthworks.evaluation.findings import corrected
from earthworks.evaluation.occupations import measure_occupations
from earthworks.evaluation.scoring_protocol import scorer_of
from earthworks.evaluation.winogender import measure_winogender
from earthworks.runs import EarthworksError, write_bytes, write_json
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
    """Measure a model's bias on the files of `data` (or of its folder bias/); `measure_bias("runs/a", "data/")`.

    `model`: a run folder, (model, tokenizer) in memory, or a Scorer. `parts`: some of PARTS, by default all. `dialects`:
    two corpora to compare in bits per byte. `num`: continuations of each template. Of a run folder the result is
    written to bias.json, and what the model wrote to bias_samples.jsonl beside it.

    Gives {part: its result, "findings": every difference that was looked at with p_value and p_holm, "missing": {part: why
    it could not be measured}, ...}. A part that fails does not stop the others. Raises EarthworksError where nothing could
    be measured.
    """
    folder = bias_folder(data)
    unknown = sorted(set(parts or ()) - PARTS.keys())
    if unknown:
        raise EarthworksError(f"there is no measurement {unknown[0]!r} of bias; expected {', '.join(PARTS)}")
    if num < 1:
        raise EarthworksError(f"--num is {num}; it must be at least 1 continuation of each template")
    scorer, about = scorer_of(model, checkpoint=checkpoint, device=device)
    wanted: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(PARTS[name], scorer, folder, seed=seed, **({"num": num} if name == "templates" else {}))
        for name in (PARTS if parts is None else parts)
    }
    if dialects is not None:
        wanted["dialects"] = partial(measure_dialects, scorer, *dialects, seed=seed)
    result: dict[str, Any] = {**about, "data": str(data), "seed": seed}
    findings: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    missing = {}
    for name, measure in wanted.items():
        note(f"measuring {name}")
        try:
            result[name] = measure()
        except EarthworksError as error:
            missing[name] = str(error)
            continue
        findings += result[name].pop("findings")
        texts += result[name].pop("texts", [])
    if not findings:
        raise EarthworksError(f"nothing could be measured: {next(iter(missing.values()))}")
    corrected(findings)
    result |= {"findings": findings, "correction": CORRECTION, "missing": missing}
    if isinstance(model, str | Path):
        write_json(Path(model) / "bias.json", result)
        if texts:
            write_texts(Path(model) / "bias_samples.jsonl", texts)
    return result


def write_texts(path: Path, texts: list[dict[str, Any]]) -> None:
    """What a model wrote, a record a line: for a page that hides it until it is asked for."""
    write_bytes(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in texts).encode(errors="replace"))
