"""What all tests share: Hypothesis profiles, commands, a tiny text, a tiny trained run, and where real data lies when
there is some."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import sentinel
from tiny_runs import TINY, Outcome, words

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the workers share the cores
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell has its background commands ignore Ctrl-C, and theirs
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


ROOMS = ("corpus ", "evaluate ", "gopher ", "transport ", "wgan ")  # whose commands have a second word


@pytest.fixture(scope="session", autouse=True)
def strangers(tmp_path_factory) -> Iterator[sentinel.Strangers]:
    """Files of somebody else in the folder that holds the folders of all tests."""
    sentinel.ground = tmp_path_factory.getbasetemp().resolve()
    with sentinel.strangers(sentinel.ground) as planted:
        yield planted


@pytest.fixture(autouse=True)
def nothing_of_strangers_is_harmed(strangers) -> Iterator[None]:
    """Whatever a test runs, by a command or not."""
    yield
    assert not strangers.harmed()


@pytest.fixture
def command(capsys) -> Callable[..., Outcome]:
    """`command("gopher train --json", more, max_steps=3)` runs that command in this process, strangers' files around
    what it writes: see sentinel.py."""
    from earthworks.cli import main

    def run(line: str, *more: object, **options: Any) -> Outcome:
        arguments = [*line.split(), *map(str, more), *(f"--{name}={value}" for name, value in options.items())]
        capsys.readouterr()
        code = 0
        with sentinel.around(arguments[line.startswith(tuple(ROOMS)) + 1 :]):
            try:
                main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory) -> Path:
    """A file of 400 bytes: 320 to train on, which make 19 windows of 16 an epoch, and 80 held out."""
    path = tmp_path_factory.mktemp("text") / "tiny.txt"
    path.write_text(words(400), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_text) -> Path:
    """A finished run with everything in it, trained on `tiny_text` with TINY: to read, or to copy and change."""
    from earthworks.gopher import train

    return train(str(tiny_text), run=str(tmp_path_factory.mktemp("tiny") / "run"), **TINY)


@pytest.fixture(scope="module")
def flea() -> Iterator[None]:
    """The size `flea` (7,217 parameters), which trains in milliseconds, samples of 8 tokens, and no drawing of reports."""
    from earthworks.gopher.config import SIZES
    from earthworks.gopher.pretraining import run as pretraining
    from earthworks.gopher.pretraining import task
    from earthworks.runs import write_bytes

    def undrawn(runs: list[Path]) -> Path:
        write_bytes(runs[0] / "report.html", b'<meta name="generator" content="Earthworks test">')
        return runs[0] / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "flea", (1, 2, 4, 16))
        patch.setattr(pretraining, "write_report", undrawn)
        generate = task.generate
        patch.setattr(task, "generate", lambda *given, **named: generate(*given, **{**named, "max_tokens": 8}))
        yield


@pytest.fixture
def real_data() -> Path:
    """$EARTHWORKS_DATA, or a skip."""
    if "EARTHWORKS_DATA" not in os.environ:
        pytest.skip("EARTHWORKS_DATA is not set")
    return Path(os.environ["EARTHWORKS_DATA"])
