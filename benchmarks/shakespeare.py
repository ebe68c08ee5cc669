"""A Gopher against nanoGPT's published CPU recipe, on the same text, the same threads, in turn.

The recipe: GPT-2 blocks, 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps of AdamW, rate 1e-3 falling to
1e-4 by a cosine, warm-up 100, beta2 0.99, weight decay 0.1, clipping at 1, no dropout, characters as tokens. Ours: one
command, `earthworks gopher train --data FILE --tokenizer bytes --validation 0.1 --minutes M`, with M an eighth of the
recipe's training time and all of it (novel: a fifth), then `earthworks gopher evaluate --windows disjoint`.

Both see the first 90 % of the characters; both losses are nats per character over the whole last 10 %, disjoint windows of
the trained context. The recipe's seconds are its training loop alone. Ours are all of the command from its first line:
packing, dial, timed warm-up, training, validations, checkpoints (`elapsed` of the last step); the whole process, with
imports, final measurement and report, stands beside.

    python benchmarks/shakespeare.py --data $EARTHWORKS_DATA/text/tinyshakespeare/input.txt.gz [--novel] [--repeats 3]
"""

import argparse
import functools
import gzip
import json
import lzma
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import header, quiet, write_result


def recipe(file: str, seed: int) -> tuple[float, float]:
    """Train by the recipe; (seconds of the training loop, nats per character held out)."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(seed)
    layers, heads, width, context, batch, steps = 4, 4, 128, 64, 12, 2000
    text = Path(file).read_text(encoding="utf-8")
    alphabet = sorted(set(text))
    index = {character: number for number, character in enumerate(alphabet)}
    data = np.array([index[character] for character in text], np.int64)
    cut = int(0.9 * len(data))
    training, held_out = data[:cut], data[cut:]

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, _ = x.shape
            q, k, v = (
                part.view(b, t, heads, -1).transpose(1, 2) for part in self.qkv(self.first(x)).split(width, dim=2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
            return x + self.down(F.gelu(self.up(self.second(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(len(alphabet), width), nn.Embedding(context, width)
            self.layers = nn.Sequential(*(Layer() for _ in range(layers)))
            self.norm = nn.LayerNorm(width, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    writes = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if writes else 0.02)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            h = self.layers(self.tokens(x) + self.places.weight[: x.shape[1]])
            return F.cross_entropy(F.linear(self.norm(h), self.tokens.weight).flatten(0, 1), y.flatten())

    model = Model()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    random = np.random.default_rng(seed)
    started = time.perf_counter()
    for step in range(steps):
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.45e-3 * (1 + math.cos(math.pi * (step - 100) / 1900))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = random.integers(0, len(training) - context - 1, batch)
        rows = torch.from_numpy(training[starts[:, None] + np.arange(context + 1)])
        loss = model(rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - started
    num_windows = (len(held_out) - 1) // context
    x = torch.from_numpy(held_out[: num_windows * context].reshape(-1, context))
    y = torch.from_numpy(held_out[1 : num_windows * context + 1].reshape(-1, context))
    with torch.no_grad():
        total = sum(model(x[i : i + 64], y[i : i + 64]).item() * len(x[i : i + 64]) for i in range(0, len(x), 64))
    return seconds, total / len(x)


def ours(file: str, minutes: float, seed: int, folder: Path, threads: int) -> dict[str, float]:
    """The command; nats per character, seconds to the last step, seconds of the whole process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "earthworks.cli", "gopher", "train", "--data", file, "--tokenizer", "bytes"]
    command += ["--validation", "0.1", "--minutes", f"{minutes:.5f}", "--run", str(folder), "--seed", str(seed)]
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    whole = time.perf_counter() - started
    measure = [
        sys.executable,
        "-m",
        "earthworks.cli",
        "gopher",
        "evaluate",
        str(folder),
        "--windows",
        "disjoint",
        "--json",
    ]
    answer = json.loads(subprocess.run(measure, check=True, env=environment, capture_output=True).stdout)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    characters = len(Path(file).read_text(encoding="utf-8")) - int(0.9 * len(Path(file).read_text(encoding="utf-8")))
    nats = answer["nats_per_byte"] * answer["bytes"] / characters
    return {
        "nats": nats,
        "seconds": last["elapsed"],
        "whole": whole,
        "steps": last["step"],
        "tokens": last["tokens_seen"],
    }


def plain_text(path: str, novel: bool) -> str:
    """The text to use: the file itself, or the first novel of a .jsonl.xz."""
    if novel:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            return json.loads(next(lines))["text"]
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return stream.read()


def median_of(rows: list[dict], name: str, key: str) -> float:
    """The middle of what the repeats gave."""
    return statistics.median(row[name].get(key, math.nan) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--novel", action="store_true", help="--data is a .jsonl.xz of books: use its first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--recipe", help="internal: run the recipe on this file and print seconds and nats")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.recipe:
        print(json.dumps(recipe(arguments.recipe, arguments.seed)))
        return
    shares = (1 / 5,) if arguments.novel else (1 / 8, 1.0)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        file = str(Path(temporary) / "text.txt")
        Path(file).write_text(plain_text(arguments.data, arguments.novel), encoding="utf-8")
        for repeat in range(arguments.repeats):
            if not arguments.busy:
                quiet()
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            command = [sys.executable, __file__, "--data", "-", "--recipe", file, "--seed", str(repeat)]
            seconds, nats = json.loads(subprocess.run(command, check=True, env=environment, capture_output=True).stdout)
            row = {"recipe": {"nats": nats, "seconds": seconds}}
            for share in shares:
                folder = Path(temporary) / f"run-{repeat}-{share:.3f}"
                row[f"{share:.3f}"] = ours(file, seconds * share / 60, repeat, folder, arguments.threads)
            rows.append(row)
            print(json.dumps(row), flush=True)
    lines = [
        header(),
        "",
        "| what | nats per character | seconds | x recipe's time | whole process, s | steps | tokens |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    base = statistics.median(row["recipe"]["seconds"] for row in rows)
    for name in rows[0]:
        middle = functools.partial(median_of, rows, name)
        label = "nanoGPT's CPU recipe" if name == "recipe" else f"ours, {float(name):.3g} of its time"
        spread = "/".join(f"{row[name]['nats']:.3f}" for row in rows)
        lines.append(
            f"| {label} | {middle('nats'):.4f} ({spread}) | {middle('seconds'):.1f} | {middle('seconds') / base:.3f} | "
            + (
                "| | |"
                if name == "recipe"
                else f"{middle('whole'):.1f} | {middle('steps'):,.0f} | {middle('tokens'):,.0f} |"
            )
        )
    write_result("shakespeare-novel" if arguments.novel else "shakespeare", "\n".join(lines))


if __name__ == "__main__":
    main()
