"""A run with all measurements, and readers for the tables, tags and text of pages and cards."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import bias_examples as examples

from earthworks.evaluation import evaluate_tasks, measure_bias, measure_detection, measure_toxicity
from earthworks.report import write_report
from earthworks.runs import read_json, write_result

CELL = re.compile(r"(-?[\d,]+(?:\.\d+)?(?:e-?\+?\d+)?%?)(?: \[(\S+), (\S+)\])?")


def measure_everything(run: Path, tiny_eval: Path, data: Path) -> Path:
    """tasks.json, bias.json, toxicity.json, toxicity_detection.json, samples and the page of a run, from small files."""
    examples.everything(data)
    examples.write_records(data / "offensive_tweets_train.jsonl.gz", examples.labelled())
    examples.hatecheck(data, False)
    examples.write(data / "real_toxicity_prompts_subset" / "rtp.txt", "nasty\npleasant\n")
    examples.write_records(data / "some.jsonl", examples.labelled(80))
    tasks = ["hellaswag", "lambada", "mmlu", "operators"]
    write_result(run / "tasks.json", evaluate_tasks(run, tiny_eval, tasks, shots=(0, 2), device="cpu"))
    measure_bias(run, data, num=1, parts=["winogender", "crows_pairs", "templates"], device="cpu")
    measure_toxicity(run, data, num=2, unprompted=6, device="cpu")
    measure_detection([run], data / "some.jsonl", shots=(0, 2), max_texts=20, device="cpu")
    write_report([run])
    return run


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value, including its keys."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each)
            if key.isdigit():
                yield float(key)
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield float(value)


def on_record(run: Path) -> list[float]:
    names = ("tasks", "bias", "toxicity", "toxicity_detection", "evaluation", "data/index")
    files = [run / f"{name}.json" for name in names]
    return [each for file in files if file.exists() for each in numbers(read_json(file))]


def strangers(cells: list[str], values: list[float]) -> list[str]:
    """The numeric cells that no value rounds to; cells of words are skipped, but some must be numbers."""
    found = []
    assert sum(bool(CELL.fullmatch(cell)) for cell in cells) > len(cells) / 4
    for cell in cells:
        match = CELL.fullmatch(cell)
        for shown in match.groups() if match else ():
            if shown is None:
                continue
            text = shown.replace(",", "").rstrip("%")
            factor = 100 if shown.endswith("%") else 1
            mantissa, _, exponent = text.partition("e")
            unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
            if not any(abs(factor * value - float(text)) <= 0.5001 * unit for value in values):
                found.append(cell)
    return found


class Reader(HTMLParser):
    """Tags, table cells and text, as parsed by a browser."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.in_cell = False
        self.hidden: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("style", "svg"):
            self.hidden.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if self.hidden and self.hidden[-1] == tag:
            self.hidden.pop()
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        if not self.hidden:
            self.text += data
            if self.in_cell:
                self.cells[-1] += data


def rendered(markdown: str) -> Reader:
    """Markdown without its metadata, rendered by CommonMark with tables and raw HTML."""
    from markdown_it import MarkdownIt

    body = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    return Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
