"""Generators and critics of the papers: `mlp`, `dcgan`, `resnet`, with channels and size taken from the data.

A generator maps noise (n, noise) to samples of `shape`; a critic maps samples to raw scores (n,). `shape` is (d,) for points
and (channels, height, width) for images. Images are in [0, 1] (sigmoid) with one channel and in [-1, 1] (tanh) otherwise, as
in the code of Gulrajani et al. 2017. A penalised critic has no batch normalization, which would make the score of one
sample depend on the others. Shapes: n samples, c channels, h height, w width.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earthworks.runs import EarthworksError

Network = Literal["mlp", "dcgan", "resnet"]
LEAK = 0.2
SMALLEST = 4  # side of the smallest feature maps
LARGEST_RESNET = 64


def build(
    network: Network, shape: Sequence[int], *, noise: int, width: int, depth: int, batch_norm: bool
) -> tuple[nn.Module, nn.Module]:
    """Generator and critic for samples of `shape`. `batch_norm` (objectives without a penalty) adds it to both.

    `width`: hidden units of the mlp, channels of dcgan's largest feature maps, of all of resnet's; `depth`: hidden layers
    of the mlp. Raises EarthworksError for a network that does not support such samples.
    """
    if network not in get_args(Network):
        raise EarthworksError(f"network is {network!r}; it must be one of {', '.join(get_args(Network))}")
    shape = tuple(shape)
    if network == "mlp":
        return MLPGenerator(shape, noise, width, depth), MLPCritic(shape, width, depth)
    if len(shape) != 3:
        raise EarthworksError(f"--network {network} is for images; samples of shape {shape} need --network mlp")
    if min(shape[1:]) < 2 * SMALLEST:
        raise EarthworksError(f"--network {network} is for images of at least 8 x 8; these are {shape[1]} x {shape[2]}")
    if network == "dcgan":
        return DCGANGenerator(shape, noise, width, batch_norm), DCGANCritic(shape, width, batch_norm)
    if max(shape[1:]) > LARGEST_RESNET:
        raise EarthworksError(f"--network resnet is for images up to 64 x 64; these are {shape[1]} x {shape[2]}")
    return ResNetGenerator(shape, noise, width), ResNetCritic(shape, width)


def value_range(shape: Sequence[int]) -> tuple[float, float] | None:
    """Range of the values of samples of `shape`; None for points, which are unbounded."""
    return None if len(shape) == 1 else (0.0, 1.0) if shape[0] == 1 else (-1.0, 1.0)


class Bounded(nn.Module):
    """Last layer of an image generator: maps into the range of the data."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.limits = value_range(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.limits is None else torch.sigmoid(x) if self.limits[0] == 0 else torch.tanh(x)


