"""A run that dies at any write, fsync or rename, or at any moment, loses nothing but time."""

import errno
import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from earthworks.gopher import train
from earthworks.runs import RunFolder, verify_manifest
from earthworks.runs.temporary import TEMPORARY, is_temporary
from tiny_runs import FLEA, TINY, results, run_until_killed

pytestmark = pytest.mark.usefixtures("flea")

CALLS = ("write", "fsync", "replace", "rename")  # of `os`: every way in which runs/files.py and runs/metrics.py write
SHORT = {**FLEA, "max_steps": 8, "evaluate_every": 4, "sample_every": 8, "save_every": 2}


def in_child(action: Callable[[], Any], die_at: int | None = None) -> int:
    """The exit code of a child process that does `action`, or is killed at its `die_at`-th call (a write: halfway).

    fsync does nothing but die: what a killed process has written the system keeps without it."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def deadly(name: str, original: Callable) -> Callable:
            def call(*arguments):
                if next(count) == die_at:
                    if name == "write":
                        original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments) if name != "fsync" else None

            return call

        code = 1
        try:
            for name in CALLS:
                setattr(os, name, deadly(name, getattr(os, name)))
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(text: Path, run: Path) -> None:
    """What a user does after a crash: resume the run, or, if it was not started, run the command again."""
    if (run / "config.yaml").exists():
        train(resume=str(run))
    else:
        train(str(text), run=str(run), **SHORT)


@pytest.fixture(scope="module")
def unbroken(flea, tmp_path_factory, tiny_text) -> dict[str, Any]:
    """The results of the run that nothing happened to."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    go_on(tiny_text, run)
    return results(run)


def die_at_every(text: Path, folder: Path, unbroken: dict[str, Any], calls: range, again: bool) -> int:
    """Kill a run at each of these calls, resume it (killed once more if `again`), compare; returns the number of kills."""
    for number, call in enumerate(calls):
        run = folder / f"run-{call}"
        code = in_child(lambda run=run: go_on(text, run), call)
        if code == 0:
            return number
        assert code == -signal.SIGKILL
        if again:
            in_child(lambda run=run: go_on(text, run), 1 + call * 31 % 97)
        assert in_child(lambda run=run: go_on(text, run)) == 0, f"after death at call {call}"
        assert results(run) == unbroken, f"after death at call {call}"
        left = [path for path in run.rglob(TEMPORARY + "*") if path.exists()]
        assert not left, f"after death at call {call}"
        shutil.rmtree(run)
    raise AssertionError("the run outlived no call: there are more calls than were tried")


# torch cannot be used in a child of a process that has used the GPU
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a process that uses a GPU cannot fork")


@without_gpu
def test_death_at_every_thirteenth_write_fsync_or_rename_changes_nothing(tiny_text, tmp_path, unbroken):
    assert die_at_every(tiny_text, tmp_path, unbroken, range(4, 1000, 13), again=False) > 8


@without_gpu
@pytest.mark.slow
def test_death_at_every_write_fsync_or_rename_and_once_more_in_going_on_changes_nothing(tiny_text, tmp_path, unbroken):
    assert die_at_every(tiny_text, tmp_path, unbroken, range(1, 1000), again=True) > 100


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 10])
def test_kills_at_random_moments_change_nothing(tiny_text, tmp_path, kills):
    run, chance = tmp_path / "run", random.Random(kills)
    settings = {**TINY, "max_steps": 30 * (kills + 1), "evaluate_every": 20, "sample_every": 1000, "save_every": 7}
    options = [f"--{name}={value}" for name, value in {"data": tiny_text, "run": run, **settings}.items()]
    for _ in range(kills):
        arguments = [f"--resume={run}"] if (run / "config.yaml").exists() else options
        run_until_killed(["gopher", "train", *arguments], run / "metrics.jsonl", chance)
    assert max(RunFolder(run).steps(), default=0) < settings["max_steps"]
    train(resume=str(run))
    train(str(tiny_text), run=str(tmp_path / "whole"), **settings)
    assert results(run) == results(tmp_path / "whole")


@pytest.mark.parametrize("part", ["model.safetensors", "state.json", "manifest.json"])
def test_a_disk_that_is_full_while_saving_leaves_the_checkpoints_before_and_says_so(
    command, monkeypatch, tiny_text, tmp_path, unbroken, part
):
    """The disk takes half of a file of the checkpoint of step 6, and no more."""
    run = tmp_path / "run"
    write, open_ = os.write, os.open
    full: set[int] = set()

    def noting(path, *arguments, **named):
        descriptor = open_(path, *arguments, **named)
        folder = Path(path).parent
        if is_temporary(folder.name) and folder.name.endswith("-step-6") and Path(path).name == part:
            full.add(descriptor)
        return descriptor

    def filling(descriptor, data):
        if descriptor not in full:
            return write(descriptor, data)
        if len(data) > 1:
            return write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", noting)
    monkeypatch.setattr(os, "write", filling)
    outcome = command("gopher train", data=tiny_text, run=run, **SHORT)
    assert outcome.refuses(part, "the disk is full; what was saved before is intact", code=1)
    monkeypatch.undo()
    assert full
    steps = RunFolder(run).steps()
    assert steps[-1] == 4
    for step in steps:
        verify_manifest(run / "checkpoints" / f"step-{step}")
    assert not list(run.rglob(TEMPORARY + "*"))
    assert command("gopher train", resume=run).code == 0
    assert results(run) == unbroken


def test_a_disk_that_is_full_for_the_log_ends_the_run_in_a_sentence(
    command, monkeypatch, tiny_text, tmp_path, unbroken
):
    run = tmp_path / "run"
    write = os.write

    def filling(descriptor, data):
        if bytes(data).startswith(b'{"step": 7,'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", filling)
    outcome = command("gopher train", data=tiny_text, run=run, **SHORT)
    assert outcome.refuses("metrics.jsonl", "the disk is full", code=1)
    monkeypatch.undo()
    assert command("gopher train", resume=run).code == 0
    assert results(run) == unbroken


def test_a_disk_that_is_full_before_the_run_started_leaves_no_trace(command, monkeypatch, tiny_text, tmp_path):
    def refusing(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refusing)
    assert command("gopher train", data=tiny_text, run=tmp_path / "run", **SHORT).refuses("the disk is full", code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_start_does_not_remove_data_that_is_not_its_own(command, tiny_text, tmp_path):
    """What a killed start left is marked as such and made anew. A data/ without that mark is somebody's."""
    train(str(tiny_text), run=str(tmp_path / "run"), **{**SHORT, "max_steps": 1})
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    other = tmp_path / "other.txt"
    other.write_bytes(tiny_text.read_bytes())
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    outcome = command("gopher train", data=other, run=tmp_path / "run", **SHORT)
    assert outcome.refuses("already contains ", "(it is not an empty folder): choose another name with --run")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
