"""Cheap, critic-free measures of a generator's progress."""

import math
from typing import Any

import torch
from torch import Tensor

from earthworks.transport.sliced import sliced_wasserstein
from earthworks.wgan.data.datasets import Dataset

HIGH_QUALITY = 3.0  # standard deviations from the nearest centre, at most
DIRECTIONS = 128


def quick_measures(fake: Tensor, held_out: Tensor, data: Dataset) -> dict[str, Any]:
    """Sliced W2 to the held-out samples; of a mixture also the modes found, the share of high-quality samples and the
    reverse KL divergence of its modes to uniform. `score`: lower is better; `shown`: quantities printed as progress."""
    if len(fake) > len(held_out):
        fake = fake[: len(held_out)]
    sliced = sliced_wasserstein(fake.flatten(1), held_out.flatten(1), num_directions=DIRECTIONS, seed=0)
    record: dict[str, Any] = {"sliced_2": float(sliced)}
    if data.centres is None:
        return {**record, "score": record["sliced_2"], "shown": {"sliced W2": record["sliced_2"]}}
    nearest = torch.cdist(fake.double(), data.centres.double().to(fake.device)).min(1)
    good = nearest.values < HIGH_QUALITY * data.std
    counts = torch.bincount(nearest.indices[good], minlength=len(data.centres)).double()
    shares = counts / counts.sum().clamp(min=1)
    reverse_kl = float(torch.special.xlogy(shares, shares * len(shares)).sum()) if counts.sum() else math.inf
    quality, modes = float(good.double().mean()), int((counts > 0).sum())
    record |= {"modes": modes, "quality": quality, "reverse_kl": reverse_kl}
    shown = {"modes": modes, "quality": quality, "reverse KL": reverse_kl}
    return {**record, "score": 1 - quality + min(reverse_kl, math.log(len(shares))), "shown": shown}
