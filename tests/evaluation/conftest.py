"""Tiny files in the shapes of the real ones, a model, and no network."""

import gzip
import json
import random
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from measured import measure_everything

from earthworks.corpus import Tokenizer
from earthworks.gopher import Gopher, GopherConfig

WORDS = ["earth", "works", "gopher", "digs", "mound", "tunnel", "deep", "root", "stone", "clay", "river", "sand"]


def phrase(draw: random.Random, most: int = 5) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))


def distinct(draw: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[phrase(draw)] = None
    return list(found)


@pytest.fixture(scope="session")
def tiny_eval(tmp_path_factory) -> Path:
    """A folder of 12 rows for each shape of the shipped tasks; options are random words."""
    folder = tmp_path_factory.mktemp("data") / "eval"
    draw = random.Random(0)
    n = 12

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = folder / f"{name}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    four = [
        {
            "activity_label": phrase(draw, 2),
            "ctx": phrase(draw),
            "endings": distinct(draw, 4),
            "label": draw.randrange(4),
        }
        for _ in range(n)
    ]
    write("commonsense/hellaswag_val_a", four)
    two = [distinct(draw, 2) for _ in range(n)]
    write(
        "commonsense/piqa_valid",
        [{"goal": phrase(draw), "sol1": a, "sol2": b, "label": draw.randrange(2)} for a, b in two],
    )
    write(
        "commonsense/winogrande",
        [
            {"context_options": [f"The {a}", f"The {b}"], "continuation": phrase(draw), "gold": draw.randrange(2)}
            for a, b in two
        ],
    )
    labels = [{"query": f"Question {i}: {phrase(draw)}?", "choices": ["no", "yes"], "gold": i % 2} for i in range(n)]
    write("reading_comprehension/boolq", labels)
    subjects = ["astronomy", "jurisprudence"]
    mmlu = [
        {"subject": subjects[i % 2], "question": f"{i}: {phrase(draw)}", "choices": distinct(draw, 4), "answer": i % 4}
        for i in range(n)
    ]
    write("knowledge_qa/mmlu_test", mmlu)
    write("knowledge_qa/mmlu_dev", [{**row, "question": f"example {row['question']}"} for row in mmlu[:10]])
    write("knowledge_qa/nq_open_dev", [{"question": phrase(draw), "answer": [phrase(draw), "x"]} for _ in range(n)])
    write("big_bench/operators", [{"context": f"op {i} =", "continuation": str(2 * i)} for i in range(n)])
    write("language_modelling/lambada_openai", [{"text": f"{phrase(draw)} {phrase(draw)}"} for _ in range(n)])
    write(
        "linguistics/blimp",
        [
            {"sentence_good": good, "sentence_bad": bad, "linguistics_term": f"term {i % 2}"}
            for i, (good, bad) in enumerate(two)
        ],
    )
    write(
        "fact_checking/fever_paper_dev_a",
        [{"claim": phrase(draw), "label": ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"][i % 3]} for i in range(n)],
    )
    books = folder.parent / "text" / "books"
    books.mkdir(parents=True)
    lines = [json.dumps({"text": phrase(draw, 60) + "\n"}) for _ in range(3)]
    (books / "test.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def measured(tiny_run, tiny_eval, tmp_path_factory) -> Path:
    """A tiny run with every measurement, and its page."""
    folder = tmp_path_factory.mktemp("measured")
    return measure_everything(shutil.copytree(tiny_run, folder / "run"), tiny_eval, folder / "bias")


@pytest.fixture(scope="session")
def alphabet() -> Tokenizer:
    return Tokenizer.bytes()


@pytest.fixture
def gopher() -> Gopher:
    """Random weights large enough that likelihoods differ by nats."""
    torch.manual_seed(0)
    model = Gopher(GopherConfig.preset("shrew", vocabulary=257, context=128))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    return model.eval()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Everything here runs without a network: only processes of this machine may talk to each other."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, f"a connection to {address} was tried"
        connect(self, address)

    def unknown(host: Any, *_: object, **__: object) -> None:
        raise AssertionError(f"the address of {host} was asked for")

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
