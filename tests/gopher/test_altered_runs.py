"""A run folder may come from a stranger or from a failing disk: it costs a sentence, and nothing is allocated for it."""

import json
import math
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save

from earthworks.gopher import load, train
from earthworks.runs import EarthworksError, RunFolder, read_json
from earthworks.training import checkpoint
from tiny_runs import FLEA, as_format_1, results, rewrite

pytestmark = pytest.mark.usefixtures("flea")


@pytest.fixture(scope="module")
def made(flea, tmp_path_factory, tiny_text) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "KEPT", 3)
        return train(str(tiny_text), run=str(tmp_path_factory.mktemp("made") / "run"), **{**FLEA, "save_every": 2})


@pytest.fixture
def run(made, tmp_path) -> Path:
    """After step 8 of 10, the best as well."""
    shutil.copytree(made, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-10")
    (tmp_path / "run" / "checkpoints" / "best.json").unlink(missing_ok=True)
    return tmp_path / "run"


def alter(run: Path, name: str, change) -> None:
    """Change a JSON file of the checkpoint, so that its manifest agrees."""
    path = run / "checkpoints" / "step-8"
    rewrite(path, name, json.dumps(change(read_json(path / name))).encode())


def refused_everywhere(command, run: Path, tiny_text: Path, *words: str, code: int = 2) -> None:
    for line in (f"gopher generate {run} --checkpoint 8", f"gopher evaluate {run} --checkpoint 8"):
        assert command(line).refuses(*words, code=code)
    assert command("gopher train", init=run, data=tiny_text, run=run.parent / "other", max_steps=1).refuses(
        *words, code=code
    )
    assert command("gopher train", resume=run).refuses(*words)


@pytest.mark.parametrize(
    "change", [{"num_layers": 10_000_000}, {"d_model": 10**12}, {"vocabulary": 10**15}, {"d_position": 10**12}]
)
def test_a_model_that_its_file_does_not_hold_is_not_built(command, run, tiny_text, change):
    alter(run, "state.json", lambda state: {**state, "best": None, "model": {**state["model"], **change}})
    tracemalloc.start()
    refused_everywhere(command, run, tiny_text, "describes a model of", "tensors of")
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()


@pytest.mark.parametrize("model", [None, 3, [], {"size": 1}, {"num_layers": "x"}, {"num_layers": True}])
def test_a_state_that_describes_no_model_is_one_sentence(command, run, tiny_text, model):
    alter(run, "state.json", lambda state: {**state, "best": None, "model": model})
    refused_everywhere(command, run, tiny_text, "state.json does not describe a Gopher")


def with_header(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", 1 << 40) + b"{}",
        with_header({"a": {**ENTRY, "shape": [1 << 62, 8]}}, bytes(8)),
        with_header({"a": ENTRY, "b": ENTRY}, bytes(8)),  # overlap
        with_header({"a": {**ENTRY, "data_offsets": [0, 1 << 50]}}, bytes(8)),
        with_header({"a": {**ENTRY, "dtype": "F9"}}, bytes(8)),
        b"[" * 100_000,
    ],
    ids=["empty", "length", "longer", "shape", "overlap", "beyond", "dtype", "deep"],
)
def test_a_damaged_safetensors_file_is_one_sentence(command, run, tiny_text, content):
    rewrite(run / "checkpoints" / "step-8", "model.safetensors", content)
    refused_everywhere(command, run, tiny_text, "model.safetensors is not a readable safetensors file")


def test_weights_of_another_type_are_refused(command, run, tiny_text):
    path = run / "checkpoints" / "step-8"
    weights = load_file(path / "model.safetensors")
    rewrite(path, "model.safetensors", save({name: value.to(torch.int64) for name, value in weights.items()}))
    refused_everywhere(command, run, tiny_text, "are torch.int64; a Gopher's are float32 or bfloat16")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_said(command, run, tiny_text, value):
    path = run / "checkpoints" / "step-8"
    weights = load_file(path / "model.safetensors")
    weights["blocks.0.feedforward.up.bias"][1] = value
    rewrite(path, "model.safetensors", save(weights))
    for line in (f"gopher generate {run} --checkpoint 8", f"gopher evaluate {run} --checkpoint 8"):
        assert command(line).refuses("are not finite", "blocks.0.feedforward.up.bias", "diverged", code=1)


# What a stranger, or an owner in a hurry, may have written in config.yaml.
ODD = [
    {"size": [1]},
    {"size": None},
    {"batch": "x"},
    {"batch": True},
    {"batch": 10**30},
    {"context": 1e99},
    {"context": math.nan},
    {"d_position": 10**12},
    {"max_distance": 1 << 31},
    {"seed": 1.5},
    {"seed": 1 << 70},
    {"learning_rate": "fast"},
    {"learning_rate": None},
    {"tied": "yes"},
    {"data": 3},
    {"data": None},
    {"max_steps": None},
    {"micro_batch": None},
    {"family": {"a": 1}},
    {"norm": 3},
]


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("change", ODD, ids=str)
def test_a_setting_that_no_run_can_have_is_one_sentence_before_anything_is_built(command, run, change, checkpoints):
    if not checkpoints:
        shutil.rmtree(run / "checkpoints")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
    (name,) = change
    assert command("gopher train", resume=run).refuses(name)


