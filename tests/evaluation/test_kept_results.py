"""A stopped evaluation loses no measurement: the same command resumes it and gives the same bytes."""

import json
import os
import shutil
from pathlib import Path

import bias_examples as examples
import pytest

from earthworks.evaluation import measure_bias, measure_toxicity
from earthworks.evaluation.bias import suite as bias
from earthworks.evaluation.likelihood import generation as writing
from earthworks.evaluation.results import Partial, partial_result, refuse_foreign_lines
from earthworks.evaluation.tasks import command as commands
from earthworks.evaluation.tasks import evaluation as evaluating
from earthworks.evaluation.tasks.evaluation import evaluate_run
from earthworks.evaluation.toxicity import command as bias_commands
from earthworks.runs import EarthworksError, read_json
from earthworks.runs.errors import Stopped
from earthworks.runs.lock import lock

TASKS = "piqa,blimp,boolq,operators"
KEPT = "tasks.partial.jsonl"


@pytest.fixture
def run(tiny_run, tmp_path, monkeypatch) -> Path:
    """A run to measure, without drawing its page."""
    for module in (commands, bias_commands):
        monkeypatch.setattr(module, "write_report", lambda runs: Path(runs[0]) / "report.html")
    return shutil.copytree(tiny_run, tmp_path / "run")


def stopping(function, error: BaseException, after: int):
    """Wrap the function so that it raises at call number `after`, counted from 0."""
    calls = []

    def wrapper(*given, **named):
        calls.append(given)
        if len(calls) == after + 1:
            raise error
        return function(*given, **named)

    wrapper.calls = calls
    return wrapper


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; 3 tasks are stored in"),
        (Stopped("SIGTERM"), 75, "stopped by SIGTERM; 3 tasks are stored in"),
        (MemoryError(), 1, "out of memory"),
    ],
)
def test_three_tasks_measured_are_not_lost_with_the_fourth(
    run, tiny_eval, command, monkeypatch, tmp_path, error, code, words
):
    whole = shutil.copytree(run, tmp_path / "whole") / ".." / "whole"
    evaluate_run(str(run), tiny_eval, TASKS.split(","), window=64)
    unbroken = (run / "tasks.json").read_bytes()
    (run / "tasks.json").unlink()
    assert whole.exists()
    measure = stopping(evaluating.measure, error, 3)
    monkeypatch.setattr(evaluating, "measure", measure)
    broken = command("evaluate tasks", run, data=tiny_eval, tasks=TASKS, window=64)
    assert broken.refuses(words, code=code)
    assert not (run / "tasks.json").exists()
    assert (run / KEPT).read_bytes().count(b'"key"') == 3
    taken = command("evaluate tasks", run, data=tiny_eval, tasks=TASKS, window=64)
    assert taken.code == 0, taken.err
    assert "3 tasks reused from an interrupted evaluation" in taken.err
    assert len(measure.calls) == 5  # three, the one that broke, and that one again
    assert (run / "tasks.json").read_bytes() == unbroken
    assert not (run / KEPT).exists()
    assert not list(run.glob(".earthworks-lock-*"))


def test_what_decides_the_number_must_be_the_same_to_be_taken_up(run, tiny_eval, monkeypatch, tmp_path):
    """Another seed, limit, number of shots, window, file or checkpoint: measured anew."""
    data = shutil.copytree(tiny_eval, tmp_path / "eval")
    real = evaluating.measure
    with partial_result(run, "tasks", "tasks") as kept:
        evaluating.evaluate_tasks(run, data, ["piqa", "blimp"], partial=kept)
        left = (run / KEPT).read_bytes()

    def measured_again(**changes) -> int:
        (run / KEPT).write_bytes(left)
        calls = stopping(real, AssertionError(), 99)
        monkeypatch.setattr(evaluating, "measure", calls)
        evaluate_run(run, data, ["piqa", "blimp"], **changes)
        return len(calls.calls)

    assert measured_again() == 0
    for change in ({"seed": 1}, {"limit": 5}, {"shots": (1,)}, {"window": 8}, {"batch": 3}, {"checkpoint": "9"}):
        assert measured_again(**change) >= 1, change
        assert (run / KEPT).exists()  # what another evaluation kept stays
    name = "commonsense/piqa_valid.jsonl.gz"
    (data / name).write_bytes((data / name).read_bytes() + (data / name).read_bytes())
    assert measured_again() == 1


