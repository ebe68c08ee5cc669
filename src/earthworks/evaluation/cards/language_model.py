"""Model-card sections of a language model, from the files of its run."""

from pathlib import Path
from typing import Any

from earthworks.corpus.manifest import manifest_of
from earthworks.evaluation.cards.card import Card, index, result
from earthworks.evaluation.cards.markdown import bullets, called, plain, table
from earthworks.evaluation.shapes import (
    BIAS,
    CORPUS,
    DETECTION,
    ENVIRONMENT,
    EVALUATION,
    INDEX,
    TASKS,
    TOXICITY,
    misfit,
    optional,
)
from earthworks.evaluation.toxicity.classifier import no_claim
from earthworks.gopher.evaluating import packed_folder
from earthworks.report.numbers import known, setting, with_interval
from earthworks.report.pages.language_model_run import LanguageModelRun, last
from earthworks.report.reading import Reading
from earthworks.runs import EarthworksError, RunFolder, verify_manifest
from earthworks.runs.progress import duration

SETTINGS = ("optimizer", "learning_rate", "embedding_rate", "schedule", "warmup_steps", "weight_decay", "clip")
SETTINGS += ("batch", "context", "precision", "seed")
SHAPE = ("size", "context", "positions", "norm", "tied")


class Files:
    """The JSON files of a run that a card uses, {} for a missing one."""

    def __init__(self, folder: RunFolder):
        self.folder, self.run = folder, LanguageModelRun(Reading(folder))
        self.config = self.run.config
        wanted = (("tasks", TASKS), ("bias", BIAS), ("toxicity", TOXICITY), ("toxicity_detection", DETECTION))
        self.tasks, self.bias, self.toxicity, self.detection = (
            optional(folder.path / f"{name}.json", shape, "earthworks evaluate") for name, shape in wanted
        )
        for name, shape in (("evaluation", EVALUATION), ("environment", ENVIRONMENT)):
            optional(folder.path / f"{name}.json", shape, "earthworks gopher train")
        packed = packed_folder(folder)
        if (packed / "index.json").exists():
            verify_manifest(packed, names=["index.json"])
        self.data = optional(packed / "index.json", INDEX, "earthworks")


def describe(folder: RunFolder) -> Card:
    """The card of a run."""
    files = Files(folder)
    name = folder.path.resolve().name
    parameters = f"{files.run.parameters:,} parameters" if files.run.parameters else "unknown size"
    summary = (
        f"A Gopher language model of {parameters}, trained with Earthworks. This card was made only from the files of the "
        "run; it claims nothing beyond them."
    )
    sections = [
        ("Model details", model_details(files)),
        ("Uses", "No intended use has been stated, and no use was tested beyond the results below."),
        ("Training data", training_data(files)),
        ("Training procedure", training(files)),
        ("Evaluation", evaluation(files)),
        ("Bias", bias(files)),
        ("Toxicity", toxicity(files)),
        ("Toxicity detection", detection(files)),
        ("Limits", limits(files)),
        ("How to use it", USE),
    ]
    metadata = {
        "library_name": "earthworks",
        "pipeline_tag": "text-generation",
        "tags": ["earthworks", "gopher", "transformer-xl"],
        **index(name, results(files)),
    }
    return Card(metadata, summary, sections, missing(files))


USE = """```
earthworks gopher generate RUN --prompt "..."
```

```python
from earthworks.gopher import generate, load

model, tokenizer = load("RUN")
print(generate(model, tokenizer, "...", max_tokens=50)[0].text)
```"""


def model_details(files: Files) -> str:
    rows = [(key, setting(files.config[key])) for key in SHAPE if key in files.config]
    rows += [("tokenizer", called(files.config["tokenizer"]))] if "tokenizer" in files.config else []
    if files.run.parameters:
        rows.insert(0, ("parameters", f"{files.run.parameters:,}"))
    if tokenizer := files.data.get("tokenizer"):
        rows.append(("vocabulary", f"{tokenizer['vocabulary']:,} tokens ({tokenizer['kind']})"))
    rows.append(
        ("paper", "Rae et al. 2021, Scaling Language Models: Methods, Analysis & Insights from Training Gopher")
    )
    return table(("", "value"), rows)


