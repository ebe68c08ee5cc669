"""A run that was stopped and resumed is the run that was not, to the bit: weights, optimizer, losses, validation,
samples, the order of the data."""

import json
import math
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from earthworks.corpus import PackedTokens
from earthworks.corpus.tokens.sample_order import windows_per_epoch
from earthworks.gopher import Gopher, train
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import RunFolder, read_metrics
from earthworks.training import checkpoint, guard
from tiny_runs import FLEA, as_format_1, results

pytestmark = pytest.mark.usefixtures("flea")

# What a run may be made of; the second has everything that changes with the step, the others bf16 weights.
RUNS = {
    "muon": {},
    "as the paper": {
        **{"optimizer": "adam", "schedule": "gopher", "warmup_steps": 3},
        **{"learning_rate": 1e-3, "embedding_rate": 1e-3},
        **{"first_batch": 2, "ramp_step": 4, "tokenizer": "bpe", "vocabulary": 330, "context": 8},
    },
    "stochastic rounding": {"precision": "bf16-sr", "optimizer": "adamw", "weight_decay": 0.1},
    "float32 copy": {"precision": "bf16-master"},
}


def make(text: Path, run: Path, **changes) -> Path:
    return train(str(text), run=str(run), **{**FLEA, **changes})


@pytest.fixture(scope="module", params=RUNS)
def settings(request) -> dict:
    return RUNS[request.param]


@pytest.fixture(scope="module")
def unbroken(flea, tmp_path_factory, tiny_text, settings) -> Path:
    return make(tiny_text, tmp_path_factory.mktemp("unbroken") / "run", **settings)


@pytest.fixture(scope="module")
def finished(flea, tmp_path_factory, tiny_text) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "KEPT", 3)
        return make(tiny_text, tmp_path_factory.mktemp("finished") / "run", save_every=2)


