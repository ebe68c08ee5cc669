"""Signals at random moments, to the command and to its workers; then the same again, to the end."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from storm.harness import Figures, Running, among_strangers, judged, leftovers, run
from storm.subjects import Subject

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "STOP": signal.SIGSTOP}
# exit codes that the ends by these signals may have: of the signal itself where it came before Python's handlers
CODES = {"KILL": (-9,), "TERM": (75, -15), "INT": (130, -2), "STOP": ()}
IN_A_ROW = 3  # kills of one run, at most, before it may end


def unbroken(figures: Figures, subject: Subject, place: Path) -> tuple[Any, float]:
    """The result of the command that nothing happens to, and its seconds."""
    prepared(subject, place)
    ended = run(figures, subject.first(place), doing="unbroken")
    assert ended is not None
    return subject.result(place), ended.seconds


def prepared(subject: Subject, place: Path) -> None:
    place.mkdir(parents=True)
    subject.prepare(place)


def fresh(subject: Subject, folder: Path) -> Path:
    """The same place every time, since results name it; what a command reads is made once and copied."""
    made = folder / "prepared"
    place = folder / "place"
    if place.exists():
        shutil.rmtree(place)
    if not made.exists():
        prepared(subject, place)
        shutil.copytree(place, made)
    else:
        shutil.copytree(made, place)
    return place


def storm(figures: Figures, subject: Subject, folder: Path, chance: random.Random, kills: int) -> None:
    place = fresh(subject, folder)
    ended = run(figures, subject.first(place), doing="unbroken")
    assert ended is not None
    whole, seconds = subject.result(place), ended.seconds
    before = sum(figures.counts[name] for name in SIGNALS)
    while sum(figures.counts[name] for name in SIGNALS) - before < kills:
        place = fresh(subject, folder)
        history: list[str] = []
        for _ in range(chance.randint(1, IN_A_ROW)):
            history.append(disturb(figures, subject.next(place), chance, seconds, " then ".join(history)))
        run(figures, subject.next(place), doing=f"after {' then '.join(history)}")
        compare(figures, subject, place, whole, " then ".join(history))


def disturb(figures: Figures, arguments: list[object], chance: random.Random, seconds: float, history: str) -> str:
    """Start the command and send it a signal at some moment; what was sent to whom when, in words."""
    name = chance.choice(list(SIGNALS))
    moment = chance.uniform(0.02, 1.0) * seconds
    whom = chance.choice(("command", "worker", "group"))
    with among_strangers(figures, arguments):
        running = Running(arguments)
        time.sleep(moment)
        workers = running.children()
        victims = [running.pid]
        if whom == "worker" and workers:
            victims = [chance.choice(workers)]
        elif whom == "group":
            victims = [running.pid, *workers]
        else:
            whom = "command"
        for victim in victims:
            running.send(SIGNALS[name], victim)
        if name == "STOP":
            time.sleep(chance.uniform(0.05, 0.3))
            for victim in victims:
                running.send(signal.SIGCONT, victim)
        figures.counts[name] += 1
        said = f"{name} to the {whom} at {moment:.2f} s"
        allowed = (0, 1) if whom == "worker" else (0, *CODES[name])
        judged(figures, running, allowed, f"{history + ' then ' if history else ''}{said}")
    return said


def compare(figures: Figures, subject: Subject, place: Path, whole: Any, history: str) -> None:
    """What is there now must be what the unbroken command left."""
    figures.counts["compared"] += 1
    try:
        now = subject.result(place)
    except (AssertionError, OSError, ValueError, KeyError, IndexError) as error:
        figures.fault(f"after {history}: {type(error).__name__}: {error}")
        return
    if now == whole:
        figures.counts["equal"] += 1
    elif isinstance(now, dict):
        figures.fault(f"after {history}: another result: {', '.join(differences(whole, now))[:500]}")
    else:
        figures.fault(f"after {history}: another result")
    if left := leftovers(place):
        figures.fault(f"after {history}: left over: {left[:6]}")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two results differ, and by what."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [each for key in {**a, **b} for each in differences(a.get(key), b.get(key), f"{where}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [each for k, (x, y) in enumerate(zip(a, b)) for each in differences(x, y, f"{where}/{k}")]
    return [] if a == b else [f"{where}: {str(a)[:60]} became {str(b)[:60]}"]
