"""The content of a language model's run folder, as arrays and summaries."""

from functools import cached_property
from typing import Any

import numpy as np

from earthworks.report.numbers import ends, known, with_interval
from earthworks.report.reading import Reading

MOST_BARS = 60
MOST_SUBSETS = 12  # as curves


class LanguageModelRun:
    """One run as read from its folder; every file except config.yaml may be missing.

    `metrics.jsonl` has a line per step: step, loss (nats per token), learning_rate, gradient_norm, tokens_seen, seconds,
    elapsed, tokens_per_second, ceiling_share, epoch; `validation` at some steps; `skipped` where the update was.
    """

    def __init__(self, reading: Reading):
        self.reading = reading
        self.config = reading.folder.read_config()
        self.records = reading.records()
        self.environment = reading.mapping("environment.json")
        self.evaluation = reading.mapping("evaluation.json")
        self.passage = reading.mapping("passage.json")
        self.samples = reading.samples(".txt")

    def column(self, key: str) -> np.ndarray:
        """(steps,) float64: one quantity at every step, NaN where it was not recorded."""
        return np.array([float(record[key]) if known(record.get(key)) else np.nan for record in self.records])

    @cached_property
    def steps(self) -> np.ndarray:
        return self.column("step")

    @cached_property
    def seconds(self) -> np.ndarray:
        """(steps,) float64: cumulative time of the training steps, without validation and saving."""
        return np.nancumsum(self.column("seconds"))

    @property
    def elapsed(self) -> float:
        """Duration of the whole run in seconds, including validation and saving; if not recorded, that of its steps."""
        whole = last(self.column("elapsed"))
        return float(self.seconds[-1]) if whole is None else whole

    @cached_property
    def tokens_seen(self) -> np.ndarray:
        return self.column("tokens_seen")

    @cached_property
    def skipped(self) -> np.ndarray:
        return np.array([bool(record.get("skipped")) for record in self.records], dtype=bool)

    def of_updates(self, key: str) -> np.ndarray:
        """(steps,) float64: a column with NaN at skipped updates, whose spikes would distort every mean."""
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
        """The median over the steps, which pauses and the slow first step do not affect."""
        values = recorded(self.column(key))
        return float(np.median(values)) if len(values) else None

    @property
    def training_loss(self) -> float | None:
        """Mean loss, nats per token, of the last 3% of the updates."""
        loss = recorded(self.loss)
        return float(loss[-max(1, len(loss) * 3 // 100) :].mean()) if len(loss) else None

    def validation(self, key: str, subset: str | None = None) -> np.ndarray:
        """(steps,) float64: a validation quantity, of one subset or of all, NaN where it was not measured."""
        found = [within(record, "validation") for record in self.records]
        if subset is not None:
            found = [within(within(entry, "subsets"), subset) for entry in found]
        return np.array([float(entry[key]) if known(entry.get(key)) else np.nan for entry in found])

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets that were validated."""
        found = (within(within(record, "validation"), "subsets") for record in self.records)
        names = list(dict.fromkeys(name for subsets in found for name in subsets))
        if len(names) > MOST_SUBSETS:
            more = len(names) - MOST_SUBSETS
            self.reading.leave_out(f"{self.reading.folder.metrics_file} has curves of {more:,} more subsets")
        return names[:MOST_SUBSETS]

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of all held-out text, from the final evaluation or else the last validation."""
        if known(self.evaluation.get("bits_per_byte")):
            return float(self.evaluation["bits_per_byte"])
        return last(self.validation("bits_per_byte"))

    @property
    def interval(self) -> list[float] | None:
        return ends(self.evaluation.get("interval"))

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
        for name, subset in within(self.evaluation, "subsets").items():
            if isinstance(subset, dict) and known(subset.get("bits_per_byte")):
                groups[name] = {"this model": (subset["bits_per_byte"], subset.get("interval"))}
        for name in within(self.evaluation, "compressors"):
            found = within(self.evaluation["compressors"], name)
            groups.setdefault(name, {}).update({label: (bits, None) for label, bits in found.items() if known(bits)})
        count = 0
        for name in list(groups):
            count += len(groups[name])
            if count > MOST_BARS:
                del groups[name]
        if count > MOST_BARS:
            path = self.reading.folder.path / "evaluation.json"
            self.reading.leave_out(f"{path} has {count:,} numbers of subsets, more than the limit of {MOST_BARS}")
        return groups


def within(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key; empty if there is none."""
    found = mapping.get(key)
    return found if isinstance(found, dict) else {}


def recorded(values: np.ndarray) -> np.ndarray:
    """The finite values."""
    return values[np.isfinite(values)]


def last(values: np.ndarray) -> float | None:
    """The last finite value."""
    values = recorded(values)
    return float(values[-1]) if len(values) else None
