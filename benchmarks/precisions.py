"""fp32, bf16, bf16-sr and bf16-master over 500 steps of a small model on books: what each loses, as the paper compared them.

Three seeds of weights and sample order; within a seed every precision begins with the same weights and reads the same
batches. `bf16-nearest` is the bad example, and exists in this script alone: bf16 weights, each update rounded to the
nearest. Losses in nats a token: the mean of the last 50 training steps, and the held-out documents. Differences from fp32
are paired by seed; the interval is Student's t over the seeds. The question of the paper: is bf16-master
indistinguishable from fp32, and does stochastic rounding fall short of it?

    python benchmarks/precisions.py --data $EARTHWORKS_DATA/text/books [--steps 500] [--seeds 3] [--size vole] [--threads 2]
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import header, write_result
from torch import Tensor

from earthworks.corpus import PackedTokens, Tokenizer, pack, sample_text, sources
from earthworks.gopher import Gopher
from earthworks.gopher.pretraining import task
from earthworks.gopher.pretraining.budget import follow
from earthworks.gopher.pretraining.settings import Settled, TrainSettings, model_config
from earthworks.gopher.pretraining.starting import begin
from earthworks.runs import Progress, RunFolder
from earthworks.training.weights import Weights, narrow, weights_for

PRECISIONS = ("fp32", "bf16", "bf16-master", "bf16-sr", "bf16-nearest")
LAST = 50  # training steps whose mean loss is compared


class NearestWeights(Weights):
    """bf16 weights, each update rounded to the nearest: what is below half the last bit is lost."""

    def adopt(self, name: str, parameter: Tensor) -> None:
        narrow(parameter)

    def exact(self, parameter: Tensor) -> Tensor:
        return parameter.float()

    def write(self, parameter: Tensor, exact: Tensor) -> None:
        parameter.copy_(exact)


def weights(precision: str, seed: int, device: torch.device) -> Weights:
    return NearestWeights() if precision == "bf16-nearest" else weights_for(precision, seed, device)


def one_run(packed: PackedTokens, settings: Settled, steps: int) -> dict[str, float]:
    torch.manual_seed(settings.seed)
    model = Gopher(model_config(settings, packed.tokenizer.vocabulary))
    begin(model, packed, None)
    training = task.Pretraining(model, packed, RunFolder("unused"), settings, torch.device("cpu"))
    started = time.process_time()
    losses = [training.update(step)["loss"] for step in range(steps)]
    seconds = time.process_time() - started
    held_out = training.validate()
    assert held_out is not None
    last = statistics.fmean(losses[-LAST:])
    return {"training": last, "held out": held_out["nats_per_token"], "seconds": seconds}


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval."""
    from scipy.stats import t

    mean, n = statistics.fmean(differences), len(differences)
    if n < 2:
        return mean, -math.inf, math.inf
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def prepare(data: str, vocabulary: int, folder: Path) -> PackedTokens:
    parts = sources(data)
    tokenizer = Tokenizer.train(sample_text(parts, seed=0, validation=0.05), vocabulary)
    with Progress("packing", unit="MB") as progress:
        pack(parts, tokenizer, folder, validation=0.05, seed=0, progress=progress)
    return PackedTokens.open(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", default="vole")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--validation_tokens", type=int, default=65_536)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task.weights_for = weights
    given = ("size", "context", "batch", "optimizer", "validation_tokens")
    chosen = {name: getattr(arguments, name) for name in given}
    settings = TrainSettings(arguments.data, **chosen, micro_batch=arguments.batch, final_share=0.1)
    settings = follow(settings, arguments.steps)
    results: dict[str, list[dict[str, float]]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        packed = prepare(arguments.data, arguments.vocabulary, Path(folder) / "data")
        for seed in range(arguments.seeds):
            for precision in PRECISIONS:
                result = one_run(packed, replace(settings, seed=seed, precision=precision), arguments.steps)
                results[precision].append(result)
                print(seed, precision, result, file=sys.stderr, flush=True)
    text = report(results, arguments, settings)
    write_result("precisions", text)


def report(results: dict[str, list[dict[str, float]]], arguments: argparse.Namespace, settings: dict[str, Any]) -> str:
    lines = ["# Precisions", "", header(timed=False), ""]
    lines += [
        f"{arguments.size}, {arguments.steps} steps of {arguments.batch} x {arguments.context} tokens, vocabulary "
        f"{arguments.vocabulary:,}, {arguments.optimizer} at {settings['learning_rate']:.2g} falling to a tenth, "
        f"{arguments.seeds} seeds. Nats a token; differences from fp32 of the same seed with 95 % intervals over seeds.",
    ]
    spreads, inside = {}, {}
    for measure in ("training", "held out"):
        title = f"mean training loss of the last {LAST} steps" if measure == "training" else "held-out loss"
        lines += ["", f"{title[0].upper()}{title[1:]}:", "", "| precision | by seed | mean | minus fp32 |"]
        lines.append("| --- | --- | ---: | ---: |")
        reference = [result[measure] for result in results["fp32"]]
        spreads[measure] = (min(reference), max(reference))
        for precision in PRECISIONS:
            values = [result[measure] for result in results[precision]]
            mean, low, high = interval([a - b for a, b in zip(values, reference)])
            difference = "" if precision == "fp32" else f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            by_seed = ", ".join(f"{value:.4f}" for value in values)
            lines.append(f"| {precision} | {by_seed} | {statistics.fmean(values):.4f} | {difference} |")
            inside[precision, measure] = spreads[measure][0] <= statistics.fmean(values) <= spreads[measure][1]
    low, high = spreads["held out"]
    verdict = "lies within" if inside["bf16-master", "held out"] else "lies outside"
    seconds = {precision: statistics.fmean(r["seconds"] for r in results[precision]) for precision in PRECISIONS}
    shares = ", ".join(f"{precision} {seconds[precision] / seconds['fp32']:.2f}" for precision in PRECISIONS[1:])
    return "\n".join(
        [
            *lines,
            "",
            f"The mean of bf16-master {verdict} the spread of the fp32 seeds (held out, {low:.4f} to {high:.4f}).",
            f"Processor time of the updates, with whatever ran beside, as a share of fp32's: {shares}.",
        ]
    )


if __name__ == "__main__":
    main()
