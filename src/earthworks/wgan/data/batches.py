"""Batches of training samples, a pure function of seed and step, so that a resumed run gets the same ones."""

import numpy as np
import torch
from torch import Tensor

from earthworks.training.distributed import rank, world_size
from earthworks.wgan.data.datasets import Dataset

LEVELS = 256  # of a byte; dequantization adds noise of one level's width


def noise_generator(seed: int, step: int, device: torch.device, *, purpose: int = 0, rank: int = 0) -> torch.Generator:
    """Random generator of one step: different (seed, step, purpose, rank) have different streams."""
    state = np.random.SeedSequence([seed, step, purpose, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class Batches:
    """Batches of training samples on the scale of the networks: freshly drawn for a known distribution, otherwise each
    sample once per epoch, in an order set by the seed and the epoch number."""

    def __init__(self, data: Dataset, device: torch.device, *, batch: int, seed: int, dequantize: bool):
        self.data, self.batch_size, self.seed = data, batch, seed
        self.dequantized = dequantize and data.train.dtype == torch.uint8
        self.samples = data.train.to(device)
        self.per_epoch = len(data.train) // self.batch_size
        self.device = device
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, number: int, random: torch.Generator) -> Tensor:
        """Batch `number` of the run, (batch, *shape) in float32; in a process group each rank has its own."""
        number = number * world_size() + rank()
        if self.data.fresh:
            assert self.data.draw is not None
            seed = int(np.random.SeedSequence([self.seed, number, 3]).generate_state(1)[0])
            return self.data.draw(self.batch_size, seed).to(self.device)
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            shuffle = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, epoch, 4]).generate_state(1)[0])
            )
            self.order = torch.randperm(len(self.samples), generator=shuffle).to(self.device)
        chosen = self.samples[self.order[place * self.batch_size : (place + 1) * self.batch_size]]
        if self.dequantized:
            steps = torch.rand(chosen.shape, device=self.device, generator=random)
            return self.data.scaled((chosen + steps) / LEVELS)
        return self.data.scaled(chosen)

    def training(self, num: int) -> Tensor:
        """The first `num` training samples, for measuring."""
        return self.data.scaled(self.samples[:num])

    def held_out(self, num: int) -> Tensor:
        """The first `num` held-out samples."""
        return self.data.scaled(self.data.held_out[:num].to(self.device))
