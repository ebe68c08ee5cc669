"""The batch of a step is a pure function of the seed and the step."""

import itertools

import numpy as np
import torch

from earthworks.wgan.data.batches import Batches, noise_generator
from earthworks.wgan.data.datasets import Dataset, load_dataset

CPU = torch.device("cpu")


def numbers(num: int = 12) -> Dataset:
    """Samples that are their own numbers."""
    return Dataset("numbers", torch.arange(float(num))[:, None], torch.zeros(2, 1))


def batches(data: Dataset, batch: int = 4, seed: int = 0, dequantize: bool = False) -> Batches:
    return Batches(data, CPU, batch=batch, seed=seed, dequantize=dequantize)


def read(source: Batches, number: int) -> list[float]:
    return source.batch(number, torch.Generator()).flatten().tolist()


def test_every_sample_is_seen_once_an_epoch_and_in_another_order_in_the_next():
    source = batches(numbers())
    epochs = [[x for number in range(3 * epoch, 3 * epoch + 3) for x in read(source, number)] for epoch in range(5)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_what_does_not_fill_a_batch_is_left_out_of_an_epoch_but_not_of_all():
    source = batches(numbers(14))
    epochs = [{x for number in range(3 * epoch, 3 * epoch + 3) for x in read(source, number)} for epoch in range(20)]
    assert {len(epoch) for epoch in epochs} == {12}
    assert set().union(*epochs) == set(range(14))


def test_a_batch_depends_on_seed_and_number_alone():
    """In any order, and whatever was read before: a resumed run need not know where it stood."""
    forward = [read(batches(numbers()), number) for number in range(9)]
    source = batches(numbers())
    assert [read(source, number) for number in reversed(range(9))] == forward[::-1]
    assert [read(batches(numbers(), seed=1), number) for number in range(9)] != forward


def test_batches_of_a_known_distribution_never_repeat():
    data = load_dataset("ring")
    source = batches(data, batch=64)
    seen = torch.cat([source.batch(number, torch.Generator()) for number in range(20)])
    assert len(seen.unique(dim=0)) == 20 * 64
    assert torch.equal(batches(data, batch=64).batch(7, torch.Generator()), seen[7 * 64 : 8 * 64])
    assert not torch.equal(batches(data, batch=64, seed=1).batch(0, torch.Generator()), seen[:64])


def test_dequantization_adds_less_than_one_level_and_spreads_over_it():
    levels = np.array([0, 100, 255], np.uint8).repeat(2000).reshape(60, 1, 10, 10)
    data = Dataset("levels", torch.from_numpy(levels), torch.from_numpy(levels[:2]))
    values = 256 * batches(data, batch=60, dequantize=True).batch(0, torch.Generator().manual_seed(0))
    assert values.floor().unique().tolist() == [0, 100, 255]
    rest = values - values.floor()
    assert 0.49 < rest.mean() < 0.51
    assert rest.min() < 0.01
    assert rest.max() > 0.99
    plain = 255 * batches(data, batch=60).batch(0, torch.Generator())
    assert torch.allclose(plain, plain.round(), atol=1e-4)


def test_no_two_steps_seeds_or_purposes_share_their_noise():
    keys = list(itertools.product(range(3), range(3), range(3)))
    drawn = [
        torch.randn(4, generator=noise_generator(seed, step, CPU, purpose=purpose)) for seed, step, purpose in keys
    ]
    assert len(torch.stack(drawn).unique(dim=0)) == len(keys)
    again = torch.randn(4, generator=noise_generator(2, 1, CPU, purpose=0))
    assert torch.equal(again, drawn[keys.index((2, 1, 0))])
