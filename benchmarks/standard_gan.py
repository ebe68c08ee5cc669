"""What the standard GAN does that a Wasserstein GAN does not: lost modes, and a generator's gradient that vanishes.

    python benchmarks/standard_gan.py [--steps 2000] [--seeds 3] [--minutes 1]

1. The generator frozen at its first weights, its rival trained on: norm of the generator's gradient by its steps,
   for `minimax`, `non-saturating`, `clip` and `gp` (Arjovsky and Bottou 2017, figure 2, on the ring).
2. Modes found by each objective on the ring and the grid in equal time, with its own settings, the two of the
   standard GAN also with those of `gp`, and `minimax` beside a rival that takes 20 steps for each of its own: one thread
   a run, as many at once as there are cores.
"""

import argparse
import copy
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from harness import RESULTS, header, quiet, write_result
from mixtures import measure
from mixtures import train as train_run

from earthworks.runs import RunFolder
from earthworks.wgan.budget import with_steps
from earthworks.wgan.data.batches import noise_generator
from earthworks.wgan.data.datasets import load_dataset
from earthworks.wgan.objectives import Objective
from earthworks.wgan.settings import TrainSettings, fill, networks
from earthworks.wgan.task import Adversarial, gradient_norm

OBJECTIVES: tuple[Objective, ...] = ("minimax", "non-saturating", "clip", "gp")
OF_GP = ("--learning_rate", "2e-3", "--critic_steps", "2", "--beta1", "0", "--beta2", "0.9")
CONTESTANTS: dict[str, tuple[str, ...]] = {  # objective, then options
    **{objective: (objective,) for objective in OBJECTIVES},
    "minimax, settings of gp": ("minimax", *OF_GP),
    "non-saturating, settings of gp": ("non-saturating", *OF_GP),
    "minimax, 20 steps of its rival": (
        *("minimax", "--learning_rate", "1e-3", "--critic_steps", "20", "--beta1", "0", "--beta2", "0.9"),
    ),
}
DATA = ("ring", "grid")
MARKS = (1, 20, 50, 100, 200, 500, 1000, 2000, 4000)


def gradients(data: str, objective: str, steps: int, seed: int) -> dict[int, float]:
    """Norm of the gradient that the frozen generator would follow, by the steps of its rival."""
    dataset = load_dataset(data, seed=seed)
    given = {"objective": objective, "max_steps": steps, "horizon": 10**9, "seed": seed, "hold": 1.0}
    if objective != "clip":  # the same optimizer for all that Adam suits
        given |= {"learning_rate": 1e-3, "beta1": 0.0, "beta2": 0.9}
    filled = fill(TrainSettings(data, **given, width=256), dataset)
    settings = with_steps(filled, dataset, steps, 1.0)
    torch.manual_seed(seed)
    task = Adversarial(*networks(settings, dataset), dataset, RunFolder("unused"), settings, torch.device("cpu"))
    random = noise_generator(seed, 0, torch.device("cpu"))
    noise = torch.randn(2048, settings.noise, generator=torch.Generator().manual_seed(seed))
    found = {}
    for step in range(1, steps + 1):
        task.critic_step(step - 1, random, 1.0)
        if step in MARKS:
            generator = copy.deepcopy(task.generator)
            task.objective.generator(task.critic(generator(noise))).backward()
            found[step] = gradient_norm(generator)
            task.critic.zero_grad()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.busy:
        quiet()
    lines = [header(), ""]
    curves = {}
    for data in DATA:
        lines += [
            f"Norm of the frozen generator's gradient, {data}, median of {arguments.seeds} seeds, by its rival's steps:",
            "",
        ]
        marks = [mark for mark in MARKS if mark <= arguments.steps]
        lines += [f"| objective | {' | '.join(map(str, marks))} |", "|" + " --- |" * (len(marks) + 1)]
        for objective in OBJECTIVES:
            found = [gradients(data, objective, arguments.steps, seed) for seed in range(arguments.seeds)]
            curves[data, objective] = [statistics.median(each[mark] for each in found) for mark in marks]
            lines.append(f"| {objective} | " + " | ".join(f"{value:.2e}" for value in curves[data, objective]) + " |")
            print(lines[-1], flush=True)
        lines.append("")
    draw(curves, [mark for mark in MARKS if mark <= arguments.steps])
    lines += [
        f"Modes found, share of high-quality samples and reverse KL after {arguments.minutes:g} min each, by seed:",
        "",
    ]
    lines += ["| data | contestant | modes | high quality | reverse KL |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(data, each, seed) for data in DATA for each in CONTESTANTS for seed in range(arguments.seeds)]

        def trained(job: tuple[str, str, int]) -> dict[str, float]:
            data, contestant, seed = job
            folder = Path(temporary) / contestant
            folder.mkdir(exist_ok=True)
            return measure(train_run(folder, data, seed, arguments.minutes, *CONTESTANTS[contestant]), data)

        found = dict(zip(jobs, pool.map(trained, jobs)))
    for data in DATA:
        for contestant in CONTESTANTS:
            rows = [found[data, contestant, seed] for seed in range(arguments.seeds)]
            cells = [", ".join(f"{row['modes']:.0f}" for row in rows)]
            cells += [", ".join(f"{row['high_quality']:.1%}" for row in rows)]
            cells += [", ".join(f"{row['reverse_kl']:.3g}" for row in rows)]
            lines.append(f"| {data} | {contestant} | {' | '.join(cells)} |")
    write_result("standard_gan", "\n".join(lines))


def draw(curves: dict[tuple[str, str], list[float]], marks: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for each, data in zip(figure.subplots(1, 2), DATA):
        for objective in OBJECTIVES:
            each.loglog(marks, curves[data, objective], "o-", markersize=3, label=objective)
        each.set_title(f"{data}: norm of the frozen generator's gradient", fontsize=9)
        each.set_xlabel("steps of its rival")
        each.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "standard_gan.png", dpi=110)


if __name__ == "__main__":
    main()
