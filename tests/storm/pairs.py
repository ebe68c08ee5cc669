"""Two commands in one folder: one does its work, the other says who is working there, and nothing is lost."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from storm.harness import Figures, Running, among_strangers, counted, judged, run
from storm.kills import compare, fresh
from storm.subjects import SUBJECTS, Subject

TIMES = 6  # each pair, half of them with a kill of one of the two

Command = Callable[[Path], list[object]]


def pairs(folder: Path, chance: random.Random) -> list[Figures]:
    """Every pair, a line of figures each."""
    gopher, build, report, tasks = (SUBJECTS[name]() for name in ("gopher", "build", "report", "tasks"))
    page: Command = lambda place: ["report", place / "out"]  # noqa: E731
    wanted: list[tuple[str, Subject, Command, Command, bool]] = [
        ("two gopher train", gopher, gopher.first, gopher.first, False),
        ("two --resume", gopher, gopher.again, gopher.again, True),
        ("two corpus build", build, build.first, build.first, False),
        ("two report", report, report.first, report.first, False),
        ("two evaluate tasks", tasks, tasks.first, tasks.first, False),
        ("report while training", gopher, gopher.again, page, True),
        ("evaluate tasks and report", tasks, tasks.first, page, False),
    ]
    found = []
    for number, (name, subject, one, other, started) in enumerate(wanted):
        with counted(name) as figures:
            pair(figures, subject, folder / str(number), chance, one, other, started)
        found.append(figures)
    return found


def pair(
    figures: Figures,
    subject: Subject,
    folder: Path,
    chance: random.Random,
    one: Command,
    other: Command,
    started: bool,
) -> None:
    """`started`: the folder holds a run that was killed on its way."""
    place = fresh(subject, folder)
    ended = run(figures, subject.first(place), doing="unbroken")
    assert ended is not None
    whole, seconds = subject.result(place), ended.seconds
    for number in range(TIMES):
        place = fresh(subject, folder)
        if started:
            start(subject, place)
        with among_strangers(figures, one(place)):
            first = Running(one(place))
            time.sleep(chance.uniform(0, 0.3) * seconds)
            second = Running(other(place))
            victim = None
            if number % 2:
                time.sleep(chance.uniform(0, 0.5) * seconds)
                victim = chance.choice((first, second))
                kill = chance.choice((signal.SIGKILL, signal.SIGINT))
                victim.send(kill)
                figures.counts["KILL" if kill == signal.SIGKILL else "INT"] += 1
            for each, what in ((first, "the first"), (second, "the second")):
                # who comes second is refused (1 or 2); a page of a run that has not started is (2), too
                allowed = (0, 1, 2, -9, -2, 130) if each is victim else (0, 1, 2)
                judged(figures, each, allowed, f"{what} of two")
        run(figures, subject.next(place), doing="after the two")
        compare(figures, subject, place, whole, "two at once")
        shutil.rmtree(place)


def start(subject: Subject, place: Path) -> None:
    """A run that is killed when it has saved a checkpoint."""
    running = Running(subject.first(place))
    while not list((place / "out").glob("checkpoints/step-*")):
        time.sleep(0.01)
    running.send(signal.SIGKILL)
    running.wait()