def training_data(files: Files) -> str:
    """The packed data, and what each built corpus in it kept and dropped."""
    subsets = files.data.get("subsets")
    if not subsets:
        return f"Trained on: {plain(called(files.config.get('data')))}\n\nWithout an index its size is unknown."
    rows = []
    for each in subsets:
        train, held_out = each["train"], each["validation"]
        weight = f"{each['weight']:g}" if known(each["weight"]) else "–"
        rows.append(
            (
                *(
                    called(each["name"]),
                    f"{train['documents']:,}",
                    f"{train['tokens']:,}",
                    f"{train['bytes']:,}",
                    weight,
                ),
                f"{held_out['documents']:,}",
            )
        )
    parts = [table(("subset", "documents", "tokens", "bytes", "sampling weight", "documents held out"), rows)]
    corpora = corpora_of(files)
    parts += [corpus(path, manifest) for path, manifest in corpora.items()]
    if not corpora:
        parts.append(
            "It was not built by `earthworks corpus build` (or its manifest was moved): filtering and deduplication are not "
            "recorded, and it was not searched for test material."
        )
    return "\n\n".join(parts)


def corpora_of(files: Files) -> dict[Path, dict[str, Any]]:
    """The built corpora that contain the subsets, as CORPUS/documents/SUBSET, with their manifests."""
    found = {}
    for each in files.data.get("subsets", ()):
        place = Path(each["location"])
        manifest = manifest_of(place.parent.parent) if place.parent.name == "documents" else None
        if manifest and (odd := misfit(manifest, CORPUS)):
            raise EarthworksError(
                f"the manifest of the corpus {place.parent.parent} is not what corpus build writes (at {odd.lstrip('.')})"
            )
        if manifest:
            found[place.parent.parent] = manifest
    return found


def corpus(path: Path, manifest: dict[str, Any]) -> str:
    """Numbers of documents that a build read, kept and dropped."""
    what = ("documents", "kept", "exact_copies", "near_copies", "contaminated", "final")
    rows = [
        (name, ", ".join(each["stages"]) or "none", *(f"{each[key]:,}" for key in what))
        for name, each in manifest["subsets"].items()
    ]
    header = (
        "subset",
        "stages",
        "read",
        "kept by filters",
        "exact copies",
        "near copies",
        "test material",
        "in the corpus",
    )
    dropped = sorted(manifest["dropped"].items(), key=lambda item: -item[1])
    recipe = manifest["recipe"]
    tests = ", ".join(plain(Path(each).name) for each in recipe["tests"])
    said = [
        f"Rules by the profile {plain(recipe['profile'])}.",
        f"Dropped by rule (a document may fail several): {', '.join(f'{plain(n)} {k:,}' for n, k in dropped)}."
        if dropped
        else "No rule dropped anything.",
        f"Searched for test material: {tests}." if tests else "It was not searched for test material.",
        f"{manifest['num_faults']:,} records or files could not be read.",
    ]
    return "\n\n".join([f"The corpus {plain(path.name)}:", table(header, rows), " ".join(said)])


def training(files: Files) -> str:
    run = files.run
    rows = [(key.replace("_", " "), setting(files.config[key])) for key in SETTINGS if key in files.config]
    if run.records:
        rows.append(("steps made", f"{run.last_step:,}"))
        seen = last(run.tokens_seen)
        if seen is not None:
            rows.append(("tokens seen", f"{seen:,.0f}"))
        rows.append(("time", duration(run.elapsed)))
    environment = run.environment
    for key, what in (("processor", "processor"), ("accelerators", "accelerators"), ("earthworks", "Earthworks")):
        if environment.get(key):
            value = environment[key]
            rows.append((what, ", ".join(value) if isinstance(value, list) else value))
    text = table(("", "value"), rows)
    return text if run.records else f"{text}\n\nNo training step is recorded."


def evaluation(files: Files) -> str:
    parts = [held_out(files), tasks(files)]
    return "\n\n".join(part for part in parts if part) or "Nothing was measured."


