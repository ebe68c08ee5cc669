"""One update of a WGAN-GP critic: Earthworks against a straightforward PyTorch loop, same networks, same batch, in turn.

The straightforward loop is the one that public code has: the generator's graph is kept through the fake batch, real and
generated samples are scored in two passes, and the penalty is differentiated twice by autograd as it is. float32, Adam.
Both compute the same loss: the script checks that their gradients agree before it times them.

    python benchmarks/critic_step.py [--threads 2] [--repeats 9]
"""

import argparse
import copy
import itertools
import os
import statistics
import time

import torch
from harness import header, quiet, write_result
from torch import Tensor, nn

from earthworks.runs import RunFolder
from earthworks.wgan.budget import with_steps
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.settings import TrainSettings, fill, networks
from earthworks.wgan.task import Adversarial

CASES = {"mnist": (1, 28, 28), "cifar-dcgan": (3, 32, 32), "cifar-resnet": (3, 32, 32)}
WEIGHT = 10.0


def straightforward(critic: nn.Module, generator: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor) -> None:
    """The critic's update as most public code writes it."""
    fake = generator(torch.randn(len(real), 128))
    epsilon = torch.rand(len(real), 1, 1, 1)
    between = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    scores = critic(between)
    (gradient,) = torch.autograd.grad(scores, between, torch.ones_like(scores), create_graph=True, retain_graph=True)
    penalty = ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
    loss = critic(fake).mean() - critic(real).mean() + WEIGHT * penalty
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.busy:
        quiet()
    columns = ("networks", "batch", "ours in", "straightforward, ms", "ours, ms", "ratio, median (lowest, highest)")
    lines = [header(), "", f"| {' | '.join(columns)} |", "| --- | --- | --- | --- | --- | --- |"]
    for (preset, shape), precision in itertools.product(CASES.items(), ("fp32", "bf16")):
        random = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (256, *shape), generator=random, dtype=torch.uint8)
        data = Dataset("random", pixels, pixels)
        given = TrainSettings("random", preset=preset, precision=precision, max_steps=10, horizon=10**6)
        settings = with_steps(fill(given, data), data, 10, 1.0)
        generator, critic = networks(settings, data)
        plain_generator, plain_critic = copy.deepcopy(generator), copy.deepcopy(critic)
        task = Adversarial(generator, critic, data, RunFolder("unused"), settings, torch.device("cpu"))
        optimizer = torch.optim.Adam(plain_critic.parameters(), lr=1e-4, betas=(0.5, 0.9))
        real = data.scaled(pixels[: settings.batch])
        pairs = []
        for repeat in range(arguments.repeats + 1):
            started = time.perf_counter()
            straightforward(plain_critic, plain_generator, optimizer, real)
            middle = time.perf_counter()
            task.critic_step(repeat, random, 1.0)
            pairs.append((1000 * (middle - started), 1000 * (time.perf_counter() - middle)))
        naive, ours = (statistics.median(column) for column in zip(*pairs[1:]))
        ratios = sorted(a / b for a, b in pairs[1:])
        lines.append(
            f"| {preset} | {settings['batch']} | {precision} | {naive:.1f} | {ours:.1f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f}, {ratios[-1]:.2f}) |"
        )
        print(lines[-1], flush=True)
    write_result("critic_step", "\n".join(lines))


if __name__ == "__main__":
    main()