def test_a_damaged_line_is_measured_again_and_said(run, tiny_eval, capsys):
    """A flipped digit is never accepted as a result; a line cut by a kill is not damage."""
    evaluate_run(run, tiny_eval, ["piqa", "blimp"])
    unbroken = (run / "tasks.json").read_bytes()
    with partial_result(run, "tasks", "tasks") as kept:
        evaluating.evaluate_tasks(run, tiny_eval, ["piqa", "blimp"], partial=kept)
        left = (run / KEPT).read_bytes()
    first, second = left.splitlines()[-2:]
    flipped = first.replace(b'"n": 12', b'"n": 13', 1)
    assert flipped != first
    (run / KEPT).write_bytes(flipped + b"\n" + second + b"\n" + first[: len(first) // 2])
    capsys.readouterr()
    evaluate_run(run, tiny_eval, ["piqa", "blimp"])
    said = capsys.readouterr().err
    assert f"damaged lines in {run / KEPT}: 1; their content is measured again" in said
    assert "1 tasks reused" in said
    assert (run / "tasks.json").read_bytes() == unbroken


def test_a_strangers_pieces_of_another_shape_are_not_taken(run, tiny_eval):
    """With the right key and the right digest."""
    evaluate_run(run, tiny_eval, ["piqa"])
    unbroken = (run / "tasks.json").read_bytes()
    for wrong in (5, "x", [], {}, {"name": "piqa"}, {"n": {"a": 1}}):
        with partial_result(run, "tasks", "tasks") as kept:
            kept_piece = kept.piece
            kept.piece = lambda key, compute, fits, w=wrong, p=kept_piece: (p(key, lambda: w, fits), compute())[1]
            evaluating.evaluate_tasks(run, tiny_eval, ["piqa"], partial=kept)
            left = (run / KEPT).read_bytes()
        (run / KEPT).write_bytes(left)
        evaluate_run(run, tiny_eval, ["piqa"])
        assert (run / "tasks.json").read_bytes() == unbroken


def test_bias_is_kept_measure_by_measure(run, command, monkeypatch, tmp_path):
    data = examples.everything(tmp_path / "bias")
    parts = "occupations,crows_pairs,bold"
    given = {"data": data, "parts": parts, "num": 1, "device": "cpu"}
    assert command("evaluate bias", run, **given).code == 0
    unbroken = [(run / name).read_bytes() for name in ("bias.json", "bias_samples.jsonl")]
    bold = bias.PARTS["bold"]
    monkeypatch.setitem(bias.PARTS, "bold", stopping(bold, KeyboardInterrupt(), 0))
    assert command("evaluate bias", run, **given).refuses("2 measurements are stored", code=130)
    monkeypatch.setitem(bias.PARTS, "bold", bold)
    for name in ("occupations", "crows_pairs"):
        monkeypatch.setitem(bias.PARTS, name, stopping(bias.PARTS[name], AssertionError("measured again"), 0))
    outcome = command("evaluate bias", run, **given)
    assert outcome.code == 0, outcome.err
    assert "2 measurements reused from an interrupted evaluation" in outcome.err
    assert [(run / name).read_bytes() for name in ("bias.json", "bias_samples.jsonl")] == unbroken
    assert not (run / "bias.partial.jsonl").exists()


def test_continuations_are_kept_batch_by_batch(run, monkeypatch, tmp_path):
    data = tmp_path / "bias"
    examples.write_records(data / "offensive_tweets_train.jsonl.gz", examples.labelled())
    examples.write(data / "real_toxicity_prompts" / "rtp.txt", "\n".join(f"word {n}" for n in range(20)))
    given = {"num": 2, "unprompted": 18, "device": "cpu"}
    monkeypatch.setattr(writing, "ROWS", 8)
    measure_toxicity(run, data, **given)
    unbroken = [(run / name).read_bytes() for name in ("toxicity.json", "toxicity_samples.jsonl")]
    real = writing.generate
    generate = stopping(real, KeyboardInterrupt(), 6)  # five batches after prompts, and one of three after none
    monkeypatch.setattr(writing, "generate", generate)
    with pytest.raises(EarthworksError, match="6 batches of continuations are stored") as stop:
        measure_toxicity(run, data, **given)
    assert stop.value.exit_code == 130
    rest = stopping(real, AssertionError(), 99)
    monkeypatch.setattr(writing, "generate", rest)
    measure_toxicity(run, data, **given)
    assert len(rest.calls) == 2
    assert [(run / name).read_bytes() for name in ("toxicity.json", "toxicity_samples.jsonl")] == unbroken
    assert not (run / "toxicity.partial.jsonl").exists()


def test_a_full_disk_keeps_what_was_kept_and_is_one_sentence(run, tiny_eval, command, monkeypatch):
    """The disk has room for two tasks; the same command then resumes once there is more."""
    append, lines = Partial.append, []

    def full(self, line):
        if len(lines) == 3:  # the empty line that tries, and two tasks
            raise evaluating.NotKept(
                f"could not write {self.path}: the disk is full; what was saved before is intact", 1
            )
        lines.append(line)
        append(self, line)

    monkeypatch.setattr(Partial, "append", full)
    outcome = command("evaluate tasks", run, data=tiny_eval, tasks=TASKS)
    assert outcome.refuses("the disk is full", code=1)
    monkeypatch.setattr(Partial, "append", append)
    assert "2 tasks reused" in command("evaluate tasks", run, data=tiny_eval, tasks=TASKS).err


@pytest.mark.parametrize("there", ["[]", '{"results": [', "\0\0\0", "folder", "pipe"])
def test_a_results_file_that_cannot_be_read_is_not_overwritten(run, tiny_eval, command, monkeypatch, there):
    """It is checked before measuring."""
    path = run / "tasks.json"
    if there == "folder":
        path.mkdir()
    elif there == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(there)
    monkeypatch.setattr(evaluating, "measure", stopping(evaluating.measure, AssertionError("measured"), 0))
    outcome = command("evaluate tasks", run, data=tiny_eval, tasks="piqa")
    assert outcome.refuses("tasks.json", "overwritten: move or delete it")
    assert there in ("folder", "pipe") or path.read_text() == there
    assert not (run / KEPT).exists()


def test_a_folder_that_cannot_be_written_is_said_before_measuring(run, tiny_eval, command, monkeypatch):
    from earthworks.evaluation import results

    def refused(path, data):
        raise EarthworksError(f"could not write {path}: Read-only file system; what was saved before is intact", 1)

    monkeypatch.setattr(results, "write_through", refused)
    monkeypatch.setattr(evaluating, "measure", stopping(evaluating.measure, AssertionError("measured"), 0))
    outcome = command("evaluate tasks", run, data=tiny_eval, tasks="piqa")
    assert outcome.refuses("nothing was measured: could not write", "/tasks.json: Read-only file system", code=1)


def test_a_run_that_is_trained_or_evaluated_meanwhile_can_be_evaluated(run, tiny_eval, command):
    """Training holds its own lock; a second evaluation stores no pieces, prints a notice, and finishes."""
    with lock(run, "training"), lock(run, KEPT):
        outcome = command("evaluate tasks", run, data=tiny_eval, tasks="piqa")
    assert outcome.code == 0, outcome.err
    assert "results are not stored until the end" in outcome.err
    assert read_json(run / "tasks.json")["results"][0]["name"] == "piqa"


def test_a_checkpoint_that_is_removed_while_it_is_read_is_chosen_anew(run, tiny_eval, monkeypatch):
    """As training does with older checkpoints."""
    from earthworks.evaluation.likelihood import protocol as scoring_protocol

    real, gone = scoring_protocol.load, []

    def pruned_meanwhile(folder, which, device):
        if not gone:
            gone.append(which)
            shutil.rmtree(run / "checkpoints" / f"step-{which}")
        return real(folder, which, device)

    (run / "checkpoints" / "best.json").unlink(missing_ok=True)
    monkeypatch.setattr(scoring_protocol, "load", pruned_meanwhile)
    assert evaluate_run(run, tiny_eval, ["piqa"])["results"]
    assert gone == ["10"]


def test_samples_of_somebody_else_are_not_overwritten(run, tmp_path):
    data = examples.everything(tmp_path / "bias")
    (run / "bias_samples.jsonl").write_text(ours := '{"prompt": "a", "text": "b", "toxicity": 0.1}\n')
    refuse_foreign_lines(run / "bias_samples.jsonl")
    for mine in ('{"text": "mine"}\n', f'{ours}{{"text": "mine", "prompt": "a"}}\n', f"{ours}mine\n", f"[]\n{ours}"):
        (run / "bias_samples.jsonl").write_text(mine)
        with pytest.raises(EarthworksError, match=r"bias_samples\.jsonl was not written by Earthworks"):
            refuse_foreign_lines(run / "bias_samples.jsonl")
    (run / "bias_samples.jsonl").write_text("mine\n")
    with pytest.raises(EarthworksError, match=r"bias_samples\.jsonl was not written by Earthworks"):
        measure_bias(run, data, num=1, parts=["crows_pairs", "bold"], device="cpu")
    assert (run / "bias_samples.jsonl").read_text() == "mine\n"
    assert not (run / "bias.json").exists()


def test_samples_and_pieces_are_json_without_nan(run, tmp_path):
    data = examples.everything(tmp_path / "bias")
    measure_bias(run, data, num=1, parts=["crows_pairs", "bold"], device="cpu")

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    for name in ("bias.json", "bias_samples.jsonl"):
        for line in [(run / name).read_text()] if name.endswith("json") else (run / name).read_text().splitlines():
            json.loads(line, parse_constant=no_constant)
