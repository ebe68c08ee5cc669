"""De-duplication and decontamination: speed beside rensa and datatrove, planted near-duplicates, planted test items.

    pip install rensa datatrove
    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python benchmarks/deduplication.py --data $EARTHWORKS_DATA/text \\
        --eval $EARTHWORKS_DATA/eval [--documents 100000] [--mb 10] [--repeats 5]

Speed: 112 hashes of word 5-grams from Python strings, documents cut as in rules.py; all split at white space (datatrove's
default words, spaCy's, are several times slower), `rensa` fed by joining words in Python. One thread; each once unmeasured,
then in turns; CPU time, medians.

Planted near-duplicates: half of the documents are pieces of `--data`, the other half copies of them, changed: in turns 0.1
to 1 % of their words, each by a word of the corpus, or (of 500 words and more) one block of 1 to 5 % of them. A pair is
found when one of the two is dropped; recall is counted by the exact Jaccard similarity of their 13-grams, as sets of words.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
from harness import header, quiet, write_result
from rules import documents

from earthworks.corpus import read
from earthworks.corpus.decontamination.hits import contaminated, hits, index_items
from earthworks.corpus.decontamination.items import read_items
from earthworks.corpus.dedup.duplicates import exact_keys, near_duplicates, priorities, propose
from earthworks.corpus.dedup.minhash import band_keys, bands_for, signatures, signed
from earthworks.corpus.dedup.shingles import bare_words, distinct, shingles

BINS = (0.0, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.01)


def speed(arguments: argparse.Namespace) -> list[str]:
    texts = documents(arguments.data, int(1e6 * arguments.mb))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    index = index_items(read_items(arguments.eval))
    column = pyarrow.array(texts, pyarrow.large_string())  # as the stages of a build hold them
    contestants: dict[str, Callable[[], object]] = {
        "earthworks, 112 x word 5-grams": lambda: signatures(texts, n=5, num_hashes=112),
        "earthworks, 128 x word 13-grams": lambda: signatures(texts),
        "rensa, 112 x word 5-grams": lambda: rensa(texts),
        "datatrove, 14 x 8 x word 5-grams": datatrove(texts),
        "earthworks, exact keys": lambda: exact_keys(texts),
        f"earthworks, lookup among {len(index.keys):,} 13-grams": lambda: hits(texts, index),
        "earthworks, the same lookup, texts in an Arrow column": lambda: hits(column, index),
    }
    if not arguments.busy:
        quiet()
    for function in contestants.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, function in contestants.items():
            started = time.process_time()
            function()
            seconds[name].append(time.process_time() - started)
            print(f"{name} {megabytes / seconds[name][-1]:.1f} MB/CPU-s", file=sys.stderr, flush=True)
    rates = {name: megabytes / statistics.median(each) for name, each in seconds.items()}
    (peer,) = (rate for name, rate in rates.items() if name.startswith("rensa"))
    lines = [
        "## Speed",
        "",
        f"{len(texts):,} documents, {megabytes:.1f} MB; from Python strings, encoding included.",
        "",
    ]
    lines += ["| | MB per CPU-second | times rensa |", "| --- | ---: | ---: |"]
    signs = [f"{rate / peer:.1f} |" if "5-grams" in name else " |" for name, rate in rates.items()]
    return lines + [f"| {name} | {rate:.1f} | {sign}" for (name, rate), sign in zip(rates.items(), signs)]


def rensa(texts: list[str]) -> object:
    from rensa import RMinHash  # type: ignore[import-not-found]

    def ngrams(text: str) -> list[str]:
        words = text.split()
        return [" ".join(words[k : k + 5]) for k in range(len(words) - 4)]

    return RMinHash.digest_matrix_from_token_sets([ngrams(text) for text in texts], 112, 42)


def datatrove(texts: list[str]) -> Callable[[], object]:
    from datatrove.pipeline.dedup import minhash  # type: ignore[import-not-found]

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    minhash.load_word_tokenizer = lambda language: Words()
    signer = minhash.MinhashDedupSignature(tempfile.mkdtemp(), minhash.MinhashConfig(n_grams=5))
    hash_bytes = signer._hash_func
    signer._hash_func = lambda text: hash_bytes(text.encode())  # xxhash 4 takes bytes alone

    def run() -> object:
        found = (signer.get_shingles(text) for text in texts)
        return [signer.get_signature(each) for each in found if each.size]

    return run


def planted(data: str, count: int) -> tuple[list[str], list[tuple[int, int]]]:
    """`count` documents in random order, and the pairs of an original and its copy."""
    random = np.random.default_rng(0)
    originals: list[list[str]] = []
    for document in read(data):
        words = document.text.split()
        at = 0
        while at + 60 <= len(words) and len(originals) < count // 2:
            length = int(np.clip(random.lognormal(np.log(220), 0.8), 60, 3000))
            originals.append(words[at : at + length])
            at += length
        if len(originals) == count // 2:
            break
    vocabulary = [word for words in originals[::50] for word in words]
    copies = []
    for k, words in enumerate(originals):
        copy = list(words)
        if k % 2 and len(words) >= 500:
            size = max(1, round(len(words) * random.uniform(0.01, 0.05)))
            at = int(random.integers(len(words) - size + 1))
            places = np.arange(at, at + size)
        else:
            size = max(1, round(len(words) * random.uniform(0.001, 0.01)))
            places = random.choice(len(words), size, replace=False)
        for place in places:
            copy[place] = vocabulary[random.integers(len(vocabulary))]
        copies.append(copy)
    texts = [" ".join(words) for words in originals + copies]
    order = random.permutation(len(texts))
    where = np.argsort(order)
    pairs = [(int(where[k]), int(where[k + len(originals)])) for k in range(len(originals))]
    return [texts[k] for k in order], pairs


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = bare_words(text)
    return {tuple(words[k : k + 13]) for k in range(len(words) - 12)}


def jaccard(left: str, right: str) -> float:
    one, other = ngrams(left), ngrams(right)
    return len(one & other) / max(len(one | other), 1)


def peak_memory(reset: bool = False) -> int:
    """The highest resident memory of this process so far in bytes (Linux); `reset` makes it the present one."""
    if reset:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["VmHWM"].split()[0])


def near(arguments: argparse.Namespace) -> list[str]:
    texts, pairs = planted(arguments.data, arguments.documents)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    bands, rows = bands_for()
    signatures(texts[:2]), propose([np.zeros(2, np.uint64)], 1, np.ones(2, bool))
    memory = peak_memory(reset=True)
    clock = [time.process_time()]

    def lap() -> None:
        clock.append(time.process_time())

    keys = exact_keys(texts)
    lap()
    found = signatures(texts)
    mask = signed(found)
    keys_of_bands = band_keys(found, rows)
    del found
    lap()
    groups = propose(list(keys_of_bands.T), bands, mask)
    lap()

    def shingles_of(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = distinct(*shingles([texts[k] for k in candidates]))
        lap()
        return result

    evidence = near_duplicates(groups, priorities(keys, 0), shingles_of)
    lap()
    memory = peak_memory() - memory
    dropped = set(evidence.dropped.tolist())
    similarities = np.array([jaccard(texts[a], texts[b]) for a, b in pairs])
    gone = np.array([a in dropped or b in dropped for a, b in pairs])
    wrong = sum(jaccard(texts[a], texts[b]) <= 0.8 for a, b in zip(evidence.dropped, evidence.kept))
    steps = dict(zip(("exact keys", "signatures", "groups", "n-grams of candidates", "walk"), np.diff(clock)))
    lines = ["## Planted near-duplicates", ""]
    lines += [
        f"{len(texts):,} documents, {megabytes:.1f} MB, {len(pairs):,} planted pairs; {bands} bands of {rows} rows.",
        "",
    ]
    lines += ["| exact Jaccard | pairs | one of the two dropped | share |", "| --- | ---: | ---: | ---: |"]
    for low, high in pairwise(BINS):
        inside = (similarities > low) & (similarities <= high) if low else similarities <= high
        if inside.any():
            span = f"{low:.2f} to {min(high, 1.0):.2f}"
            lines.append(f"| {span} | {inside.sum():,} | {gone[inside].sum():,} | {gone[inside].mean():.4f} |")
    lines += [
        "",
        f"{len(dropped):,} documents dropped, {evidence.candidates:,} candidates, {evidence.comparisons:,} comparisons.",
    ]
    lines += [f"Evidence pairs whose sets of words have a Jaccard similarity of 0.8 or less: {wrong}.", ""]
    lines += ["CPU-seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in steps.items()) + "."]
    lines += ["Peak of resident memory above that with the texts: "]
    lines[-1] += f"{memory / 1e6:.0f} MB, {memory / len(texts):.0f} bytes a document."
    return lines


def contamination(arguments: argparse.Namespace) -> list[str]:
    random = np.random.default_rng(0)
    around = [text.split(" ") for text in documents(arguments.data, 5_000_000)]
    started = time.process_time()
    index = index_items(read_items(arguments.eval))
    indexing = time.process_time() - started
    texts, expected = [], []
    for place in random.permutation(len(index.items))[: arguments.items].tolist():
        item = index.items[place]
        long = [text for text in item.texts if len(bare_words(text)) >= 13]
        if long:
            words = around[len(texts) % len(around)]
            at = int(random.integers(len(words) + 1))
            texts.append(" ".join([*words[:at], long[random.integers(len(long))], *words[at:]]))
            expected.append(place)
    started = time.process_time()
    found = hits(texts, index)
    seconds = time.process_time() - started
    pairs = set(zip(found.document.tolist(), found.item.tolist()))
    reached = sum(pair in pairs for pair in enumerate(expected))
    clean = hits([" ".join(words) for words in around], index)
    return [
        "## Planted contamination",
        "",
        f"{len(index.items):,} items, {len(index.keys):,} distinct 13-grams, indexed in {indexing:.1f} CPU-seconds; "
        f"{len(index.unchecked):,} items have no text of 13 words and cannot be found.",
        f"{len(expected):,} items, one of their texts of 13 words or more pasted at random into a document: "
        f"{reached:,} found ({reached / len(expected):.2%}); {len(pairs):,} pairs of document and item in all, "
        f"{seconds:.1f} CPU-seconds.",
        f"Dropped by the strict rule: {contaminated(found, len(texts), 'any').sum():,}; by the paper's rule: "
        f"{contaminated(found, len(texts)).sum():,}, since it compares whole documents.",
        f"Before the pasting {len(np.unique(clean.document)):,} of {len(around):,} documents shared a 13-gram with an item.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a corpus, such as $EARTHWORKS_DATA/text")
    parser.add_argument("--eval", required=True, help="test items, such as $EARTHWORKS_DATA/eval")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--mb", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1" or os.environ.get("RAYON_NUM_THREADS") != "1":
        sys.exit("set OMP_NUM_THREADS=1 and RAYON_NUM_THREADS=1: each contestant gets one thread")
    parts = [near(arguments), speed(arguments), contamination(arguments)]  # peak memory is read off first
    lines = ["# De-duplication and decontamination", "", header()]
    for part in parts:
        lines += ["", *part]
    write_result("deduplication", "\n".join(lines))


if __name__ == "__main__":
    main()