def initialize(module: nn.Module, *, relu: bool = True, stride: int = 1) -> nn.Module:
    """Weights uniform with variance 4 / (fan in + fan out) before a ReLU, 2 / (fan in + fan out) elsewhere, biases 0.

    fan_out is divided by stride^2 for a convolution that makes images smaller, fan_in for one that makes them larger,
    because only that share of the taps meets one pixel. As in the code of Gulrajani et al. 2017, after He et al. 2015.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    taps = math.prod(weight.shape[2:])
    outputs, inputs = weight.shape[:2]
    if isinstance(module, nn.ConvTranspose2d):
        fan_in, fan_out = outputs * taps / stride**2, inputs * taps
    else:
        fan_in, fan_out = inputs * taps, outputs * taps / stride**2
    variance = (4 if relu else 2) / (fan_in + fan_out)
    nn.init.uniform_(weight, -math.sqrt(3 * variance), math.sqrt(3 * variance))
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
    return module


# mlp: the toy problems of Gulrajani et al. 2017 (depth 3, width 512)


def hidden_layers(inputs: int, width: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [initialize(nn.Linear(width if layer else inputs, width)), nn.ReLU()]
    return layers


class MLPGenerator(nn.Module):
    def __init__(self, shape: Sequence[int], noise: int, width: int, depth: int):
        super().__init__()
        self.shape = tuple(shape)
        last = initialize(nn.Linear(width, math.prod(shape)), relu=False)
        self.layers = nn.Sequential(*hidden_layers(noise, width, depth), last, Bounded(shape))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).view(-1, *self.shape)


class MLPCritic(nn.Module):
    def __init__(self, shape: Sequence[int], width: int, depth: int):
        super().__init__()
        last = initialize(nn.Linear(width, 1), relu=False)
        self.layers = nn.Sequential(*hidden_layers(math.prod(shape), width, depth), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).squeeze(1)


# dcgan: 5 x 5 convolutions of stride 2, from 4 x 4 up and back down to it


def sides(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Heights and widths of the images between the layers, largest first: 28, 14, 7, 4. At least two halvings."""
    found = [(shape[1], shape[2])]
    while max(found[-1]) > SMALLEST or len(found) < 3:
        found.append(((found[-1][0] + 1) // 2, (found[-1][1] + 1) // 2))
    return found


class DCGANGenerator(nn.Module):
    """Linear, then deconvolutions that double the side and halve the channels. MNIST: 256 x 4 x 4, 128 x 7 x 7 (cropped from
    8), 64 x 14 x 14, 1 x 28 x 28. Batch normalization for colour images, or if requested."""

    def __init__(self, shape: Sequence[int], noise: int, width: int, batch_norm: bool):
        super().__init__()
        self.sides = sides(shape)[::-1]
        stages = len(self.sides) - 1
        channels = [width << stage for stage in reversed(range(stages))] + [shape[0]]
        batch_norm = batch_norm or shape[0] > 1
        area = math.prod(self.sides[0])
        self.first = initialize(nn.Linear(noise, channels[0] * area))
        self.first_norm = nn.BatchNorm1d(channels[0] * area) if batch_norm else nn.Identity()
        self.channels = channels[0]
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for stage in range(stages):
            last = stage == stages - 1
            layer = nn.ConvTranspose2d(channels[stage], channels[stage + 1], 5, stride=2, padding=2, output_padding=1)
            self.layers.append(initialize(layer, relu=not last, stride=2))
            self.norms.append(nn.BatchNorm2d(channels[stage + 1]) if batch_norm and not last else nn.Identity())
        self.bounded = Bounded(shape)

    def forward(self, z: Tensor) -> Tensor:
        x_nchw = self.first_norm(self.first(z)).view(len(z), self.channels, *self.sides[0])
        for layer, norm, (height, width) in zip(self.layers, self.norms, self.sides[1:]):
            x_nchw = norm(layer(F.relu(x_nchw))[:, :, :height, :width])
        return self.bounded(x_nchw)


class DCGANCritic(nn.Module):
    """Convolutions that halve the side and double the channels, then one linear layer. MNIST: 64, 128, 256 channels."""

    def __init__(self, shape: Sequence[int], width: int, batch_norm: bool):
        super().__init__()
        smallest = sides(shape)[-1]
        channels = [shape[0], *(width << stage for stage in range(len(sides(shape)) - 1))]
        layers: list[nn.Module] = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            layers.append(initialize(nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), stride=2))
            layers += [nn.BatchNorm2d(outputs)] if batch_norm and stage else []
            layers.append(nn.LeakyReLU(LEAK))
        last = initialize(nn.Linear(channels[-1] * math.prod(smallest), 1), relu=False)
        self.layers = nn.Sequential(*layers, nn.Flatten(), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


# resnet: pre-activation blocks; nearest up-sampling before the first convolution, mean pooling after the second (as in
# the code of Gulrajani et al. 2017; the paper's table puts the up-sampling before the second)


class Block(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), up- or downsampled or neither; a 1 x 1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, resample: Literal["up", "down", None], norms: Sequence[nn.Module]):
        super().__init__()
        self.resample = resample
        middle = inputs if resample == "down" else outputs
        self.first_norm, self.second_norm = norms
        self.first = initialize(nn.Conv2d(inputs, middle, 3, padding=1))
        self.second = initialize(nn.Conv2d(middle, outputs, 3, padding=1))
        same = inputs == outputs and resample is None
        self.shortcut = nn.Identity() if same else initialize(nn.Conv2d(inputs, outputs, 1), relu=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first_norm(x))
        if self.resample == "up":
            x, h = F.interpolate(x, scale_factor=2.0), F.interpolate(h, scale_factor=2.0)
        h = self.second(F.relu(self.second_norm(self.first(h))))
        h = F.avg_pool2d(h, 2) if self.resample == "down" else h
        # a 1 x 1 convolution commutes with the mean, and the smaller image takes a quarter of the work
        return h + self.shortcut(F.avg_pool2d(x, 2) if self.resample == "down" else x)


class FirstBlock(nn.Module):
    """First block of the critic: applied to pixels, so no ReLU comes before it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = initialize(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.second = initialize(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = initialize(nn.Conv2d(inputs, outputs, 1), relu=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(F.relu(self.first(x)))
        return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))


def resnet_widths(shape: Sequence[int], width: int) -> list[int]:
    """Channels from 4 x 4 up: all `width` up to 32 x 32 (the CIFAR-10 network), 8, 8, 4, 2, 1 times it for 64 x 64."""
    ups = math.ceil(math.log2(max(shape[1:]) / SMALLEST))
    return [width] * (ups + 1) if ups <= 3 else [8 * width, 8 * width, 4 * width, 2 * width, width]


class ResNetGenerator(nn.Module):
    """Linear, blocks that double the side, batch normalization throughout; cropped where the side is not 4 x 2^k."""

    def __init__(self, shape: Sequence[int], noise: int, width: int):
        super().__init__()
        widths = resnet_widths(shape, width)
        self.shape, self.channels = tuple(shape), widths[0]
        self.first = initialize(nn.Linear(noise, widths[0] * SMALLEST**2), relu=False)
        self.blocks = nn.Sequential(
            *(
                Block(a, b, resample="up", norms=(nn.BatchNorm2d(a), nn.BatchNorm2d(b)))
                for a, b in itertools.pairwise(widths)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = initialize(nn.Conv2d(widths[-1], shape[0], 3, padding=1), relu=False)
        self.bounded = Bounded(shape)

    def forward(self, z: Tensor) -> Tensor:
        x_nchw = self.blocks(self.first(z).view(len(z), self.channels, SMALLEST, SMALLEST))
        x_nchw = self.last(F.relu(self.norm(x_nchw)))
        return self.bounded(x_nchw[:, :, : self.shape[1], : self.shape[2]])


class LayerNorm(nn.Module):
    """Normalization over channels, height and width of each sample, with a gain and a bias per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias)


