"""Page of a GAN: samples, the critic's gap, distances to held-out data; and the comparison of several runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from earthworks.report.figures import (
    DASHES,
    MUTED,
    SERIES,
    count_axis,
    draw,
    finite,
    log_axis,
    noisy_curve,
    thin,
)
from earthworks.report.numbers import ends, flatten, known, setting, short, significant
from earthworks.report.page import MOST_ROWS, Page, Section, Table, names
from earthworks.report.reading import Reading, read_mapping, read_picture, read_points
from earthworks.runs import EarthworksError
from earthworks.runs.progress import duration

PANELS = 4  # pictures over time: the first, the last, and evenly spaced ones between
MEASURES = {  # key of a validation: label
    "sliced_2": "sliced W2 to held-out samples",
    "quality": "share of high-quality samples",
    "modes": "modes found",
    "reverse_kl": "reverse KL of the modes, nats",
}


class GenerativeRun:
    """One run as read from its folder; every file except config.yaml may be missing."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.config = reading.folder.read_config()
        self.records = reading.records()
        self.measures: list[dict[str, Any]] = reading.attempt("evaluation.json", lambda: measures_of(reading), [])
        self.samples = reading.samples(".npy", ".png")

    def column(self, key: str) -> np.ndarray:
        """(steps,) float64, NaN where it was not recorded."""
        return np.array([float(record[key]) if known(record.get(key)) else np.nan for record in self.records])

    def validation(self, key: str) -> np.ndarray:
        """The same for validation measures."""
        found = [record.get("validation") for record in self.records]
        values = [each.get(key) if isinstance(each, dict) else None for each in found]
        return np.array([float(value) if known(value) else np.nan for value in values])

    def last(self, key: str) -> float | None:
        """The last value from a validation."""
        values = self.validation(key)
        values = values[np.isfinite(values)]
        return float(values[-1]) if len(values) else None


def measures_of(reading: Reading) -> list[dict[str, Any]]:
    """The measures of evaluation.json; EarthworksError if they do not have the format of `wgan evaluate`."""
    found = read_mapping(reading.folder, "evaluation.json")
    measures = [] if found is None else found["measures"]
    if all(isinstance(each["name"], str) and (each["value"] is None or known(each["value"])) for each in measures):
        return measures[:MOST_ROWS]
    raise EarthworksError(f"{reading.folder.path / 'evaluation.json'} does not hold measures with a name and a number")


def describe(reading: Reading) -> Page:
    """The page of one run, without sections whose files are missing or unusable."""
    run = GenerativeRun(reading)
    parts: list[tuple[str, Callable[[], Section | None]]] = [
        ("samples", lambda: drawn(run)),
        ("metrics.jsonl", lambda: critic(run)),
        ("metrics.jsonl", lambda: progress(run)),
        ("evaluation.json", lambda: measured(run)),
        ("metrics.jsonl", lambda: gradients(run)),
    ]
    sections = [reading.attempt(name, build, None) for name, build in parts]
    headline = reading.attempt("metrics.jsonl", lambda: verdict(run), "")
    numbers = reading.attempt("evaluation.json", lambda: tiles(run), [])
    title = reading.folder.path.resolve().name
    return Page(title, headline, numbers, [section for section in sections if section])


