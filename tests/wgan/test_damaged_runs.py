"""Damaged or hostile runs and files: a one-sentence error that names the file, or null, never a traceback."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tiny_gans import few_images, make

from earthworks.runs import EarthworksError
from earthworks.wgan.measures.classifier import load_classifier, train_classifier
from earthworks.wgan.measures.evaluation import table
from earthworks.wgan.task import Adversarial

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def made(undrawn, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make(few_images(folder / "few.npy"), folder / "run", max_steps=4, evaluate_every=2, save_every=2)


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.mark.parametrize("verb", ["sample --output=x.npy", "evaluate", "diagnose"])
@pytest.mark.parametrize("name", ["average.safetensors", "critic.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["empty", "cut", "device"])
def test_a_damaged_checkpoint_is_named(command, monkeypatch, run, tmp_path, verb, name, harm):
    monkeypatch.chdir(tmp_path)
    file = run / "checkpoints" / "step-4" / name
    content = file.read_bytes()
    file.unlink()
    if harm == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(b"" if harm == "empty" else content[:-9])
    outcome = command(f"wgan {verb}", run)
    assert "step-4" in outcome.out + outcome.err
    if "diagnose" not in verb:
        assert outcome.refuses()


@pytest.mark.parametrize(
    "record",
    [
        {"step": 1, "loss": "low", "gap": [], "validation": "good", "generator_loss": {}, "slope": True},
        {"step": 1, "validation": {"sliced_2": "x"}, "skipped": "no", "generator_gradient_norm": None},
    ],
)
def test_a_log_with_values_of_another_type_is_diagnosed(command, run, record):
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({**record, "step": step}) + "\n" for step in range(1, 200)) + "\n"
    )
    assert command("wgan diagnose", run).code == 0
    answer = command("wgan diagnose --json", run).out
    assert "NaN" not in answer
    json.loads(answer)


def harmed(**changes) -> bytes:
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
    network = train_classifier((images[:30], labels[:30]), (images[30:], labels[30:])).network
    return save({**network.state_dict(), **changes})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        (1 << 40).to_bytes(8, "little") + b"{}",
        lambda: harmed(shape=torch.tensor([1, 1_000_000_000, 1_000_000_000])),
        lambda: harmed(shape=torch.tensor([1.5, 8.0, 8.0])),
        lambda: harmed(shape=torch.tensor([], dtype=torch.int64)),
        lambda: harmed(scale=torch.tensor([torch.nan, 1.0])),
        lambda: harmed(held_out=torch.tensor([0, 0])),
        lambda: harmed()[:-5],
    ],
    ids=["empty", "noise", "long header", "huge", "fractions", "no shape", "NaN", "nobody held out", "cut"],
)
def test_a_damaged_classifier_is_named_and_takes_no_memory(tmp_path, content):
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(content if isinstance(content, bytes) else content())
    with pytest.raises(EarthworksError, match=r"classifier\.safetensors holds no classifier of this version"):
        load_classifier(path)


def test_a_module_of_features_that_cannot_be_imported_is_a_sentence(command, monkeypatch, run, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_broken_features.py").write_text("def embed(:\n")
    outcome = command("wgan evaluate --features=my_broken_features:embed", run)
    assert "my_broken_features cannot be imported" in outcome.err
    assert outcome.code == 2


def test_what_is_not_known_is_a_word_in_text():
    measure = {"name": "reverse_kl", "value": float("inf"), "kind": "estimate", "n": 3, "m": 3, "remark": ""}
    result = {"measures": [{**measure, "interval": [float("nan")] * 2, "null": float("nan")}]}
    shown = table(result)
    assert "infinite" in shown
    assert "none" in shown
    assert "unknown" in shown
    assert "nan" not in shown


def test_a_generator_that_has_diverged_is_said_and_the_last_checkpoint_stays(command, monkeypatch, tmp_path):
    def broken(task, step):
        record = update(task, step)
        if step == 3:
            with torch.no_grad():
                next(task.average.parameters()).fill_(torch.nan)
        return record

    update = Adversarial.update
    monkeypatch.setattr(Adversarial, "update", broken)
    few_images(tmp_path / "few.npy")
    options = "--network=mlp --width=8 --depth=1 --noise=2 --batch=8 --max_steps=6 --evaluate_every=4 --save_every=2"
    outcome = command(
        f"wgan train --hold=1 --sample_every=100 {options}", data=tmp_path / "few.npy", run=tmp_path / "run"
    )
    assert outcome.refuses("training has diverged", code=1)
    assert (tmp_path / "run" / "checkpoints" / "step-2").is_dir()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
