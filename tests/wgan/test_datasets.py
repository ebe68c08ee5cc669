"""Toys as in the literature, images from files, folders and the hub, and errors for unusable input."""

import gzip
import lzma
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from earthworks.runs import EarthworksError
from earthworks.wgan.data.datasets import load_dataset
from earthworks.wgan.data.unpacking import content_of

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 8, 10), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (12, 8, 10, 3), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def whole(name: object) -> torch.Tensor:
    """All samples of a data set, held-out ones last."""
    data = load_dataset(str(name))
    return torch.cat([data.train, data.held_out])


def sets(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


# toys


def test_the_ring_has_eight_centres_on_a_circle_of_radius_2_and_noise_of_002_all_divided_by_1414():
    data = load_dataset("ring")
    assert data.centres.norm(dim=1).tolist() == pytest.approx([2 / 1.414] * 8, rel=1e-6)
    assert data.std == pytest.approx(0.02 / 1.414)
    assert torch.pdist(data.centres).min().item() == pytest.approx(1.0826, abs=1e-4)
    angles = sorted((math.atan2(y, x) / (math.pi / 4)) % 8 for x, y in data.centres.tolist())
    assert angles == pytest.approx(range(8), abs=1e-5)
    check_mixture(data.draw(200_000, 5), data)
    assert data.train.std(0).tolist() == pytest.approx([1, 1], abs=0.01)


def test_the_grid_has_25_centres_07072_apart_and_100_000_fixed_points():
    data = load_dataset("grid")
    assert len(data.centres) == 25
    assert data.std == pytest.approx(0.05 / 2.828)
    assert torch.pdist(data.centres).min().item() == pytest.approx(0.7072, abs=1e-4)
    assert data.centres.abs().max().item() == pytest.approx(4 / 2.828)
    assert len(data.train) == 100_000
    assert not data.fresh
    check_mixture(data.train, data)
    assert torch.equal(data.train, load_dataset("grid").train)


def check_mixture(points: torch.Tensor, data) -> None:
    """Equally many points at each centre, normally distributed around it with the right width."""
    distance, nearest = torch.cdist(points, data.centres).min(1)
    share = torch.bincount(nearest, minlength=len(data.centres)) / len(points)
    expected = 1 / len(data.centres)
    assert (share - expected).abs().max() < 5 * math.sqrt(expected / len(points))
    assert (points - data.centres[nearest]).std(0).tolist() == pytest.approx([data.std] * 2, rel=0.01)
    assert (distance < 3 * data.std).double().mean().item() == pytest.approx(1 - math.exp(-4.5), abs=0.002)  # 98.89 %


def test_the_swiss_roll_is_scikit_learns_with_noise_025_divided_by_75():
    data = load_dataset("swiss-roll")
    points = data.draw(200_000, 3).double()
    assert points.std(0).tolist() == pytest.approx([0.884, 0.927], abs=0.005)
    assert points.mean(0).tolist() == pytest.approx([0.267, 0.028], abs=0.01)
    assert points.norm(dim=1).max() < 1.885 + 5 * 0.25 / 7.5
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 4000, dtype=torch.float64)
    curve = torch.stack([t * t.cos(), t * t.sin()], 1) / 7.5
    off = torch.cdist(points[:5000], curve).min(1).values
    assert off.square().mean().sqrt().item() == pytest.approx(0.25 / 7.5, rel=0.05)  # across the curve: one of two axes


@pytest.mark.parametrize("name", ["ring", "swiss-roll"])
def test_a_fresh_toy_is_drawn_anew_by_the_seed_and_held_out_points_are_others(name):
    data = load_dataset(name)
    assert data.fresh
    assert torch.equal(data.draw(50, 7), data.draw(50, 7))
    assert not torch.isclose(data.draw(50, 7), data.draw(50, 8)).any(1).any()
    assert len(torch.cat([data.train[:2000], data.held_out[:2000]]).unique(dim=0)) == 4000
    assert not torch.equal(data.train, load_dataset(name, seed=1).train)


# images


