"""The commands of the storm, on inputs so small that one takes a second or two, and what they leave to compare."""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthworks.runs import RunFolder, read_json, read_metrics, verify_manifest

TIMINGS = {
    "seconds",
    "elapsed",
    "tokens_per_second",
    "images_per_second",
    "ceiling_share",
    "date",
    "started",
    "command",
    "log",  # digest of metrics.jsonl, which holds timings
}
TINY: dict[str, Any] = {
    **{"tokenizer": "bytes", "validation": 0.2, "size": "shrew", "context": 16, "batch": 4, "micro_batch": 2},
    **{"max_steps": 24, "evaluate_every": 12, "validation_tokens": 64, "sample_every": 24, "save_every": 5},
    **{"precision": "fp32", "device": "cpu", "learning_rate": 0.02, "embedding_rate": 0.01},
}
ANT: dict[str, Any] = {
    **{"data": "ring", "network": "mlp", "width": 16, "depth": 2, "noise": 4, "batch": 16, "critic_steps": 2},
    **{
        "max_steps": 120,
        "evaluate_every": 40,
        "sample_every": 40,
        "save_every": 15,
        "precision": "fp32",
        "device": "cpu",
    },
}
TIMED = {"times.json"}  # of a corpus: when its files were written
VOCABULARY = ["".join(random.Random(k).choices("abcdefghijklmnopqrstuvwxyz", k=3 + k % 7)) for k in range(1500)]
# dates, speeds and pictures of a page: what a second page of the same run may have otherwise
UNSTABLE = re.compile(r"[\d.,]+ (?:tokens|images)/s|[\d.,]+ (?:s|ms|min|GiB|MB)\b|20\d\d-\d\d-\d\d[T ]?[\d:+]*")


@dataclass
class Subject:
    """A command that writes `place / "out"`: how it is given the first time, and again; what it leaves."""

    name: str
    first: Callable[[Path], list[object]]
    again: Callable[[Path], list[object]]
    result: Callable[[Path], Any]
    prepare: Callable[[Path], None] = lambda place: None

    def next(self, place: Path) -> list[object]:
        """What a person would type now: the command, or what continues it."""
        out = place / "out"
        return self.again(place) if (out / "config.yaml").exists() else self.first(place)