class ResNetCritic(nn.Module):
    """Up to 32 x 32: two blocks that halve the side, two that keep it, mean over pixels, linear; no normalization. 64 x 64:
    four blocks that halve it, with layer normalization, and a linear layer on 4 x 4 pixels."""

    def __init__(self, shape: Sequence[int], width: int):
        super().__init__()
        self.pooled = max(shape[1:]) <= 32
        if self.pooled:
            self.first: nn.Module = FirstBlock(shape[0], width)
            resamples: list[Literal["down", None]] = ["down", None, None]
            blocks = [Block(width, width, resample=r, norms=(nn.Identity(), nn.Identity())) for r in resamples]
            features = width
        else:
            widths = resnet_widths(shape, width)[::-1]
            self.first = initialize(nn.Conv2d(shape[0], width, 3, padding=1), relu=False)
            blocks = [
                Block(a, b, resample="down", norms=(LayerNorm(a), LayerNorm(a))) for a, b in itertools.pairwise(widths)
            ]
            features = widths[-1] * (shape[1] // 16) * (shape[2] // 16)
        self.blocks = nn.Sequential(*blocks)
        self.last = initialize(nn.Linear(features, 1), relu=False)

    def forward(self, x: Tensor) -> Tensor:
        h_nchw = self.blocks(self.first(x))
        h = F.relu(h_nchw).mean((2, 3)) if self.pooled else h_nchw.flatten(1)
        return self.last(h).squeeze(1)