def test_the_digits_are_scikit_learns_1797_in_0_to_1_with_their_labels():
    data = load_dataset("digits")
    assert len(data.train) + len(data.held_out) == 1797
    assert data.shape == (1, 8, 8)
    assert (data.train.min(), data.train.max()) == (0, 1)
    assert [len(labels) for labels in data.labels] == [len(data.train), len(data.held_out)]
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {(image / 16).astype(np.float32).tobytes(): label for image, label in zip(digits.images, digits.target)}
    for images, labels in zip((data.train, data.held_out), data.labels):
        assert all(known[image.numpy().tobytes()] == label for image, label in zip(images[:100, 0], labels[:100]))


def test_the_split_keeps_every_sample_once_and_its_share_and_follows_the_seed(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    first, same, other = (load_dataset(str(tmp_path / "a.npy"), validation=0.25, seed=seed) for seed in (0, 0, 1))
    assert len(first.held_out) == 3
    assert sets(torch.cat([first.train, first.held_out])) == sets(torch.from_numpy(PIXELS)[:, None])
    assert torch.equal(first.train, same.train)
    assert not torch.equal(first.held_out, other.held_out)


def test_two_samples_are_one_to_train_on_and_one_held_out(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS[:2])
    data = load_dataset(str(tmp_path / "a.npy"))
    assert (len(data.train), len(data.held_out)) == (1, 1)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (PIXELS, PIXELS[:, None]),
        (COLOURS, COLOURS.transpose(0, 3, 1, 2)),
        (COLOURS.transpose(0, 3, 1, 2), COLOURS.transpose(0, 3, 1, 2)),
        (PIXELS[:, None], PIXELS[:, None]),
        (PIXELS / np.float32(255), PIXELS[:, None] / np.float32(255)),
        (PIXELS > 100, (PIXELS > 100)[:, None].astype(np.float32)),
        (PIXELS[:, :, 0].astype(float) - 500, (PIXELS[:, :, 0].astype(np.float32) - 500)),
    ],
    ids=["gray", "channels last", "channels first", "one channel", "fractions", "black and white", "points"],
)
def test_arrays_of_every_layout(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    assert sets(whole(tmp_path / "a.npy")) == sets(torch.from_numpy(expected))


def test_an_npz_has_images_and_perhaps_labels(tmp_path):
    labels = np.arange(12) % 3
    for names in (("images", "labels"), ("x", "y")):
        np.savez(tmp_path / "a.npz", other=np.zeros(3), **dict(zip(names, (PIXELS, labels))))
        data = load_dataset(str(tmp_path / "a.npz"))
        known = {image.tobytes(): label for image, label in zip(PIXELS, labels)}
        assert all(known[image.numpy().tobytes()] == label for image, label in zip(data.train, data.labels[0]))
    np.savez(tmp_path / "b.npz", PIXELS)
    assert load_dataset(str(tmp_path / "b.npz")).labels is None


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_as_mnist_comes_has_its_test_files_held_out(tmp_path, packed):
    parts = {"train": (PIXELS, np.arange(12, dtype=np.uint8)), "t10k": (255 - PIXELS[:5], np.arange(5, dtype=np.uint8))}
    for part, (images, labels) in parts.items():
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            path = tmp_path / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    data = load_dataset(str(tmp_path))
    assert torch.equal(data.train, torch.from_numpy(PIXELS)[:, None])
    assert torch.equal(data.held_out, torch.from_numpy(255 - PIXELS[:5])[:, None])
    assert [labels.tolist() for labels in data.labels] == [list(range(12)), list(range(5))]
    alone = load_dataset(str(tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"))
    assert len(alone.train) + len(alone.held_out) == 12
    assert alone.labels is not None


def test_cifar_10s_binary_batches(tmp_path):
    images = RANDOM.integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    records = np.concatenate([np.arange(9, dtype=np.uint8)[:, None], images.reshape(9, -1)], 1)
    for name, part in (
        ("data_batch_1.bin", records[:4]),
        ("data_batch_2.bin", records[4:6]),
        ("test_batch.bin", records[6:]),
    ):
        (tmp_path / name).write_bytes(part.tobytes())
    data = load_dataset(str(tmp_path))
    assert torch.equal(data.train, torch.from_numpy(images[:6]))
    assert torch.equal(data.held_out, torch.from_numpy(images[6:]))
    assert [labels.tolist() for labels in data.labels] == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    assert len(whole(tmp_path / "data_batch_1.bin")) == 4


def test_a_folder_of_images_is_labelled_by_its_folders(tmp_path):
    for number, image in enumerate(COLOURS):
        path = tmp_path / ("cats" if number < 5 else "dogs") / "more" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    data = load_dataset(str(tmp_path))
    known = {image.transpose(2, 0, 1).tobytes(): int(number >= 5) for number, image in enumerate(COLOURS)}
    assert sets(torch.cat([data.train, data.held_out])) == sorted(known)
    assert all(known[image.numpy().tobytes()] == label for image, label in zip(data.train, data.labels[0]))


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("L", "L"), ("RGB", "RGB"), ("RGBA", "RGB"), ("P", "RGB"), ("LA", "RGB")]
)
def test_images_of_every_mode(tmp_path, mode, expected):
    images = [Image.fromarray(image).convert(mode) for image in COLOURS]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    wanted = [np.asarray(image.convert(expected)).reshape(8, 10, -1).transpose(2, 0, 1) for image in images]
    assert sets(whole(tmp_path)) == sets(torch.from_numpy(np.stack(wanted)))


def test_images_of_16_bits_keep_their_upper_8(tmp_path):
    for number, image in enumerate(PIXELS):
        Image.fromarray(image.astype(np.uint16) * 256 + 77).save(tmp_path / f"{number}.png")
    assert sets(whole(tmp_path)) == sets(torch.from_numpy(PIXELS)[:, None])


def test_images_of_one_channel_are_in_0_to_1_for_the_networks_and_coloured_ones_in_minus_1_to_1(tmp_path):
    levels = np.array([0, 51, 255], np.uint8)[np.arange(3 * 64) % 3]
    np.save(tmp_path / "gray.npy", levels.reshape(3, 8, 8)[:2] * np.array([[[1]], [[0]]], np.uint8))
    np.save(tmp_path / "colour.npy", levels.reshape(1, 8, 8, 3) * np.array([1, 0], np.uint8).reshape(2, 1, 1, 1))
    gray, colour = load_dataset(str(tmp_path / "gray.npy")), load_dataset(str(tmp_path / "colour.npy"))
    assert gray.scaled(torch.cat([gray.train, gray.held_out])).unique().tolist() == pytest.approx([0, 0.2, 1])
    coloured = colour.scaled(torch.cat([colour.train, colour.held_out])).unique()
    assert coloured.tolist() == pytest.approx([-1, -0.6, 1], abs=1e-6)


def test_real_mnist_and_cifar_are_as_large_as_they_should_be(real_data):
    for folder, shape, sizes in (("mnist", (1, 28, 28), (60_000, 10_000)), ("cifar10", (3, 32, 32), (50_000, 10_000))):
        data = load_dataset(str(real_data / "images" / folder))
        assert data.shape == shape
        assert (len(data.train), len(data.held_out)) == sizes
        assert torch.bincount(data.labels[0]).min() > 5000


# what cannot be used


def refused(name: object, *words: str) -> None:
    with pytest.raises(EarthworksError) as caught:
        load_dataset(str(name))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_images_of_mixed_sizes_or_modes_are_named(tmp_path):
    for number, image in enumerate(PIXELS[:4]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    Image.fromarray(PIXELS[4][:, :9]).save(tmp_path / "size.png")
    refused(tmp_path, "one size and mode", "0.png is 10 x 8 L", "size.png is 9 x 8 L")
    (tmp_path / "size.png").unlink()
    Image.fromarray(COLOURS[0]).save(tmp_path / "mode.png")
    refused(tmp_path, "0.png is 10 x 8 L", "mode.png is 10 x 8 RGB")


def test_one_image_is_too_few(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    refused(tmp_path, "holds 1 sample", "at least two")
    refused(tmp_path / "a.png", "is a single image", "folder")


def broken(array: np.ndarray, value: float) -> np.ndarray:
    array = array / np.float32(255)
    array[3, 2, 1] = value
    return array


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (broken(PIXELS, math.nan), "non-finite"),
        (broken(PIXELS, math.inf), "non-finite"),
        (broken(PIXELS, 1.5), "numbers in [0, 1]; these are in [0, 1.5]"),
        (PIXELS.astype(np.int64), "bytes (uint8) or numbers in [0, 1]"),
        (PIXELS[[0] * 5], "all 5 samples"),
        (np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None], (5, 8, 8)), "a single colour"),
        (PIXELS[:0], "holds 0 sample"),
        (PIXELS[:0] / 255, "holds 0 sample"),
        (np.float64(3.0), "have shape ()"),
        (np.zeros((5, 4, 3, 2, 1)), "have shape (5, 4, 3, 2, 1)"),
        (RANDOM.random((5, 8, 8, 4)), "1 or 3 channels"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros((4, 3), complex), "expected numbers"),
        (np.array([{}, []], object), "Python objects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_array_that_cannot_be_learnt_from_is_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", words)


def test_labels_must_be_one_whole_number_a_sample(tmp_path):
    for labels, words in (
        (np.arange(11), "12 images but 11 labels"),
        (np.arange(12) / 2, "one integer per sample"),
        (np.array(list("abcdefghijkl")), "expected numbers"),
        (np.eye(12, dtype=int), "one integer per sample"),
    ):
        np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels)
        refused(tmp_path / "a.npz", words)
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.array([{}] * 12))
    refused(tmp_path / "a.npz", "labels, holds Python objects")
    np.savez(tmp_path / "empty.npz")
    refused(tmp_path / "empty.npz", "holds no arrays")


