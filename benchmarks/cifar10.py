"""CIFAR-10 on an accelerator by the papers' settings: images a second, and Fréchet distances with their null and interval.

    python benchmarks/cifar10.py --data $EARTHWORKS_DATA/images/cifar10 [--steps 100000] [--features my:inception]

`--data` takes the folder of CIFAR-10's binary version, or images in any other form that `wgan train` reads. The run is
`earthworks wgan train --preset PRESET --precision auto`: `cifar-resnet` and `cifar-dcgan` of Gulrajani et al. 2017, whose
steps are 100,000 and 200,000. Images a second counts real images shown to the critic, measured over the last half of the
steps. `--features MODULE:NAME` adds a Fréchet distance in features of yours (Inception's, when you bring the weights): only
that one compares with published numbers, at 50,000 samples; the one in the features of the classifier does not.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import header, quiet, write_result

from earthworks.runs import read_metrics
from earthworks.wgan import train
from earthworks.wgan.measures.evaluation import evaluate


def row(measure: dict[str, Any]) -> str:
    null = "" if measure["null"] is None else f"{measure['null']:.3f}"
    low, high = measure["interval"] or (float("nan"), float("nan"))
    return f"| {measure['name']} | {measure['value']:.3f} | {null} | [{low:.3f}, {high:.3f}] | {measure['n']:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="cifar-resnet")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--features", default="classifier")
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.busy:
        quiet()
    with tempfile.TemporaryDirectory() as temporary:
        run = train(
            arguments.data, run=str(Path(temporary) / "run"), preset=arguments.preset, max_steps=arguments.steps
        )
        records = read_metrics(run / "metrics.jsonl")
        rates = [record["images_per_second"] for record in records[len(records) // 2 :]]
        found = [
            evaluate(run, num=arguments.num, features=each)
            for each in dict.fromkeys(("classifier", arguments.features))
        ]
    measures = {measure["name"]: measure for each in found for measure in each["measures"]}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    columns = ("measure", "value", "null", "95 % interval", "samples")
    lines = [
        *("# CIFAR-10", "", header(), ""),
        f"`{arguments.preset}`, {arguments.steps:,} generator steps on {device} in {records[-1]['elapsed']:,.0f} s; the",
        f"critic saw **{statistics.median(rates):,.0f} images a second** (median of the last half of the steps).",
        *("", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)),
        *(row(measure) for measure in measures.values()),
    ]
    write_result("cifar10", "\n".join(lines))


if __name__ == "__main__":
    main()