def compare(readings: Sequence[Reading]) -> Page:
    """The page of several runs: final numbers side by side, and curves on the same axes."""
    called = names([reading.folder for reading in readings])
    runs = {name: GenerativeRun(reading) for name, reading in zip(called, readings, strict=True)}
    found = [key for key in MEASURES if any(run.last(key) is not None for run in runs.values())]
    rows = [(MEASURES[key], *(number(run.last(key)) for run in runs.values())) for key in found]
    rows.append(("held-out critic gap", *(number(run.last("gap_held_out")) for run in runs.values())))
    rows.append(("steps", *(f"{len(run.records):,}" for run in runs.values())))
    flat = [{key: setting(value) for key, value in flatten(run.config).items()} for run in runs.values()]
    keys = sorted({key for config in flat for key in config})
    settings = [(key, *(config.get(key, "") for config in flat)) for key in keys]
    settings = [row for row in settings if len(set(row[1:])) > 1]

    def paint(axes: np.ndarray) -> None:
        for each, key in zip(axes[0], found):
            for i, (name, run) in enumerate(runs.items()):
                x, y = finite(run.column("step"), run.validation(key))
                each.plot(x, y, marker="o", markersize=3, color=SERIES[i % 6], linestyle=DASHES[i % 6], label=name)
            titled(each, MEASURES[key])

    def curves_of_all() -> list[Any]:
        return [draw("compared", "The measures of all runs by step.", paint, columns=len(found), height=3.4)]

    curves = readings[0].attempt("metrics.jsonl", curves_of_all, []) if found else []
    sections = [
        Section("Results", "At the last validation of each run.", [Table("Final numbers", ("", *runs), rows)]),
        Section("Curves", "The same measures by step.", curves),
        Section("Differences", "Settings that differ.", [Table("Configuration", ("key", *runs), settings)]),
    ]
    return Page(
        f"{len(runs)} runs compared",
        "Gaps of different critics are on different scales: compare distances instead.",
        [],
        sections,
    )


def verdict(run: GenerativeRun) -> str:
    """One-sentence summary of the run."""
    kind = f"A generator trained by the objective {run.config.get('objective')} on {Path(str(run.config.get('data'))).name}"
    if not run.records:
        return f"{kind}, before its first step."
    text = f"{kind}, after {len(run.records):,} steps in {duration(run.records[-1].get('elapsed', 0.0))}."
    if run.last("quality") is not None:
        text += (
            f" {run.last('quality'):.1%} of its samples are within 3 standard deviations of a centre (a perfect one has "
            f"98.89%), on {run.last('modes'):.0f} modes."
        )
    return text


def tiles(run: GenerativeRun) -> list[tuple[str, str, str]]:
    """The key numbers."""
    shown = []
    exact = next((m for m in run.measures if m["name"].startswith("wasserstein_1")), None)
    if exact:
        null = "" if exact.get("null") is None else f"; real against real {significant(exact['null'])}"
        shown.append(("Exact W1 to held-out", significant(exact["value"]), f"n = {exact['n']:,}{null}"))
    for key in ("quality", "reverse_kl", "sliced_2"):
        value = run.last(key)
        if value is not None and len(shown) < 3:
            shown.append((MEASURES[key][0].upper() + MEASURES[key][1:], significant(value), "at the last validation"))
    gap = run.last("gap_held_out")
    if gap is not None:
        shown.append(
            ("Critic's gap, held out", significant(gap), "an estimate on the critic's own scale, not a distance")
        )
    speed = run.column("images_per_second")
    if len(speed):
        shown.append(("Throughput", short(float(np.nanmedian(speed))), "real samples per second through the critic"))
    return shown


