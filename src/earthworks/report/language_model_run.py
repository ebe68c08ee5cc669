"""What the folder of a language model's run holds, as arrays and a few summaries."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.report.numbers import known, with_interval
from earthworks.runs import RunFolder, read_json, read_metrics


class LanguageModelRun:
    """One run as read from its folder; every file except config.yaml may be missing.

    `metrics.jsonl` has a line a step: step, loss (nats per token), learning_rate, gradient_norm, tokens_seen, seconds,
    elapsed, tokens_per_second, ceiling_share, epoch; `validation` at some steps; `skipped` where the update was.
    """

    def __init__(self, folder: RunFolder):
        self.config = folder.read_config()
        self.records = read_metrics(folder.metrics_file) if folder.metrics_file.exists() else []
        self.environment = optional_json(folder.path / "environment.json")
        self.evaluation: dict[str, Any] = optional_json(folder.path / "evaluation.json")
        self.passage: dict[str, Any] = optional_json(folder.path / "passage.json")
        files = folder.samples.glob("step-*.txt") if folder.samples.is_dir() else []
        self.samples = sorted((int(file.stem[5:]), file) for file in files if file.stem[5:].isdigit())

    def column(self, key: str) -> np.ndarray:
        """(steps,) float64: one quantity at every step, NaN where it was not recorded."""
        return np.array([float(record[key]) if known(record.get(key)) else np.nan for record in self.records])

    @cached_property
    def steps(self) -> np.ndarray:
        return self.column("step")

    @cached_property
    def seconds(self) -> np.ndarray:
        """(steps,) float64: time of all training steps up to each one; validating and saving are not in it."""
        return np.nancumsum(self.column("seconds"))

    @property
    def elapsed(self) -> float:
        """Seconds that the whole run took, validating and saving included; where that was not recorded, its steps."""
        whole = last(self.column("elapsed"))
        return float(self.seconds[-1]) if whole is None else whole

    @cached_property
    def tokens_seen(self) -> np.ndarray:
        return self.column("tokens_seen")

    @cached_property
    def skipped(self) -> np.ndarray:
        return np.array([bool(record.get("skipped")) for record in self.records], dtype=bool)

    def of_updates(self, key: str) -> np.ndarray:
        """(steps,) float64: a column with NaN at skipped updates too, whose spikes would move every mean they enter."""
        return np.where(self.skipped, np.nan, self.column(key))

    @cached_property
    def loss(self) -> np.ndarray:
        """(steps,) float64: training loss in nats per token."""
        return self.of_updates("loss")

    @property
    def last_step(self) -> int:
        return int(last(self.steps) or 0)

    @property
    def parameters(self) -> int | None:
        count = self.config.get("parameters")
        return int(count) if known(count) else None

    @property
    def planned_steps(self) -> int | None:
        steps = self.config.get("max_steps")
        return int(steps) if known(steps) else None

    def median(self, key: str) -> float | None:
        """The median over the steps: a pause or the first, slow step does not move it."""
        values = recorded(self.column(key))
        return float(np.median(values)) if len(values) else None

    @property
    def training_loss(self) -> float | None:
        """Mean loss, nats per token, of the last 3% of the updates."""
        loss = recorded(self.loss)
        return float(loss[-max(1, len(loss) * 3 // 100) :].mean()) if len(loss) else None

    def validation(self, key: str, subset: str | None = None) -> np.ndarray:
        """(steps,) float64: a validation quantity, of one subset or of all, NaN where it was not measured."""
        found = [record.get("validation") or {} for record in self.records]
        if subset is not None:
            found = [(entry.get("subsets") or {}).get(subset, {}) for entry in found]
        return np.array([float(entry[key]) if known(entry.get(key)) else np.nan for entry in found])

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets that were validated."""
        return list(
            dict.fromkeys(name for r in self.records for name in (r.get("validation") or {}).get("subsets") or {})
        )

    @property
    def bits_per_byte(self) -> float | None:
        """Of all held-out text: from the final evaluation, or else from the last validation."""
        if known(self.evaluation.get("bits_per_byte")):
            return float(self.evaluation["bits_per_byte"])
        return last(self.validation("bits_per_byte"))

    @property
    def interval(self) -> list[float] | None:
        interval = self.evaluation.get("interval")
        return interval if interval and all(known(end) for end in interval) else None

    @property
    def score(self) -> str:
        """`1.82 [1.79, 1.85]`."""
        assert self.bits_per_byte is not None
        return with_interval(self.bits_per_byte, self.interval)

    def bars(self) -> dict[str, dict[str, tuple[float, Any]]]:
        """subset -> what measured it -> (bits per byte, interval or None): the model first, then the compressors."""
        groups: dict[str, dict[str, tuple[float, Any]]] = {}
        if known(self.evaluation.get("bits_per_byte")):
            groups["all held-out text"] = {"this model": (self.evaluation["bits_per_byte"], self.interval)}
        for name, subset in (self.evaluation.get("subsets") or {}).items():
            if known(subset.get("bits_per_byte")):
                groups[name] = {"this model": (subset["bits_per_byte"], subset.get("interval"))}
        for name, compressors in (self.evaluation.get("compressors") or {}).items():
            groups.setdefault(name, {}).update(
                {label: (bits, None) for label, bits in compressors.items() if known(bits)}
            )
        return groups


def recorded(values: np.ndarray) -> np.ndarray:
    """Those of the values that are finite."""
    return values[np.isfinite(values)]


def last(values: np.ndarray) -> float | None:
    """The last finite value."""
    values = recorded(values)
    return float(values[-1]) if len(values) else None


def optional_json(path: Path) -> dict[str, Any]:
    """A JSON object that may not have been written yet."""
    return read_json(path) if path.exists() else {}
