"""A whole build, .jsonl.zst in and out: MB of text per CPU-second, and two processes against one.

    pip install datatrove zstandard
    OMP_NUM_THREADS=1 python benchmarks/curation.py --data $EARTHWORKS_DATA/text [--mb 80] [--repeats 3]

Web-like documents (benchmarks/rules.py says how they are cut) in eight files. `filters`: read, the value of all 21 rules
for every document, kept and rejected documents written, values written, exact keys. `build`: the same with exact and near
copies searched (13-grams, 126 hashes) and the corpus written. `datatrove`: its reader, repetition and quality filters on
words parted by white space, and its writer, on a part of the same files; it stops at the first rule that drops and writes no
values. One process each, in turns, CPU time, medians. Then `build` by one and by two processes, by the clock, of four times
as much: the same documents and three shuffles of the words of each, which are no copies.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zstandard
from harness import header, quiet, write_result
from rules import documents

from earthworks.corpus import build

FILES = 8


def write_files(folder: Path, texts: list[str]) -> None:
    """The documents in turns over FILES files."""
    folder.mkdir()
    for number in range(FILES):
        lines = [json.dumps({"id": f"{number}-{k}", "text": text}) for k, text in enumerate(texts[number::FILES])]
        (folder / f"{number}.jsonl.zst").write_bytes(zstandard.compress("\n".join(lines).encode() + b"\n"))


def ours(raw: Path, output: Path, workers: int = 1, near: float | None = 0.8) -> None:
    shutil.rmtree(output, ignore_errors=True)
    build(str(output), input=str(raw), workers=workers, near=near, exact=near is not None)


def filters_alone(raw: Path, output: Path) -> None:
    """The first stage, and nothing after it."""
    from earthworks.corpus.pipeline.command import compile_kernels, perform, planned
    from earthworks.corpus.pipeline.recipe import Recipe, Subset
    from earthworks.corpus.store import Store

    shutil.rmtree(output, ignore_errors=True)
    recipe = Recipe((Subset("all", str(raw)),), exact=False, near=None)
    store = Store(str(output))
    compile_kernels(recipe)
    for shard in planned(store, recipe):
        perform(str(output), "filter", shard.name)


def datatrove(raw: Path, output: Path) -> None:
    from datatrove.pipeline.filters import (
        GopherQualityFilter,
        GopherRepetitionFilter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    for module in (gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language: text.split()
    shutil.rmtree(output, ignore_errors=True)
    stream = JsonlReader(str(raw), compression="zstd", glob_pattern="0.jsonl.zst").run(None, 0, 1)
    for step in (GopherRepetitionFilter(), GopherQualityFilter(), JsonlWriter(str(output), compression="zstd")):
        stream = step.run(stream, 0, 1)
    for _ in stream:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="python-docs/prose")
    parser.add_argument("--mb", type=float, default=80.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    texts = documents(arguments.data, int(arguments.mb * 1e6))
    total = sum(len(text.encode()) for text in texts) / 1e6
    share = sum(len(text.encode()) for text in texts[::FILES]) / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        raw, output = Path(temporary) / "raw", Path(temporary) / "corpus"
        write_files(raw, texts)
        jobs: dict[str, tuple[float, Callable[[], None]]] = {
            "filters": (total, lambda: filters_alone(raw, output)),
            "build": (total, lambda: ours(raw, output)),
        }
        try:
            import datatrove as _
        except ImportError:
            print("datatrove is not installed: no peer in this table")
        else:
            jobs["datatrove"] = (share, lambda: datatrove(raw, output))
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for repeat in range(arguments.repeats + 1):  # the first is not counted: it compiles
            for name, (_, job) in jobs.items():
                if repeat and not arguments.busy:
                    quiet()
                started = time.process_time()
                job()
                if repeat:
                    seconds[name].append(time.process_time() - started)
        rates = {name: jobs[name][0] / statistics.median(each) for name, each in seconds.items()}
        lines = [header(), "", f"{len(texts):,} documents, {total:.1f} MB of text in {FILES} files.", ""]
        lines += ["| what | MB per CPU-second | runs | against datatrove |", "| --- | ---: | --- | ---: |"]
        for name, rate in rates.items():
            runs = ", ".join(f"{jobs[name][0] / each:.1f}" for each in seconds[name])
            against = f"{rate / rates['datatrove']:.1f}" if "datatrove" in rates else ""
            lines.append(f"| {name} | {rate:.1f} | {runs} | {against} |")
        ratios, clock = [], {1: [], 2: []}
        import earthworks.corpus.pipeline.shards

        earthworks.corpus.pipeline.shards.SHARD_BYTES = 1  # every file a shard
        for seed in range(1, 4):
            chance = random.Random(seed)
            write_files(raw / str(seed), [" ".join(chance.sample(text.split(), len(text.split()))) for text in texts])
        for _ in range(arguments.repeats):
            for workers in (1, 2):
                if not arguments.busy:
                    quiet()
                started = time.perf_counter()
                ours(raw, output, workers)
                clock[workers].append(time.perf_counter() - started)
            ratios.append(clock[1][-1] / clock[2][-1])
        times = {workers: ", ".join(f"{each:.2f}" for each in found) for workers, found in clock.items()}
        lines += ["", f"Two processes: {statistics.median(ratios):.2f} times as fast as one by the clock"]
        lines[-1] += f" (seconds of one: {times[1]}; of two: {times[2]}; their start is in it)."
    text = "\n".join(lines)

    write_result("curation", text)


if __name__ == "__main__":
    main()
