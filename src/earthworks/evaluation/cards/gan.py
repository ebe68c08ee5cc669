"""Model-card sections of a GAN, from the files of its run; memorisation and class balance have sections of their own."""

from typing import Any

from earthworks.evaluation.cards.card import Card, index, result
from earthworks.evaluation.cards.markdown import bullets, called, plain, table
from earthworks.evaluation.shapes import ENVIRONMENT, GAN_EVALUATION, optional
from earthworks.report.numbers import known, setting, significant
from earthworks.runs import RunFolder, read_metrics
from earthworks.runs.progress import duration

SHAPE = ("objective", "network", "width", "depth", "noise", "shape")
SETTINGS = ("optimizer", "learning_rate", "critic_learning_rate", "beta1", "beta2", "batch", "critic_steps", "penalty")
SETTINGS += ("average", "precision", "seed")
MEMORY = ("memorisation_ratio",)
BALANCE = ("modes", "reverse_kl")  # prefixes: names may continue, as in `modes[...]`
CLASSIFIER = "accuracy["


def describe(folder: RunFolder) -> Card:
    """The card of a run."""
    config = folder.read_config()
    evaluation = optional(folder.path / "evaluation.json", GAN_EVALUATION, "wgan evaluate")
    measures: list[dict[str, Any]] = evaluation.get("measures", [])
    records = read_metrics(folder.metrics_file) if folder.metrics_file.exists() else []
    parameters = config.get("parameters")
    size = f"{parameters:,} parameters" if known(parameters) else "unknown size"
    summary = (
        f"A generator and its critic of {size} together, trained with Earthworks. This card was made only from the files of "
        "the run; it claims nothing beyond them."
    )
    shape = config.get("shape")
    images = isinstance(shape, list) and len(shape) == 3
    data = plain(called(config.get("data")))
    share = config.get("validation")
    held = f"A share of {share:g} was held out. " if known(share) else ""
    sections = [
        ("Model details", table(("", "value"), [(key, setting(config[key])) for key in SHAPE if key in config])),
        ("Uses", "No intended use has been stated, and no use was tested beyond the results below."),
        (
            "Training data",
            f"Trained on: {data}\n\n{held}Its subjects and its rights are not recorded.",
        ),
        ("Training procedure", training(folder, config, records)),
        ("Evaluation", numbers(measures, evaluation, lambda name: not name.startswith((*MEMORY, *BALANCE)))),
        ("Memorisation", memorisation(measures, evaluation)),
        ("Class balance", balance(measures, evaluation)),
        ("Limits", limits(evaluation)),
        ("How to use it", USE),
    ]
    metadata: dict[str, Any] = {"library_name": "earthworks"}
    if images:
        metadata["pipeline_tag"] = "unconditional-image-generation"
    metadata["tags"] = ["earthworks", "gan", "wasserstein-gan"]
    metadata |= index(folder.path.resolve().name, results(config, measures, images))
    return Card(metadata, summary, sections, missing(records, measures))


USE = """```
earthworks wgan sample RUN --num 64 --output samples.npy
```"""


def training(folder: RunFolder, config: dict[str, Any], records: list[dict[str, Any]]) -> str:
    rows = [(key.replace("_", " "), setting(config[key])) for key in SETTINGS if key in config]
    if records:
        if known(records[-1].get("step")):
            rows.append(("steps made", f"{records[-1]['step']:,}"))
        if known(records[-1].get("images_seen")):
            rows.append(("real samples seen", f"{records[-1]['images_seen']:,}"))
        if known(records[-1].get("elapsed")):
            rows.append(("time", duration(records[-1]["elapsed"])))
    environment = optional(folder.path / "environment.json", ENVIRONMENT, "wgan train")
    rows += [
        (what, environment[key])
        for key, what in (("processor", "processor"), ("earthworks", "Earthworks"))
        if environment.get(key)
    ]
    text = table(("", "value"), rows)
    return text if records else f"{text}\n\nNo training step is recorded."


def numbers(measures: list[dict[str, Any]], evaluation: dict[str, Any], wanted: Any) -> str:
    """A table of the selected measures."""
    chosen = [each for each in measures if wanted(each["name"])]
    if not chosen:
        return "Not measured."
    rows = []
    for each in chosen:
        interval = each.get("interval")
        ends = [significant(end) for end in interval or () if known(end)]
        bounds = f" [{', '.join(ends)}]" if len(ends) == 2 else ""
        null = significant(each["null"]) if known(each.get("null")) else "–"
        n = each.get("n") or each.get("m")
        rows.append(
            (
                *(each["name"], significant(each["value"]) + bounds, null),
                *(f"{n:,}" if n else "–", each["kind"], each.get("remark", "")),
            )
        )
    header = ("measure", "value, 95% interval", "real against real", "n", "kind", "remark")
    return (
        f"{evaluation['num']:,} samples of the checkpoint {plain(evaluation['checkpoint'])}, seed {evaluation['seed']}. "
        "Real against real is the value of a perfect generator.\n\n" + table(header, rows)
    )


def memorisation(measures: list[dict[str, Any]], evaluation: dict[str, Any]) -> str:
    """Whether samples are closer to the training data than new real ones are."""
    return numbers(measures, evaluation, lambda name: name.startswith(MEMORY))


def balance(measures: list[dict[str, Any]], evaluation: dict[str, Any]) -> str:
    """Number and balance of generated classes or modes, and the accuracy of the classifier used."""
    if not any(each["name"].startswith(BALANCE) for each in measures):
        return "Not measured."
    return numbers(measures, evaluation, lambda name: name.startswith((*BALANCE, CLASSIFIER)))


def limits(evaluation: dict[str, Any]) -> str:
    items = ["The content of the samples, whom they resemble and whom they omit were not examined beyond the above."]
    if evaluation:
        items.append(
            f"Distances are between {evaluation['num']:,} samples: compare them with real against real, not with distances "
            "of other numbers of samples."
        )
    return bullets(items)


def missing(records: list[dict[str, Any]], measures: list[dict[str, Any]]) -> list[tuple[str, str]]:
    names = [each["name"] for each in measures]
    commands = [
        (records, "Training", "earthworks wgan train --resume RUN"),
        (names, "Distances and coverage", "earthworks wgan evaluate RUN"),
        ([n for n in names if n.startswith(MEMORY)], "Memorisation", "earthworks wgan evaluate RUN"),
        (
            [n for n in names if n.startswith(BALANCE)],
            "Class balance (needs labelled data, or a distribution with known modes)",
            "earthworks wgan evaluate RUN",
        ),
    ]
    return [(what, how) for found, what, how in commands if not found]


def results(config: dict[str, Any], measures: list[dict[str, Any]], images: bool) -> list[dict[str, Any]]:
    task = "unconditional-image-generation" if images else "other"
    found = []
    for each in measures:
        more = {key: each[key] for key in ("interval", "null", "n", "m", "kind") if each.get(key) is not None}
        found.append(result(task, called(config.get("data")), each["name"], each["value"], each["name"], more))
    return found
