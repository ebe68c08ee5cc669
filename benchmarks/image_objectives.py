"""Does the Wasserstein objective give better images than the standard GAN? Same networks, same images, equal seconds.

    python benchmarks/image_objectives.py --data $EARTHWORKS_DATA/images/mnist [--minutes 4] [--seeds 3]

`non-saturating`, `minimax`, `clip` and `gp`, each with its own settings of `wgan train`; the networks are the same
but for batch normalization, which those without a penalty have, as DCGAN does. One thread a run, as many runs at once as the
machine has cores. Measured on held-out images in the features of one classifier, the same for all runs: Fréchet
distance with its interval and its null, coverage, memorisation. Printed whichever way it falls.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import header, quiet, write_result

OBJECTIVES = ("non-saturating", "minimax", "clip", "gp")


def train(folder: Path, data: str, objective: str, seed: int, minutes: float) -> Path:
    run = folder / f"{objective}-{seed}"
    command = [sys.executable, "-m", "earthworks.cli", "wgan", "train", "--data", data, "--objective", objective]
    command += ["--minutes", str(minutes), "--seed", str(seed), "--run", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return run


def main() -> None:
    from earthworks.runs import read_metrics
    from earthworks.wgan.measures.evaluation import evaluate

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.busy:
        quiet()
    columns = ("objective", "seed", "Fréchet", "95 % interval", "null", "coverage", "memorisation ratio", "steps")
    lines = [header(), "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(objective, seed) for objective in OBJECTIVES for seed in range(arguments.seeds)]
        runs = list(pool.map(lambda job: train(Path(temporary), arguments.data, *job, arguments.minutes), jobs))
        classifier: Path | None = None
        found: dict[str, list[float]] = {objective: [] for objective in OBJECTIVES}
        for run, (objective, seed) in zip(runs, jobs):
            if classifier:
                shutil.copy(classifier, run / classifier.name)
            result = evaluate(run, num=arguments.num, features="classifier")
            classifier = run / "classifier.safetensors"
            measures: dict[str, dict[str, Any]] = {each["name"].split("[")[0]: each for each in result["measures"]}
            frechet, coverage, memory = (measures[name] for name in ("frechet", "coverage", "memorisation_ratio"))
            found[objective].append(frechet["value"])
            low, high = frechet["interval"]
            steps = read_metrics(run / "metrics.jsonl")[-1]["step"]
            lines.append(
                f"| {objective} | {seed} | {frechet['value']:.1f} | [{low:.1f}, {high:.1f}] | {frechet['null']:.1f} "
                f"| {coverage['value']:.3f} | {memory['value']:.2f} | {steps:,} |"
            )
            print(lines[-1], flush=True)
    lines += ["", "Median Fréchet distance of the seeds (lowest, highest):", ""]
    for objective, values in found.items():
        lines.append(f"- {objective}: {statistics.median(values):.1f} ({min(values):.1f}, {max(values):.1f})")
    write_result("image_objectives", "\n".join(lines))


if __name__ == "__main__":
    main()
