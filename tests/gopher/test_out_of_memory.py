"""An accelerator without enough memory gets smaller microbatches: the batch, and so the training, stays what it was."""

import shutil

import pytest
import torch

from earthworks.gopher import Gopher, train
from earthworks.runs import RunFolder
from earthworks.training import checkpoint
from tiny_runs import FLEA, results

pytestmark = pytest.mark.usefixtures("flea")
BATCH = {**FLEA, "batch": 5, "micro_batch": 5}
NOTICE = "notice: cpu is out of memory with {} sequences at a time: continuing with {}; the batch stays 5\n"


@pytest.fixture
def room(monkeypatch):
    """`room(limit, started)`: from now on, a forward pass of more than `limit` sequences is too much once `started()`."""
    loss = Gopher.loss

    def limited(limit, started=lambda: True):
        def checked(model, tokens, targets):
            if len(tokens) > limit and started():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB")
            return loss(model, tokens, targets)

        monkeypatch.setattr(Gopher, "loss", checked)

    return limited


def make(text, run, **changes):
    return train(str(text), run=str(run), **{**BATCH, **changes})


def test_what_does_not_fit_is_halved_until_it_does_and_computes_the_same(room, tiny_text, tmp_path, capsys):
    """5, then 3, then 2: from then on, to the bit, the run that was started with 2."""
    small = make(tiny_text, tmp_path / "small", micro_batch=2)
    run = RunFolder(tmp_path / "run")
    room(2, started=run.config_file.exists)  # not in the timed warm-up
    capsys.readouterr()
    make(tiny_text, run.path)
    assert results(run.path) == results(small)
    said = capsys.readouterr().err
    assert said.count("out of memory") == 2
    assert NOTICE.format(5, 3) + NOTICE.format(3, 2) in said
    assert checkpoint.load(run.checkpoint(10))[1]["micro_batch"] == 2


def test_gradients_of_a_batch_that_failed_half_way_are_dropped(monkeypatch, tiny_text, tmp_path):
    """Microbatches of 3 and 2: the second is too much in the first step."""
    small = make(tiny_text, tmp_path / "small", micro_batch=2)
    run = RunFolder(tmp_path / "run")
    loss, seen = Gopher.loss, []

    def fails_second(model, tokens, targets):
        if run.config_file.exists():
            seen.append(len(tokens))
        if seen == [3, 2]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(model, tokens, targets)

    monkeypatch.setattr(Gopher, "loss", fails_second)
    make(tiny_text, run.path, micro_batch=3)
    assert seen[:5] == [3, 2, 2, 2, 1]
    assert results(run.path) == results(small)


def test_the_timed_warm_up_finds_what_fits_and_the_run_is_configured_so(room, tiny_text, tmp_path, capsys):
    room(2)
    run = make(tiny_text, tmp_path / "run")
    assert RunFolder(run).read_config()["micro_batch"] == 2
    assert capsys.readouterr().err.count("out of memory") == 2


def test_a_resumed_run_continues_with_what_fitted(room, monkeypatch, tiny_text, tmp_path):
    monkeypatch.setattr(checkpoint, "KEPT", 9)
    run = RunFolder(tmp_path / "run")
    room(2, started=lambda: run.metrics_file.exists() and run.metrics_file.read_bytes().count(b"\n") >= 4)
    whole = make(tiny_text, run.path, save_every=2)
    shutil.copytree(whole, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-10")
    for step, size in ((4, 5), (6, 2)):
        assert checkpoint.load(run.checkpoint(step))[1]["micro_batch"] == size
    monkeypatch.undo()
    train(resume=str(tmp_path / "stopped"))
    assert results(tmp_path / "stopped")["tensors"] == results(whole)["tensors"]
    assert results(tmp_path / "stopped")["metrics"] == results(whole)["metrics"]


def test_a_single_sequence_too_many_is_one_sentence(command, room, tiny_text, tmp_path):
    room(0)
    outcome = command("gopher train", data=tiny_text, run=tmp_path / "run", **BATCH)
    assert outcome.refuses(
        "cpu is out of memory with one sequence of 16 tokens at a time", "--size", "--context", code=1
    )
