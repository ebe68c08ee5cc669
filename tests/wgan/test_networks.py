"""The networks of the papers: sizes, output ranges, and critics that score each sample independently."""

import math

import pytest
import torch
from torch import nn

from earthworks.runs import EarthworksError
from earthworks.wgan.networks import build, initialize


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pair(network: str, shape: tuple[int, ...], *, noise=128, width=8, depth=3, batch_norm=False):
    torch.manual_seed(0)
    return build(network, shape, noise=noise, width=width, depth=depth, batch_norm=batch_norm)


@pytest.mark.parametrize(
    ("network", "shape", "noise", "width", "generator", "critic"),
    [
        ("mlp", (2,), 2, 512, 527_874, 527_361),  # the toys of Gulrajani et al. 2017
        ("dcgan", (1, 28, 28), 128, 64, 1_554_177, 1_030_145),  # its MNIST
        ("dcgan", (3, 32, 32), 128, 128, 5_179_907, 4_114_689),  # its CIFAR-10
        ("resnet", (3, 32, 32), 128, 128, 1_204_483, 1_053_825),  # its appendix F
        ("resnet", (3, 32, 32), 128, 256, 4_276_739, None),  # the wider generator of later code
    ],
)
def test_parameter_counts_are_those_of_the_papers(network, shape, noise, width, generator, critic):
    found = pair(network, shape, noise=noise, width=width)
    assert count(found[0]) == generator
    assert critic in (None, count(found[1]))


SHAPES = [
    *(("mlp", shape) for shape in ((2,), (7,), (1, 8, 8), (3, 5, 9))),
    *(("dcgan", shape) for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 13, 9), (3, 64, 48))),
    *(("resnet", shape) for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 13, 9), (3, 64, 64), (3, 64, 48))),
]


@pytest.mark.parametrize(("network", "shape"), SHAPES)
def test_samples_have_the_shape_of_the_data_and_scores_are_one_a_sample(network, shape):
    generator, critic = pair(network, shape, width=4)
    samples = generator(torch.randn(3, 128))
    assert samples.shape == (3, *shape)
    assert critic(samples).shape == (3,)


@pytest.mark.parametrize(("network", "shape"), SHAPES)
def test_the_score_of_a_sample_does_not_depend_on_the_others(network, shape):
    _, critic = pair(network, shape, width=4)
    samples = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    together = critic(samples)
    alone = torch.cat([critic(sample[None]) for sample in samples])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critic.modules())


def test_the_test_above_would_see_batch_normalization():
    _, critic = pair("dcgan", (1, 28, 28), batch_norm=True)
    samples = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(critic(samples)[:1], critic(samples[:1]), rtol=1e-2)


@pytest.mark.parametrize("network", ["mlp", "dcgan", "resnet"])
@pytest.mark.parametrize(("channels", "low"), [(1, 0.0), (3, -1.0)])
def test_generated_images_are_in_the_range_of_the_data_and_can_reach_both_ends(network, channels, low):
    generator, _ = pair(network, (channels, 16, 16))
    last = generator.last if network == "resnet" else generator.layers[-1 if network == "dcgan" else -2]
    with torch.no_grad():
        for bias, limit in ((50.0, 1.0), (-50.0, low)):
            last.bias.fill_(bias)
            assert torch.allclose(generator(torch.randn(5, 128)), torch.tensor(limit), atol=1e-6)


def test_points_are_not_bounded():
    generator, _ = pair("mlp", (2,))
    with torch.no_grad():
        generator.layers[-2].bias.fill_(50.0)
        assert (generator(torch.randn(5, 128)) > 40).all()


def test_scores_are_raw_so_a_critic_ends_in_a_linear_layer():
    for network in ("mlp", "dcgan", "resnet"):
        _, critic = pair(network, (1, 16, 16))
        assert isinstance([module for module in critic.modules() if not list(module.children())][-1], nn.Linear)


@pytest.mark.parametrize(
    ("layer", "relu", "stride", "fans"),
    [
        (nn.Linear(300, 200), True, 1, 300 + 200),
        (nn.Linear(300, 200), False, 1, 300 + 200),
        (nn.Conv2d(32, 64, 5), True, 2, 32 * 25 + 64 * 25 / 4),
        (nn.ConvTranspose2d(64, 32, 5), True, 2, 64 * 25 / 4 + 32 * 25),
    ],
)
def test_weights_start_uniform_with_the_variance_of_their_fans(layer, relu, stride, fans):
    """The code of Gulrajani et al. 2017: a transposed convolution has its fans exchanged."""
    torch.manual_seed(0)
    weight = initialize(layer, relu=relu, stride=stride).weight
    variance = (4 if relu else 2) / fans
    assert weight.var().item() == pytest.approx(variance, rel=0.03)
    assert weight.abs().max().item() <= math.sqrt(3 * variance)
    assert (layer.bias == 0).all()


def test_a_network_that_is_not_laid_out_for_the_data_is_refused_in_a_sentence():
    for network, shape, words in (
        ("dcgan", (2,), "is for images"),
        ("resnet", (1, 7, 30), "at least 8 x 8; these are 7 x 30"),
        ("resnet", (3, 65, 20), "up to 64 x 64; these are 65 x 20"),
        ("unet", (3, 32, 32), "must be one of mlp, dcgan, resnet"),
    ):
        with pytest.raises(EarthworksError, match=words):
            pair(network, shape)
