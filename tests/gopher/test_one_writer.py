"""Real commands in processes of their own: one of them writes in a folder, and what is not its own outlives it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from earthworks.gopher import train
from earthworks.gopher.pretraining import run as pretraining
from earthworks.runs import RunFolder, read_metrics
from earthworks.runs.folder import STARTING
from tiny_runs import FLEA, TINY, results, words

LONG = {**TINY, "max_steps": 1_000_000, "horizon": 1_000_000, "evaluate_every": 10**6, "sample_every": 10**6}
LONG |= {"save_every": 5, "validation_tokens": 64}


def options(settings: dict) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


@contextmanager
def process(*arguments: object, folder: Path) -> Iterator[subprocess.Popen]:
    """`earthworks ARGUMENTS` in a process of its own, ended when the block is."""
    line = [sys.executable, "-m", "earthworks.cli", *map(str, arguments)]
    with subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_for(true: Callable[[], bool], running: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not true():
        assert running.poll() is None, running.stderr and running.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def person_s_files(folder: Path) -> dict[Path, bytes]:
    """What a person makes in a folder where a command is at work, in folders of the command's names too."""
    names = ("notes.txt", "thesis/chapter.tex", "samples/mine.txt", "figures/mine.png", "checkpoints/mine/a.bin")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return {folder / name: (folder / name).read_bytes() for name in names}


FAMILY = {**{name: value for name, value in TINY.items() if name != "size"}, "family": "shrew,cricket"}


@pytest.mark.parametrize(
    ("number", "code", "settings"),
    [(signal.SIGINT, 130, TINY), (signal.SIGTERM, 75, FAMILY), (signal.SIGKILL, -9, TINY)],
    ids=["Ctrl-C", "SIGTERM of a family", "kill -9"],
)
def test_a_start_that_is_ended_takes_its_own_files_with_it_and_no_other(command, tmp_path, number, code, settings):
    """In the very folder where a person works, while the text is being made into tokens."""
    (tmp_path / "big.txt").write_text(words(3_000_000))
    folder = tmp_path / "here"
    folder.mkdir()
    given = options({**settings, "tokenizer": "bpe", "vocabulary": 500, "max_steps": 1, "run": "."})
    with process("gopher", "train", "--data=../big.txt", *given, folder=folder) as running:
        wait_for((folder / STARTING).exists, running)
        mine = person_s_files(folder)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == code, said
    assert not (folder / "config.yaml").exists()
    if (
        number == signal.SIGKILL
    ):  # the next start removes what this one left, and refuses to write into what is the person's
        (tmp_path / "tiny.txt").write_text(words(400))
        outcome = command("gopher train", data=tmp_path / "tiny.txt", **{**TINY, "run": folder})
        assert outcome.refuses("already contains", "choose another name")
    elif number == signal.SIGINT:
        assert "interrupted; partial files were removed" in said
    else:
        assert "stopped by SIGTERM; partial files were removed: run the same command again" in said
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == mine


def test_a_start_that_was_killed_is_made_again_by_the_same_command(command, tmp_path):
    (tmp_path / "big.txt").write_text(words(1_000_000))
    settings = {**TINY, "run": tmp_path / "run", "data": tmp_path / "big.txt", "max_steps": 2}
    given = options({**settings, "tokenizer": "bpe", "vocabulary": 400})
    with process("gopher", "train", *given, folder=tmp_path) as running:
        wait_for((tmp_path / "run" / STARTING).exists, running)
        (tmp_path / "run" / "notes.txt").write_text("mine")
        running.kill()
        running.wait()
    assert command("gopher train", **settings).code == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "run" / STARTING).exists()


