"""The values of all quality and repetition rules: MB of text per CPU-second against datatrove's functions, same words.

    pip install datatrove spacy
    OMP_NUM_THREADS=1 python benchmarks/rules.py --data $EARTHWORKS_DATA/text/books/train.jsonl.xz [--mb 10] [--repeats 5]

Documents are cut to log-normal lengths (median 2,000 characters, as web pages have). `earthworks` gives all 21 values of
every document by the profiles `literal` and `datatrove`; `datatrove` all 21 by its own functions, its filters being made
to go on after a rule that drops, on words parted by white space and, where spaCy is installed, on its default words: of
the first tenth of the documents, and split once for both its filters, each of which splits anew. One thread; each once
unmeasured (compilation), then in turns; CPU time, medians. The values are compared before.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice

import numpy as np
from harness import header, quiet, write_result

from earthworks.corpus import read
from earthworks.corpus.rules.profiles import rule_values


def documents(data: str, size: int) -> list[str]:
    """Pieces of the documents of `data`, together of `size` bytes."""
    random = np.random.default_rng(0)
    found, total = [], 0
    for document in islice(read(data), 10_000):
        at = 0
        while at < len(document.text) and total < size:
            length = int(min(random.lognormal(np.log(2000), 1.0), 100_000)) + 1
            found.append(document.text[at : at + length])
            total += len(found[-1].encode())
            at += length
    return found


def theirs(texts: list[str], split: Callable[[str], list[str]] = str.split) -> list[list[float]]:
    """The 13 repetition values by datatrove's functions; its quality filter, without thresholds to stop at, for the rest."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import gopher_quality_filter, gopher_repetition_filter
    from datatrove.pipeline.filters.gopher_repetition_filter import (
        find_all_duplicate,
        find_duplicates,
        find_top_duplicate,
        get_n_grams,
    )

    words: list[str] = []
    gopher_quality_filter.split_into_words = lambda text, language: words
    judge = gopher_quality_filter.GopherQualityFilter(
        **{"min_doc_words": 1, "max_doc_words": 10**9, "min_avg_word_length": 1e-9, "max_avg_word_length": 1e9},
        **{"max_symbol_word_ratio": 1e9, "max_bullet_lines_ratio": 2.0, "max_ellipsis_lines_ratio": 2.0},
        **{"max_non_alpha_words_ratio": 1e-9, "min_stop_words": 1},
    )
    repeats = gopher_repetition_filter.GopherRepetitionFilter()
    found = []
    for text in texts:
        words = split(text)
        judge.filter(Document(text=text, id=""))
        blocks, rows, size = repeats.paragraph_exp.split(text.strip()), repeats._line_splitter.split(text), len(text)
        (of_rows, row_characters), (of_blocks, block_characters) = find_duplicates(rows), find_duplicates(blocks)
        values = [of_rows / len(rows), of_blocks / len(blocks), row_characters / size, block_characters / size]
        ngrams = [get_n_grams(words, n) for n in (2, 3, 4)]
        values += [find_top_duplicate(each) / size if each else 0.0 for each in ngrams]
        values += [find_all_duplicate(words, n) / size for n in range(5, 11)]
        found.append(values)
    return found


def default_words(text: str) -> list[str]:
    from datatrove.utils.text import split_into_words

    return split_into_words(text, "eng")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="python-docs/prose")
    parser.add_argument("--mb", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("set OMP_NUM_THREADS=1: each contestant gets one thread")
    texts = documents(arguments.data, int(1e6 * arguments.mb))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    if not arguments.busy:
        quiet()
    contestants: dict[str, tuple[Callable[[], object], float]] = {  # and the MB it goes through
        "earthworks, literal": (lambda: rule_values(texts), megabytes),
        "earthworks, datatrove": (lambda: rule_values(texts, "datatrove"), megabytes),
        "datatrove": (lambda: theirs(texts), megabytes),
    }
    default = "datatrove, its default words"
    if find_spec("spacy"):
        tenth = texts[: len(texts) // 10 + 1]
        default_words("one sentence")
        contestants[default] = lambda: theirs(tenth, default_words), sum(len(text.encode()) for text in tenth) / 1e6
    ours = np.stack(list(rule_values(texts, "datatrove").values())[8:], 1)
    differing = int((ours != np.array(theirs(texts))).any(1).sum())
    rule_values(texts)
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, (function, size) in contestants.items():
            started = time.process_time()
            function()
            measured[name].append(size / (time.process_time() - started))
            print(f"{name} {measured[name][-1]:.2f} MB/CPU-s", file=sys.stderr, flush=True)
    rates = {name: statistics.median(each) for name, each in measured.items()}
    lines = ["# Quality and repetition rules: speed", "", header(), ""]
    lines += [f"{len(texts):,} documents, {megabytes:.1f} MB; from Python strings to values, encoding included.", ""]
    lines += [
        "| | MB per CPU-second | times datatrove, words by white space | times its default |",
        "| --- " + 3 * "| ---: " + "|",
    ]
    for name, rate in rates.items():
        times = f"{rate / rates[default]:.1f}" if default in rates else "spaCy not installed"
        lines.append(f"| {name} | {rate:.2f} | {rate / rates['datatrove']:.1f} | {times} |")
    lines += [
        "",
        f"Repetition values of {differing} documents differ between the profile and the package, which joins the words",
    ]
    lines += ["of an n-gram without a separator."]
    write_result("rules", "\n".join(lines))


if __name__ == "__main__":
    main()
