"""Whatever a command does in a folder, it removes and overwrites only what it wrote: not what was there before it, nor
what a person puts there while it works, nor on an error or Ctrl-C at any moment."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sentinel
from tiny_runs import FLEA, words

pytestmark = pytest.mark.usefixtures("flea")

FILE_EVENTS = ("open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir")
ANT = {
    **{"network": "mlp", "width": 16, "depth": 2, "noise": 4, "batch": 16, "critic_steps": 2, "max_steps": 2},
    **{"evaluate_every": 2, "sample_every": 2, "save_every": 2, "precision": "fp32", "device": "cpu"},
}


class Watch:
    """Calls `then` once, as soon as this process touches a file while `ready()`; Ctrl-C so many touches later."""

    armed: "Watch | None" = None

    def __init__(self, ready: Callable[[], bool], then: Callable[[], Any], interrupt_after: int | None):
        self.ready, self.then, self.left = ready, then, interrupt_after
        self.come = False

    def see(self, event: str) -> None:
        if event not in FILE_EVENTS:
            return
        Watch.armed = None  # what is done here touches files, too
        try:
            if not self.come and self.ready():
                self.come = True
                self.then()
        finally:
            Watch.armed = self
        if self.come and self.left is not None:
            self.left -= 1
            if self.left == 0:
                Watch.armed = None
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def audited() -> None:
    """A hook cannot be taken away again; without a Watch it does nothing."""

    def hook(event: str, _: tuple) -> None:
        if Watch.armed is not None:
            Watch.armed.see(event)

    sys.addaudithook(hook)


@pytest.fixture
def arriving(audited, monkeypatch) -> Iterator[Callable[..., sentinel.Strangers]]:
    """`arriving(folder, interrupt_after)`: strangers' files come into the folder as soon as it is there."""
    from earthworks import cli

    planted = sentinel.Strangers()
    dispatch = cli.dispatch

    def disarming(arguments: list[str]) -> None:
        try:
            dispatch(arguments)
        finally:
            Watch.armed = None  # a command that ended sooner must not leave Ctrl-C to the test

    monkeypatch.setattr(cli, "dispatch", disarming)

    def arrive(folder: Path, interrupt_after: int | None = None) -> sentinel.Strangers:
        Watch.armed = Watch(folder.is_dir, lambda: planted.plant(folder), interrupt_after)
        return planted

    yield arrive
    Watch.armed = None


@pytest.fixture
def bad(tmp_path) -> Path:
    """Text that is readable at first."""
    lines = [json.dumps({"text": words(300)}) for _ in range(50)] + ["{damaged"]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    return tmp_path / "bad.jsonl"


FAMILY = {**{name: value for name, value in FLEA.items() if name != "size"}, "family": "shrew,cricket"}
FAILING = {"one model": FLEA, "with a tokenizer": {**FLEA, "tokenizer": "bpe", "vocabulary": 330}, "family": FAMILY}


@pytest.mark.parametrize("name", FAILING)
def test_what_a_person_puts_into_a_folder_while_a_start_fails_stays(command, bad, tmp_path, arriving, name):
    run = tmp_path / "run"
    planted = arriving(run)
    assert command("gopher train", data=bad, run=run, **FAILING[name]).code in (1, 2)
    assert planted.paths
    assert not planted.harmed()
    assert set(run.rglob("*")) == set(planted.paths)  # and nothing of the command's own is left


@pytest.mark.parametrize("after", [1, 2, 5, 20, 60, 150])
@pytest.mark.parametrize("name", ["gopher train", "wgan train", "corpus build"])
def test_what_a_person_puts_into_a_folder_before_ctrl_c_stays(command, tiny_text, tmp_path, arriving, name, after):
    """Ctrl-C at the given touch of a file after the folder was made."""
    output = tmp_path / "out"
    settings = {
        "gopher train": {**FLEA, "data": tiny_text, "run": output, "max_steps": 2},
        "wgan train": {**ANT, "data": "ring", "run": output},
        "corpus build": {"input": tiny_text, "output": output, "workers": 1},
    }[name]
    planted = arriving(output, after)
    outcome = command(name, **settings)
    assert outcome.code in (0, 1, 130), outcome.err  # 0: it was done before
    assert planted.paths
    assert not planted.harmed()


def test_what_a_person_puts_into_a_finished_corpus_survives_the_same_command_again(command, tmp_path):
    lines = [json.dumps({"text": words(3000)}) for _ in range(3)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    output = tmp_path / "corpus"
    assert command("corpus build --workers=1", input=tmp_path / "raw.jsonl", output=output).code == 0
    folders = [output, *(each for each in output.rglob("*") if each.is_dir())]
    with sentinel.strangers(*folders):
        assert command("corpus build --workers=1", input=tmp_path / "raw.jsonl", output=output).code == 0


def test_what_a_person_puts_into_every_folder_of_a_run_survives_its_resumption(command, tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    folders = [each for each in run.rglob("*") if each.is_dir()]
    with sentinel.strangers(run, *folders):
        outcome = command("gopher train", resume=run, max_steps=14)
    assert outcome.code == 0, outcome.err