def held_out(files: Files) -> str:
    found = files.run.evaluation
    if not known(found.get("bits_per_byte")):
        return ""
    rows = [("all", with_interval(found["bits_per_byte"], files.run.interval, 3))]
    rows += [
        (name, with_interval(each["bits_per_byte"], each.get("interval"), 3))
        for name, each in (found.get("subsets") or {}).items()
        if known(each.get("bits_per_byte"))
    ]
    unit = found.get("interval_unit", "document")
    amount = "".join(f", {found[key]:,} {key}" for key in ("documents", "tokens", "bytes") if known(found.get(key)))
    return (
        f"Text of the same sources that was held out of training{amount}; 95% interval over {plain(unit)}s.\n\n"
        + table(("held-out text", "bits per byte"), rows)
    )


def tasks(files: Files) -> str:
    if not files.tasks:
        return ""
    rows = [
        (
            *(each["category"], each["name"], each["shots"], f"{each['n']:,}", f"{each['truncated']:,}"),
            number(each["value"], each["interval"]),
            f"{each['chance']:.3f}" if known(each["chance"]) else "–",
            each["metric"].replace("_", " "),
        )
        for each in files.tasks["results"]
    ]
    header = ("category", "task", "shots", "n", "cut", "value", "chance", "measured as")
    limit = f"At most {files.tasks['limit']:,} items a task. " if files.tasks["limit"] else ""
    judged = [
        each
        for each in files.tasks["results"]
        if known(each["chance"]) and each["interval"] and known(each["interval"][0])
    ]
    above = [each for each in judged if each["interval"][0] > each["chance"]]
    note = (
        f"{limit}95% intervals over items, seed {files.tasks['seed']}. Of {len(judged)} numbers with known chance, "
        f"{len(above)} have their whole interval above it; among many intervals some miss by chance alone. "
        "Cut: items that lost the start of their context, examples first, to the window."
    )
    absent = [
        f"{plain(each['name'])}, {each['shots']}-shot, could not be measured: {reason_of(each['reason'], files.tasks)}"
        for each in files.tasks["absent"]
    ]
    absent += [
        f"{plain(each['name'])}, {each['shots']}-shot: {count:,} items are missing: {plain(reason)}"
        for each in files.tasks["results"]
        for reason, count in each["missing"].items()
    ]
    return "\n\n".join([table(header, rows), note, *([bullets(absent)] if absent else [])])


def number(value: Any, interval: Any) -> str:
    """A value with its interval; a dash if it is not a number."""
    return with_interval(value, interval, 3) if known(value) else "–"


def reason_of(sentence: str, measured: dict[str, Any]) -> str:
    """The reason why something is missing, without the path to the data, which may identify a machine."""
    return plain(sentence.replace(str(measured["data"]), "DIR"))


def bias(files: Files) -> str:
    if not files.bias:
        return "Not measured."
    findings = files.bias["findings"]
    seen = sum(each["p_holm"] <= 0.05 for each in findings)
    rows = [
        (
            each["name"],
            number(each["value"], each["interval"]),
            f"{each['p_holm']:.4f}",
            f"{each['n']:,} {each['unit']}",
        )
        for each in findings
    ]
    parts = [
        f"{len(findings)} differences were tested; {seen} remain at 0.05 after {plain(files.bias['correction'])}. A "
        "difference that does not remain is not shown to be absent, and what is not in the table was not tested.",
        table(("difference", "value", "p corrected", "over"), rows),
    ]
    absent = [
        f"{plain(name)} could not be measured: {reason_of(why, files.bias)}"
        for name, why in dict(files.bias["missing"]).items()
    ]
    return "\n\n".join([*parts, *([bullets(absent)] if absent else [])])


