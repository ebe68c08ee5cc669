"""Runs with bf16 weights: trained, saved, loaded, evaluated and written with like any other."""

import json
from types import SimpleNamespace

import pytest
import torch

from earthworks.gopher import Gopher, GopherConfig, load, train
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import RunFolder, read_metrics
from earthworks.training import checkpoint
from tiny_runs import FLEA

pytestmark = pytest.mark.usefixtures("flea")
PRECISIONS = ("bf16-sr", "bf16-master")
SHAPE = {"num_layers": 2, "num_heads": 2, "d_head": 8, "d_model": 16, "vocabulary": 23, "context": 12}


@pytest.fixture(scope="module", params=PRECISIONS)
def run(request, flea, tmp_path_factory, tiny_text):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return train(str(tiny_text), run=str(folder), **{**FLEA, "precision": request.param, "max_steps": 30})


def test_such_a_run_learns(run):
    losses = [record["loss"] for record in read_metrics(run / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.5


def test_the_checkpoint_holds_bf16_weights_and_everything_that_is_summed_in_float32(run):
    folder = RunFolder.open(run)
    tensors, _ = checkpoint.load(checkpoint.choose(folder, "last"))
    assert {value.dtype for value in tensors["model"].values()} == {torch.bfloat16}
    moments = {name: value for name, value in tensors["optimizer"].items() if name != "rounding/generator"}
    assert {value.dtype for value in moments.values()} == {torch.float32}
    masters = {name[: -len("/master")]: value for name, value in moments.items() if name.endswith("/master")}
    if folder.read_config()["precision"] == "bf16-sr":
        assert not masters
        assert "rounding/generator" in tensors["optimizer"]
    else:
        assert masters.keys() == tensors["model"].keys()
        assert all(torch.equal(value.bfloat16(), tensors["model"][name]) for name, value in masters.items())
        assert any((value != value.bfloat16()).any() for value in masters.values())


def test_a_loaded_model_has_the_numbers_of_the_weights_that_were_validated(run):
    model, _ = load(run, "last")
    saved = checkpoint.load(checkpoint.choose(RunFolder.open(run), "last"))[0]["model"]
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, saved[name].float())


def test_it_is_evaluated_and_writes(command, run):
    outcome = command("gopher evaluate --json", run)
    assert outcome.code == 0
    measured = json.loads(outcome.out)["bits_per_byte"]
    validated = min(r["validation"]["score"] for r in read_metrics(run / "metrics.jsonl") if "validation" in r)
    assert measured == pytest.approx(validated, rel=0.15)  # other windows, and float32 arithmetic on the same weights
    outcome = command("gopher generate", run, prompt="earth", max_tokens=5)
    assert outcome.code == 0
    assert outcome.out.startswith("earth")


def test_a_run_starts_from_its_weights(run, tiny_text, tmp_path):
    further = train(
        str(tiny_text), run=str(tmp_path / "run"), init=str(run), **{**FLEA, "tokenizer": None, "max_steps": 1}
    )
    assert read_metrics(further / "metrics.jsonl")[0]["loss"] < read_metrics(run / "metrics.jsonl")[0]["loss"] - 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rmsprop_is_refused(command, tiny_text, tmp_path, precision):
    outcome = command(
        "gopher train", data=tiny_text, run=tmp_path / "run", **{**FLEA, "precision": precision, "optimizer": "rmsprop"}
    )
    assert outcome.refuses("--optimizer rmsprop needs float32 weights", "--precision bf16")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gan_takes_float32_weights_only(command, tmp_path, precision):
    outcome = command("wgan train", data="ring", run=tmp_path / "run", precision=precision)
    assert outcome.refuses(f"--precision is '{precision}'; it must be auto, fp32 or bf16")


@pytest.mark.parametrize("change", [{}, {"positions": "absolute", "norm": "layer", "tied": False}])
def test_the_gradients_of_bf16_weights_point_where_those_of_float32_do(change):
    """Weights that bf16 holds, so that only the arithmetic differs: every parameter's gradient within 10 degrees."""
    torch.manual_seed(0)
    model = Gopher(GopherConfig(**SHAPE, **change)).bfloat16().float()
    tokens = torch.randint(SHAPE["vocabulary"], (4, 13))
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.bfloat16()
    low = model.loss(tokens[:, :-1], tokens[:, 1:])
    low.backward()
    assert float(low) == pytest.approx(float(loss), rel=5e-3)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        ours, theirs = parameter.grad.float().flatten(), expected[name].flatten()
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.985, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_casting_the_weights_once_for_all_microbatches_changes_no_bit(precision):
    torch.manual_seed(0)
    model = Gopher(GopherConfig(**SHAPE))
    task = Pretraining.__new__(Pretraining)
    task.model, task.device, task.settings, task.micro_batch = (
        model,
        torch.device("cpu"),
        SimpleNamespace(precision=precision),
        2,
    )
    tokens = torch.randint(SHAPE["vocabulary"], (5, 13))
    task.accumulate(tokens)
    ours = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    for part in tokens.split(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(part[:, :-1], part[:, 1:]) * (len(part) / 5)
        loss.backward()
    theirs = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
