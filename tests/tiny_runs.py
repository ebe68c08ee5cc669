"""Runs small enough to be made by the dozen, what a command came to, and what two runs must have in common."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentinel
from earthworks.runs import RunFolder, read_json, read_metrics, verify_manifest
from earthworks.runs.manifest import description

# shrew is the smallest size there is; the fixture `flea` adds a smaller one.
TINY: dict[str, Any] = {
    **{"tokenizer": "bytes", "validation": 0.2, "size": "shrew", "context": 16, "batch": 4, "micro_batch": 2},
    **{"max_steps": 10, "evaluate_every": 5, "validation_tokens": 64, "sample_every": 5, "save_every": 3},
    **{"learning_rate": 0.02, "embedding_rate": 0.01, "momentum": 0.9, "warmup_steps": 1},
    **{"precision": "fp32", "device": "cpu"},
}
FLEA = {**TINY, "size": "flea"}
TIMINGS = {"seconds", "elapsed", "tokens_per_second", "ceiling_share", "log"}  # the log's digest, as seconds are in it


@dataclass
class Outcome:
    """What a command came to: its exit code, what it printed, what it said beside."""

    code: int
    out: str
    err: str

    def refuses(self, *words: str, code: int = 2) -> bool:
        """It ended in one sentence that holds all these words, after printing nothing; fails otherwise."""
        *notes, sentence = self.err.splitlines() or [""]
        assert self.code == code, self.err
        assert self.out == ""
        assert [line.startswith("earthworks: ") for line in [*notes, sentence]] == [False] * len(notes) + [True]
        for word in words:
            assert word in sentence
        return True


def words(length: int) -> str:
    """`length` characters of words in a fixed random order."""
    choose = random.Random(0).choice
    return " ".join(choose(["earth", "works", "gopher", "digs", "mound", "tunnel"]) for _ in range(length // 4))[
        :length
    ]


def results(run: Path) -> dict[str, Any]:
    """All that a run computed, timings left out: a resumed run and one that was never broken have the same.

    Files stand for their bytes by SHA-256, so equal means equal to the bit.
    """
    folder = RunFolder.open(run)
    last = folder.checkpoint(folder.steps()[-1])
    verify_manifest(last)
    digests = {name: entry["sha256"] for name, entry in read_json(last / "manifest.json")["files"].items()}
    assert digests.keys() == {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"}
    del digests["state.json"]  # holds the seconds
    records = read_metrics(folder.metrics_file)
    assert [record["step"] for record in records] == list(range(1, folder.steps()[-1] + 1))  # none twice, none missing
    evaluation = run / "evaluation.json"
    return {
        "tensors": digests,
        "state": {
            key: value for key, value in read_json(last / "state.json").items() if key not in (*TIMINGS, "settings")
        },
        "metrics": [json.dumps({key: record[key] for key in record if key not in TIMINGS}) for record in records],
        "samples": {file.name: file.read_bytes() for file in folder.samples.iterdir()},
        "best": read_json(folder.checkpoints / "best.json") if (folder.checkpoints / "best.json").exists() else None,
        "evaluation": read_json(evaluation) if evaluation.exists() else None,
    }


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a folder with a manifest, and what the manifest says of it, as somebody could who means harm."""
    (folder / name).write_bytes(content)
    manifest = read_json(folder / "manifest.json")
    manifest["files"][name] = description(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def as_format_1(run: Path) -> Path:
    """Make a run what it would be of a version before formats were numbered: no `format` in config.yaml, no inputs.json,
    sizes and SHA-256 alone in manifests, and neither settings nor the log's digest in checkpoints."""
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("format: 2\n", ""))
    (run / "inputs.json").unlink(missing_ok=True)
    for path in (run / "checkpoints").glob("step-*"):
        state = read_json(path / "state.json")
        rewrite(
            path, "state.json", json.dumps({k: v for k, v in state.items() if k not in ("settings", "log")}).encode()
        )
    for file in (*run.glob("checkpoints/*/manifest.json"), *run.glob("data/manifest.json")):
        files = read_json(file)["files"]
        kept = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in files.items()}
        file.write_text(json.dumps({"files": kept}))
    if (run / "evaluation.json").exists():
        result = read_json(run / "evaluation.json")
        (run / "evaluation.json").write_text(json.dumps({k: v for k, v in result.items() if k != "sha256"}))
    return run


def run_until_killed(command: list[str], log: Path, chance: random.Random) -> None:
    """The real command in a process of its own, killed by SIGKILL at a random moment of the next few steps."""
    with sentinel.around(command[2:]):
        process = subprocess.Popen([sys.executable, "-m", "earthworks.cli", *command], stderr=subprocess.DEVNULL)
        lines = log.read_bytes().count(b"\n") if log.exists() else 0
        wanted = lines + chance.randint(1, 20)
        while not log.exists() or log.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
