"""A stopped and resumed GAN equals an uninterrupted one bit for bit: weights, averages, optimizers, losses, samples."""

import hashlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_gans import ANT, few_images, make, results

from earthworks import runs
from earthworks.runs import RunFolder, read_metrics
from earthworks.training import checkpoint
from earthworks.wgan import sample, train
from earthworks.wgan.measures import evaluation
from earthworks.wgan.task import FINAL_SHARE, Adversarial
from tiny_runs import run_until_killed

pytestmark = pytest.mark.usefixtures("undrawn")

# What a run may be made of. 45 training images in batches of 16 make an epoch of two batches: it ends within each step.
RUNS = {
    "gp, batches of an epoch": {"data": "few", "critic_steps": 3},
    "fresh points": {"data": "ring"},
    "clip, RMSProp, batch normalization": {"data": "large", "objective": "clip", "network": "dcgan", "width": 4},
    "dequantized, colour, generator on twice the batch": {
        **{"data": "colour", "network": "dcgan", "width": 4, "dequantize": True, "generator_batch": 32, "hold": 0.0},
    },
}


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("images")
    return {
        "ring": "ring",
        "few": str(few_images(folder / "few.npy")),
        "large": str(few_images(folder / "large.npy", side=16)),
        "colour": str(few_images(folder / "colour.npy", side=16, channels=3)),
    }


@pytest.fixture(scope="module", params=RUNS)
def settings(request, data) -> dict:
    return {**ANT, **RUNS[request.param], "data": data[RUNS[request.param]["data"]]}


@pytest.fixture(scope="module")
def unbroken(undrawn, tmp_path_factory, settings) -> Path:
    return train(run=str(tmp_path_factory.mktemp("unbroken") / "run"), **settings)


@pytest.fixture(scope="module")
def finished(undrawn, tmp_path_factory, data) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "KEPT", 4)
        return make(data["few"], tmp_path_factory.mktemp("finished") / "run", save_every=2)