def options(settings: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def steady(value: Any) -> Any:
    """The same without timings, at any depth."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if key not in TIMINGS}
    return [steady(each) for each in value] if isinstance(value, list) else value


def trained(run: Path) -> dict[str, Any]:
    """All that training computed: equal means equal to the bit."""
    folder = RunFolder.open(run)
    last = folder.checkpoint(folder.steps()[-1])
    verify_manifest(last)
    files = read_json(last / "manifest.json")["files"]
    records = read_metrics(folder.metrics_file)
    assert [record["step"] for record in records] == list(range(1, folder.steps()[-1] + 1)), "steps twice or missing"
    found = {
        "last": folder.steps()[-1],  # an interrupted run keeps a checkpoint of where that was
        "tensors": {name: entry["sha256"] for name, entry in files.items() if name != "state.json"},
        "state": steady(read_json(last / "state.json")),
        "metrics": [json.dumps(steady(record)) for record in records],
        "samples": {file.name: digest(file) for file in sorted(folder.samples.iterdir())},
        "best": read_json(folder.checkpoints / "best.json"),
    }
    if (run / "evaluation.json").exists():
        found["evaluation"] = steady(read_json(run / "evaluation.json"))
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Every file of a corpus by its digest; of the plan without the times of the input files."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in TIMED)
    return {path.relative_to(folder).as_posix(): digest(path) for path in files} | {"plan.json": planned(folder)}


def planned(folder: Path) -> str:
    return re.sub(r'"(token|sha256)": "[^"]*"', "", (folder / "plan.json").read_text(encoding="utf-8"))


def page(path: Path) -> str:
    """The words and figures of a report, without dates and speeds."""
    return UNSTABLE.sub("", path.read_text(encoding="utf-8"))


def prose(seed: int, words: int) -> str:
    """Random words, and now and then "the", "of" and "and", so that every rule lets it pass."""
    chance = random.Random(seed)
    return " ".join(("the", "of", "and")[k // 9 % 3] if k % 9 == 4 else chance.choice(VOCABULARY) for k in range(words))


def text_of(words: int) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / "text.txt").write_text(prose(0, words), encoding="utf-8")

    return prepare


def raw(place: Path) -> None:
    """Eight files of documents, with exact and near copies and some that the rules drop."""
    (place / "raw").mkdir()
    for k in range(8):
        texts = [prose(100 * k + j, 150) for j in range(60)]
        texts += [texts[0], texts[1].replace(" of ", " to ", 1), "too short", "again and again " * 40]
        lines = [json.dumps({"text": text}) for text in texts]
        (place / "raw" / f"{k}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def tasks(folder: Path) -> None:
    """Files of three shipped tasks."""
    chance = random.Random(0)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = folder / f"{name}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))

    some = [prose(k, 6) for k in range(400)]
    write(
        "commonsense/hellaswag_val_a",
        [
            {"activity_label": "a", "ctx": chance.choice(some), "endings": chance.sample(some, 4), "label": k % 4}
            for k in range(60)
        ],
    )
    write("big_bench/operators", [{"context": f"op {k} =", "continuation": str(2 * k)} for k in range(60)])
    write("language_modelling/lambada_openai", [{"text": some[k]} for k in range(60)])


def a_run(place: Path) -> None:
    """A finished language model and tasks to measure it by."""
    from storm.harness import Figures, run

    text_of(400)(place)
    tasks(place / "tasks")
    settings = {**TINY, "max_steps": 10, "data": place / "text.txt", "run": place / "out"}
    run(Figures("preparing"), ["gopher", "train", *options(settings)])
    assert (place / "out" / "evaluation.json").exists()


def training(name: str, words: int, **changes: Any) -> Subject:
    settings = {**TINY, **changes}
    return Subject(
        name,
        lambda place: ["gopher", "train", f"--data={place / 'text.txt'}", f"--run={place / 'out'}", *options(settings)],
        lambda place: ["gopher", "train", f"--resume={place / 'out'}"],
        lambda place: trained(place / "out"),
        text_of(words),
    )


def family() -> Subject:
    settings = {
        **TINY,
        "family": "shrew,cricket",
        "max_steps": 10,
        "evaluate_every": 5,
        "sample_every": 10,
        "save_every": 3,
    }
    del settings["size"]

    def command(place: Path) -> list[object]:
        return ["gopher", "train", f"--data={place / 'text.txt'}", f"--run={place / 'out'}", *options(settings)]

    def result(place: Path) -> Any:
        return {size: trained(place / "out" / size) for size in ("shrew", "cricket")}

    return Subject("family", command, command, result, text_of(400))


def gan() -> Subject:
    return Subject(
        "wgan train",
        lambda place: ["wgan", "train", f"--run={place / 'out'}", *options(ANT)],
        lambda place: ["wgan", "train", f"--resume={place / 'out'}"],
        lambda place: trained(place / "out"),
    )


def build() -> Subject:
    def command(place: Path) -> list[object]:
        return ["corpus", "build", f"--input={place / 'raw'}", f"--output={place / 'out'}", "--workers=2"]

    return Subject("corpus build", command, command, lambda place: files_of(place / "out"), raw)


def measuring() -> Subject:
    def command(place: Path) -> list[object]:
        chosen = "--tasks=hellaswag,operators,lambada"
        return ["evaluate", "tasks", place / "out", f"--data={place / 'tasks'}", chosen, "--device=cpu", "--batch=4"]

    return Subject("evaluate tasks", command, command, lambda place: steady(read_json(place / "out/tasks.json")), a_run)


def reporting() -> Subject:
    def command(place: Path) -> list[object]:
        return ["report", place / "out"]

    return Subject("report", command, command, lambda place: page(place / "out" / "report.html"), a_run)


SUBJECTS = {
    "build": build,
    "gopher": lambda: training("gopher train", 400),
    "tokenizer": lambda: training("gopher train, tokenizer", 20_000, tokenizer="bpe", vocabulary=2000, max_steps=8),
    "family": family,
    "wgan": gan,
    "tasks": measuring,
    "report": reporting,
}
