"""Does the critic's held-out gap follow the quality of the samples? Over the validations of a run, several seeds.

    python benchmarks/gap_and_quality.py [--data digits] [--minutes 1.5] [--seeds 3]

Quality is sliced W2 between samples and held-out data, which asks no critic. Printed: Spearman's correlation of the gap
with it, beside that of the mere step number with it (both fall over a run, so a high one proves little), and Pearson's
correlation of the changes from one validation to the next, which has no trend to lean on, with a bootstrap interval.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import header, quiet, write_result
from scipy.stats import spearmanr

RESAMPLES = 2000


def changes_correlation(gap: np.ndarray, quality: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Pearson's correlation of the first differences, and its 95 % percentile interval over pairs of them."""
    a, b = np.diff(gap), np.diff(quality)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(a), size=(RESAMPLES, len(a)))
    resampled = [np.corrcoef(a[index], b[index])[0, 1] for index in drawn]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(np.corrcoef(a, b)[0, 1]), float(low), float(high)


def main() -> None:
    from earthworks.runs import read_metrics

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.busy:
        quiet()
    columns = ("seed", "validations", "gap with quality", "step with quality", "changes of both", "95 % interval")
    lines = [header(), "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(arguments.seeds):
            run = Path(temporary) / str(seed)
            command = [sys.executable, "-m", "earthworks.cli", "wgan", "train", "--data", arguments.data]
            command += ["--minutes", str(arguments.minutes), "--seed", str(seed), "--run", str(run)]
            subprocess.run(command, check=True, env=dict(os.environ), capture_output=True)
            records = [record for record in read_metrics(run / "metrics.jsonl") if "validation" in record]
            gap = np.array([record["validation"]["gap_held_out"] for record in records])
            quality = np.array([record["validation"]["sliced_2"] for record in records])
            steps = np.array([record["step"] for record in records])
            found, low, high = changes_correlation(gap, quality, seed)
            lines.append(
                f"| {seed} | {len(gap)} | {spearmanr(gap, quality)[0]:.3f} | {spearmanr(-steps, quality)[0]:.3f} "
                f"| {found:.3f} | [{low:.3f}, {high:.3f}] |"
            )
            print(lines[-1], flush=True)
    write_result("gap_and_quality", "\n".join(lines))


if __name__ == "__main__":
    main()
