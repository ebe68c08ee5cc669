"""Two ranks train one GAN: the same weights on both, from noise and samples of their own."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from earthworks.runs import RunFolder
from earthworks.wgan.budget import with_steps
from earthworks.wgan.data.batches import noise_generator
from earthworks.wgan.data.datasets import load_dataset
from earthworks.wgan.settings import TrainSettings, fill, networks
from earthworks.wgan.task import Adversarial

STEPS = 3
TINY = {"width": 16, "depth": 2, "batch": 32, "critic_steps": 2, "max_steps": STEPS, "horizon": STEPS, "hold": 0.5}


def task() -> Adversarial:
    data = load_dataset("ring")
    settings = with_steps(fill(TrainSettings("ring", **TINY), data), data, STEPS, 1.0)
    torch.manual_seed(0)
    return Adversarial(*networks(settings, data), data, RunFolder("unused"), settings, torch.device("cpu"))


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    training = task()
    seen = []
    batch = training.batches.batch
    training.batches.batch = lambda *given: seen.append(batch(*given)) or seen[-1]
    for step in range(STEPS):
        training.update(step)
    weights = torch.cat(
        [p.detach().flatten() for p in (*training.generator.parameters(), *training.critic.parameters())]
    )
    torch.save({"weights": weights, "seen": torch.stack(seen), "images": training.images_seen}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or os.name != "posix", reason="needs gloo")
def test_two_ranks_keep_the_same_weights_from_samples_and_noise_of_their_own(tmp_path: Path):
    mp.spawn(one_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first["weights"], second["weights"])
    assert not torch.equal(first["seen"], second["seen"])
    assert first["images"] == 2 * 2 * STEPS * 32
    alone = task()
    for step in range(STEPS):
        alone.update(step)
    assert not torch.equal(first["weights"], torch.cat([p.detach().flatten() for p in alone.generator.parameters()]))


def test_no_two_ranks_steps_or_seeds_share_their_noise():
    cpu = torch.device("cpu")
    keys = [(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)]
    draws = {tuple(torch.randn(4, generator=noise_generator(s, t, cpu, rank=r)).tolist()) for s, t, r in keys}
    assert len(draws) == len(keys)