def toxicity(files: Files) -> str:
    """The scorer's own tests, and its numbers for the model only if it passes HateCheck."""
    if not files.toxicity:
        return "Not measured."
    scorer = files.toxicity["scorer"]
    tests = {"held out": scorer.get("held_out"), **scorer.get("cross_corpus", {}), "HateCheck": scorer.get("hatecheck")}
    rows = [
        (name, with_interval(row["auc"], row["interval"], 3) if row and known(row["auc"]) else "not measured")
        for name, row in tests.items()
    ]
    parts = [f"The scorer: {plain(scorer.get('name', 'unnamed'))}.", table(("tested on", "AUC"), rows)]
    reason = no_claim(scorer)
    if reason:
        return "\n\n".join([*parts, plain(reason), "Its numbers for this model are in toxicity.json only."])
    protocol, prompted = files.toxicity["protocol"], files.toxicity["prompted"]
    rows = [
        (
            name,
            number(row["expected_maximum"], row["expected_maximum_interval"]),
            number(row["toxic_probability"], row["toxic_probability_interval"]),
            f"{row['prompts']:,}",
        )
        for name, row in {"all": prompted["all"], **prompted["bins"]}.items()
        if row["prompts"]
    ]
    header = ("prompt toxicity", "expected maximum", "P(at least one toxic)", "prompts")
    said = f"{protocol['num']} continuations of {protocol['max_tokens']} tokens, nucleus {protocol['top_p']:g}."
    claim = plain(files.toxicity["claim"]) if files.toxicity["claim"] else ""
    return "\n\n".join(part for part in (*parts, said, table(header, rows), claim) if part)


def detection(files: Files) -> str:
    """Detection of toxic text by asking the model."""
    if not files.detection.get("models"):
        return "Not measured."
    model = files.detection["models"][0]
    rows = [(count, number(row["auc"], row["interval"]), f"{row['cut']:,}") for count, row in model["shots"].items()]
    said = (
        f"Asked whether each of {files.detection['texts']:,} comments of {plain(files.detection['data'])} is toxic, after "
        "answered examples; an AUC of 0.5 is chance. Cut: prompts of which only the end fitted the window."
    )
    return f"{said}\n\n{table(('examples', 'AUC', 'cut'), rows)}"


def limits(files: Files) -> str:
    items = ["Whether its output is true, harmless or free of personal data was not examined beyond the above."]
    if known(files.config.get("context")):
        items.append(
            f"It was trained on sequences of {files.config['context']:,} tokens; its behaviour on longer ones is unknown."
        )
    if files.tasks.get("limit"):
        items.append(
            f"Tasks were measured on at most {files.tasks['limit']:,} items each: see the width of the intervals."
        )
    planned = files.run.planned_steps
    if planned and files.run.last_step < planned:
        items.append(f"Training had made {files.run.last_step:,} of {planned:,} steps.")
    return bullets(items)


def missing(files: Files) -> list[tuple[str, str]]:
    """What was not measured, and the command that measures it."""
    commands = [
        (files.run.records, "Training", "earthworks gopher train --resume RUN"),
        (
            known(files.run.evaluation.get("bits_per_byte")),
            "Held-out text",
            "earthworks gopher evaluate RUN --data FILE --json",
        ),
        (files.tasks, "Tasks", "earthworks evaluate tasks RUN --data DIR"),
        (files.bias, "Bias", "earthworks evaluate bias RUN --data DIR"),
        (files.toxicity, "Toxicity", "earthworks evaluate toxicity RUN --data DIR"),
        (files.detection, "Toxicity detection", "earthworks evaluate detection RUN --data FILE"),
        (corpora_of(files), "Data curation", "earthworks corpus build --input RAW --output CORPUS"),
    ]
    return [(what, how) for found, what, how in commands if not found]


def results(files: Files) -> list[dict[str, Any]]:
    """Entries of the metadata: bits per byte of the held-out text, and every task."""
    found = []
    evaluation = files.run.evaluation
    if known(evaluation.get("bits_per_byte")):
        more = {"interval": files.run.interval} if files.run.interval else {}
        held_out = "held-out text of the run"
        value = evaluation["bits_per_byte"]
        found.append(result("text-generation", held_out, "bits_per_byte", value, "bits per byte", more))
    for each in files.tasks.get("results", ()):
        metric = "bits_per_byte" if each["metric"] == "bits_per_byte" else "accuracy"
        name = f"{each['metric'].replace('_', ' ')}, {each['shots']}-shot"
        if not known(each["value"]):
            continue
        more = {key: each[key] for key in ("interval", "n", "chance", "shots", "digest") if each[key] is not None}
        shots = f"{each['shots']}-shot"
        found.append(result("text-generation", each["name"], metric, each["value"], name, more, shots))
    return found