def test_a_test_part_must_be_of_the_shape_of_the_training_part_and_have_its_labels(tmp_path):
    for name, array in (("train-images-idx3", PIXELS), ("t10k-images-idx3", PIXELS[:, :7])):
        (tmp_path / name).write_bytes(idx(array))
    refused(tmp_path, "differ in shape: (1, 8, 10) and (1, 7, 10)")
    (tmp_path / "t10k-images-idx3").write_bytes(idx(PIXELS[::-1].copy()))
    (tmp_path / "train-labels-idx1").write_bytes(idx(np.arange(12, dtype=np.uint8)))
    (tmp_path / "t10k-labels-idx1").write_bytes(idx(np.arange(9, dtype=np.uint8)))
    refused(tmp_path, "the test part", "12 images but 9 labels")


def test_files_that_are_not_what_they_seem_are_named(tmp_path):
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    whole_file = idx(PIXELS)
    refused(file("a-idx3-ubyte", whole_file[:-1]), "not a complete IDX file")
    refused(file("b-idx3-ubyte", whole_file[:9]), "not a complete IDX file")
    refused(file("c-idx3-ubyte.gz", gzip.compress(whole_file)[:-9]), "could not be read")
    refused(file("d.bin", bytes(3072)), "3,072 bytes are not a multiple of 3,073")
    refused(file("e.bin", b""), "0 bytes")
    refused(file("f.npy", b"no array"), "not a readable .npy")
    refused(file("g.npz", b"no archive"), "not a readable .npz")
    refused(file("h.txt", b"words"), "not a .npy, .npz, IDX or CIFAR-10 binary file")
    refused(tmp_path / "missing", "does not exist", "ring, grid, swiss-roll, digits")
    (tmp_path / "images").mkdir()
    refused(tmp_path / "images", "holds no images")
    file("images/a.png", b"\x89PNG no")
    file("images/b.png", b"")
    refused(tmp_path / "images", "a.png could not be read as an image")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def images(folder: Path, num: int = 3) -> Path:
    folder.mkdir()
    for number, image in enumerate(PIXELS[:num]):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def test_whatever_the_image_library_says_of_a_file_is_a_sentence_with_its_name(tmp_path):
    folder = images(tmp_path / "images")
    whole_file = (folder / "1.png").read_bytes()
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 21)))
    wide = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0))
    for content, words in (
        (whole_file[:33] + text + whole_file[33:], "save the image again without it"),
        (whole_file[:8] + wide + whole_file[33:], "1.png"),
        (whole_file[:8] + wide.replace(wide[8:16], struct.pack(">II", 9000, 9000)) + whole_file[33:], "1.png"),
        (whole_file[:60], "could not be read as an image"),
        (whole_file[:41] + bytes(8) + whole_file[49:], "could not be read as an image"),
        (b"GIF89a" + bytes(20), "could not be read as an image"),
        (b"II*\0\xff\xff\xff\xff" + bytes(20), "could not be read as an image"),
    ):
        (folder / "1.png").write_bytes(content)
        refused(folder, "1.png", words)


