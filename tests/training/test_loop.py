import json
import math
import os
import signal
import time

import pytest
import torch

from earthworks.runs import EarthworksError, RunFolder, read_metrics
from earthworks.training import checkpoint
from earthworks.training.loop import Cadence, fit


class Walk:
    """A task whose only weight walks at random, by torch's global generator; its score falls, rises, falls."""

    def __init__(self, run: RunFolder, scores=(), interrupt_at=None, measures=True):
        self.run, self.scores, self.measures = run, scores, measures
        self.place = torch.zeros(1, dtype=torch.float64)
        self.at = 0
        self.interrupt_at = interrupt_at
        self.calls = []

    def update(self, step):
        assert step == self.at
        self.at += 1
        self.place += torch.randn(1, dtype=torch.float64)
        if self.interrupt_at and self.interrupt_at[0] == step:
            os.kill(os.getpid(), self.interrupt_at[1])
        return {"loss": float(self.place), "tokens": 7}

    def validate(self):
        self.calls.append(("validate", self.at))
        return {"score": self.scores[self.at - 1] if self.scores else abs(self.at - 4.0)} if self.measures else None

    def sample(self, step):
        self.calls.append(("sample", step))
        return f"after {step}"

    def describe(self, record):
        return f"loss {record['loss']:.3f}"

    def tensors(self):
        return {"model": {"place": self.place}}

    def state(self):
        return {"at": self.at}

    def restore(self, tensors, state):
        self.place.copy_(tensors["model"]["place"])
        self.at = state["at"]


def walk(path, max_steps, *, cadence=(3, 4, 5), seed=0, **options) -> Walk:
    torch.manual_seed(seed)
    task = Walk(RunFolder(path), **options)
    path.mkdir(exist_ok=True)
    evaluate, sample, save = cadence
    cadence = Cadence(evaluate=evaluate, sample=sample, save=save)
    fit(task, task.run, max_steps=max_steps, cadence=cadence, command="the command", started=time.perf_counter())
    return task