@pytest.mark.parametrize(
    "change",
    [
        *({"batch": 8}, {"learning_rate": 0.01}, {"context": 8}, {"seed": 1}, {"schedule": "gopher"}, {"tied": False}),
        *({"validation": 0.3}, {"clip": 2.0}, {"horizon": 20}, {"precision": "bf16"}, {"sampling": "documents"}),
    ],
    ids=str,
)
def test_a_config_that_differs_from_its_checkpoint_is_refused_by_the_setting_s_name(command, run, change):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (name,) = change
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
    said = f"{name} is {change[name]} and was {config[name]}"
    assert command("gopher train", resume=run).refuses("config.yaml was changed after its checkpoint", said)


def test_what_changes_no_weight_may_be_edited(command, run, made):
    config = yaml.safe_load((run / "config.yaml").read_text())
    free = {"save_every": 5, "sample_every": 10, "minutes": 3.0, "tensorboard": False}
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **free}))
    assert command("gopher train", resume=run).code == 0
    assert results(run)["tensors"] == results(made)["tensors"]


def test_a_run_of_format_1_is_continued_to_the_same_bits_and_that_it_was_not_compared_is_said(command, run, made):
    as_format_1(run)
    outcome = command("gopher train", resume=run)
    assert outcome.code == 0
    assert "notice: the checkpoint is from a version that kept no settings" in outcome.err
    now, then = results(run), results(made)
    for key in ("tensors", "metrics", "samples"):
        assert now[key] == then[key]
    assert command(f"gopher evaluate {run}").code == 0
    assert command(f"gopher generate {run} --max_tokens 3").code == 0


def test_a_run_of_a_later_format_is_refused_by_its_number(command, run):
    text = (run / "config.yaml").read_text()
    for number in ("3", "'2'", "-1", "1e99", "[2]"):
        (run / "config.yaml").write_text(text.replace("format: 2", f"format: {number}"))
        for line in ("train --resume", "evaluate", "generate"):
            assert command(f"gopher {line} {run}").refuses("is a run folder of format", "reads formats 1 to 2")


def test_a_checkpoint_that_a_living_run_removes_while_it_is_read_is_no_fault(monkeypatch, run, made):
    """Between choosing and reading, the run saves two more and removes the one that was chosen."""
    read = checkpoint.load

    def overtaken(path):
        if path.name == "step-8":
            shutil.copytree(made / "checkpoints" / "step-10", run / "checkpoints" / "step-10")
            shutil.rmtree(path)
        return read(path)

    monkeypatch.setattr(checkpoint, "load", overtaken)
    model, _ = load(run, "last")
    expected, _ = load(made, "last")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), expected.parameters()))
    with pytest.raises(EarthworksError, match="there is no checkpoint '8'"):
        load(run, "8")
    assert RunFolder(run).steps()[-1] == 10


@pytest.mark.parametrize("name", ["best.json", "environment.json", "passage.json", "samples/step-5.txt"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00", b'{"step": "x", "score": null}'])
def test_files_that_only_people_read_change_nothing_or_are_one_sentence(command, run, made, name, content):
    path = run / ("checkpoints/best.json" if name == "best.json" else name)
    path.write_bytes(content)
    assert command(f"gopher evaluate {run} --checkpoint 8").code == 0
    assert command("gopher train", resume=run).code == 0
    assert results(run)["tensors"] == results(made)["tensors"]


def test_a_checkpoint_under_the_number_of_another_step_is_refused(command, run):
    shutil.copytree(run / "checkpoints" / "step-6", run / "checkpoints" / "step-99")
    assert command("gopher evaluate", run, checkpoint="last").refuses("step-99 holds the checkpoint of step 6")


def test_a_card_and_a_report_say_that_the_number_of_parameters_was_changed(command, run):
    config = run / "config.yaml"
    count = yaml.safe_load(config.read_text())["parameters"]
    config.write_text(config.read_text().replace(f"parameters: {count}", "parameters: 99999999"))
    for name in ("evaluate card", "report"):
        assert f"parameters is 99999999 and was {count}" in command(name, run).err


def test_a_key_of_the_configuration_that_became_another_is_said_by_card_and_report(command, run):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("embedding_rate:", "embedding_raue:"))
    for name in ("evaluate card", "report"):
        assert "embedding_raue is no setting" in command(name, run).err


def test_an_altered_environment_is_said_and_not_shown(command, run):
    path = run / "environment.json"
    path.write_text(path.read_text().replace("Linux", "Minix").replace('"python": "3', '"python": "4'))
    assert "environment.json does not match the SHA-256" in command("report", run).err
    assert "Minix" not in (run / "report.html").read_text()


def test_a_card_of_an_altered_log_says_so(command, run):
    log = run / "metrics.jsonl"
    first, rest = log.read_text().split("\n", 1)
    altered = json.dumps({**json.loads(first), "loss": 1.0})
    assert "altered" not in command("evaluate card", run).err
    log.write_text(f"{altered}\n{rest}")
    assert "metrics.jsonl is not" in command("evaluate card", run).err
    assert "metrics.jsonl" in (run / "README.md").read_text()


def test_prompts_are_read_from_a_file_of_bounded_size_and_what_is_no_utf8_is_said(command, run, tmp_path):
    pipe, bad = tmp_path / "pipe", tmp_path / "bad.txt"
    os.mkfifo(pipe)
    bad.write_bytes(b"earth\xff\n")
    assert command("gopher generate", run, prompts=pipe, max_tokens=2).refuses("pipe")
    assert command("gopher generate", run, prompts="/dev/zero", max_tokens=2).refuses("/dev/zero")
    assert "is not valid UTF-8" in command("gopher generate", run, prompts=bad, max_tokens=2).err
