"""A small convolutional classifier, trained on the labels in seconds: semantic features and class probabilities, with
nothing to download."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earthworks.runs import EarthworksError, read_regular, write_bytes
from earthworks.statistics import wilson_interval
from earthworks.wgan.measures.features import BATCH, Extractor
from earthworks.wgan.measures.measure import Measure

FEATURES = 64  # few enough for the covariance of a thousand images
IMAGES_SEEN = 150_000  # in training: two and a half epochs of MNIST
EPOCHS = 30  # at most, for small data sets
TRAINING_BATCH = 100
PEAK_RATE = 2e-3
LARGEST = 1 << 30  # bytes of a saved classifier: it grows only with the image size


@dataclass(frozen=True, eq=False)
class Classifier(Extractor):
    """The extractor `classifier`: features are the 64 values before the last ReLU; digest that of the saved file."""

    network: "Network"

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (n, classes)."""
        return torch.cat([self.network(batch).softmax(1) for batch in images.split(BATCH)])

    def labels(self, images: Tensor) -> Tensor:
        """The most probable class of each image: (n,)."""
        return self.probabilities(images).argmax(1)

    @property
    def held_out_accuracy(self) -> Measure:
        """Accuracy on the held-out images."""
        right, trials = self.network.held_out.tolist()
        return Measure(
            name=f"accuracy[{self}]", value=right / trials, interval=wilson_interval(right, trials), n=int(trials)
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whose SHA-256 is the digest."""
        write_bytes(path, serialized(self.network))


class Network(nn.Module):
    """Three convolutions, the second and third (from 16 x 16 pixels all) of stride 2; 64 features; classes."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        channels, height, width = shape
        first = 2 if min(height, width) >= 16 else 1
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=first, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        sides = [-(-side // (4 * first)) for side in (height, width)]
        self.hidden = nn.Linear(64 * sides[0] * sides[1], FEATURES)
        self.output = nn.Linear(FEATURES, num_classes)
        self.scale: Tensor
        self.held_out: Tensor
        self.shape: Tensor
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))  # mean and standard deviation of the training images
        self.register_buffer("held_out", torch.zeros(2, dtype=torch.int64))  # correct, total
        self.register_buffer("shape", torch.tensor(shape))

    def features(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != tuple(self.shape.tolist()):
            raise EarthworksError(
                f"the classifier was trained on images of shape {tuple(self.shape.tolist())}, not {tuple(images.shape[1:])}"
            )
        return self.hidden(self.convolutions((images.float() - self.scale[0]) / self.scale[1]))

    def forward(self, images: Tensor) -> Tensor:
        return self.output(F.relu(self.features(images)))


def train_classifier(
    train: tuple[Tensor, Tensor | None],
    held_out: tuple[Tensor, Tensor | None],
    *,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Classifier:
    """A classifier of images (n, channels, height, width) with labels (n,), each class 0 to K - 1, in `train`; its accuracy
    is measured on the pair `held_out`, never trained on.

    150,000 images seen, but none more than 30 times, in batches of 100, Adam with a rate that rises to 2e-3 and falls to 0:
    half a minute for MNIST on one core. `seed` determines weights and order, and so, on one machine, the digest; the
    caller's random state is unchanged. `on_progress` gets the share done. Its features separate the
    training images from others (10,000 of MNIST's to the 10,000 held out: Fréchet 4.3, null 1.5), so measure
    generated images against held-out ones.
    Raises EarthworksError for missing labels, one class, integers for images, and NaN.
    """
    images, labels = checked(*train)
    held_images, held_labels = checked(*held_out)
    num_classes = int(labels.max()) + 1
    if int(labels.min()) == int(labels.max()):
        raise EarthworksError("all training images have the same label; a classifier needs at least two classes")
    if held_images.shape[1:] != images.shape[1:] or int(held_labels.max()) >= num_classes:
        raise EarthworksError("the held-out images have another shape, or a label that the training images lack")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network((images.shape[1], images.shape[2], images.shape[3]), num_classes)
    network.to(images.device)
    network.scale.copy_(torch.stack([images.mean(), images.std().clamp(min=1e-6)]))
    fit(network, images, labels, seed, on_progress)
    right = sum(
        int((network(x).argmax(1) == y).sum()) for x, y in zip(held_images.split(BATCH), held_labels.split(BATCH))
    )
    network.held_out.copy_(torch.tensor([right, len(held_labels)]))
    return as_extractor(network)


def fit(network: Network, images: Tensor, labels: Tensor, seed: int, on_progress: Callable[[float], None]) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_RATE)
    num_steps = math.ceil(min(IMAGES_SEEN, EPOCHS * len(images)) / TRAINING_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=num_steps, cycle_momentum=False)
    for step in range(num_steps):
        chosen = torch.randint(len(images), (TRAINING_BATCH,), generator=generator).to(images.device)
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        on_progress((step + 1) / num_steps)
    network.eval().requires_grad_(False)


def load_classifier(path: str | Path) -> Classifier:
    """Load a file of `Classifier.save`. Raises EarthworksError for a missing file or another kind of file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(read_regular(path, LARGEST))
        shape, classes = tensors["shape"].tolist(), len(tensors["output.bias"])
        with torch.device("meta"):  # no memory for shapes that only the file claims
            wanted = Network((shape[0], shape[1], shape[2]), classes).state_dict()
        if {name: value.shape for name, value in wanted.items()} != {name: t.shape for name, t in tensors.items()}:
            raise ValueError
        network = Network((shape[0], shape[1], shape[2]), classes)
        network.load_state_dict(tensors)
        if not all(value.isfinite().all() for value in tensors.values()) or int(network.held_out[1]) < 1:
            raise ValueError
    except EarthworksError:
        raise
    except (SafetensorError, KeyError, IndexError, RuntimeError, ValueError, TypeError, OverflowError):
        raise EarthworksError(f"{path} holds no classifier of this version: delete it to train a new one") from None
    return as_extractor(network.eval().requires_grad_(False))


def as_extractor(network: Network) -> Classifier:
    return Classifier("classifier", hashlib.sha256(serialized(network)).hexdigest(), network.features, network)


def serialized(network: Network) -> bytes:
    from safetensors.torch import save

    return save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})


def checked(images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    if labels is None:
        raise EarthworksError("the images have no labels, which a classifier needs: use pixels or pca instead")
    labels = torch.as_tensor(labels)
    if images.ndim != 4 or not len(images) or not images.is_floating_point() or not images.isfinite().all():
        raise EarthworksError(
            f"images of shape {tuple(images.shape)}, {images.dtype}: expected finite floats (n, channels, height, width)"
        )
    if labels.shape != (len(images),) or labels.is_floating_point() or int(labels.min()) < 0:
        raise EarthworksError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: expected whole numbers from 0, one for each of "
            f"{len(images)} images"
        )
    return images.float(), labels.long().to(images.device)