def losses(path) -> list[float]:
    records = read_metrics(path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return [record["loss"] for record in records]


def test_every_step_has_a_line_and_each_thing_comes_at_its_cadence_and_at_the_end(tmp_path):
    task = walk(tmp_path, 11)
    assert [step for what, step in task.calls if what == "validate"] == [3, 6, 9, 11]
    assert [step for what, step in task.calls if what == "sample"] == [4, 8, 11]
    torch.manual_seed(0)
    assert losses(tmp_path) == pytest.approx(torch.randn(11, dtype=torch.float64).cumsum(0).tolist(), rel=1e-12)
    records = read_metrics(tmp_path / "metrics.jsonl")
    measured = {record["step"]: record["validation"]["score"] for record in records if "validation" in record}
    assert measured == {3: 1, 6: 2, 9: 5, 11: 7}


def test_checkpoints_come_at_their_cadence_at_each_best_and_at_the_end(tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda run, step, *rest: saved.append(step) or save(run, step, *rest))
    walk(tmp_path, 11, scores=[9, 5, 6, 5, 4, 4, 9, 3, 9, 9, 9], cadence=(1, 99, 6))
    assert saved == [1, 2, 5, 6, 8, 11]  # an equal score is not better
    run = RunFolder(tmp_path)
    assert checkpoint.best(run) == {"step": 8, "score": 3}
    assert run.steps() == [8, 11]  # the newest two, of which one is the best


def test_the_log_is_on_the_disk_before_a_checkpoint_has_its_name(tmp_path, monkeypatch):
    """After a power cut the log knows every step that the checkpoint knows."""
    events = []
    fsync, rename = os.fsync, os.rename
    log = tmp_path / "metrics.jsonl"

    def noted_fsync(descriptor):
        if log.exists() and os.fstat(descriptor).st_ino == log.stat().st_ino:
            events.append(len(read_metrics(log)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", lambda old, new: events.append(new.name) or rename(old, new))
    walk(tmp_path, 9, measures=False, cadence=(99, 99, 3))
    assert [event for event in events if not str(event).startswith(".tmp")] == [
        0,
        3,
        "step-3",
        6,
        "step-6",
        9,
        "step-9",
    ]
    assert events[-1].endswith("-step-3")  # removed


def test_the_best_stays_however_old_it_is(tmp_path):
    walk(tmp_path, 12, scores=[3, 1, *range(4, 14)], cadence=(1, 99, 2))
    assert RunFolder(tmp_path).steps() == [2, 10, 12]
    assert checkpoint.choose(RunFolder(tmp_path)) == RunFolder(tmp_path).checkpoint(2)


def test_with_nothing_held_out_there_is_no_best(tmp_path):
    walk(tmp_path, 6, measures=False)
    assert checkpoint.best(RunFolder(tmp_path)) is None
    assert checkpoint.choose(RunFolder(tmp_path)) == RunFolder(tmp_path).checkpoint(6)
    assert not any("validation" in record for record in read_metrics(tmp_path / "metrics.jsonl"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("step", [0, 6, 9])
def test_a_signal_saves_after_the_step_and_says_how_to_resume(tmp_path, number, step):
    whole = walk(tmp_path / "whole", 11)
    before = signal.getsignal(number)
    expected = f"stopped by {number.name} after step {step + 1} of 11; everything is saved; continue with: the command"
    with pytest.raises(EarthworksError, match=expected) as error:
        walk(tmp_path / "broken", 11, interrupt_at=(step, number))
    assert error.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert signal.getsignal(number) == before
    assert checkpoint.newest(RunFolder(tmp_path / "broken")).name == f"step-{step + 1}"
    rest = walk(tmp_path / "broken", 11, seed=99)  # the generator too is restored
    assert torch.equal(rest.place, whole.place)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert [call for call in whole.calls if call[1] > step + 1] == rest.calls


def test_a_number_of_the_log_that_was_altered_is_noticed_on_resuming(tmp_path, capsys):
    walk(tmp_path, 6)
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"tokens": 7', b'"tokens": 8', 1))
    walk(tmp_path, 8)
    assert "metrics.jsonl is not as it was written up to step 6" in capsys.readouterr().err
    assert [record["step"] for record in read_metrics(log)] == list(range(1, 9))


def test_the_best_is_what_the_newest_checkpoint_says_whatever_its_mark_says(tmp_path):
    walk(tmp_path, 12, scores=[3, 1, *range(4, 14)], cadence=(1, 99, 2))
    (tmp_path / "checkpoints" / "best.json").write_text('{"step": 12, "score": 0.5}')
    assert checkpoint.choose(RunFolder(tmp_path)) == RunFolder(tmp_path).checkpoint(2)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    walk(tmp_path, 4, scores=[math.nan, math.inf, 2.0, math.nan], cadence=(1, 99, 1))
    assert checkpoint.best(RunFolder(tmp_path)) == {"step": 3, "score": 2.0}
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail)


def test_a_signal_in_the_last_step_stops_nothing(tmp_path):
    walk(tmp_path, 5, interrupt_at=(4, signal.SIGTERM))
    assert RunFolder(tmp_path).steps()[-1] == 5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(11))
def test_a_run_that_dies_in_any_step_resumes_from_its_last_checkpoint(tmp_path, monkeypatch, step):
    whole = walk(tmp_path / "whole", 11)
    update = Walk.update

    def dying(self, now):
        if now == step:
            raise Killed
        return update(self, now)

    monkeypatch.setattr(Walk, "update", dying)
    with pytest.raises(Killed):
        walk(tmp_path / "broken", 11)
    monkeypatch.undo()
    assert len(losses(tmp_path / "broken")) == step  # more than the checkpoint knows: cut back on resuming
    rest = walk(tmp_path / "broken", 11)
    assert torch.equal(rest.place, whole.place)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_a_best_whose_mark_was_lost_is_marked_again(tmp_path):
    walk(tmp_path, 6, scores=[9, 9, 9, 9, 9, 1], cadence=(2, 99, 99))
    checkpoint.mark_best(RunFolder(tmp_path), {"step": 2, "score": 9})  # killed before the mark of step 6
    walk(tmp_path, 8, scores=[9] * 8, cadence=(2, 99, 99))
    assert checkpoint.best(RunFolder(tmp_path)) == {"step": 6, "score": 1}
    assert 6 in RunFolder(tmp_path).steps()


def test_a_best_that_was_pruned_before_its_successor_was_removed_by_hand_is_no_best(tmp_path):
    walk(tmp_path, 6, scores=[9, 5, 9, 9, 9, 1], cadence=(2, 99, 2))
    run = RunFolder(tmp_path)
    assert run.steps() == [4, 6]
    (tmp_path / "away").mkdir()
    run.checkpoint(6).rename(tmp_path / "away" / "step-6")
    walk(tmp_path, 8, scores=[9, 9, 9, 9, 9, 7, 9, 8], cadence=(2, 99, 2))
    assert checkpoint.best(run) == {"step": 6, "score": 7}
    assert checkpoint.choose(run).is_dir()


def test_a_damaged_checkpoint_says_which_and_what_to_remove(tmp_path):
    walk(tmp_path, 6, cadence=(99, 99, 3))
    run = RunFolder(tmp_path)
    for step, before in ((6, "the checkpoint before it"), (3, "the beginning")):
        file = run.checkpoint(step) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(
            EarthworksError, match=f"{file} has .* bytes .*; remove {run.checkpoint(step)} to continue from {before}"
        ):
            walk(tmp_path, 9)
        run.checkpoint(step).rename(tmp_path / f"removed-{step}")
    assert len(losses(tmp_path)) == 6  # nothing was touched by the refusals
    walk(tmp_path, 6)
    assert len(losses(tmp_path)) == 6


def test_elapsed_continues_where_the_stopped_run_was(tmp_path):
    walk(tmp_path, 3)
    before = read_metrics(tmp_path / "metrics.jsonl")[-1]["elapsed"]
    state = run_state(tmp_path, 3)
    assert state["elapsed"] == before
    walk(tmp_path, 5)
    elapsed = [record["elapsed"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert elapsed == sorted(elapsed)
    assert math.isclose(run_state(tmp_path, 5)["elapsed"], elapsed[-1])


def run_state(path, step):
    return checkpoint.load(RunFolder(path).checkpoint(step))[1]


def test_tensorboard_shows_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    torch.manual_seed(0)
    task = Walk(RunFolder(tmp_path))
    cadence = Cadence(evaluate=3, sample=99, save=99)
    fit(task, task.run, max_steps=4, cadence=cadence, command="", started=time.perf_counter(), tensorboard=True)
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.value for event in shown.Scalars("loss")] == pytest.approx(losses(tmp_path), rel=1e-6)
    assert [(event.step, event.value) for event in shown.Scalars("validation/score")] == [(3, 1.0), (4, 0.0)]
