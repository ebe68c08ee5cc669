"""Training data of a GAN: toy distributions that are known exactly, and images from files, folders and the hub."""

import hashlib
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.runs.errors import missing_extra
from earthworks.runs.files import open_regular
from earthworks.transport.readers.arrays import check_expansion, read_npy, read_npz
from earthworks.wgan.data.unpacking import content_of, image_array, pixels
from earthworks.wgan.networks import value_range

TOYS = ("ring", "grid", "swiss-roll")
STACKED = (
    "stacked:"  # prefix of a data set of labelled one-channel images: three random ones become red, green and blue
)
NUM_STACKED = 128_000  # as in the protocol of VEEGAN and PacGAN
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
GRID_POINTS = 100_000  # fixed and shuffled once, as in the code of Gulrajani et al. 2017
FRESH_POINTS = 100_000  # of the ring and the roll, for measuring only: training draws fresh ones
CIFAR_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out samples, (n, *shape): points in float32, images in uint8 or float32 in [0, 1].

    `labels` are theirs, if any; `centres` (k, d) and `std` describe a mixture of Gaussians; `draw(n, seed)`
    draws fresh samples of a known distribution; `fresh`: training draws every batch anew.
    """

    name: str
    train: Tensor
    held_out: Tensor
    labels: tuple[Tensor, Tensor] | None = None
    centres: Tensor | None = None
    std: float = 0.0
    draw: Callable[[int, int], Tensor] | None = None
    fresh: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    @property
    def digest(self) -> str:
        """Digest of the samples, or of the name for a known distribution."""
        found = hashlib.sha256(b"" if self.draw is None else self.name.encode())
        for part in (self.train, self.held_out) if self.draw is None else ():
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            found.update(np.ascontiguousarray(part.numpy()).data)
        return found.hexdigest()[:16]

    def scaled(self, samples: Tensor) -> Tensor:
        """Samples on the scale of the networks: images in [0, 1] with one channel, in [-1, 1] with more; points
        unscaled."""
        limits = value_range(self.shape)
        if limits is None:
            return samples
        values = samples.float().div(255) if samples.dtype == torch.uint8 else samples.float()
        return values if limits == (0.0, 1.0) else values * (limits[1] - limits[0]) + limits[0]


def load_dataset(name: str, *, validation: float = 0.1, seed: int = 0) -> Dataset:
    """The data set called `name`, its held-out part chosen by `seed`.

    `ring`, `grid`, `swiss-roll` (toys), `digits` (scikit-learn's 8 x 8), a .npy or .npz file, an IDX file or a folder of
    them (MNIST; test files are the held-out part), CIFAR-10's binary batches, a folder of images (folders in it are
    labels), `hf:owner/name`; `stacked:NAME` combines three random images of NAME into the channels of one, labelled by
    the number that their labels spell (stacked MNIST: 1,000 modes). Raises EarthworksError for samples that are
    missing, not all of one size and mode, not finite, constant, or fewer than two.
    """
    if name in TOYS:
        return toy(name, seed)
    if name.startswith(STACKED):
        return stacked(load_dataset(name.removeprefix(STACKED), validation=validation, seed=seed), seed)
    images, labels, tests = read_images(name)
    images = check_samples(name, images)
    if labels is not None and len(labels) != len(images):
        raise EarthworksError(f"{name} has {len(images):,} images but {len(labels):,} labels")
    if tests is not None:
        held_out = check_samples(f"the test part of {name}", tests[0])
        if held_out.shape[1:] != images.shape[1:]:
            shapes = f"{tuple(images.shape[1:])} and {tuple(held_out.shape[1:])}"
            raise EarthworksError(f"the training and test images of {name} differ in shape: {shapes}")
        if tests[1] is not None and len(tests[1]) != len(held_out):
            raise EarthworksError(f"the test part of {name} has {len(held_out):,} images but {len(tests[1]):,} labels")
        both = None if labels is None or tests[1] is None else (as_tensor(labels), as_tensor(tests[1]))
        return Dataset(name, images, held_out, both)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    kept = min(len(images) - 1, max(1, round(validation * len(images))))
    out, stay = order[:kept], order[kept:]
    both = None if labels is None else (as_tensor(labels)[stay], as_tensor(labels)[out])
    return Dataset(name, images[stay], images[out], both)


def located(name: str) -> str:
    """The name of a data set, with files and folders as absolute paths, valid in any working directory."""
    if name.startswith(STACKED):
        return STACKED + located(name.removeprefix(STACKED))
    return name if name in (*TOYS, "digits") or name.startswith("hf:") else os.path.abspath(name)


def stacked(digits: Dataset, seed: int) -> Dataset:
    """Three random images as the channels of one; its label is 100 a + 10 b + c of theirs."""
    if digits.labels is None or digits.shape[0] != 1 or len(digits.shape) != 3 or int(digits.labels[0].max()) > 9:
        raise EarthworksError(f"{STACKED}{digits.name} needs images of one channel with labels from 0 to 9")
    random = torch.Generator().manual_seed(seed)
    parts, labels = [], []
    for images, names, num in zip((digits.train, digits.held_out), digits.labels, (NUM_STACKED, NUM_STACKED // 5)):
        which = torch.randint(len(images), (num, 3), generator=random)
        parts.append(images[which, 0])
        labels.append(names[which] @ torch.tensor([100, 10, 1]))
    return Dataset(f"{STACKED}{digits.name}", parts[0], parts[1], (labels[0], labels[1]))


# toys


def toy(name: str, seed: int) -> Dataset:
    """The 2-D distributions of Gulrajani et al. 2017, of about unit variance per axis.

    ring: 8 centres on a circle of radius 2, noise 0.02, all divided by 1.414, fresh every batch. grid: centres
    {-4, -2, 0, 2, 4}^2, noise 0.05, divided by 2.828; 100,000 points are fixed. swiss-roll: scikit-learn's with noise
    0.25, coordinates 0 and 2, divided by 7.5, fresh every batch.
    """
    if name == "swiss-roll":
        draw, centres, std = swiss_roll, None, 0.0
    else:
        if name == "ring":
            angles = torch.arange(8) * (math.pi / 4)
            centres, std, scale = 2 * torch.stack([angles.cos(), angles.sin()], 1), 0.02, 1.414
        else:
            line = torch.arange(-2, 3) * 2.0
            centres, std, scale = torch.cartesian_prod(line, line), 0.05, 2.828
        centres, std = centres / scale, std / scale

        def draw(n: int, seed: int) -> Tensor:
            random = torch.Generator().manual_seed(seed)
            which = torch.randint(len(centres), (n,), generator=random)
            return centres[which] + std * torch.randn(n, 2, generator=random)

    points = draw(GRID_POINTS if name == "grid" else FRESH_POINTS, 2 * seed)
    return Dataset(name, points, draw(10_000, 2 * seed + 1), None, centres, std, draw, fresh=name != "grid")


def swiss_roll(n: int, seed: int) -> Tensor:
    """t = 3 pi / 2 (1 + 2 u): (t cos t, t sin t) with noise 0.25 on each, divided by 7.5."""
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(n, noise=0.25, random_state=seed % 2**32)
    return torch.from_numpy(points[:, [0, 2]] / 7.5).float()


# images


def read_images(name: str) -> tuple[Tensor, np.ndarray | None, tuple[Tensor, np.ndarray | None] | None]:
    """Samples, labels if there are any, and samples with labels of a test set if there is one."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return torch.from_numpy(digits.images / 16.0).float()[:, None], digits.target, None
    if name.startswith("hf:"):
        return hugging_face(name)
    path = Path(name)
    if not path.exists():
        raise EarthworksError(
            f"{name} does not exist: give {', '.join(TOYS)}, digits, a .npy or IDX file, a folder of images, or hf:..."
        )
    if path.is_dir():
        return folder(path)
    if path.suffix in (".npy", ".npz"):
        return (*array_file(path), None)
    if is_idx(path):
        return images_of(read_idx(path)), matching_labels(path), None
    if ".bin" in path.suffixes:
        return (*cifar([path]), None)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise EarthworksError(f"{name} is a single image; give a folder of them")
    raise EarthworksError(f"{name} is not a .npy, .npz, IDX or CIFAR-10 binary file, nor a folder of images")