def test_images_of_gigapixels_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    from earthworks.transport.readers import arrays

    folder = images(tmp_path / "images")
    Image.new("L", (6000, 6000)).save(folder / "0.png")
    refused(folder, "0.png has 6,000 x 6,000 pixels", "at most 16,777,216")
    monkeypatch.setattr(arrays, "ANY_SIZE", 1 << 20)
    for number in range(3):
        Image.new("L", (2000, 2000), number).save(folder / f"{number}.png")
    refused(folder, "more than 200 times its size")


def test_pipes_devices_and_folders_among_images_are_named_or_no_images(tmp_path):
    folder = images(tmp_path / "images")
    (folder / "folder.png").mkdir()
    assert len(whole(folder)) == 3
    (folder / "device.png").symlink_to("/dev/zero")
    refused(folder, "device.png", "not a regular file")
    (folder / "device.png").unlink()
    os.mkfifo(folder / "pipe.png")
    refused(folder, "pipe.png", "not a regular file")
    os.mkfifo(tmp_path / "train-images-idx3")
    refused(tmp_path / "train-images-idx3", "not a regular file")
    refused(tmp_path, "not a regular file")
    for name in ("a.npy", "a.npz", "a.bin"):
        (tmp_path / name).symlink_to("/dev/zero")
        refused(tmp_path / name, name, "not a regular file")


