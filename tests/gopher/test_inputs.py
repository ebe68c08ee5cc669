"""A run reads again what it read at its start: the same files, wherever it is continued, or it says which differ."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from earthworks.corpus import PackedTokens, Tokenizer, pack, sources
from earthworks.evaluation.scaling.held_out import digest_of
from earthworks.gopher import evaluate, inputs, train
from earthworks.runs import files, read_json
from tiny_runs import FLEA, results, rewrite, words

pytestmark = pytest.mark.usefixtures("flea")
PACKED = {name: value for name, value in FLEA.items() if name not in ("tokenizer", "validation")}


def packed(text: str, folder: Path) -> Path:
    file = folder.parent / f"{folder.name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    pack(sources(str(file)), Tokenizer.bytes(), folder, validation=0.2)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Two working directories with packed tokens of one name, and a run of 5 of 10 steps in the first."""
    for name, text in (("mine", words(400)), ("other", words(400).upper())):
        packed(text, tmp_path / name / "tokens")
    monkeypatch.chdir(tmp_path / "mine")
    train("tokens", run="run", **{**PACKED, "max_steps": 5, "horizon": 10})
    train("tokens", run="whole", **{**PACKED, "horizon": 10})
    return tmp_path


def test_what_a_run_is_made_from_is_on_record(place):
    (entry,) = read_json(place / "mine" / "run" / "inputs.json")["inputs"]
    assert (entry["what"], entry["given"], entry["path"]) == ("tokens", "tokens", str(place / "mine" / "tokens"))
    written = read_json(place / "mine" / "tokens" / "manifest.json")["files"]
    assert {file.pop("name"): file for file in entry["files"]}.items() >= written.items()


def test_a_run_continued_elsewhere_reads_its_own_tokens(command, place, monkeypatch):
    monkeypatch.chdir(place / "other")
    assert command("gopher train --resume ../mine/run --max_steps 10").code == 0
    assert results(place / "mine" / "run")["tensors"] == results(place / "mine" / "whole")["tensors"]
    mine = evaluate(place / "mine" / "run")
    monkeypatch.chdir(place / "mine")
    assert evaluate("run") == mine


def test_tokens_that_are_others_now_are_refused_by_file(command, place):
    shutil.rmtree("tokens")
    shutil.copytree("../other/tokens", "tokens")
    for line in ("train --resume run --max_steps 10", "evaluate run"):
        assert command(f"gopher {line}").refuses("tokens", "is not the file that run was started with")


def test_tokens_that_are_gone_are_said_and_may_be_named_anew(command, place):
    os.rename("tokens", "moved")
    outcome = command("gopher train --resume run --max_steps 10")
    assert outcome.refuses(f"are no longer in {place / 'mine' / 'tokens'}", "data: in run/config.yaml")
    config = Path("run/config.yaml")
    text = config.read_text()
    config.write_text(text.replace("data: tokens", "data: ../other/tokens"))
    assert command("gopher train --resume run --max_steps 10").refuses("is not the file that run was started with")
    config.write_text(text.replace("data: tokens", "data: moved"))
    assert command("gopher train --resume run --max_steps 10").code == 0
    assert results(Path("run"))["tensors"] == results(Path("whole"))["tensors"]


def flip(file: Path, place: int, keep_time: bool = True) -> None:
    time = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(time, time))


@pytest.mark.parametrize("keep_time", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_altered_held_out_tokens_give_no_other_number(command, place, tiny_text, own, keep_time):
    """Even where size and time are as they were."""
    if own:
        train(str(tiny_text), run="own", **FLEA)
    run, data = ("own", Path("own/data")) if own else ("run", Path("tokens"))
    (file,) = data.glob("*/validation-00000.bin")
    flip(file, 20, keep_time)
    assert command(f"gopher evaluate {run}").refuses(str(file))
    assert command(f"gopher train --resume {run} --max_steps 12").refuses(str(file))


def test_held_out_tokens_altered_together_with_their_manifest_are_noticed(command, place):
    (file,) = Path("tokens").glob("*/validation-00000.bin")
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    rewrite(Path("tokens"), file.relative_to("tokens").as_posix(), bytes(content))
    assert command("gopher evaluate run").refuses("is not the file that run was started with")


def long_tokens(place: Path) -> Path:
    """Training tokens of which 64 blocks are a part only."""
    folder = packed(words(1_000_000), place / "mine" / "long")
    train(str(folder), run="long-run", **{**PACKED, "max_steps": 2})
    (file,) = folder.glob("*/train-00000.bin")
    return file


def test_a_byte_between_the_blocks_is_found_when_the_time_differs_or_with_verify(command, place):
    file = long_tokens(place)
    original, time = file.read_bytes(), file.stat().st_mtime_ns
    flip(file, 6000)
    assert command("gopher train --resume long-run --max_steps 3").code == 0  # what the documentation says is not found
    for line in ("train --resume long-run --max_steps 3 --verify", "evaluate long-run --verify"):
        assert command(f"gopher {line}").refuses(str(file))
    os.utime(file)
    assert command("gopher train --resume long-run --max_steps 3").refuses(str(file))
    file.write_bytes(original)
    os.utime(file, ns=(time, time))
    assert command("gopher evaluate long-run --verify --max_tokens 50").code == 0


def test_tokens_altered_before_the_start_are_not_recorded_as_the_truth(command, place):
    """By a byte between the blocks, which no start reads: --verify compares with what was packed."""
    folder = packed(words(1_000_000), place / "mine" / "long")
    (file,) = folder.glob("*/train-00000.bin")
    flip(file, 6000)
    train(str(folder), run="long-run", **{**PACKED, "max_steps": 2})
    assert command("gopher evaluate long-run --verify").refuses(str(file))
    assert command("gopher train --resume long-run --max_steps 3 --verify").refuses(str(file))


def test_a_start_does_not_read_packed_tokens_in_full(place, monkeypatch):
    read = []
    for module in (inputs, files):
        monkeypatch.setattr(module, "sha256", lambda file, digest=module.sha256: read.append(file.name) or digest(file))
    train("tokens", run="started", **{**PACKED, "max_steps": 1})
    assert "train-00000.bin" not in read


def test_tokens_of_a_manifest_without_blocks_are_recorded_too(command, place):
    manifest = Path("tokens/manifest.json")
    entries = read_json(manifest)["files"]
    kept = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in entries.items()}
    manifest.write_text(json.dumps({"files": kept}))
    train("tokens", run="started", **{**PACKED, "max_steps": 1})
    assert command("gopher evaluate started --verify").code == 0


