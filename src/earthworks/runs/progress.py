"""Progress display: a live line in a terminal, an occasional plain line in a log."""

import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from earthworks.runs.terminal import one_line

ERASE = "\r\x1b[2K"  # back to the left margin, and clear the line


def note(line: str) -> None:
    """Print a line for the user on standard error, because standard output is the command's answer."""
    beside(one_line(line) + "\n")


def beside(text: str) -> None:
    """Write to standard error. If that fails (reader gone, disk full) the work continues."""
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


@functools.cache
def note_once(line: str) -> None:
    """`note`, but only once per process for each line."""
    note(line)


@contextmanager
def said_when_slow(line: str, seconds: float = 1.0) -> Iterator[None]:
    """Print `line` if the block runs longer than `seconds`."""
    timer = threading.Timer(seconds, note, [line])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that nothing is printed afterwards


class Progress:
    """`with Progress("packing", total=100, unit="documents") as p: p.advance(1)`, or `p.show("any text")`.

    In a terminal the line is rewritten in place at most ten times a second; elsewhere one line every `quiet` seconds.
    Everything goes to standard error, so that standard output stays the command's answer.
    """

    def __init__(self, what: str, total: float | None = None, unit: str = "", quiet: float = 10.0):
        self.what, self.total, self.unit = what, total, unit
        self.done = 0.0
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.interval = 0.1 if self.live else quiet
        self.started = self.shown = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            beside(ERASE)

    def advance(self, amount: float = 1, extra: str = "") -> None:
        """Add to the amount done and show it with the time left."""
        self.done += amount
        if time.monotonic() - self.shown >= self.interval:
            self.show(f"{self.what} {self.amount()}{self.left()}{extra}")

    def show(self, line: str, force: bool = False) -> None:
        """Show one line, if it is time for the next (or `force`).

        Unprintable characters are shown as spaces: a model's sample may hold line ends and escape sequences.
        """
        now = time.monotonic()
        if not force and now - self.shown < self.interval:
            return
        self.shown = now
        line = "".join(character if character.isprintable() else " " for character in line)
        if self.live:
            from rich.cells import set_cell_size  # knows that 漢 is two columns wide

            line = ERASE + set_cell_size(line, shutil.get_terminal_size().columns - 1).rstrip()
        beside(line if self.live else f"{line}\n")

    def note(self, line: str) -> None:
        """Print a permanent line above the live one."""
        self.__exit__()
        note(line)

    def amount(self) -> str:
        done = f"{self.done:,.0f}" if self.done == int(self.done) else f"{self.done:,.1f}"
        return f"{done}/{self.total:,.0f} {self.unit}" if self.total else f"{done} {self.unit}"

    def left(self) -> str:
        if not self.total or not self.done:
            return ""
        seconds = (time.monotonic() - self.started) / self.done * max(0.0, self.total - self.done)
        return f", {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`duration(3700)` -> '1 h 02 min'; `duration(75)` -> '1 min 15 s'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
