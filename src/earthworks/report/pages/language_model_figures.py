"""Curves and bars of a language model's run, or of several runs on the same axes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from earthworks.report.figures import (
    DASHES,
    INK,
    MUTED,
    SERIES,
    Drawing,
    count_axis,
    draw,
    finite,
    log_axis,
    noisy_curve,
    smooth,
    thin,
)
from earthworks.report.numbers import known
from earthworks.report.pages.language_model_run import LanguageModelRun


def loss(run: LanguageModelRun) -> Drawing:
    """Left: training and held-out loss in nats per token. Right: bits per byte of each held-out subset."""
    validated = np.isfinite(run.validation("bits_per_byte")).any()

    def paint(axes: np.ndarray) -> None:
        nats = axes[0, 0]
        noisy_curve(nats, run.steps, run.loss, SERIES[0], label="training, mean and every step")
        x, y = finite(run.steps, run.validation("nats_per_token"))
        if len(x):
            nats.plot(*thin(x, y), "o-", color=SERIES[1], markersize=4, linewidth=1.2, label="held out")
        for step in run.steps[run.skipped][:200]:
            nats.axvline(step, ymin=0, ymax=0.03, color=SERIES[5], linewidth=1.2)
        nats.set_title("Loss, nats per token")
        finish(nats)
        if validated:
            bits = axes[0, 1]
            lines: list[tuple[str | None, str]] = [(None, "all held-out text")]
            if len(run.subsets) > 1:
                lines += [(name, name) for name in run.subsets]
            for i, (subset, label) in enumerate(lines):
                x, y = finite(run.steps, run.validation("bits_per_byte", subset))
                style = {"color": SERIES[(i + 1) % 6], "linestyle": DASHES[i % 6]}
                bits.plot(*thin(x, y), marker="o", markersize=4, linewidth=1.2, label=label, **style)
            bits.set_title("Held-out text, bits per byte")
            finish(bits)

    description = "Loss by training step: every step (faint), the running mean over 3% of the steps, and held-out text"
    if validated:
        description += "; next to it, held-out text in bits per byte"
    return draw("loss", description + ".", paint, columns=2 if validated else 1, height=3.4)


def finish(axes: Axes) -> None:
    """Finish a loss panel: logarithmic loss axis, step axis, and legend."""
    log_axis(axes)
    count_axis(axes, "step")
    axes.legend()


def held_out(bars: dict[str, dict[str, tuple[float, Any]]]) -> Drawing:
    """Bits per byte of each subset: this model with its interval, and compressors on the same text."""
    measures = list(dict.fromkeys(label for group in bars.values() for label in group))
    count = sum(len(group) for group in bars.values())

    def paint(panels: np.ndarray) -> None:
        axes = panels[0, 0]
        place, ticks = 0.0, []
        for group in bars.values():
            ticks.append(place + (len(group) - 1) / 2)
            for label, (bits, interval) in group.items():
                i = measures.index(label)
                axes.barh(
                    place, bits, height=0.78, color=SERIES[0] if i == 0 else MUTED, alpha=1 if i == 0 else 0.75 / i
                )
                end = bits
                if interval and all(known(edge) for edge in interval):
                    axes.plot(interval, [place, place], color=INK, linewidth=1.6)
                    end = max(bits, interval[1])
                axes.annotate(f"{bits:.2f}  {label}", (end, place), (5, 0), textcoords="offset points", va="center")
                place += 1
            place += 0.6
        axes.set_yticks(ticks, list(bars))
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.45 * max(bits for group in bars.values() for bits, _ in group.values()))
        axes.set_xlabel("bits per byte, lower is better")

    description = f"Bits per byte of the held-out text: {', '.join(measures)}. Line ends: 95% interval."
    return draw("held-out", description, paint, height=0.9 + 0.3 * count + 0.2 * len(bars))


def by_position(run: LanguageModelRun) -> Drawing:
    """Mean loss by number of context tokens."""
    position, nats = np.array(run.evaluation["by_position"], dtype=float).T

    def paint(panels: np.ndarray) -> None:
        axes = panels[0, 0]
        axes.plot(*thin(position, nats), "o-", color=SERIES[0], markersize=3.5)
        axes.set_title("Loss, nats per token")
        axes.set_xscale("symlog", base=2, linthresh=1)  # logarithmic, and position 0 has a place
        ticks = [tick for tick in (0, *(2**k for k in range(24))) if position.min() <= tick <= position.max()]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("tokens of context")

    return draw("by-position", "Mean loss of held-out tokens by the tokens of context before them.", paint)


def throughput(run: LanguageModelRun) -> Drawing | None:
    """Tokens per second, and share of the measured ceiling."""
    return pair(
        run,
        "throughput",
        "Tokens processed per second, and the corresponding share of the measured matrix-product ceiling.",
        ("tokens_per_second", "Throughput, tokens per second", 1),
        ("ceiling_share", "Share of the matrix-product ceiling, percent", 100),
        from_zero=True,
    )


def optimisation(run: LanguageModelRun) -> Drawing | None:
    """Learning rate, and norm of the gradient before clipping."""
    return pair(
        run,
        "optimisation",
        "Learning rate and norm of the gradient by training step.",
        ("learning_rate", "Learning rate", 1),
        ("gradient_norm", "Norm of the gradient", 1),
    )


def pair(
    run: LanguageModelRun, name: str, description: str, *panels: tuple[str, str, float], from_zero: bool = False
) -> Drawing | None:
    """Panels of (key, title, factor) side by side, if anything was recorded for them; None if all are empty."""
    known_panels = [panel for panel in panels if np.isfinite(run.column(panel[0])).any()]
    if not known_panels:
        return None

    def paint(axes: np.ndarray) -> None:
        for panel, (key, title, factor) in zip(axes[0], known_panels, strict=True):
            values = factor * run.of_updates(key)
            if key == "learning_rate":  # exact: a mean would round off the corners of the schedule
                panel.plot(*thin(*finite(run.steps, values)), color=SERIES[0])
            else:
                noisy_curve(panel, run.steps, values, SERIES[0])
            panel.set_title(title)
            if key == "gradient_norm":
                log_axis(panel)
            if from_zero:
                panel.set_ylim(bottom=0)
            if key == "tokens_per_second":
                panel.yaxis.set_major_formatter(EngFormatter())
            count_axis(panel, "step")

    return draw(name, description, paint, columns=len(known_panels), height=2.7)


def overlay(runs: dict[str, LanguageModelRun]) -> list[Drawing]:
    """Training loss and held-out bits per byte of several runs, against steps, tokens and seconds."""
    drawings = []
    for name, what, key in (
        ("held-out", "Held-out text, bits per byte", "bits_per_byte"),
        ("loss", "Training loss, nats per token (running mean)", "loss"),
    ):
        curves = {label: run.loss if key == "loss" else run.validation(key) for label, run in runs.items()}
        curves = {label: values for label, values in curves.items() if np.isfinite(values).any()}
        if curves:
            drawings.append(overlaid(name, what, runs, curves, markers=key != "loss"))
    return drawings


def overlaid(
    name: str, what: str, runs: dict[str, LanguageModelRun], curves: dict[str, np.ndarray], markers: bool
) -> Drawing:
    """One quantity of several runs in three panels: by step, by tokens, by seconds."""

    def paint(axes: np.ndarray) -> None:
        handles = []
        for i, label in enumerate(runs):
            style = {"color": SERIES[i % 6], "linestyle": DASHES[i % 6], "linewidth": 1.4}
            handles.append(Line2D([], [], **style))
            if label not in curves:
                continue
            run = runs[label]
            for panel, x in zip(axes[0], (run.steps, run.tokens_seen, run.seconds), strict=True):
                x, y = finite(x, curves[label])
                if markers:
                    panel.plot(*thin(x, y), marker="o", markersize=3, **style)
                else:
                    panel.plot(*thin(x, smooth(y)), **style)
        for panel, unit in zip(axes[0], ("step", "tokens", "seconds of training steps"), strict=True):
            log_axis(panel)
            count_axis(panel, unit)
        axes[0, 0].figure.suptitle(what, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        axes[0, 0].figure.legend(handles, list(runs), loc="outside lower center", ncols=4)

    return draw(name, f"{what}, of each run, by step, by tokens seen and by time.", paint, columns=3, height=3.4)
