"""Does curation help a language model? Gopher trained on noisy text before and after `corpus build`, equal tokens.

    python benchmarks/curation_matters.py --data $EARTHWORKS_DATA [--steps 800] [--seeds 3]

The noise is made, and said here: four of five pages of web/article_extraction with their tags taken off and nothing else
(menus, scripts, footers stay); film reviews and openings of Wikipedia articles as clean text among them; each fifth clean
document again with a word in a hundred exchanged; and spam: pages of one sentence repeated, of random words without
function words, and of keyword lists, a fourth of all documents. `before` trains on all of it; `after` on what `corpus
build` makes of the same pages (as HTML, extracted) and texts, with the rules of `literal` and both searches for copies.
Held out: the gold articles of the other fifth of the pages, and clean documents that neither side has. Same model, bytes as
tokens, steps and seeds. Bits per byte with the interval of the documents, for every seed; and the paired difference.
"""

import argparse
import json
import lzma
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import header, write_result

WORDS = ["cheap", "buy", "best", "online", "deal", "free", "shop", "win", "now", "offer", "click", "price", "sale"]
WORDS += ["bonus", "casino", "pills", "watch", "shoes", "credit", "loan"]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lzma.open(path, "rt", encoding="utf-8")]


def stripped(html: str) -> str:
    """A page without its tags, and nothing else: what a crawler has before extraction."""
    return re.sub(r"[ \t]+", " ", re.sub(r"<[^>]*>", " ", html))


def copied(text: str, chance: random.Random) -> str:
    """The text with one word in a hundred exchanged."""
    words = text.split(" ")
    return " ".join(chance.choice(words) if chance.random() < 0.01 else word for word in words)


def spam(chance: random.Random) -> str:
    kind = chance.randrange(3)
    if kind == 0:
        return (" ".join(chance.choices(WORDS, k=9)).capitalize() + ". ") * chance.randint(20, 80)
    if kind == 1:
        return " ".join(
            "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 12))) for _ in range(400)
        )
    return "\n".join(f"- {chance.choice(WORDS)} {chance.choice(WORDS)} #{chance.choice(WORDS)}" for _ in range(150))


def write(path: Path, documents: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")


def prepare(data: Path, folder: Path) -> dict[str, Any]:
    """before.jsonl, raw/ (the same for `corpus build`), held-out.jsonl."""
    chance = random.Random(0)
    pages = records(data / "web/article_extraction.jsonl.xz")
    clean = [each["text"] for each in records(data / "text/movie_reviews/train.jsonl.xz")]
    clean += [each["text"] for each in records(data / "text/wikipedia_snippets/train.jsonl.xz")]
    chance.shuffle(pages)
    chance.shuffle(clean)
    fifth = len(pages) // 5
    clean_held, clean = clean[:150], clean[150:2650]
    copies = [copied(text, chance) for text in clean[::5]]
    junk = [spam(chance) for _ in range((len(clean) + len(copies)) // 3)]
    held = [{"text": page["article"]} for page in pages[:fifth]] + [{"text": text} for text in clean_held]
    texts = [{"text": text} for text in [*clean, *copies, *junk]]
    chance.shuffle(texts)
    (folder / "raw").mkdir()
    write(folder / "raw" / "pages.jsonl", [{"id": page["id"], "html": page["html"]} for page in pages[fifth:]])
    write(folder / "raw" / "texts.jsonl", texts)
    write(folder / "before.jsonl", [{"text": stripped(page["html"])} for page in pages[fifth:]] + texts)
    write(folder / "held-out.jsonl", held)
    return {
        "pages": len(pages) - fifth,
        "clean": len(clean),
        "copies": len(copies),
        "spam": len(junk),
        "held_out": len(held),
    }


def train(folder: Path, side: str, seed: int, steps: int) -> dict[str, Any]:
    """One run's held-out bits per byte."""
    run, data = folder / f"{side}-{seed}", folder / ("before.jsonl" if side == "before" else "corpus")
    command = [sys.executable, "-m", "earthworks.cli", "gopher"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"tokenizer": "bytes", "context": 256, "batch": 16, "max_steps": steps, "seed": seed, "size": "vole"}
    options |= {"validation": 0, "sample_every": 10**9}
    given = [f"--{name}={value}" for name, value in options.items()]
    shown = {"check": True, "env": environment, "capture_output": True}
    subprocess.run([*command, "train", "--data", str(data), "--run", str(run), *given], **shown)
    held = [*command, "evaluate", str(run), "--data", str(folder / "held-out.jsonl"), "--json"]
    return json.loads(subprocess.run(held, **shown).stdout)


def main() -> None:
    from earthworks.corpus import build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        counts = prepare(arguments.data, folder)
        built = build(str(folder / "corpus"), input=str(folder / "raw"), workers=os.cpu_count())
        jobs = [(side, seed) for seed in range(arguments.seeds) for side in ("before", "after")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda job: train(folder, *job, arguments.steps), jobs))
    rows = dict(zip(jobs, found))
    said = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())
    facts = header(timed=False)
    lines = [facts, "", f"Documents: {said}. `corpus build` of them:", "", "```", str(built), "```", ""]
    lines += ["| seed | before: bits per byte | after | after - before |", "| --- | --- | --- | ---: |"]
    differences = []
    for seed in range(arguments.seeds):
        cells = []
        for side in ("before", "after"):
            value, (low, high) = rows[side, seed]["bits_per_byte"], rows[side, seed]["interval"]
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        differences.append(rows["after", seed]["bits_per_byte"] - rows["before", seed]["bits_per_byte"])
        lines.append(f"| {seed} | {cells[0]} | {cells[1]} | {differences[-1]:+.3f} |")
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    half = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(differences), 2.6) * spread / len(differences) ** 0.5
    mean = statistics.mean(differences)
    lines += [
        "",
        f"Mean difference {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] bits per byte (t, over seeds).",
    ]
    write_result("curation_matters", "\n".join(lines))


if __name__ == "__main__":
    main()
