"""Quickstart on data every machine has: a Gopher on the installed Python's documentation, a Wasserstein GAN on digits."""

import lzma
from pathlib import Path

from earthworks.corpus.readers.python_docs import WEIGHTS
from earthworks.report.writing import refuse_foreign
from earthworks.runs import RunFolder, lock, read_result, write_result
from earthworks.runs.folder import default_run
from earthworks.runs.lock import PATIENCE
from earthworks.runs.progress import note
from earthworks.runs.terminal import say, typed

# As for the curated subsets of the paper, no web-page rules are applied to reference text and code; only copies are dropped.
SUBSETS = {name: {"input": f"python-docs/{name}", "weight": weight, "stages": []} for name, weight in WEIGHTS.items()}
PROSE = "prose"
PROMPT = "Return a new list"
DIGITS = "digits"
DIGITS_HELD_OUT = 0.3  # of 1,797: enough to measure with
GOPHER_SHARE = 0.7
DICTIONARY = 1 << 27  # bytes of xz's dictionary: holds all of the training text


def quickstart(*, run: str | None = None, minutes: float = 5.0, seed: int = 0) -> str:
    """Train a small Gopher on the documentation and library of the installed Python and a Wasserstein GAN on scikit-learn's
    handwritten digits, measure both, and show one report.

    Args:
        run: the folder of both runs (default: runs/quickstart-DATE).
        minutes: training time, two thirds of it for the Gopher; measuring and reporting take about a minute more.
        seed: random seed of weights, noise, sample order and split.
    """
    from earthworks.report import write_joint_report

    folder = own_folder(run)
    corpus, language_model, images = folder / "corpus", folder / "gopher", folder / "wgan"
    for each in (language_model, images):  # before minutes are spent on the corpus
        RunFolder(each).refuse_run()
    refuse_foreign(folder / "report.html")
    heading("1 of 3: a corpus from the documentation of this Python")
    inspection = curate(corpus, seed)
    heading("2 of 3: a Gopher on it")
    write_and_measure(corpus, language_model, GOPHER_SHARE * minutes, seed)
    heading("3 of 3: a Wasserstein GAN on handwritten digits")
    draw_and_measure(images, (1 - GOPHER_SHARE) * minutes, seed)
    runs = {"Language model": language_model, "Digits": images}
    page = write_joint_report(
        runs, "Quickstart", folder / "report.html", {"The corpus: documents read and kept": inspection}
    )
    note("")
    note(f"Open the report: {page.resolve().as_uri()}")
    note(f"Next:            earthworks gopher generate {typed(language_model)} --prompt {typed(PROMPT)}")
    note(f"                 earthworks wgan sample {typed(images)} --num 100 --output digits.png")
    note("Your own text:   earthworks gopher train --data my.txt --minutes 5")
    note("Your own images: earthworks wgan train --data my-images/ --minutes 20")
    return str(page)


def heading(line: str) -> None:
    for each in ("", line, ""):
        note(each)


def own_folder(run: str | None) -> Path:
    """The named folder, or a new one that no other quickstart started in the same second has."""
    if run is not None:
        return Path(run)
    return RunFolder.create(None, otherwise=default_run("quickstart", "quickstart")).path


def curate(path: Path, seed: int) -> Path:
    """Curate the documentation of the installed Python; returns the inspection page."""
    from earthworks.corpus import build
    from earthworks.corpus.pipeline.inspection import inspect

    say(str(build(str(path), subsets=SUBSETS, workers=1, seed=seed)))
    inspect(str(path), seed=seed)
    return path / "inspection.html"


def write_and_measure(corpus: Path, path: Path, minutes: float, seed: int) -> None:
    """A Gopher on the installed documentation: train, generate, and compare with a compressor."""
    from earthworks.gopher.command import generate_text
    from earthworks.gopher.pretraining.command import train

    train(str(corpus), run=str(path), minutes=minutes, seed=seed)
    heading("Generated text:")
    for temperature in (0.5, 0.8):
        generate_text(str(path), prompt=PROMPT, max_tokens=120, temperature=temperature, top_p=0.95, seed=seed)
        say("")
    compressors = compressed(RunFolder(path), seed)
    with lock(path, "evaluation.json", patience=PATIENCE):
        result = read_result(path / "evaluation.json")
        result["compressors"] = {PROSE: compressors}
        write_result(path / "evaluation.json", result)
    prose = result.get("subsets", {}).get(PROSE, result)
    low, high = prose["interval"]
    note("Held-out prose, bits per byte (lower is better):")
    rows = {"this model": f"{prose['bits_per_byte']:.3f}  [{low:.3f}, {high:.3f}]"}
    rows |= {name: f"{value:.3f}" for name, value in result["compressors"][PROSE].items()}
    for name, value in rows.items():
        note(f"  {name:<36} {value}")


def draw_and_measure(path: Path, minutes: float, seed: int) -> None:
    """A WGAN-GP on 8 x 8 digits: train, sample, and compare the critic's estimate with the exact distance."""
    from earthworks.wgan import train
    from earthworks.wgan.measures.evaluation import evaluate

    train(DIGITS, run=str(path), minutes=minutes, validation=DIGITS_HELD_OUT, seed=seed)
    result = evaluate(path, seed=seed)
    with lock(path, "evaluation.json", patience=PATIENCE):
        write_result(path / "evaluation.json", result)
    measures = {measure["name"]: measure for measure in result["measures"]}
    exact, gap = measures["wasserstein_1"], measures["critic_gap"]
    proved, modes = measures["critic_by_c_transform"], measures["modes"]
    note(f"Generated against held-out digits, {exact['n']} of each:")
    note(
        f"  exact Wasserstein-1 distance         {exact['value']:.3f}  (held-out against held-out: {exact['null']:.3f})"
    )
    note(f"  lower bound from the critic          {proved['value']:.3f}")
    note(f"  the critic's own gap                 {gap['value']:.3f}  (an estimate on its own scale)")
    note(f"  digits found of ten                  {modes['value']:.0f}")


def compressed(run: RunFolder, seed: int) -> dict[str, float]:
    """Bits per byte of the same held-out prose under xz -9, alone and primed with the training prose, as baselines.

    Primed: (|xz(training + held out)| - |xz(training)|) / bytes, with a dictionary that spans all of it.
    """
    from earthworks.corpus import read, sources
    from earthworks.corpus.tokens.validation_split import split_sources

    config = run.read_config()
    found = sources(config["data"])
    split = split_sources(found, config["validation"], seed)
    (prose,) = (source for source in found if source.name == PROSE)
    parts = [split.parts(document.text) for document in read(prose.location)]
    training, held_out = ("\n".join(part[side] for part in parts if part[side]).encode() for side in (0, 1))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": DICTIONARY}]

    def size(text: bytes) -> int:
        return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))

    return {
        "xz -9": 8 * size(held_out) / len(held_out),
        "xz -9, primed with the training text": 8 * (size(training + held_out) - size(training)) / len(held_out),
    }