@pytest.fixture
def stopped(finished, tmp_path) -> Path:
    """A run that looks as if it had been killed after step 8 of 10: to be resumed, or harmed."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "step-10")
    if (record := checkpoint.best(RunFolder(run))) and record["step"] == 10:
        (run / "checkpoints" / "best.json").unlink()
    return run


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT), (9, signal.SIGTERM)])
def test_n_and_m_steps_are_n_plus_m(command, monkeypatch, tmp_path, unbroken, settings, step, number):
    update = Adversarial.update

    def interrupted(task, now):
        if now == step - 1 and task.run.config_file.exists():  # not in the timed warm-up
            os.kill(os.getpid(), number)
        return update(task, now)

    monkeypatch.setattr(Adversarial, "update", interrupted)
    outcome = command("wgan train", run=tmp_path / "my run", **settings)
    code = 130 if number == signal.SIGINT else 75
    assert outcome.refuses(f"stopped by {number.name} after step {step} of 10; everything is saved", code=code)
    monkeypatch.undo()
    line = outcome.err.strip().split("continue with: ")[1]
    name, *arguments = shlex.split(line)
    assert name == "earthworks"
    assert command(" ".join(arguments[:2]), *arguments[2:]).code == 0
    assert results(tmp_path / "my run") == results(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [6])
def test_kills_at_random_moments_change_nothing(data, tmp_path, kills):
    run, chance = tmp_path / "run", random.Random(kills)
    settings = {**ANT, "data": data["few"], "max_steps": 150 * (kills + 1), "evaluate_every": 50}
    settings |= {"sample_every": 1000, "save_every": 7}
    options = [f"--{name}={value}" for name, value in {**settings, "run": run}.items()]
    for _ in range(kills):
        options_now = [f"--resume={run}"] if (run / "config.yaml").exists() else options
        run_until_killed(["wgan", "train", *options_now], run / "metrics.jsonl", chance)
    assert max(RunFolder(run).steps(), default=0) < settings["max_steps"]
    train(resume=str(run))
    train(run=str(tmp_path / "whole"), **settings)
    assert results(run) == results(tmp_path / "whole")


def test_a_run_killed_before_its_first_checkpoint_starts_with_the_same_weights(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(resume=str(tmp_path / "run"))
    assert results(tmp_path / "run") == results(finished)


def test_a_stopped_run_goes_on(stopped, finished):
    train(resume=str(stopped))
    assert results(stopped) == results(finished)


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    train(resume=str(tmp_path / "run"))
    assert results(tmp_path / "run") == results(finished)


def test_a_raised_max_steps_goes_on_at_the_final_rate(command, data, tmp_path):
    whole = make(data["few"], tmp_path / "whole", max_steps=14, horizon=10)
    run = make(data["few"], tmp_path / "run", max_steps=10)
    assert command("wgan train", resume=run, max_steps=14).code == 0
    assert results(run)["tensors"] == results(whole)["tensors"]
    logs = [read_metrics(each / "metrics.jsonl") for each in (run, whole)]
    for key in ("loss", "gap", "generator_loss", "learning_rate"):
        assert [record[key] for record in logs[0]] == [record[key] for record in logs[1]]
    assert [record["learning_rate"] for record in logs[0][10:]] == pytest.approx([FINAL_SHARE * 1e-3] * 4)
    assert RunFolder(run).read_config()["max_steps"] == 14


@pytest.mark.parametrize(
    "option", [{"batch": 3}, {"seed": 1}, {"data": "ring"}, {"run": "other"}, {"objective": "lp"}, {"hold": 1.0}]
)
def test_only_the_number_of_steps_may_be_given_with_resume(command, stopped, option):
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    (name,) = option
    assert command("wgan train", resume=stopped, **option).refuses(f"--{name} cannot be changed")
    assert {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("steps", "complaint"), [(7, "has already made 8 steps"), (0, "--max_steps is 0")])
def test_fewer_steps_than_were_made_are_refused(command, stopped, steps, complaint):
    assert command("wgan train", resume=stopped, max_steps=steps).refuses(complaint)


@pytest.mark.parametrize("file", ["generator.safetensors", "critic_optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["missing", "cut short", "altered"])
def test_a_harmed_checkpoint_is_named_and_once_it_is_removed_the_run_goes_on(command, stopped, finished, file, harm):
    path = stopped / "checkpoints" / "step-8" / file
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-2] + (b"" if harm == "cut short" else bytes([content[-2] ^ 1]) + content[-1:]))
    outcome = command("wgan train", resume=stopped)
    assert outcome.refuses(str(path), f"remove {path.parent} to continue from the checkpoint before it")
    shutil.rmtree(path.parent)
    train(resume=str(stopped))
    assert results(stopped) == results(finished)


def alter(run: Path, **changes) -> None:
    config = {**yaml.safe_load((run / "config.yaml").read_text()), **changes}
    config = {name: value for name, value in config.items() if value != "absent"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 17}, "was changed after its checkpoint was saved (width is 17 and was 16)"),
        ({"network": "unet"}, "one of mlp, dcgan, resnet"),
        ({"optimizer": "rmsprop"}, "optimizer is rmsprop and was adam"),
        ({"batch": 17, "seed": 2, "critic_steps": 5}, "critic_steps is 5 and was 2"),
        ({"learning_rate": 0.5, "penalty": 3.0}, "penalty is 3.0 and was 10.0"),
        ({"objective": "lp"}, "objective is lp and was gp"),
        ({"shape": [1, 9, 9]}, "do not fit the networks in"),
        ({"width": "wide"}, "has width 'wide'; expected a whole number"),
        ({"learning_rate": float("nan")}, "has learning_rate 'nan'; expected a number"),
        ({"kind": "gopher"}, "is a gopher run, not a GAN run"),
        ({"learning_speed": 3}, "holds unknown settings: learning_speed"),
        *(({name: "absent"}, f"lacks {name}") for name in ("width", "shape", "critic_batch_norm", "horizon", "data")),
    ],
)
def test_an_altered_config_is_refused_in_one_sentence(command, stopped, changes, words):
    alter(stopped, **changes)
    assert command("wgan train", resume=stopped).refuses(words)


def test_how_often_a_run_is_measured_may_be_edited(stopped, finished):
    alter(stopped, evaluate_every=4)
    train(resume=str(stopped))
    tensors = [results(run)["tensors"] for run in (stopped, finished)]
    assert tensors[0] == tensors[1]


@pytest.mark.parametrize("changes", [{"width": 17}, {"network": "unet"}, {"width": "absent"}, {"shape": "absent"}])
def test_sampling_from_an_altered_config_is_refused_in_one_sentence(command, stopped, changes):
    alter(stopped, **changes)
    assert command("wgan sample", stopped, output="samples.npy").code == 2


def test_data_of_another_shape_are_refused(command, stopped, tmp_path):
    alter(stopped, data=str(few_images(tmp_path / "other.npy", side=9)))
    assert command("wgan train", resume=stopped).refuses(
        "now holds samples of shape (1, 9, 9)", "started with [1, 8, 8]"
    )


def test_data_that_were_changed_are_refused(command, stopped, tmp_path):
    alter(stopped, data=str(few_images(tmp_path / "other.npy", num=51)))
    assert command("wgan train", resume=stopped).refuses("no longer holds the samples that", "started with")


def test_a_run_is_not_started_twice(command, finished, data):
    before = results(finished)
    outcome = command("wgan train", run=finished, **{**ANT, "data": data["few"]})
    assert outcome.refuses(f"{finished} already contains a run: resume it with --resume {finished}")
    assert results(finished) == before


def test_the_resumed_generator_draws_the_same(unbroken, stopped, finished):
    train(resume=str(stopped))
    assert (sample(stopped, 10) == sample(finished, 10)).all()


def test_a_run_reads_the_same_data_from_any_working_directory(command, monkeypatch, tmp_path, data, finished):
    shutil.copytree(Path(data["few"]).parent, tmp_path / "here")
    (tmp_path / "there").mkdir()
    few_images(tmp_path / "there" / "few.npy", num=60)
    monkeypatch.chdir(tmp_path / "here")
    run = make("few.npy", tmp_path / "run", save_every=2, max_steps=6, horizon=10)
    monkeypatch.chdir(tmp_path / "there")
    assert command("wgan train", resume=run, max_steps=10).code == 0
    assert results(run)["tensors"] == results(finished)["tensors"]
    assert "no longer holds" not in command("wgan diagnose", run).out


def test_what_may_change_in_a_config_changes_nothing_that_is_trained(command, stopped, finished):
    alter(stopped, save_every=1, sample_every=1, minutes=3.0)
    assert command("wgan train", resume=stopped).code == 0
    assert results(stopped)["tensors"] == results(finished)["tensors"]


def rewrite_state(checkpoint: Path, change) -> None:
    """Alter state.json so that the manifest agrees."""
    state = json.loads((checkpoint / "state.json").read_text())
    change(state)
    content = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["state.json"] = entry
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_an_older_version_is_resumed_with_a_notice(command, stopped, finished):
    rewrite_state(stopped / "checkpoints" / "step-8", lambda state: state.pop("settings"))
    outcome = command("wgan train", resume=stopped)
    assert outcome.code == 0
    assert "is from a version that kept no settings" in outcome.err
    assert results(stopped)["tensors"] == results(finished)["tensors"]


HUGE = [
    {"depth": 10_000_000},
    {"width": 1_000_000_000},
    {"width": 10**30},
    {"noise": 4_000_000_000},
    {"network": "dcgan", "width": 1_000_000_000, "critic_batch_norm": False},
]


@pytest.mark.parametrize("changes", HUGE, ids=str)
def test_networks_that_no_checkpoint_holds_take_no_memory(command, stopped, tmp_path, changes):
    """With the settings in state.json changed alike: only the shapes of the tensors tell."""
    alter(stopped, **changes)
    rewrite_state(stopped / "checkpoints" / "step-8", lambda state: state["settings"].update(changes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in ("wgan train --resume", "wgan sample --output=x.npy", "wgan evaluate --num=2"):
        outcome = command(f"{line.split(' --')[0]}", *(f"--{each}" for each in line.split(" --")[1:] if "=" in each), *(
            [f"--resume={stopped}"] if "resume" in line else [str(stopped)]
        ))  # fmt: skip
        assert outcome.refuses(code=2)
    assert "do not fit the networks" in command("wgan diagnose", stopped).out
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.parametrize("line", ["wgan train --max_steps=12 --resume=", "wgan evaluate "])
def test_a_second_writer_is_told_who_writes(command, monkeypatch, stopped, line):
    monkeypatch.setattr(evaluation, "PATIENCE", 0)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: {"measures": []})
    name = "training" if "train" in line else "evaluation.json"
    code = f"import sys; sys.path.insert(0, {str(Path(runs.__file__).parents[2])!r})\n"
    code += "from earthworks.runs import lock\n"
    code += f"with lock({str(stopped)!r}, {name!r}): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file() and "lock" not in file.name}
        assert command(f"{line}{stopped}").refuses("by another command", f"process {other.pid}")
        for file, content in before.items():
            assert file.read_bytes() == content
    finally:
        other.communicate()


def test_a_file_at_the_name_of_the_output_stays_what_it_is(command, stopped, tmp_path):
    (tmp_path / "mine.npy").write_text("mine")
    outcome = command("wgan sample", stopped, output=tmp_path / "mine.npy", checkpoint="no such")
    assert outcome.refuses("mine.npy already exists")
    assert (tmp_path / "mine.npy").read_text() == "mine"


@pytest.mark.parametrize("verb", ["sample --output=new.npy", "evaluate --num=2", "diagnose"])
def test_measuring_by_other_data_or_weights_than_were_trained_is_refused(command, monkeypatch, stopped, tmp_path, verb):
    monkeypatch.chdir(tmp_path)
    weights = stopped / "checkpoints" / "step-8" / "average.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-3])
    outcome = command(f"wgan {verb}", stopped)
    assert "average.safetensors" in outcome.out + outcome.err
    weights.write_bytes(content)
    alter(stopped, data=str(few_images(tmp_path / "other.npy", num=51)))
    outcome = command(f"wgan {verb}", stopped)
    assert outcome.code == 0 if "sample" in verb else "no longer holds the samples that" in outcome.out + outcome.err


def test_a_training_that_diverged_ends_in_a_sentence_with_everything_saved(command, tmp_path):
    settings = {**ANT, "data": "ring", "run": tmp_path / "run", "max_steps": 2, "learning_rate": 1e30}
    outcome = command("wgan train", **settings)
    assert outcome.code == 1
    assert "diverged" in outcome.err.splitlines()[-1]
    assert RunFolder(tmp_path / "run").steps()[-1] == 2
    assert (tmp_path / "run" / "report.html").exists()
