"""Page of a language model: loss, evaluation, samples and speed; and the comparison of several runs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from earthworks.report.numbers import flatten, known, readable, setting, short, significant, with_interval
from earthworks.report.page import Coloured, Page, Section, Table, Texts, names
from earthworks.report.pages import language_model_figures as figures
from earthworks.report.pages.abilities import abilities
from earthworks.report.pages.harms import bias, detection, toxicity
from earthworks.report.pages.language_model_run import LanguageModelRun, last
from earthworks.report.reading import Reading, read_sample
from earthworks.runs.progress import duration

SAMPLES = 5  # texts shown: the first, the last, and evenly spaced ones between
SAMPLE_LENGTH = 4000  # characters shown of each
PASSAGE = 5000  # tokens shown
# Upper limits, in bits, of the colours of a passage; one bit is a probability of 1/2, eight a random guess of a byte.
BITS = (1, 2, 4, 6, 9, 12)

MEASURES = {  # key of evaluation.json: label with unit
    "nats_per_byte": "nats per byte",
    "nats_per_token": "nats per token",
    "perplexity_per_token": "perplexity per token",
    "perplexity_per_word": "perplexity per word",
    "tokens": "tokens",
    "bytes": "bytes",
    "documents": "documents",
}


def describe(reading: Reading) -> Page:
    """The page of one run, without sections whose files are missing or unusable."""
    run = LanguageModelRun(reading)
    parts: list[tuple[str, Callable[[], Section | None]]] = [
        ("metrics.jsonl", lambda: learning(run)),
        ("evaluation.json", lambda: held_out(run)),
        ("tasks.json", lambda: abilities(reading)),
        ("bias.json", lambda: bias(reading)),
        ("toxicity.json", lambda: toxicity(reading)),
        ("toxicity_detection.json", lambda: detection(reading)),
        ("passage.json", lambda: passage(run)),
        ("samples", lambda: samples(run)),
        ("evaluation.json", lambda: positions(run)),
        ("metrics.jsonl", lambda: machine(run)),
    ]
    sections = [reading.attempt(name, build, None) for name, build in parts]
    headline = reading.attempt("metrics.jsonl", lambda: verdict(run), "")
    numbers = reading.attempt("metrics.jsonl", lambda: tiles(run), [])
    title = reading.folder.path.resolve().name
    return Page(title, headline, numbers, [section for section in sections if section])


def compare(readings: Sequence[Reading]) -> Page:
    """The page of several runs: final numbers side by side, curves on the same axes, settings that differ."""
    called = names([reading.folder for reading in readings])
    runs = {name: LanguageModelRun(reading) for name, reading in zip(called, readings, strict=True)}
    first = readings[0]
    sections = [
        Section(
            "Results",
            "Bits per byte count the raw bytes of the text, so they can be compared across tokenizers as long as the "
            "held-out text is the same; nats and perplexity per token cannot.",
            [
                Table(
                    "Final numbers",
                    ("", *runs),
                    first.attempt("metrics.jsonl", lambda: results(list(runs.values())), []),
                )
            ],
        )
    ]
    if any(run.records for run in runs.values()):
        note = "The same losses by cost: updates, tokens, and time (of training steps only)."
        sections.append(Section("Curves", note, first.attempt("metrics.jsonl", lambda: figures.overlay(runs), [])))
    settings = first.attempt("config.yaml", lambda: differences([run.config for run in runs.values()]), [])
    machines = first.attempt("environment.json", lambda: differences([run.environment for run in runs.values()]), [])
    tables = [
        Table("Configuration", ("key", *runs), settings, empty="Every setting is the same.", kind="words"),
        Table("Environment", ("key", *runs), machines, empty="The environment is the same.", kind="words"),
    ]
    sections.append(Section("Differences", "Only keys whose values differ between the runs.", tables))
    scored = {name: run.bits_per_byte for name, run in runs.items() if run.bits_per_byte is not None}
    sentence = "None of the runs has been measured on held-out text yet."
    if scored:
        best = min(scored, key=lambda name: scored[name])
        sentence = f"{best} needs the fewest bits per byte of held-out text: {runs[best].score}."
        near = [name for name in scored if name != best and overlap(runs[name].interval, runs[best].interval)]
        if near:
            sentence += f" Its interval overlaps that of {' and '.join(near)}: these numbers alone do not decide."
    return Page(f"{len(runs)} runs compared", sentence, [], sections)


def overlap(one: list[float] | None, other: list[float] | None) -> bool:
    """Whether two intervals overlap; False if one is missing."""
    return bool(one and other and one[0] <= other[1] and other[0] <= one[1])


def verdict(run: LanguageModelRun) -> str:
    """A summary of the run in one or two sentences."""
    size = f"A model of {short(run.parameters)} parameters" if run.parameters else "A language model"
    if not run.records:
        return f"{size}, before its first training step."
    spent = f"{run.last_step:,} steps in {duration(run.elapsed)}"
    if run.bits_per_byte is None:
        result = f"{size} after {spent}; it has not been measured on held-out text yet."
    else:
        result = f"{size} needs {run.score} bits per byte of text it was not trained on, after {spent}."
    planned = run.planned_steps
    if planned and run.last_step < planned:
        result += f" {planned - run.last_step:,} of {planned:,} steps remain: the run is in progress or was stopped."
    return result


def tiles(run: LanguageModelRun) -> list[tuple[str, str, str]]:
    """The key numbers."""
    shown = []
    if run.bits_per_byte is not None:
        remark = "at the last validation; lower is better"
        if run.interval:
            remark = "[{:.2f}, {:.2f}], 95% interval; lower is better".format(*run.interval)
        shown.append(("Held-out bits per byte", f"{run.bits_per_byte:.2f}", remark))
    loss = number(run.training_loss)
    if loss is not None:
        shown.append(("Training loss", loss, "nats per token, mean of the last 3% of updates"))
    seen, epochs = last(run.tokens_seen), last(run.column("epoch"))
    if seen is not None:
        remark = "" if epochs is None else f"{epochs:.2f} passes through the training text"
        shown.append(("Tokens seen", short(seen), remark))
    speed, ceiling = run.median("tokens_per_second"), run.median("ceiling_share")
    if speed is not None:
        remark = "tokens per second, median"
        if ceiling is not None:
            remark += f"; {ceiling:.0%} of the matrix-product ceiling"
        shown.append(("Throughput", short(speed), remark))
    if run.records:
        steps = f"{run.last_step:,} training steps in {duration(run.seconds[-1])}"
        shown.append(("Time", duration(run.elapsed), steps))
    return shown


def learning(run: LanguageModelRun) -> Section | None:
    """Training and held-out loss."""
    if not np.isfinite(run.loss).any() and not np.isfinite(run.validation("nats_per_token")).any():
        return None
    note = (
        "Loss is the mean negative log-probability of the next token, in nats (natural logarithm). Bits per byte "
        "divide the same quantity by the bytes of the raw text, so that it does not depend on the tokenizer."
    )
    if run.skipped.any():
        note += f" Red ticks: skipped updates, {run.skipped.sum():,} in total (a non-finite loss, or a spike)."
    return Section("Learning", note, [figures.loss(run)])


def held_out(run: LanguageModelRun) -> Section | None:
    """Final evaluation: bits per byte of each subset, compared with general-purpose compressors, and other units."""
    evaluation = run.evaluation
    bars = run.bars()
    rows = [(label, shown) for key, label in MEASURES.items() if (shown := number(evaluation.get(key))) is not None]
    if known(evaluation.get("bits_per_byte")):
        rows.insert(0, ("bits per byte", with_interval(evaluation["bits_per_byte"], run.interval, decimals=3)))
    taken = {*MEASURES, "bits_per_byte", "interval_unit"}
    rows += [
        (key, number(value) or setting(value))
        for key, value in evaluation.items()
        if key not in taken and not isinstance(value, list | dict)
    ]
    if not bars and not rows:
        return None
    parts: list[Any] = []
    if sum(map(len, bars.values())) > 1:  # a single bar shows nothing
        parts += [figures.held_out(bars), bars_table(run, bars)]
    if rows:
        parts.append(Table("In every unit", ("", "all held-out text"), rows))
    note = (
        "Bits per byte = total negative log2-probability of the held-out text divided by its UTF-8 bytes. In brackets: "
        f"95% bootstrap interval over {evaluation.get('interval_unit', 'document')}s."
    )
    if evaluation.get("compressors"):
        note += (
            " A compressor's number is the size of its output on the same text; primed means with the training "
            "text as its dictionary."
        )
    return Section("On held-out text", note, parts)


def bars_table(run: LanguageModelRun, bars: dict[str, dict[str, tuple[float, Any]]]) -> Table:
    """Table of the numbers in the bars."""
    columns = list(dict.fromkeys(label for group in bars.values() for label in group))
    rows = []
    for subset, group in bars.items():
        cells = [with_interval(*group[label], decimals=3) if label in group else "–" for label in columns]
        rows.append((subset, *cells))
    return Table("Bits per byte", ("", *columns), rows)


def passage(run: LanguageModelRun) -> Section | None:
    """A held-out passage; the background of a token is denser the less the model expected it."""
    if not run.passage.get("tokens"):
        return None
    pieces, costs = [], []
    tokens = run.passage["tokens"][:PASSAGE]
    for text, nats in tokens:
        bits = nats / np.log(2)
        pieces.append(
            (
                readable(text),
                int(np.searchsorted(BITS, bits, side="right")),
                f"p = {significant(np.exp(-nats))}, {bits:.2f} bits",
            )
        )
        costs.append(bits)
    edges = (0, *BITS)
    legend = [f"{low}–{high} bits" for low, high in zip(edges, BITS, strict=False)] + [f"{BITS[-1]} bits and more"]
    legend[0] = "under 1 bit (p > 1/2)"
    title = readable(str(run.passage.get("title", "A held-out passage")))
    if len(run.passage["tokens"]) > len(tokens):
        title += f". The first {len(tokens):,} of {len(run.passage['tokens']):,} tokens"
    title += f". {len(costs):,} tokens, {np.mean(costs):.2f} bits a token on average."
    note = (
        "Text the model was not trained on. The background of a token is denser the less the model expected it: "
        "bits = -log2 of its probability. Hover over a token for its numbers."
    )
    dearest = sorted(range(len(costs)), key=lambda i: -costs[i])[:8]
    rows = [(visible(tokens[i][0]), visible(before(tokens, i)), f"{costs[i]:.1f}") for i in dearest]
    table = Table("The most surprising tokens", ("token", "after", "bits"), rows, kind="words")
    return Section("A passage as the model reads it", note, [Coloured(title, legend, pieces), table])


def before(tokens: Sequence[tuple[str, float]], i: int, length: int = 40) -> str:
    """The text before token i."""
    text = "".join(text for text, _ in tokens[max(0, i - length) : i])
    return text if len(text) <= length else "…" + text[-length:]


def visible(text: str) -> str:
    """Text for a table cell, with spaces and line ends shown as symbols."""
    text = readable(text).replace("\n", "↵").replace("\t", "→")
    return text if text.strip() else text.replace(" ", "␣")


def samples(run: LanguageModelRun) -> Section | None:
    """Samples over the course of training."""
    if not run.samples:
        return None
    chosen = np.unique(np.linspace(0, len(run.samples) - 1, SAMPLES).round().astype(int))
    texts = []
    for step, name in (run.samples[i] for i in chosen):
        content = run.reading.attempt(name, lambda name=name: read_sample(run.reading.folder, name), None)
        if content is None:
            continue
        text = readable(content.decode(errors="replace"))
        if len(text) > SAMPLE_LENGTH:
            text = text[:SAMPLE_LENGTH] + f"\n… {len(text) - SAMPLE_LENGTH:,} more characters in {name}"
        texts.append((f"Step {step:,}", text))
    if not texts:
        return None
    note = "Written by the model; a text starts with its prompt, if any."
    if len(run.samples) > len(chosen):
        note += f" {len(chosen)} of {len(run.samples)}; the others are in samples/."
    return Section("Samples over time", note, [Texts(texts)])


def positions(run: LanguageModelRun) -> Section | None:
    """Loss by position in the window."""
    if not run.evaluation.get("by_position"):
        return None
    note = (
        "Mean held-out loss of a token by the number of preceding tokens in the window: the value of context. "
        "If the curve still falls at its right end, a longer window would help."
    )
    return Section("Loss by position", note, [figures.by_position(run)])


def machine(run: LanguageModelRun) -> Section | None:
    """Throughput, learning rate and gradient norm."""
    drawings = [drawing for drawing in (figures.throughput(run), figures.optimisation(run)) if drawing]
    if not drawings:
        return None
    note = (
        "The ceiling is the rate of matrix products measured on this machine at the start of the run; the share counts "
        "only the products that the model needs."
    )
    return Section("Speed and optimisation", note, drawings)


def number(value: Any) -> str | None:
    """An integer in full, other numbers to three significant digits, None if unknown."""
    if not known(value):
        return None
    return f"{value:,}" if isinstance(value, int) else significant(value)


def results(runs: Sequence[LanguageModelRun]) -> list[tuple[str, ...]]:
    """Rows of final numbers, one column per run, without empty rows."""

    def row(label: str, *cells: str | None) -> tuple[str, ...]:
        return (label, *("–" if cell is None else cell for cell in cells))

    rows = [row("bits per byte, held out", *(None if run.bits_per_byte is None else run.score for run in runs))]
    rows += [
        row(MEASURES[key], *(number(run.evaluation.get(key)) for run in runs))
        for key in ("nats_per_token", "perplexity_per_token", "perplexity_per_word")
    ]
    rows.append(row("training loss, nats per token", *(number(run.training_loss) for run in runs)))
    rows.append(row("parameters", *(short(run.parameters) if run.parameters else None for run in runs)))
    rows.append(row("steps", *(f"{run.last_step:,}" for run in runs)))
    rows.append(row("tokens seen", *(None if (seen := last(run.tokens_seen)) is None else short(seen) for run in runs)))
    rows.append(row("time of training steps", *(duration(run.seconds[-1]) if run.records else None for run in runs)))
    speeds = [run.median("tokens_per_second") for run in runs]
    rows.append(row("tokens per second, median", *(None if speed is None else short(speed) for speed in speeds)))
    return [cells for cells in rows if any(cell != "–" for cell in cells[1:])]


def differences(configs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows (key, value in each run) for the keys whose values differ; a missing key is shown as –."""
    flat = [{key: setting(value) for key, value in flatten(config).items()} for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    rows = [(key, *(config.get(key, "–") for config in flat)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]