def test_an_xz_file_of_two_streams_is_read_to_its_end(tmp_path):
    (tmp_path / "a.xz").write_bytes(lzma.compress(b"a" * 9) + bytes(8) + lzma.compress(b"b" * 9))
    assert content_of(tmp_path / "a.xz") == b"a" * 9 + b"b" * 9
    assert content_of(tmp_path / "a.xz", 12) == b"a" * 9 + b"b" * 3


def test_sizes_that_a_file_promises_are_compared_with_what_it_holds(tmp_path, monkeypatch):
    from earthworks.transport.readers import arrays
    from earthworks.wgan.data import unpacking

    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    absurd = bytes([0, 0, 8, 3]) + struct.pack(">3I", *[4_000_000_000] * 3)
    refused(file("a-idx3-ubyte", absurd + bytes(99)), "not a complete IDX file")
    refused(file("b-idx3-ubyte.gz", gzip.compress(absurd + bytes(99))), "not a complete IDX file")
    refused(file("c-idx3-ubyte.xz", lzma.compress(absurd)[:-20]), "cannot be decompressed")
    for module in (arrays, unpacking):
        monkeypatch.setattr(module, "ANY_SIZE", 1 << 20)
    bomb = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 14, 32, 32) + bytes(1 << 24)
    refused(file("d-idx3-ubyte.gz", gzip.compress(bomb)), "more than 200 times its size")
    refused(file("e-idx3-ubyte.xz", lzma.compress(bomb)), "more than 200 times its size")
    refused(file("f.bin.gz", gzip.compress(bytes(3073 << 13))), "more than 200 times its size")
    refused(file("g.bin", bytes([10]) * 3073 * 2), "labels above 9")
    refused(file("h.bin", bytes(3073 * 3 - 1)), "not a multiple of 3,073")
