"""Samples of a trained generator: reproducible by seed, fewer are the first of more, and usable files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gans import few_images, make

from earthworks.runs import EarthworksError, RunFolder
from earthworks.training import checkpoint
from earthworks.wgan import load, sample
from earthworks.wgan.sample_grid import grid, to_bytes

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def runs(undrawn, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    few_images(folder / "colour.npy", side=16, channels=3)
    return {
        "points": make("ring", folder / "points"),
        "gray": make("digits", folder / "gray", max_steps=3),
        "colour": make(folder / "colour.npy", folder / "colour", network="dcgan", width=4, max_steps=3),
    }


@pytest.mark.parametrize(
    ("kind", "shape", "low"), [("points", (2,), None), ("gray", (1, 8, 8), 0), ("colour", (3, 16, 16), -1)]
)
def test_samples_have_the_shape_and_range_of_the_data(runs, kind, shape, low):
    samples = sample(runs[kind], 300)
    assert samples.shape == (300, *shape)
    assert samples.dtype == torch.float32
    if low is not None:
        assert low <= samples.min() < samples.max() <= 1
    assert len(samples.flatten(1).unique(dim=0)) == 300


@pytest.mark.parametrize("kind", ["points", "gray", "colour"])
def test_fewer_samples_are_the_first_of_more_and_the_seed_decides(runs, kind):
    many = sample(runs[kind], 600, seed=3)
    for num in (1, 255, 256, 257, 600):
        assert torch.equal(sample(runs[kind], num, seed=3), many[:num])
    assert not torch.equal(sample(runs[kind], 600, seed=4), many)


def test_samples_are_of_the_average_of_the_checkpoint_asked_for(runs):
    run = RunFolder(runs["points"])
    by_step = {step: sample(run.path, 5, checkpoint=str(step)) for step in run.steps()}
    assert torch.equal(sample(run.path, 5), by_step[10])
    assert torch.equal(sample(run.path, 5, checkpoint="best"), by_step[checkpoint.best(run)["step"]])
    tensors, _ = checkpoint.load(run.checkpoint(10))
    generator, critic = load(run.path)
    assert all(torch.equal(value, tensors["average"][name]) for name, value in generator.state_dict().items())
    assert all(torch.equal(value, tensors["critic"][name]) for name, value in critic.state_dict().items())
    assert any(not torch.equal(value, tensors["generator"][name]) for name, value in generator.state_dict().items())


def test_a_npy_file_holds_the_samples_and_a_png_a_grid_of_them(command, runs, tmp_path):
    for kind in runs:
        file = tmp_path / "deep" / f"{kind}.npy"
        outcome = command("wgan sample --num 7 --seed 2", runs[kind], output=file)
        assert outcome.code == 0
        assert "7 samples of shape" in outcome.out
        assert np.array_equal(np.load(file), sample(runs[kind], 7, seed=2).numpy())
    assert command("wgan sample --num 4", runs["colour"], output=tmp_path / "a.png").code == 0
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    factor = picture.shape[0] // 35  # two rows of 16 pixels, and white between, before and after
    small = picture[factor // 2 :: factor, factor // 2 :: factor]
    assert small.shape == (35, 35, 3)
    images = to_bytes(sample(runs["colour"], 4))
    for number, image in enumerate(images):
        top, left = 1 + 17 * (number // 2), 1 + 17 * (number % 2)
        assert np.array_equal(small[top : top + 16, left : left + 16], image)
    assert (small[[0, 17, 34]] == 255).all()


def test_a_grid_leaves_missing_places_white_and_enlarges_small_images():
    picture = grid(np.zeros((3, 8, 8, 1), np.uint8))
    assert picture.shape[0] == picture.shape[1] > 300
    assert (picture[-picture.shape[0] // 3 :, -picture.shape[1] // 3 :] == 255).all()
    assert (picture == 0).mean() > 0.5


def test_bytes_of_samples_reach_both_ends():
    assert to_bytes(torch.tensor([0.0, 0.5, 1.0, 0.2]).view(1, 1, 2, 2)).flatten().tolist() == [0, 128, 255, 51]
    colour = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert to_bytes(colour).flatten().tolist() == [0, 128, 255]


def test_what_cannot_be_drawn_is_refused_in_one_sentence(command, runs, tmp_path):
    points, gray = runs["points"], runs["gray"]
    for run, options, words in (
        (points, {"output": tmp_path / "a.jpg"}, "expected a name ending in .npy or .png"),
        (points, {"output": tmp_path / "a.png"}, "these samples are points, not images: write them to a .npy file"),
        (gray, {"output": tmp_path / "a.png", "num": 401}, "at most 400 images"),
        (gray, {"output": tmp_path / "a.npy", "num": 0}, "--num is 0"),
        (points, {"output": tmp_path / "a.npy", "num": 10**12}, "--num 1,000,000,000,000 takes about 22,351.7 GiB"),
        (gray, {"output": tmp_path / "a.npy", "seed": -1}, "--seed is -1"),
        (gray, {"output": tmp_path / "a.npy", "checkpoint": 99}, "there is no checkpoint '99'"),
        (tmp_path / "none", {"output": tmp_path / "a.npy"}, "there is no run folder"),
    ):
        assert command("wgan sample", run, **options).refuses(words)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_network_is_named(runs, tmp_path):
    config = RunFolder(runs["points"]).read_config()
    other = RunFolder.create(tmp_path / "other")
    other.write_config({**config, "width": 99})
    shutil.copytree(runs["points"] / "checkpoints", other.path / "checkpoints")
    with pytest.raises(EarthworksError, match=r"do not fit the networks in .*config\.yaml"):
        sample(other.path, 1)