def test_a_second_writer_is_told_who_writes_and_readers_work_all_the_while(command, tiny_text, tmp_path):
    run = tmp_path / "run"
    with process("gopher", "train", *options({**LONG, "data": tiny_text, "run": run}), folder=tmp_path) as running:
        wait_for((run / STARTING).exists, running)
        outcome = command("gopher train", data=tiny_text, run=run, **TINY)  # told one or the other, as it happens
        assert outcome.refuses(str(run))
        assert "by another command (process " in outcome.err or "already contains a run" in outcome.err
        wait_for(lambda: (run / "checkpoints").exists() and len(RunFolder(run).steps()) > 1, running)
        who = f"is being trained or built by another command (process {running.pid} on "
        assert command("gopher train", resume=run).refuses(who, "wait until it has ended")
        assert command("gopher train", data=tiny_text, run=run, **TINY).refuses("already contains a run")
        for _ in range(3):  # its checkpoints come and go by the second
            for line in ("generate {} --max_tokens=3 --checkpoint=last", "evaluate {} --checkpoint=last"):
                assert command("gopher " + line.format(run)).code == 0
        outcome = command(f"report {run}")
        assert outcome.code == 0, outcome.err
        running.terminate()
        _, said = running.communicate(timeout=60)
    assert running.returncode == 75
    assert "everything is saved; continue with: earthworks gopher train --resume" in said
    done = RunFolder(run).steps()[-1]
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == list(range(1, done + 1))
    assert command("gopher train", resume=run, max_steps=done + 2).code == 0
    whole = {**LONG, "max_steps": done + 2}
    train(str(tiny_text), run=str(tmp_path / "whole"), **whole)
    assert results(run)["tensors"] == results(tmp_path / "whole")["tensors"]


def test_a_family_and_its_members_have_one_writer_too(command, tiny_text, tmp_path):
    run = tmp_path / "run"
    family = {**{name: value for name, value in LONG.items() if name != "size"}, "family": "shrew,cricket"}
    with process("gopher", "train", *options({**family, "data": tiny_text, "run": run}), folder=tmp_path) as running:
        wait_for((run / "shrew" / "metrics.jsonl").exists, running)
        for refused in (
            command("gopher train", data=tiny_text, run=run, **family),
            command("gopher train", resume=run),
            command("gopher train", resume=run / "shrew"),
        ):
            assert refused.refuses("is being trained or built by another command", f"process {running.pid}")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"--resume {run}\n" in said


@pytest.mark.usefixtures("flea")
def test_two_runs_of_one_second_have_names_of_their_own(command, monkeypatch, tiny_text, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretraining, "default_run", lambda *_: "runs/tiny-20261129-120000")
    for _ in range(2):
        assert command("gopher train", data=tiny_text, **{**FLEA, "max_steps": 1}).code == 0
    assert sorted(os.listdir("runs")) == ["tiny-20261129-120000", "tiny-20261129-120000-2"]


@pytest.mark.usefixtures("flea")
@pytest.mark.parametrize("harm", ["a damaged byte", "missing"])
def test_lines_after_a_damaged_one_are_kept_and_what_is_missing_is_said(command, tiny_text, tmp_path, harm):
    run = train(str(tiny_text), run=str(tmp_path / "run"), **FLEA)
    log = run / "metrics.jsonl"
    before = log.read_bytes()
    lines = before.splitlines(keepends=True)
    if harm == "missing":
        log.unlink()
    else:
        lines[3] = b"#" + lines[3][1:]
        log.write_bytes(b"".join(lines))
    outcome = command("gopher train", resume=run, max_steps=12)
    assert outcome.code == 0
    lost = {"missing": "metrics.jsonl is missing: the measurements of 10 steps are lost"}
    assert (
        lost.get(harm, "metrics.jsonl has no readable line for step 4: it was damaged after it was written")
        in outcome.err
    )
    if harm == "missing":
        assert [record["step"] for record in read_metrics(log)] == [11, 12]
    else:
        assert log.read_bytes().startswith(b"".join(lines))
        assert [record["step"] for record in read_metrics(log)] == [1, 2, 3, *range(5, 13)]
    said = command(f"report {run}")
    assert said.code == 0
    assert "metrics.jsonl has no readable line for" in said.err
