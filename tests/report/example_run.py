import json
import math

import numpy as np
import yaml

CONFIG = {
    "kind": "gopher",
    "data": "my text.txt",
    "parameters": 3_412_992,
    "max_steps": 400,
    "learning_rate": 0.001,
    "optimizer": "muon",
    "model": {"num_layers": 6, "d_model": 128, "max_distance": None},
}
EVALUATION = {
    "nats_per_byte": 1.2654,
    "bits_per_byte": 1.8256,
    "nats_per_token": 4.1234,
    "perplexity_per_token": 61.768,
    "perplexity_per_word": 812.34,
    "tokens": 61_234,
    "bytes": 223_411,
    "documents": 94,
    "interval": [1.7911, 1.8544],
    "interval_unit": "document",
    "windows": "disjoint",
    "by_position": [[1, 6.5], [2, 6.0], [3, 5.7], [6.5, 5.2], [12.5, 4.6], [24.5, 4.1]],
    "subsets": {"prose": {"bits_per_byte": 1.9311, "interval": [1.89, 1.97]}, "code": {"bits_per_byte": 1.4222}},
    "compressors": {"prose": {"xz -9": 2.4412, "xz -9, primed with the training text": 1.4733}},
}


def records(steps=400):
    random = np.random.default_rng(0)
    for step in range(1, steps + 1):
        loss = 4 + 4 * math.exp(-step / 40)
        record = {
            "step": step,
            "loss": loss + random.normal() * 0.05,
            "learning_rate": 0.001 * min(1, step / 20),
            "gradient_norm": 1 + 3 / step,
            "tokens": 4096,
            "tokens_seen": 4096 * step,
            "seconds": 0.5,
            "elapsed": 0.6 * step,
            "tokens_per_second": 8192.0,
            "ceiling_share": 0.62,
            "epoch": step / 160,
        }
        if step % 100 == 0:
            subsets = {"prose": {"bits_per_byte": loss / 2}, "code": {"bits_per_byte": loss / 3}}
            record["validation"] = {"nats_per_token": loss, "bits_per_byte": loss / 2.3, "subsets": subsets}
        yield record


def write_run(path, config=None, metrics=(), evaluation=None, passage=None, samples=None, environment=None):
    """A run folder of the given parts."""
    (path / "samples").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config or CONFIG, sort_keys=False))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    for file, value in (("evaluation", evaluation), ("passage", passage), ("environment", environment)):
        if value is not None:
            (path / f"{file}.json").write_text(json.dumps(value))
    for step, text in (samples or {}).items():
        (path / "samples" / f"step-{step}.txt").write_bytes(text.encode())
    return path