@pytest.fixture
def stopped(finished, tmp_path) -> Path:
    """A run that looks as if it had been killed after step 8 of 10: to be resumed, or harmed."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "step-10")
    if (record := checkpoint.best(RunFolder(run))) and record["step"] == 10:
        (run / "checkpoints" / "best.json").unlink()
    return run


@pytest.mark.parametrize(
    ("step", "number"), [(1, signal.SIGTERM), (4, signal.SIGINT), (5, signal.SIGTERM), (9, signal.SIGINT)]
)
def test_n_and_m_steps_are_n_plus_m(command, monkeypatch, tiny_text, tmp_path, unbroken, settings, step, number):
    """Steps 5 and 10 read the end of one epoch and the beginning of the next: a stop before, and one in between."""
    update = Pretraining.update

    def interrupted(task, now):
        if now == step - 1 and task.run.config_file.exists():  # not in the timed warm-up
            os.kill(os.getpid(), number)
        return update(task, now)

    monkeypatch.setattr(Pretraining, "update", interrupted)
    outcome = command("gopher train", data=tiny_text, run=tmp_path / "my run", **{**FLEA, **settings})
    code = {signal.SIGINT: 130, signal.SIGTERM: 75}[number]
    assert outcome.refuses(f"stopped by {number.name} after step {step} of 10; everything is saved", code=code)
    assert RunFolder(tmp_path / "my run").steps()[-1] == step
    monkeypatch.undo()
    line = outcome.err.strip().split("continue with: ")[1]
    name, *arguments = shlex.split(line)
    assert name == "earthworks"
    assert command(" ".join(arguments[:2]), *arguments[2:]).code == 0
    assert results(tmp_path / "my run") == results(unbroken)


def test_an_epoch_ends_within_step_5(finished):
    """Else the test above would not show what it says."""
    windows = windows_per_epoch(PackedTokens.open(finished / "data").train_tokens, FLEA["context"])
    assert 4 * FLEA["batch"] < windows < 5 * FLEA["batch"]


def test_every_sample_is_read_once_and_in_order_whatever_the_batch(monkeypatch, tiny_text, tmp_path):
    read = []
    windows = PackedTokens.windows
    monkeypatch.setattr(PackedTokens, "windows", lambda self, *given: read.append(given[1:3]) or windows(self, *given))
    make(tiny_text, tmp_path / "run", first_batch=3, ramp_step=4)
    steps = read[-FLEA["max_steps"] :]  # those before are of the timed warm-up
    assert steps == [(0, 3), (3, 3), (6, 3), (9, 3), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4)]


def test_a_raised_max_steps_continues_at_the_final_rate(command, tiny_text, tmp_path):
    whole = make(tiny_text, tmp_path / "whole", max_steps=15, horizon=10, final_share=0.25)
    run = make(tiny_text, tmp_path / "run", max_steps=10, final_share=0.25)
    assert command("gopher train", resume=run, max_steps=15).code == 0
    assert results(run) == results(whole)
    rates = [record["learning_rate"] for record in read_metrics(run / "metrics.jsonl")]
    config = RunFolder(run).read_config()
    assert set(rates[10:]) == {0.25 * config["learning_rate"]}
    assert rates[9] > rates[10]
    assert (config["max_steps"], config["horizon"]) == (15, 10)
    assert train(resume=str(run)) == run  # the raised number was kept: there is nothing left to do
    assert results(run) == results(whole)


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    train(resume=str(run))
    assert results(run) == results(finished)
    for name in ("config.yaml", "metrics.jsonl", "evaluation.json", "passage.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_with_the_same_weights(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints")
    train(resume=str(run))
    assert results(run) == results(finished)


def test_weights_taken_from_another_run_are_taken_again(command, finished, tiny_text, tmp_path):
    whole = make(tiny_text, tmp_path / "whole", init=str(finished), tokenizer=None, max_steps=3)
    fresh = read_metrics(finished / "metrics.jsonl")[0]["loss"]
    assert read_metrics(whole / "metrics.jsonl")[0]["loss"] < fresh - 0.1  # they are the trained ones
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert command("gopher train", resume=tmp_path / "run").code == 0
    assert results(tmp_path / "run") == results(whole)


def test_a_stopped_run_goes_on(stopped, finished):
    train(resume=str(stopped))
    assert results(stopped) == results(finished)


@pytest.mark.parametrize(
    "option",
    [{"batch": 3}, {"seed": 1}, {"data": "x.txt"}, {"run": "other"}, {"optimizer": "adam"}, {"learning_rate": 0.1}]
    + [{"validation": 0.3}, {"minutes": 1}, {"init": "x"}, {"tied": "false"}, {"horizon": 9}],
)
def test_only_the_number_of_steps_may_be_given_with_resume(command, stopped, finished, option):
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    (name,) = option
    assert command("gopher train", resume=stopped, **option).refuses(f"--{name} cannot be changed")
    assert {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("steps", "complaint"), [(7, "has already made 8 steps"), (0, "--max_steps is 0")])
def test_fewer_steps_than_were_made_are_refused(command, stopped, steps, complaint):
    config = (stopped / "config.yaml").read_bytes()
    assert command("gopher train", resume=stopped, max_steps=steps).refuses(complaint)
    assert (stopped / "config.yaml").read_bytes() == config


def test_there_must_be_a_run_to_resume(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for name in ("missing", "file"):
        assert command("gopher train", resume=tmp_path / name).refuses(f"there is no run folder at {tmp_path / name}")
    assert command("gopher train", resume=tmp_path / "empty").refuses(
        "has no config.yaml, so no run was started there", "start it again"
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["missing", "cut short", "altered"])
def test_a_harmed_checkpoint_is_named_and_once_it_is_removed_the_run_goes_on(command, stopped, finished, file, harm):
    path = stopped / "checkpoints" / "step-8" / file
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        rest = b"" if harm == "cut short" else bytes([content[-2] ^ 1]) + content[-1:]
        path.write_bytes(content[:-2] + rest)
    outcome = command("gopher train", resume=stopped)
    assert outcome.refuses(str(path), f"remove {path.parent} to continue from the checkpoint before it")
    shutil.rmtree(outcome.err.rsplit("; remove ", 1)[1].split(" to continue")[0])
    train(resume=str(stopped))
    assert results(stopped) == results(finished)


def test_once_the_only_checkpoint_is_removed_the_run_starts_again(command, stopped, finished):
    assert 6 in RunFolder(stopped).steps()
    for step in RunFolder(stopped).steps()[:-1]:
        shutil.rmtree(stopped / "checkpoints" / f"step-{step}")
    (stopped / "checkpoints" / "step-8" / "manifest.json").unlink()
    assert command("gopher train", resume=stopped).refuses(
        "manifest.json does not exist", "to continue from the beginning"
    )
    shutil.rmtree(stopped / "checkpoints" / "step-8")
    train(resume=str(stopped))
    assert results(stopped) == results(finished)


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(command, stopped, tiny_text, tmp_path):
    other = make(tiny_text, tmp_path / "other", d_position=4, max_steps=8)
    shutil.rmtree(stopped / "checkpoints" / "step-8")
    shutil.copytree(other / "checkpoints" / "step-8", stopped / "checkpoints" / "step-8")
    assert command("gopher train", resume=stopped).refuses("config.yaml was changed", "d_position is None and was 4")
    as_format_1(stopped)  # whose checkpoints kept no settings
    outcome = command("gopher train", resume=stopped)
    assert outcome.refuses("describes another model", "step-8 holds (d_position None for 4)")


def test_a_checkpoint_of_another_optimizer_is_refused(command, stopped):
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    (stopped / "config.yaml").write_text(yaml.safe_dump({**config, "optimizer": "adam"}))
    assert command("gopher train", resume=stopped).refuses("config.yaml was changed", "optimizer is adam and was muon")
    as_format_1(stopped)
    assert command("gopher train", resume=stopped).refuses(
        "optimizer state belongs to another model or optimizer", "step-8"
    )


def test_an_altered_tokenizer_is_refused(command, stopped, tiny_text, tmp_path):
    bpe = make(tiny_text, tmp_path / "bpe", tokenizer="bpe", vocabulary=330, context=8, max_steps=1)
    shutil.copy(bpe / "tokenizer.json", stopped / "tokenizer.json")
    outcome = command("gopher train", resume=stopped)
    assert outcome.refuses(f"{stopped / 'tokenizer.json'} is not the tokenizer of {stopped / 'data'}")
    for content in (b"", b"{}", b"\xff"):
        (stopped / "tokenizer.json").write_bytes(content)
        assert command("gopher train", resume=stopped).refuses("tokenizer.json")
    (stopped / "tokenizer.json").unlink()
    assert command("gopher train", resume=stopped).refuses("tokenizer.json does not exist")


def test_data_made_with_another_tokenizer_is_refused(command, stopped, tiny_text, tmp_path):
    bpe = make(tiny_text, tmp_path / "bpe", tokenizer="bpe", vocabulary=330, context=8, max_steps=1)
    shutil.rmtree(stopped / "data")
    shutil.copytree(bpe / "data", stopped / "data")
    shutil.copy(bpe / "tokenizer.json", stopped / "tokenizer.json")
    assert command("gopher train", resume=stopped).refuses("data/index.json is not the file that", "was started with")
    as_format_1(stopped)
    assert command("gopher train", resume=stopped).refuses("another tokenizer", "step-8")


@pytest.mark.parametrize("harm", ["missing", "cut short", "tokenizer"])
def test_harmed_data_is_named(command, stopped, harm):
    file = stopped / "data" / ("tokenizer.json" if harm == "tokenizer" else "tiny.txt/train-00000.bin")
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-2])
    assert command("gopher train", resume=stopped).refuses(str(file))


def test_a_resumed_run_says_the_same_of_a_config_that_is_not_its_own(command, stopped):
    for content, complaint in (
        ("kind: wgan\n", "is the run of a GAN"),
        ("kind: gopher\nlearning_speed: 3\n", "is not the configuration of a Gopher run (learning_speed)"),
        ("- a\n", "does not contain a mapping of settings"),
        ("a: [", "is not valid YAML"),
    ):
        (stopped / "config.yaml").write_text(content)
        assert command("gopher train", resume=stopped).refuses(complaint)


def test_a_run_is_not_started_twice(command, finished, tiny_text):
    before = results(finished)
    outcome = command("gopher train", data=tiny_text, run=finished, **FLEA)
    assert outcome.refuses(f"{finished} already contains a run: resume it with --resume {finished}")
    assert results(finished) == before


def spoil(monkeypatch, steps: range | tuple[int, ...], factor: float) -> None:
    """Multiply the loss, and so the gradients, of these steps (counted from 1)."""
    update, loss = Pretraining.update, Gopher.loss
    current = []

    def noted(task, step):
        current[:] = [step + 1]
        return update(task, step)

    monkeypatch.setattr(Pretraining, "update", noted)
    monkeypatch.setattr(Gopher, "loss", lambda *given: loss(*given) * (factor if current[0] in steps else 1.0))


@pytest.mark.parametrize("factor", [math.nan, math.inf, 100.0])
def test_a_step_that_would_do_harm_is_skipped_and_counted_across_a_stop(monkeypatch, tiny_text, tmp_path, factor):
    """A hundredfold loss is finite: it is a spike above the window of losses before it, made short for this."""
    monkeypatch.setattr(guard, "WINDOW", 4)
    spoil(monkeypatch, (6, 9), factor)
    whole = make(tiny_text, tmp_path / "whole", save_every=2)
    assert [record["step"] for record in read_metrics(whole / "metrics.jsonl") if record.get("skipped")] == [6, 9]
    assert results(whole)["state"]["guard"]["skipped"] == 2
    shutil.rmtree(whole / "checkpoints" / "step-10")
    before = checkpoint.load(whole / "checkpoints" / "step-8")[1]["guard"]
    assert (before["skipped"], len(before["losses"])) == (1, 4)
    expected = [json.dumps(line) for line in read_metrics(whole / "metrics.jsonl")]
    train(resume=str(whole))
    assert [json.loads(a)["loss"] for a in expected[:5]] == [r["loss"] for r in read_metrics(whole / "metrics.jsonl")][
        :5
    ]
    assert results(whole)["state"]["guard"]["skipped"] == 2


def test_a_run_whose_every_step_would_do_harm_is_given_up_and_its_weights_are_as_before(
    command, monkeypatch, tiny_text, tmp_path
):
    short = make(tiny_text, tmp_path / "short", max_steps=3, horizon=20)
    spoil(monkeypatch, range(4, 99), math.nan)
    outcome = command("gopher train", data=tiny_text, run=tmp_path / "run", **{**FLEA, "max_steps": 20})
    assert outcome.refuses("10 consecutive steps had a non-finite or exploding loss", "--learning_rate", code=1)
    run = RunFolder(tmp_path / "run")
    assert len(read_metrics(run.metrics_file)) == 12
    assert run.steps()[-1] == 12
    tensors, state = checkpoint.load(run.checkpoint(12))
    assert state["guard"]["in_a_row"] == 9
    weights = checkpoint.load(short / "checkpoints" / "step-3")[0]["model"]
    assert all(torch.equal(value, tensors["model"][name]) for name, value in weights.items())
    assert command("gopher train", resume=run.path).refuses("10 consecutive steps", code=1)