def test_a_copied_run_is_read_whole_once(place, monkeypatch, tiny_text):
    train(str(tiny_text), run="own", **FLEA)
    shutil.copytree("own", "copy", copy_function=shutil.copyfile)
    read = []
    for module in (inputs, files):  # what the run recorded, and what manifests say
        monkeypatch.setattr(module, "sha256", lambda file, digest=module.sha256: read.append(file) or digest(file))
    first = evaluate("copy")
    assert {"train-00000.bin", "validation-00000.bin"} <= {file.name for file in read}
    read.clear()
    assert evaluate("copy") == first == evaluate("own")
    assert "train-00000.bin" not in {file.name for file in read}


@pytest.mark.parametrize("content", ["", "[]", '{"inputs": 3}', '{"inputs": [{"what": "tokens"}]}', "[" * 5000])
def test_a_damaged_record_of_inputs_is_one_sentence(command, place, content):
    Path("run/inputs.json").write_text(content)
    for line in ("train --resume run --max_steps 10", "evaluate run"):
        assert command(f"gopher {line}").refuses("inputs.json")


@pytest.mark.parametrize("name", ["/dev/zero", "../other.txt", "tokens/../../other.txt"])
def test_a_record_that_names_files_outside_is_refused(command, place, name):
    record = read_json("run/inputs.json")
    record["inputs"][0]["files"][0]["name"] = name
    Path("run/inputs.json").write_text(json.dumps(record))
    assert command("gopher evaluate run").refuses("is outside it")


def test_first_weights_are_those_of_the_same_checkpoint_or_it_is_said(command, place, monkeypatch):
    whole = train("tokens", run="second", init="whole", **{**PACKED, "max_steps": 2})
    shutil.copytree(whole, "killed")
    shutil.rmtree("killed/checkpoints")
    shutil.copytree("killed", "lost")
    monkeypatch.chdir(place / "other")
    assert command("gopher train --resume ../mine/killed").code == 0
    assert results(place / "mine" / "killed")["tensors"] == results(place / "mine" / "second")["tensors"]
    step = max((place / "mine" / "whole" / "checkpoints").glob("step-*"), key=lambda path: path.stat().st_mtime_ns)
    (recorded,) = [e for e in read_json("../mine/lost/inputs.json")["inputs"] if e["what"] == "weights"]
    rewrite(Path(recorded["path"]), "model.safetensors", (step / "model.safetensors").read_bytes()[:-1] + b"\x01")
    assert command("gopher train --resume ../mine/lost").refuses("model.safetensors", "was started with")
    shutil.rmtree(recorded["path"])
    assert command("gopher train --resume ../mine/lost").refuses("from which", "no longer exists")


def test_first_weights_that_are_no_checkpoint_are_refused(command, place):
    train("tokens", run="second", init="whole", **{**PACKED, "max_steps": 2})
    shutil.rmtree("second/checkpoints")
    record = read_json("second/inputs.json")
    for entry in record["inputs"]:
        if entry["what"] == "weights":
            entry.update(path="/", files=[])
    Path("second/inputs.json").write_text(json.dumps(record))
    assert command("gopher train --resume second").refuses("inputs.json", "not a checkpoint of a run")


def test_a_setting_that_is_no_text_is_refused_with_what_to_do(command, place):
    with open("run/config.yaml", "a") as config:
        config.write("3: x\n")
    assert command("gopher train --resume run").refuses(
        "not the configuration of a Gopher run (3)", "put the file back"
    )


def test_a_prompt_that_is_not_utf8_is_read_and_that_is_said(command, place, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    outcome = command("gopher generate run --prompt - --max_tokens 2 --json")
    assert outcome.code == 0
    assert outcome.err.count("not valid UTF-8") == 1


def test_text_packed_twice_is_one_text_for_a_comparison_of_runs(tmp_path):
    """The files are of another time, and their contents the same."""
    text = tmp_path / "text.txt"
    text.write_text(words(400))
    for name in ("one", "other"):
        pack(sources(str(text)), Tokenizer.bytes(), tmp_path / name, validation=0.2)
    one, other, third = (PackedTokens.open(tmp_path / name) for name in ("one", "other", "one"))
    assert digest_of(None, one) == digest_of(None, other) == digest_of(None, third)
    pack(sources(str(text)), Tokenizer.bytes(), tmp_path / "third", validation=0.3)
    assert digest_of(None, PackedTokens.open(tmp_path / "third")) != digest_of(None, one)
