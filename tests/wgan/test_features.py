import hashlib
import math
import re

import pytest
import torch
from torch import nn

from earthworks.runs import EarthworksError
from earthworks.wgan.measures import classifier as module
from earthworks.wgan.measures.classifier import Classifier, load_classifier, train_classifier
from earthworks.wgan.measures.features import custom, pca, pixels


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's 1,797 digits of 8 x 8, in an order of its own."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images).float()[order, None] / 16, torch.tensor(data.target)[order]


@pytest.fixture(scope="module")
def trained(digits) -> Classifier:
    images, labels = digits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EPOCHS", 12)  # two seconds
        return train_classifier((images[:1400], labels[:1400]), (images[1400:], labels[1400:]))


def images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_the_pixels():
    x = images(3, 2, 4, 5)
    assert torch.equal(pixels()(x), x.reshape(3, 40))
    assert str(pixels()) == "pixels"


def test_principal_components_keep_the_most_variance_there_is():
    x = images(200, 1, 4, 4) * torch.linspace(0.1, 3, 16).reshape(4, 4)
    found = pca(x, 5)(x).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(x.flatten(1).double().T)).flip(0)
    assert torch.allclose(found.var(0), spectrum[:5], rtol=1e-4)
    assert torch.allclose(torch.cov(found.T), torch.diag(spectrum[:5]), atol=1e-4)
    assert found.mean(0).abs().max() < 1e-5


def test_all_components_keep_every_distance():
    x = images(50, 1, 3, 3)
    extractor = pca(x, 64)  # only 9 exist
    assert extractor.name == "pca-9"
    assert torch.allclose(torch.pdist(extractor(x)), torch.pdist(x.flatten(1)), atol=1e-5)


def test_the_digest_is_of_what_decides_the_features():
    x = images(50, 1, 3, 3)
    assert pca(x, 4).digest == pca(x.clone(), 4).digest
    assert pca(x, 4).digest != pca(x + 0.1 * images(50, 1, 3, 3, seed=1), 4).digest
    assert re.fullmatch(r"pca-4@[0-9a-f]{6}", str(pca(x, 4)))


def test_batches_are_not_seen_in_the_features(monkeypatch):
    x = images(23, 1, 3, 3)
    whole = pca(x, 4)(x)
    monkeypatch.setattr("earthworks.wgan.measures.features.BATCH", 5)
    assert torch.allclose(pca(x, 4)(x), whole, atol=1e-6)


def test_the_classifier_names_held_out_digits(trained, digits):
    held, labels = digits[0][1400:], digits[1][1400:]
    accuracy = trained.held_out_accuracy
    assert accuracy.value > 0.93
    assert accuracy.value == pytest.approx(float((trained.labels(held) == labels).float().mean()))
    assert accuracy.n == 397
    assert accuracy.interval[0] < accuracy.value < accuracy.interval[1]
    assert torch.allclose(trained.probabilities(held).sum(1), torch.ones(397), atol=1e-5)


def test_its_features_are_what_its_classes_are_read_from(trained, digits):
    x = digits[0][:10]
    features = trained(x)
    assert features.shape == (10, 64)
    assert not features.requires_grad
    logits = trained.network.output(features.relu())
    assert torch.allclose(logits.softmax(1), trained.probabilities(x), atol=1e-6)


def test_the_digest_is_that_of_the_saved_file_and_what_is_loaded_is_the_same(trained, digits, tmp_path):
    path = tmp_path / "classifier.safetensors"
    trained.save(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == trained.digest
    again = load_classifier(path)
    assert again.digest == trained.digest
    assert str(again) == f"classifier@{trained.digest[:6]}"
    assert torch.equal(again(digits[0][:20]), trained(digits[0][:20]))
    assert again.held_out_accuracy.value == trained.held_out_accuracy.value


def test_the_seed_decides_and_the_callers_randomness_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "IMAGES_SEEN", 200)
    x, y = images(30, 3, 17, 20), torch.arange(30) % 3  # any size from 1 to many channels

    def train(seed: int) -> str:
        return train_classifier((x, y), (x, y), seed=seed).digest

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train(0)
    assert torch.equal(torch.rand(3), expected)
    assert train(0) == first
    assert train(1) != first