def folder(path: Path) -> tuple[Tensor, np.ndarray | None, tuple[Tensor, np.ndarray | None] | None]:
    """IDX files (train-* and t10k-*), CIFAR-10 batches (data_batch_* and test_batch), or images."""
    idx = sorted(file for file in path.iterdir() if "images" in file.name and "idx3" in file.name)
    if idx:
        tests = [file for file in idx if file.name.startswith(("t10k", "test"))]
        trains = [file for file in idx if file not in tests] or tests
        first = (images_of(read_idx(trains[0])), matching_labels(trains[0]))
        return (
            *first,
            (images_of(read_idx(tests[0])), matching_labels(tests[0])) if tests != trains and tests else None,
        )
    batches = sorted(path.glob("*batch*.bin*"))
    if batches:
        tests = [file for file in batches if "test" in file.name]
        trains = [file for file in batches if file not in tests] or tests
        return (*cifar(trains), cifar(tests) if tests and tests != trains else None)
    return (*image_folder(path), None)


def image_folder(path: Path) -> tuple[Tensor, np.ndarray | None]:
    """Every image below `path`; the first folder of its path is its label, where there are folders."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir())
    if not files:
        raise EarthworksError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}), IDX files or CIFAR-10 batches")
    arrays: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    packed = 0
    for file in files:
        with open_regular(file) as stream:
            packed += os.fstat(stream.fileno()).st_size
            array, size = image_array(file, stream)
        arrays.append(array)
        sizes.append(size)
        if array.shape != arrays[0].shape:
            kinds = [
                f"{w} x {h} {'L' if each.ndim == 2 else 'RGB'}"
                for (w, h), each in ((sizes[0], arrays[0]), (size, array))
            ]
            raise EarthworksError(
                f"the images must be of one size and mode: {files[0]} is {kinds[0]}, {file} is {kinds[1]}"
            )
        check_expansion(f"{path}", array.nbytes * len(arrays), packed)
    stacked = np.stack(arrays)
    names = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    labels = np.unique(names, return_inverse=True)[1] if len(set(names)) > 1 else None
    return images_of(stacked), labels


def array_file(path: Path) -> tuple[Tensor, np.ndarray | None]:
    """A .npy of samples, or a .npz with `images` (or its first array) and perhaps `labels`."""
    if path.suffix == ".npy":
        return images_of(read_npy(path)), None
    array, labels = read_npz(path, [("images", "x"), ("labels", "y")])
    if array is None:
        raise EarthworksError(f"{path} holds no arrays; expected one called images, and perhaps labels")
    return images_of(array), labels


def images_of(array: np.ndarray) -> Tensor:
    """(n, d) stay points; (n, h, w), (n, h, w, c) or (n, c, h, w) become images (n, c, h, w)."""
    if array.ndim == 2:
        return torch.from_numpy(np.array(array)).float()
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4:
        raise EarthworksError(
            f"samples must be points (n, d) or images (n, height, width[, channels]); these have shape {array.shape}"
        )
    if array.shape[1] not in (1, 3):
        raise EarthworksError(f"images need 1 or 3 channels; got an array of shape {array.shape}")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.array(array))
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    if values.numel() and torch.isfinite(values).all() and (values.min() < 0 or values.max() > 1):
        limits = f"[{float(values.min()):.3g}, {float(values.max()):.3g}]"
        raise EarthworksError(f"images must be bytes (uint8) or numbers in [0, 1]; these are in {limits}")
    return values


def is_idx(path: Path) -> bool:
    head = content_of(path, 4)
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] == 8 and head[3] in (1, 3)


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, perhaps gzipped: two zeros, 8, the number of axes, their sizes."""
    head = content_of(path, 4 + 4 * 255)
    try:
        start = 4 + 4 * head[3]
        shape = struct.unpack(f">{head[3]}I", head[4:start])
        count = math.prod(shape)
        content = content_of(path, start + count)
        if len(content) < start + count:
            raise ValueError
        return np.frombuffer(content, np.uint8, count, start).reshape(shape)
    except EarthworksError:
        raise
    except (ValueError, struct.error, IndexError):
        raise EarthworksError(f"{path} is not a complete IDX file") from None


