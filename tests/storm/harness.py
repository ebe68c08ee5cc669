"""Commands in processes of their own, ended in every way, and what is counted of them.

A process is a fork of this one, which has imported and compiled everything already (`warm_up`): that takes longer than
what is tested. Reports are written without their pictures being drawn, for the same reason.
"""

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentinel

LONGEST = 180.0  # seconds that a command of the storm may take; beyond that it hangs
LINGER = 15.0  # seconds that its processes may outlive it


@dataclass
class Ended:
    """How a command ended: its exit code, below 0 for a signal, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def sentence(self) -> str:
        """Its last word, if that is the one sentence of a command that could not do its work."""
        last = (self.err.strip().splitlines() or [""])[-1]
        return last if last.startswith("earthworks: ") else ""


@dataclass
class Figures:
    """What a piece of the storm comes to, counted; a line of the table."""

    name: str
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"    FAULT {self.name}: {text}", flush=True)

    def line(self) -> str:
        c = self.counts
        signals = ", ".join(f"{name} {c[name]}" for name in ("KILL", "TERM", "INT", "STOP") if c[name])
        return (
            f"{self.name}: {c['commands']} commands; signals {sum(c[n] for n in ('KILL', 'TERM', 'INT', 'STOP'))}"
            f"{f' ({signals})' if signals else ''}; equal to the unbroken result {c['equal']} of {c['compared']}; "
            f"one sentence {c['sentences']}; lost {len(self.faults)}; {self.seconds:.0f} s"
        )


@contextlib.contextmanager
def counted(name: str) -> Iterator[Figures]:
    """Figures of a piece, printed at its end."""
    figures = Figures(name)
    start = time.monotonic()
    try:
        yield figures
    except Exception:
        figures.fault(f"the storm itself failed: {traceback.format_exc()}")
    figures.seconds = time.monotonic() - start
    print("  " + figures.line(), flush=True)


class Running:
    """A command in a process of its own, in a session of its own, so that whatever it starts can be found."""

    def __init__(self, arguments: Sequence[object], before: Callable[[], object] | None = None):
        self.arguments = [str(each) for each in arguments]
        self.outputs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.be_the_command(before)

    def be_the_command(self, before: Callable[[], object] | None) -> None:
        from earthworks.cli import main

        code = 1
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for descriptor, number in ((nothing, 0), (self.outputs[0].fileno(), 1), (self.outputs[1].fileno(), 2)):
                os.dup2(descriptor, number)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
            sys.argv = ["earthworks", *self.arguments]
            if before is not None:
                before()
            main(self.arguments)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def children(self) -> list[int]:
        """The processes that it has started."""
        return [pid for pid in self.session() if pid != self.pid]

    def session(self) -> list[int]:
        """All living processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state, _, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                    if int(session) == self.pid and state != "Z":
                        found.append(int(entry.name))
        return found

    def send(self, number: int, victim: int | None = None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim or self.pid, number)

    def wait(self, longest: float = LONGEST) -> Ended | None:
        """Wait for its end; None when it did not end in time, and was killed."""
        code = None
        while time.monotonic() - self.start < longest:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.005)
        if code is None:
            for pid in self.session():
                self.send(signal.SIGKILL, pid)
            os.waitpid(self.pid, 0)
            return None
        texts = []
        for stream in self.outputs:
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
            stream.close()
        return Ended(code, *texts, time.monotonic() - self.start)

    def lingering(self) -> list[int]:
        """Its processes that are still there some time after its end; they are killed then."""
        until = time.monotonic() + LINGER
        while (left := self.session()) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            self.send(signal.SIGKILL, pid)
        return left


def undraw() -> None:
    """Reports of this process have no pictures: drawing takes ten times as long as all else that a tiny run does."""
    from matplotlib.figure import Figure

    def savefig(self: Figure, file: Any, **_: object) -> None:
        file.write("<svg></svg>" if isinstance(file, io.TextIOBase) else b"no picture")

    Figure.savefig = savefig


def warm_up(lines: Sequence[Sequence[object]]) -> None:
    """Give these commands in this process, so that its forks have whatever they import and compile."""
    from earthworks.cli import main

    undraw()
    for line in lines:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                main([str(each) for each in line])
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(said.getvalue()) from None


def judged(figures: Figures, running: Running, allowed: Sequence[int], doing: str) -> Ended | None:
    """Wait for the end of a command and hold it to what is promised of every end."""
    ended = running.wait()
    figures.counts["commands"] += 1
    if ended is None:
        figures.fault(f"{doing}: still running after {LONGEST:.0f} s")
        return None
    if "Traceback (most recent call last)" in ended.err or "Fatal Python error" in ended.err:
        figures.fault(f"{doing}: a traceback: {ended.err.strip()[-600:]}")
    elif ended.code not in allowed:
        figures.fault(f"{doing}: exit code {ended.code}: {ended.err.strip()[-300:]}")
    elif ended.code > 0 and ended.code != 3:
        if ended.sentence:
            figures.counts["sentences"] += 1
        else:
            figures.fault(f"{doing}: exit code {ended.code} without a sentence: {ended.err.strip()[-300:]}")
    if left := running.lingering():
        figures.fault(f"{doing}: processes {left} outlived it by {LINGER:.0f} s")
    return ended


def run(
    figures: Figures,
    arguments: Sequence[object],
    allowed: Sequence[int] = (0,),
    doing: str = "",
    before: Callable[[], None] = lambda: None,
) -> Ended | None:
    """A whole command among strangers' files; `before` is called when those are there."""
    with among_strangers(figures, arguments):
        before()
        return judged(figures, Running(arguments), allowed, doing or " ".join(map(str, arguments[:2])))


@contextlib.contextmanager
def among_strangers(figures: Figures, arguments: Sequence[object]) -> Iterator[None]:
    """Strangers' files around what the command writes; a fault when one is harmed."""
    try:
        with sentinel.around(arguments[2:]):
            yield
    except AssertionError as error:
        figures.fault(str(error))


def leftovers(folder: Path) -> list[str]:
    """What only unfinished work has, anywhere in a folder."""
    marks = (".tmp-", ".earthworks-")
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.startswith(marks)]


def chance_of(seed: int, name: str) -> random.Random:
    """The same random numbers for the same piece and seed, whatever runs before it."""
    return random.Random(f"{seed} {name}")
