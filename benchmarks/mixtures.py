"""Ring and grid by the default command: modes, quality and reverse KL of 20,000 samples, over seeds, and their curves.

    python benchmarks/mixtures.py [--minutes 3] [--seeds 5] [--objective gp] [--data ring grid]

Each run is `earthworks wgan train --data NAME --objective gp --minutes M --seed S` on one thread; as many at once as the
machine has cores. The samples are those of `earthworks wgan sample --num 20000`. A perfect generator has 98.89 % of
high-quality samples, and reverse KL 0.0002 (ring) and 0.0006 (grid). The curves go to benchmarks/results/mixtures.png.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from harness import RESULTS, header, quiet, write_result

NUM = 20_000


def train(folder: Path, data: str, seed: int, minutes: float, objective: str, *options: str) -> Path:
    """One run in a process of its own, on one thread; `options` as on the command line."""
    run = folder / f"{data}-{seed}"
    command = [sys.executable, "-m", "earthworks.cli", "wgan", "train", "--data", data, "--objective", objective]
    command += ["--minutes", str(minutes), "--seed", str(seed), "--run", str(run), "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return run


def measure(run: Path, data: str) -> dict[str, float]:
    from earthworks.runs import read_metrics
    from earthworks.wgan import sample
    from earthworks.wgan.data.datasets import load_dataset
    from earthworks.wgan.measures.quality import mode_coverage

    dataset = load_dataset(data)
    assert dataset.centres is not None
    found = mode_coverage(sample(run, NUM, seed=1), dataset.centres, dataset.std)
    last = read_metrics(run / "metrics.jsonl")[-1]
    return {
        **{name: measure.value for name, measure in found.items()},
        "steps": last["step"],
        "seconds": last["elapsed"],
    }


def draw_curves(runs: dict[str, list[Path]]) -> None:
    """Modes, quality and reverse KL against steps and seconds, a line a seed."""
    from matplotlib.figure import Figure

    from earthworks.runs import read_metrics

    figure = Figure(figsize=(12, 3.2 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), 4, squeeze=False)
    for row, (data, paths) in zip(axes, runs.items()):
        for path in paths:
            records = [record for record in read_metrics(path / "metrics.jsonl") if "validation" in record]
            found = [record["validation"] for record in records]
            steps, seconds = ([record[key] for record in records] for key in ("step", "elapsed"))
            for each, x, key in ((row[0], steps, "modes"), (row[1], steps, "quality"), (row[2], seconds, "quality")):
                each.plot(x, [value[key] for value in found], linewidth=1)
            row[3].plot(steps, np.maximum([value["reverse_kl"] for value in found], 1e-5), linewidth=1)
        row[3].set_yscale("log")
        for each, title in zip(row, ("modes by step", "quality by step", "quality by second", "reverse KL by step")):
            each.set_title(f"{data}: {title}", fontsize=9)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "mixtures.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--objective", default="gp")
    parser.add_argument("--data", nargs="+", default=["ring", "grid"])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.busy:
        quiet()
    columns = ("data", "seed", "modes", "high quality", "reverse KL", "generator steps", "seconds")
    lines = [header(), "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(arguments.workers) as pool:
        jobs = [(data, seed) for data in arguments.data for seed in range(arguments.seeds)]
        paths = list(pool.map(lambda job: train(Path(temporary), *job, arguments.minutes, arguments.objective), jobs))
        for data in arguments.data:
            found = [measure(path, data) for path, job in zip(paths, jobs) if job[0] == data]
            for seed, row in enumerate(found):
                lines.append(
                    f"| {data} | {seed} | {row['modes']:.0f} | {row['high_quality']:.2%} | {row['reverse_kl']:.4f} "
                    f"| {row['steps']:,.0f} | {row['seconds']:.0f} |"
                )
            quality = [row["high_quality"] for row in found]
            modes, divergence = min(row["modes"] for row in found), max(row["reverse_kl"] for row in found)
            lines.append(
                f"| **{data}** | median (worst) | {modes:.0f} at least "
                f"| {statistics.median(quality):.2%} ({min(quality):.2%}) | {divergence:.4f} at most | | |"
            )
        draw_curves({data: [p for p, job in zip(paths, jobs) if job[0] == data] for data in arguments.data})
    write_result("mixtures" if arguments.objective == "gp" else f"mixtures-{arguments.objective}", "\n".join(lines))


if __name__ == "__main__":
    main()
