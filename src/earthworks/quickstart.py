"""The main job on what every machine has: train on the installed Python's documentation, measure, write, report."""

import lzma
import sys
from datetime import datetime

from earthworks.runs import RunFolder, read_json, write_json

DATA = "python-docs"
PROSE = "python-docs/prose"
PROMPT = "Return a new list"
DICTIONARY = 1 << 27  # bytes that xz looks back: all of the training text


def quickstart(*, run: str | None = None, minutes: float = 3.5, seed: int = 0) -> str:
    """Train a small Gopher on the reference documentation and library of the installed Python, and show a report.

    Args:
        run: the run folder; by default runs/quickstart-DATE.
        minutes: for training; measuring and reporting take about half a minute more.
        seed: of weights, sample order and split.
    """
    from earthworks.gopher.commands import generate_text
    from earthworks.gopher.pretraining import train
    from earthworks.report import write_report

    path = train(DATA, run=run or f"runs/quickstart-{datetime.now():%Y%m%d-%H%M%S}", minutes=minutes, seed=seed)
    say("\nWhat it writes:\n")
    for temperature in (0.5, 0.8):
        generate_text(str(path), prompt=PROMPT, max_tokens=120, temperature=temperature, top_p=0.95, seed=seed)
        print()
    result = read_json(path / "evaluation.json")
    prose = result.get("subsets", {}).get(PROSE, result)
    result["compressors"] = {PROSE: compressed(RunFolder(path), seed)}
    write_json(path / "evaluation.json", result)
    page = write_report([path])
    low, high = prose["interval"]
    say("Held-out prose, bits per byte (lower is better):")
    rows = {"this model": f"{prose['bits_per_byte']:.3f}  [{low:.3f}, {high:.3f}]"}
    rows |= {name: f"{value:.3f}" for name, value in result["compressors"][PROSE].items()}
    for name, value in rows.items():
        say(f"  {name:<36} {value}")
    say(f"\nOpen the report: {page.resolve().as_uri()}")
    say(f"Go on:           earthworks gopher generate {path} --prompt {PROMPT!r}")
    say("Your own text:   earthworks gopher train --data my.txt --minutes 5")
    return str(page)


def compressed(run: RunFolder, seed: int) -> dict[str, float]:
    """Bits a byte of the same held-out prose under xz -9, alone and after the training prose: a floor and a rival.

    Primed: (|xz(training + held out)| - |xz(training)|) / bytes, with a dictionary that spans all of it.
    """
    from earthworks.corpus import read, sources
    from earthworks.corpus.splitting import split_sources

    config = run.read_config()
    split = split_sources(sources(config["data"]), config["validation"], seed)
    parts = [split.parts(document.text) for document in read(PROSE)]
    training, held_out = ("\n".join(part[side] for part in parts if part[side]).encode() for side in (0, 1))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": DICTIONARY}]

    def size(text: bytes) -> int:
        return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))

    return {
        "xz -9": 8 * size(held_out) / len(held_out),
        "xz -9, primed with the training text": 8 * (size(training + held_out) - size(training)) / len(held_out),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
