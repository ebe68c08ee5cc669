"""How much of the article, and how little else, comes out of real web pages.

    EARTHWORKS_DATA=... OMP_NUM_THREADS=1 python benchmarks/extraction.py

181 pages with their article (article-extraction-benchmark of Scrapinghub): tokens are the matches of `\\w+`; of the
multisets of tokens (n = 1) or of runs of four tokens (n = 4, the benchmark's own shingles) of text and gold,
precision = |both| / |text|, recall = |both| / |gold|, a mean over pages each; F1 = 2 P R / (P + R) of the two means, as
the benchmark has it. An empty text has no precision and recall 0. 199 pages with 594 segments that must be in the text and
596 that must not (trafilatura's own): the share of segments treated rightly. Intervals: 95 %, pages drawn with replacement.
"""

import json
import lzma
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import header, write_result

from earthworks.corpus.readers.html_text import extract
from earthworks.corpus.readers.streams import Unreadable

TOKEN = re.compile(r"\w+")


def rows(name: str) -> list[dict]:
    with lzma.open(Path(os.environ["EARTHWORKS_DATA"]) / "web" / name, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def naive(html: str, url: str) -> str:
    """All text between tags, scripts and styles apart."""
    html = re.sub(r"(?is)<(script|style|noscript)\b.*?</\1>|<!--.*?-->", " ", html)
    return re.sub(r"(?s)<[^>]*>", "\n", html)


def ours(html: str, url: str) -> str | None:
    try:
        return extract(html, url)
    except Unreadable:
        return None


def theirs(**options: bool) -> Callable[[str, str], str | None]:
    def run(html: str, url: str) -> str | None:
        import trafilatura

        return trafilatura.extract(html, url=url, **options)

    return run


def shingles(text: str, n: int) -> Counter:
    tokens = TOKEN.findall(text)
    return Counter(tuple(tokens[at : at + n]) for at in range(max(1, len(tokens) - n + 1))) if tokens else Counter()


def of_articles(texts: list[str], gold: list[str], n: int) -> np.ndarray:
    """(pages, 2): precision (nan without text) and recall."""
    found = []
    for text, article in zip(texts, gold):
        have, want = shingles(text, n), shingles(article, n)
        both = (have & want).total()
        found.append((both / have.total() if have else np.nan, both / want.total()))
    return np.array(found)


def of_segments(texts: list[str], pages: list[dict]) -> np.ndarray:
    """(pages, 4): wanted segments kept, wanted segments, unwanted left out, unwanted."""
    counts = []
    for text, page in zip(texts, pages):
        kept = sum(each in text for each in page["must_contain"])
        left_out = sum(each not in text for each in page["must_not_contain"])
        counts.append((kept, len(page["must_contain"]), left_out, len(page["must_not_contain"])))
    return np.array(counts, float)


def measures(tokens: np.ndarray, four: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Precision, recall, F1 of tokens; F1 of runs of four; segments kept, left out, right."""
    (p, r), (p4, r4) = np.nanmean(tokens, 0), np.nanmean(four, 0)
    kept, wanted, left_out, unwanted = segments.sum(0)
    shares = (kept / wanted, left_out / unwanted, (kept + left_out) / (wanted + unwanted))
    return np.array([p, r, 2 * p * r / (p + r), 2 * p4 * r4 / (p4 + r4), *shares])


def main() -> None:
    articles, pages = rows("article_extraction.jsonl.xz"), rows("extraction_segments.jsonl.xz")
    contestants: dict[str, Callable[[str, str], str | None]] = {
        "earthworks": ours,
        "trafilatura, defaults": theirs(),
        "favor_precision": theirs(favor_precision=True),
        "favor_recall": theirs(favor_recall=True),
        "without comments": theirs(include_comments=False),
        "without comments, favor_precision": theirs(include_comments=False, favor_precision=True),
        "without comments, fast": theirs(include_comments=False, fast=True),
        "without comments, formatting": theirs(include_comments=False, include_formatting=True),
        "tags taken out": naive,
    }
    random = np.random.default_rng(0)
    draws = [
        (random.integers(0, len(articles), len(articles)), random.integers(0, len(pages), len(pages)))
        for _ in range(1000)
    ]
    values, resampled, empty = {}, {}, {}
    for name, function in contestants.items():
        started = time.process_time()
        of_article = [function(each["html"], each["url"]) or "" for each in articles]
        of_page = [function(each["html"], each["url"]) or "" for each in pages]
        print(f"{name}: {time.process_time() - started:.1f} CPU-s in this process", file=sys.stderr, flush=True)
        gold = [each["article"] for each in articles]
        parts = of_articles(of_article, gold, 1), of_articles(of_article, gold, 4), of_segments(of_page, pages)
        values[name] = measures(*parts)
        resampled[name] = np.array([measures(parts[0][a], parts[1][a], parts[2][b]) for a, b in draws])
        empty[name] = sum(not text for text in of_article + of_page)
    facts = header().rsplit("\n", 1)[0]  # without the load: nothing is timed
    lines = ["# Extraction of the text of web pages", "", facts, ""]
    lines += [str(__doc__).partition("\n\n")[2].partition("\n\n")[2].strip(), ""]
    lines += [
        "| | precision | recall | F1 | F1, runs of four | segments kept | unwanted left out | segments right | empty |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in values.items():
        low, high = np.quantile(resampled[name], [0.025, 0.975], axis=0)
        cells = [f"{value:.3f} ({a:.3f} to {b:.3f})" for value, a, b in zip(found, low, high)]
        lines.append(f"| {name} | {' | '.join(cells)} | {empty[name]} |")
    lines += [
        "",
        "Ours less another, the same pages drawn for both:",
        "",
        "| | F1 | F1, runs of four | segments right |",
    ]
    lines += ["| --- | ---: | ---: | ---: |"]
    for name in list(values)[1:]:
        low, high = np.quantile(resampled["earthworks"] - resampled[name], [0.025, 0.975], axis=0)
        less = values["earthworks"] - values[name]
        cells = [f"{less[at]:+.3f} ({low[at]:+.3f} to {high[at]:+.3f})" for at in (2, 3, 6)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_result("extraction", "\n".join(lines))


if __name__ == "__main__":
    main()