def matching_labels(path: Path) -> np.ndarray | None:
    """The labels of an IDX file of images, found by MNIST's naming, or None."""
    file = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    return read_idx(file) if file != path and file.exists() else None


def cifar(paths: list[Path]) -> tuple[Tensor, np.ndarray | None]:
    """CIFAR-10's binary batches: a label byte, then 3 x 32 x 32 bytes."""
    parts = []
    for path in paths:
        content = np.frombuffer(content_of(path), np.uint8)
        if not len(content) or len(content) % CIFAR_RECORD:
            raise EarthworksError(
                f"{path} is not a CIFAR-10 binary batch: {len(content):,} bytes are not a multiple of 3,073"
            )
        parts.append(content.reshape(-1, CIFAR_RECORD))
        if parts[-1][:, 0].max() > 9:
            raise EarthworksError(f"{path} is not a CIFAR-10 binary batch: it has labels above 9")
    records = np.concatenate(parts)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), records[:, 0].astype(np.int64)


def hugging_face(name: str) -> tuple[Tensor, np.ndarray | None, None]:
    """hf:owner/dataset[:config][:split]: its column of images, and `label` if there is one."""
    try:
        import datasets
    except ImportError:
        raise missing_extra("hf", "datasets", name) from None
    dataset, *rest = name.removeprefix("hf:").split(":")
    split = rest[-1] if rest else "train"
    try:
        table = datasets.load_dataset(dataset, *rest[:-1], split=split)
    except Exception as error:  # of many types; all the same to the user
        raise EarthworksError(f"{name} could not be loaded: {str(error).splitlines()[0]}") from None
    column = next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise EarthworksError(f"{name} has no image column; its columns are {', '.join(table.column_names)}")
    arrays = [pixels(image) for image in table[column]]
    if len({array.shape for array in arrays}) > 1:
        raise EarthworksError(f"the images of {name} are not all of one size and mode")
    labels = np.asarray(table["label"]) if "label" in table.column_names else None
    return images_of(np.stack(arrays)), labels, None


def as_tensor(labels: np.ndarray) -> Tensor:
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise EarthworksError(
            f"labels must be one integer per sample; these are {labels.dtype} of shape {labels.shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(labels, np.int64))


def check_samples(name: str, samples: Tensor) -> Tensor:
    if len(samples) < 2:
        raise EarthworksError(
            f"{name} holds {len(samples)} sample; a GAN needs at least two, and thousands for good results"
        )
    if samples.is_floating_point() and not torch.isfinite(samples).all():
        raise EarthworksError(f"{name} holds non-finite values (NaN or infinity): remove those samples")
    if bool((samples == samples[:1]).all()):
        raise EarthworksError(f"all {len(samples):,} samples of {name} are identical; there is nothing to learn")
    if bool((samples[0] == samples[0].flatten()[0]).all()) and samples.ndim == 4:
        flat = samples.flatten(1)
        if bool((flat == flat[:, :1]).all()):
            raise EarthworksError(f"every image of {name} has a single colour; there is nothing to learn")
    return samples
