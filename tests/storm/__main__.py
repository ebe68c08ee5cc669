"""`python -m storm [PIECE ...] [--seed 0] [--kills 20] [--table FILE]`: the pieces in turn, a line of figures for each."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sentinel
from storm import kills
from storm.harness import Figures, chance_of, counted, warm_up
from storm.pairs import pairs
from storm.places import changing, clock, full, readonly
from storm.subjects import SUBJECTS, tasks

OTHERS = {"pairs": pairs, "full": full, "readonly": readonly, "changing": changing, "clock": clock}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m storm", description=__doc__)
    parser.add_argument("pieces", nargs="*", help=f"of {', '.join([*SUBJECTS, *OTHERS])}; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20, help="signals a command")
    parser.add_argument("--table", type=Path, help="where to write the table, as Markdown")
    given = parser.parse_args()
    everything_once()
    results = []
    for piece in given.pieces or [*SUBJECTS, *OTHERS]:
        folder = Path(tempfile.mkdtemp(prefix="earthworks-storm-")).resolve()
        sentinel.ground = folder
        chance = chance_of(given.seed, piece)
        print(f"{piece}, seed {given.seed}", flush=True)
        if piece in SUBJECTS:
            subject = SUBJECTS[piece]()
            with counted(subject.name) as figures:
                kills.storm(figures, subject, folder, chance, given.kills)
            results.append(figures)
        else:
            results += OTHERS[piece](folder, chance)
        shutil.rmtree(folder, ignore_errors=True)
    if given.table:
        given.table.write_text(table(results), encoding="utf-8")
    return 1 if any(each.faults for each in results) else 0


def everything_once() -> None:
    """Each command once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="earthworks-storm-")).resolve()
    for name in ("gopher", "wgan", "build"):
        place = folder / name
        place.mkdir()
        subject = SUBJECTS[name]()
        subject.prepare(place)
        warm_up([[*subject.first(place), *(["--max_steps=2"] if name != "build" else ["--workers=1"])]])
    run = folder / "gopher" / "out"
    tasks(folder / "tasks")
    warm_up([["evaluate", "tasks", run, f"--data={folder / 'tasks'}", "--tasks=operators", "--limit=2"]])
    shutil.rmtree(folder)


def table(results: list[Figures]) -> str:
    """The figures as Markdown."""
    rows = [
        "| what | commands | signals | as unbroken | one sentence | lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in results:
        c = each.counts
        signals = ", ".join(f"{name} {c[name]}" for name in kills.SIGNALS if c[name])
        rows.append(
            f"| {each.name} | {c['commands']} | {signals or '-'} | {c['equal']} of {c['compared']} | {c['sentences']} | "
            f"{len(each.faults)} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