def drawn(run: GenerativeRun) -> Section | None:
    """Samples over time, always from the same noise."""
    if not run.samples:
        return None
    places = np.unique(np.linspace(0, len(run.samples) - 1, PANELS).round().astype(int))
    folder = run.reading.folder
    chosen = []
    for step, name in (run.samples[place] for place in places):
        read = read_points if name.endswith(".npy") else read_picture
        content = run.reading.attempt(name, lambda name=name, read=read: read(folder, name), None)
        if content is not None:
            chosen.append((step, name, content))
    if not chosen:
        return None

    def paint(axes: np.ndarray) -> None:
        for each, (step, name, content) in zip(axes[0], chosen):
            if not name.endswith(".npy"):
                each.imshow(content, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                each.set_axis_off()
            elif content.shape[1] == 1:
                each.hist(content[:, 0], bins=40, color=SERIES[0])
            else:  # the first two of several dimensions
                x, y = content[:, 0], content[:, 1]
                each.scatter(x, y, s=2, color=SERIES[0], alpha=0.4, linewidths=0, rasterized=True)
                each.set_aspect("equal", "datalim")
            each.set_title(f"step {step:,}")

    description = f"Samples after {', '.join(f'{step:,}' for step, _, _ in chosen)} steps."
    picture = draw("samples", description, paint, columns=len(chosen), width=3.0 * len(chosen), height=3.3)
    return Section("Samples", "From the moving average of the generator, on the same noise throughout.", [picture])


def critic(run: GenerativeRun) -> Section | None:
    """The gap on training and held-out samples, and the slope if it is penalised."""
    if not np.isfinite(run.column("gap")).any():
        return None
    sloped = np.isfinite(run.column("slope")).any()

    def paint(axes: np.ndarray) -> None:
        steps = run.column("step")
        noisy_curve(axes[0, 0], steps, run.column("gap"), SERIES[0], label="training batch")
        for i, (key, label) in enumerate((("gap_train", "training samples"), ("gap_held_out", "held out"))):
            x, y = finite(steps, run.validation(key))
            axes[0, 0].plot(*thin(x, y), "o-", color=SERIES[i + 1], markersize=3, linewidth=1.2, label=label)
        titled(axes[0, 0], "Gap: mean f(real) - mean f(generated)")
        axes[0, 0].legend()
        if sloped:
            noisy_curve(axes[0, 1], steps, run.column("slope"), SERIES[3])
            axes[0, 1].axhline(1, color=MUTED, linewidth=0.8)
            titled(axes[0, 1], "Slope |grad f| between the samples, mean")

    note = (
        "The gap is at least 0 for a critic at its optimum and falls as the samples improve. If it is larger on training "
        "than on held-out samples, the critic has memorised the training set. It is on the critic's own scale and not a "
        "distance."
    )
    figure = draw("critic", "The critic's gap and slope by step.", paint, columns=2 if sloped else 1, height=3.4)
    return Section("The critic", note, [figure])


def progress(run: GenerativeRun) -> Section | None:
    """Distances to the held-out data, by measures without the critic."""
    found = [key for key in MEASURES if run.last(key) is not None]
    if not found:
        return None

    def paint(axes: np.ndarray) -> None:
        for i, (each, key) in enumerate(zip(axes[0], found)):
            x, y = finite(run.column("step"), run.validation(key))
            each.plot(x, y, "o-", color=SERIES[i], markersize=3)
            if key == "sliced_2":
                log_axis(each)
            titled(each, MEASURES[key])

    figure = draw("quality", "Distance to the held-out samples by step.", paint, columns=len(found), height=3.2)
    return Section("Distances", "Measured on samples of the averaged generator, without the critic.", [figure])


def measured(run: GenerativeRun) -> Section | None:
    """Table of the evaluation: every number with its kind, null, interval and n."""
    if not run.measures:
        return None
    rows = [
        (
            measure["name"],
            number(measure["value"]),
            interval(measure.get("interval")),
            number(measure.get("null")),
            str(measure.get("kind", "")),
            "" if measure.get("n") is None else f"{measure['n']:,}",
            str(measure.get("remark", "")),
        )
        for measure in run.measures
    ]
    header = ("measure", "value", "95% interval", "null: real against real", "kind", "n", "remark")
    note = "The null of a distance is the same measure between two samples of real data of the same sizes."
    return Section("Measured", note, [Table("Evaluation", header, rows)])


def gradients(run: GenerativeRun) -> Section | None:
    """Gradient norms of both networks."""
    keys = {"critic_gradient_norm": "critic", "generator_gradient_norm": "generator"}
    if not any(np.isfinite(run.column(key)).any() for key in keys):
        return None

    def paint(axes: np.ndarray) -> None:
        for i, (key, label) in enumerate(keys.items()):
            noisy_curve(axes[0, 0], run.column("step"), run.column(key), SERIES[i], label=label)
        titled(axes[0, 0], "Norm of the gradient")
        log_axis(axes[0, 0])
        axes[0, 0].legend()

    figure = draw("gradients", "Gradient norms by step.", paint, width=6.4, height=3.0)
    return Section(
        "Gradients", "A generator whose norm falls by orders of magnitude has nothing left to learn.", [figure]
    )


def titled(axes: Axes, title: str) -> None:
    axes.set_title(title)
    count_axis(axes, "step")


def number(value: Any) -> str:
    return significant(float(value)) if known(value) else ""


def interval(value: Any) -> str:
    found = ends(value)
    return f"[{significant(found[0])}, {significant(found[1])}]" if found else ""