def test_progress_is_told_to_the_end(monkeypatch):
    monkeypatch.setattr(module, "IMAGES_SEEN", 400)
    told: list[float] = []
    x, y = images(20, 1, 8, 8), torch.arange(20) % 2
    train_classifier((x, y), (x, y), on_progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_a_callable_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_features.py").write_text(
        "import torch\n"
        "def halves(x):\n    return x.flatten(1) / 2\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))\n"
        "def flat(x):\n    return x.sum()\n"
        "def fails(x):\n    raise ValueError('three rows')\n"
        "number = 3\n"
    )
    x = images(4, 1, 2, 2)
    halves = custom("my_features:halves")
    assert torch.equal(halves(x), x.flatten(1) / 2)
    assert re.fullmatch(r"my_features:halves@[0-9a-f]{6}", str(halves))
    assert torch.equal(custom("my_features:net")(x), x.flatten(1))  # in evaluation mode, no dropout
    with pytest.raises(EarthworksError, match=r"returned \(\) for 4 samples; expected one row of features for each"):
        custom("my_features:flat")(x)
    with pytest.raises(EarthworksError, match=r"'my_features:fails' failed \(ValueError: three rows\)"):
        custom("my_features:fails")(x)
    with pytest.raises(EarthworksError, match="has no function number"):
        custom("my_features:number")
    with pytest.raises(EarthworksError, match="cannot be imported"):
        custom("no_such_module:f")
    with pytest.raises(EarthworksError, match="expected module:function"):
        custom("my_features")


def test_the_digest_of_a_module_is_of_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(
        "import torch\nnet = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))\n"
    )
    before = custom("my_net:net").digest
    import my_net  # pyright: ignore[reportMissingImports]

    assert isinstance(my_net.net, nn.Module)
    with torch.no_grad():
        my_net.net[1].weight += 1
    assert custom("my_net:net").digest != before


def bad_images(x: torch.Tensor, y: torch.Tensor | None) -> None:
    train_classifier((x, y), (x, y))


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: bad_images(images(9, 1, 8, 8), None), "no labels, which a classifier needs"),
        (lambda: bad_images(images(9, 1, 8, 8), torch.zeros(9).long()), "all training images have the same label"),
        (lambda: bad_images(images(9, 1, 8, 8), torch.zeros(8).long()), "one for each of 9 images"),
        (lambda: bad_images(images(9, 1, 8, 8), torch.zeros(9)), "whole numbers from 0"),
        (lambda: bad_images(images(9, 8), torch.arange(9)), "finite floats"),
        (lambda: bad_images(images(9, 1, 8, 8) * math.nan, torch.arange(9)), "finite floats"),
        (lambda: pixels()((images(2, 1, 2, 2) * 255).byte()), "expected floats on the generator's scale"),
        (lambda: pixels()(images(2, 1, 2, 2) * math.inf), "NaN or infinite"),
        (lambda: pca(images(20, 1, 8, 8), 20), "20 principal components of 20 samples"),
        (lambda: load_classifier("no/such.safetensors"), "does not exist"),
    ],
)
def test_what_cannot_be_is_one_sentence(work, sentence):
    with pytest.raises(EarthworksError, match=sentence):
        work()


def test_images_of_another_shape_and_damaged_files_are_one_sentence(trained, tmp_path):
    with pytest.raises(EarthworksError, match=r"trained on images of shape \(1, 8, 8\), not \(1, 28, 28\)"):
        trained(images(2, 1, 28, 28))
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(b"not a classifier")
    with pytest.raises(EarthworksError, match="holds no classifier"):
        load_classifier(path)
