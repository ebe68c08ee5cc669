"""What every benchmark shares: a quiet machine to begin with, a header that says where and how, a dated result file."""

import os
import shlex
import sys
import time
from pathlib import Path

from earthworks.runs import environment, write_bytes

RESULTS = Path(__file__).parent / "results"
LIMIT = 0.10  # share of all cores that other processes may use when a measurement begins
seen: list[float] = []  # that share before each measurement of this script


def quiet(window: float = 5.0) -> None:
    """Wait until other processes use less than LIMIT of the cores for `window` seconds; print what was seen.

    To be called while this script itself does nothing. Where there is no /proc/stat it says so and does not wait.
    """
    if not Path("/proc/stat").exists():
        print("the load of this machine cannot be read: not waiting", file=sys.stderr)
        return
    while True:
        before = processor_ticks()
        time.sleep(window)
        after = processor_ticks()
        used = 1 - (after[0] - before[0]) / (after[1] - before[1])
        print(f"other processes use {used:.0%} of {os.cpu_count()} cores", file=sys.stderr, flush=True)
        if used < LIMIT:
            seen.append(used)
            return


def processor_ticks() -> tuple[int, int]:
    """(idle, all) ticks of all cores since the machine started."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def header(timed: bool = True) -> str:
    """Date, processor, versions, command, and the load unless nothing was timed, as a Markdown list."""
    facts = environment()
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    if seen:
        load = f"other processes used at most {max(seen):.0%} of the cores at the start of each measurement"
    else:
        load = "not waited for a quiet machine: do not quote these numbers"
    command = shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    if "EARTHWORKS_DATA" in os.environ:
        command = command.replace(os.environ["EARTHWORKS_DATA"], "$EARTHWORKS_DATA")
    return "\n".join(
        [
            f"- date: {facts['date']}",
            f"- machine: {facts['processor']}, {facts['cores']} cores, {facts['cpu_capability']}; {facts['platform']}",
            f"- accelerators: {', '.join(facts['accelerators']) or 'none'}",
            f"- versions: earthworks {facts['earthworks']}, python {facts['python']}, {packages}",
            f"- command: `{command}`",
            *([f"- load: {load}"] if timed else []),
        ]
    )


def write_result(name: str, text: str) -> None:
    """Write `benchmarks/results/NAME.md` and show it."""
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / f"{name}.md", (text.rstrip() + "\n").encode())
    print(text)
    print(f"written to {os.path.relpath(RESULTS / name)}.md", file=sys.stderr)
