"""Places that fail: a full disk, one that may only be read, files that change while they are read, a clock that jumps."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from storm.harness import Figures, Running, among_strangers, counted, judged, run
from storm.kills import compare, fresh
from storm.subjects import SUBJECTS, Subject

SHARES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)  # of the disk that a command needs
LARGE = 256 << 20
PAGE = 4096  # bytes that a small file takes
YEARS = 365 * 86400.0


def full(folder: Path, chance: random.Random) -> list[Figures]:
    """A disk that is full after a share of what the command writes, then larger: it says so, and then goes on."""
    return on_small_disks(folder, "disk full", disk_full)


def readonly(folder: Path, chance: random.Random) -> list[Figures]:
    """A disk that becomes read-only, then writable again."""
    return on_small_disks(folder, "read-only disk", read_only)


def on_small_disks(folder: Path, what: str, trial: Callable[[Figures, Subject, Path, Path], None]) -> list[Figures]:
    found = []
    for name in ("gopher", "tokenizer", "wgan", "build", "report"):
        subject = SUBJECTS[name]()
        with counted(f"{what}: {subject.name}") as figures, small_disk(folder / "disk") as disk:
            if disk is None:
                print("    skipped: only root can mount a small disk")
                return found
            trial(figures, subject, disk, folder / f"prepared-{name}")
        found.append(figures)
    return found


def disk_full(figures: Figures, subject: Subject, disk: Path, prepared: Path) -> None:
    inputs = ready(subject, disk, prepared)
    before = used(disk)
    run(figures, subject.first(inputs), doing="unbroken")
    whole, needed = subject.result(inputs), used(disk) - before
    for share in SHARES:
        resized(disk, LARGE)
        inputs = ready(subject, disk, prepared)
        room = max(PAGE, int(share * needed))
        run(
            figures,
            subject.first(inputs),
            (0, 1),
            f"disk for {share:.0%}",
            before=lambda room=room: resized(disk, used(disk) + room),
        )
        resized(disk, LARGE)
        run(figures, subject.next(inputs), doing=f"after a disk for {share:.0%}")
        compare(figures, subject, inputs, whole, f"a disk for {share:.0%}")


def read_only(figures: Figures, subject: Subject, disk: Path, prepared: Path) -> None:
    inputs = ready(subject, disk, prepared)
    ended = run(figures, subject.first(inputs), doing="unbroken")
    assert ended is not None
    whole = subject.result(inputs)
    for moment in (0.0, 0.3, 0.7):
        inputs = ready(subject, disk, prepared)
        remount(disk, "rw")
        if moment == 0.0:
            remount(disk, "ro")
            judged(figures, Running(subject.first(inputs)), (1,), "on a read-only disk")
        else:
            running = Running(subject.first(inputs))
            time.sleep(moment * ended.seconds)
            figures.counts["remounted"] += remount(disk, "ro")  # refused while a file is open for writing
            judged(figures, running, (0, 1), f"read-only from {moment:.0%} on")
        remount(disk, "rw")
        run(figures, subject.next(inputs), doing="writable again")
        compare(figures, subject, inputs, whole, f"a disk that was read-only from {moment:.0%} on")


def ready(subject: Subject, disk: Path, prepared: Path) -> Path:
    """The subject's inputs on the small disk, and nothing else."""
    for entry in disk.iterdir():
        shutil.rmtree(entry)
    if not prepared.exists():
        fresh(subject, disk)
        shutil.copytree(disk / "prepared", prepared)
        shutil.rmtree(disk / "prepared")
    else:
        shutil.copytree(prepared, disk / "place")
    return disk / "place"


@contextmanager
def small_disk(path: Path) -> Iterator[Path | None]:
    """A disk in memory, mounted at `path`; None where that is not allowed."""
    path.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={LARGE}", "earthworks-storm", str(path)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def resized(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True, capture_output=True)


def remount(disk: Path, how: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], capture_output=True).returncode == 0


def used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def clock(folder: Path, chance: random.Random) -> list[Figures]:
    """A clock that is years off, jumps on the way, or is behind the files: the result does not depend on it."""
    found = []
    for name in ("gopher", "wgan", "build"):
        subject = SUBJECTS[name]()
        with counted(f"clock moved: {subject.name}") as figures:
            place = fresh(subject, folder / name)
            run(figures, subject.first(place), doing="unbroken")
            whole = subject.result(place)
            for offsets in ((5 * YEARS, 5 * YEARS), (-20 * YEARS, -20 * YEARS), (0, 5 * YEARS), (0, -5 * YEARS)):
                place = fresh(subject, folder / name)
                doing = f"a clock {offsets[0] / YEARS:+.0f} years off, then {offsets[1] / YEARS:+.0f}"
                with among_strangers(figures, subject.first(place)):
                    judged(figures, Running(subject.first(place), lambda o=offsets: move_clock(*o)), (0,), doing)
                compare(figures, subject, place, whole, doing)
            place = fresh(subject, folder / name)
            for path in place.rglob("*"):
                os.utime(path, (time.time() + 20 * YEARS, time.time() + 20 * YEARS))
            run(figures, subject.first(place), doing="files of the future")
            compare(figures, subject, place, whole, "files of the future")
        found.append(figures)
    return found


def move_clock(first: float, later: float) -> None:
    """From now on time.time() is `first` seconds off, and `later` seconds off after fifty calls."""
    honest, calls = time.time, 0

    def moved() -> float:
        nonlocal calls
        calls += 1
        return honest() + (first if calls < 50 else later)

    time.time = moved


def changing(folder: Path, chance: random.Random) -> list[Figures]:
    """What a command reads is cut, appended to, replaced or removed meanwhile: it ends, with a sentence if it cannot."""

    def cut(path: Path) -> None:
        with open(path, "r+b") as stream:
            stream.truncate(path.stat().st_size // 2)

    def append(path: Path) -> None:
        with open(path, "ab") as stream:
            stream.write(b"\x00more" * 100)

    def replace(path: Path) -> None:
        other = path.with_name("other")
        other.write_bytes(path.read_bytes()[::-1])
        other.replace(path)

    changes = {"cut": cut, "appended to": append, "replaced": replace, "removed": Path.unlink}
    found = []
    for name, pattern in (
        ("tokenizer", "text.txt"),
        ("build", "raw/*"),
        ("tasks", "tasks/*/*"),
        ("report", "out/*.json*"),
    ):
        subject = SUBJECTS[name]()
        with counted(f"files that change: {subject.name}") as figures:
            place = fresh(subject, folder / name)
            ended = run(figures, subject.first(place), doing="unbroken")
            assert ended is not None
            for change, apply in changes.items():
                for _ in range(3):
                    place = fresh(subject, folder / name)
                    victim = chance.choice(sorted(place.glob(pattern)))
                    running = Running(subject.first(place))
                    time.sleep(chance.uniform(0, 0.8) * ended.seconds)
                    apply(victim)
                    judged(figures, running, (0, 1, 2, 3), f"{victim.name} {change}")
                    # and once more, now that it stands still
                    judged(figures, Running(subject.next(place)), (0, 1, 2, 3), f"after {victim.name} was {change}")
        found.append(figures)
    return found
