"""`metrics.jsonl`: one line per step, never a step twice; missing steps are reported."""

import bisect
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import CHUNK, one_sentence, open_regular, write_all
from earthworks.runs.json_files import finite, parse_json

LONGEST = 1 << 20  # bytes of a line that is read as a record
Record = dict[str, Any]


class Metrics:
    """Appends one JSON line per call. On opening, the file is cut after the last line of a step up to `step`, which removes
    lines that a killed run wrote past its last checkpoint, and an unreadable end after a crash. Everything before is kept,
    damaged lines included. `written` is what `state` returned when that checkpoint was saved, if known: then a damaged last
    line is kept as well."""

    def __init__(self, path: str | Path, step: int = 0, written: Any = None):
        self.path = Path(path)
        end = 0
        if os.path.lexists(self.path):
            known = written.get("bytes") if isinstance(written, dict) else None
            known = known if type(known) is int and ends_line(self.path, known) else 0
            end = Log.read(self.path, keep=lambda _: {}).end_of(step, known)
        self.bytes, self.digest = end, beginning_digest(self.path, end)
        with one_sentence(self.path):
            self.descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self.descriptor, end)
            os.fsync(self.descriptor)

    def append(self, **values: Any) -> None:
        """Write one line, immediately visible to readers; non-finite numbers become null, as JSON has none."""
        line = (json.dumps(finite(values)) + "\n").encode()
        with one_sentence(self.path):
            write_all(self.descriptor, line)
        self.bytes += len(line)
        self.digest.update(line)

    def state(self) -> dict[str, Any]:
        """Length and SHA-256 of the log so far: kept in each checkpoint, so that later changes are detected."""
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}

    def sync(self) -> None:
        """fsync: called before a checkpoint takes its name, so that the checkpoint is never ahead of the log."""
        with one_sentence(self.path):
            os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


def beginning_digest(path: Path, length: int) -> Any:
    """SHA-256 object, to be updated further, of the first `length` bytes of a file (or all, if it has fewer)."""
    digest = hashlib.sha256()
    if length:
        with open_regular(path) as stream:
            while length > 0 and (block := stream.read(min(length, CHUNK))):
                digest.update(block)
                length -= len(block)
    return digest


def ends_line(path: Path, place: int) -> bool:
    """Whether the byte before a place in a file is the end of a line."""
    with open_regular(path) as stream:
        if not 0 < place <= os.fstat(stream.fileno()).st_size:
            return False
        stream.seek(place - 1)
        return stream.read(1) == b"\n"


@dataclass(frozen=True)
class Log:
    """Contents of a metrics.jsonl: its readable records in the order of their steps, and the end of each one's line."""

    records: list[Record]
    steps: list[int]
    ends: list[int]

    @classmethod
    def read(cls, path: Path, keep: Callable[[Record], Record] | None = None) -> "Log":
        """Read a log; `keep` reduces each record before the next one is read.

        A record is a mapping with a step that is a whole number from 1. Where steps do not rise, some line's step was
        altered: the fewest possible lines are left out so that the others rise."""
        records: list[Record] = []
        steps: list[int] = []
        ends: list[int] = []
        lines: list[int] = []
        line = place = 0
        with open_regular(path) as stream:
            whole = True  # whether a piece starts a line
            while piece := stream.readline(LONGEST):
                line, place = line + whole, place + len(piece)
                record = parsed(piece) if whole and piece.endswith(b"\n") else None
                whole = piece.endswith(b"\n")
                if record is not None:
                    records.append(keep(record) if keep else record)
                    steps.append(record["step"])
                    ends.append(place)
                    lines.append(line)
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            kept = rising(steps, lines)
            records, steps, ends = [records[k] for k in kept], [steps[k] for k in kept], [ends[k] for k in kept]
        return cls(records, steps, ends)

    def end_of(self, step: int, known: int = 0) -> int:
        """End of the last line of a step up to `step`; `known`, the end of a later line, if no line of a later step ends
        before it: one that does had its step raised."""
        count = bisect.bisect_right(self.steps, step)
        end, *later = [0, *self.ends][count : count + 2]
        return known if end < known and all(known <= each for each in later) else end

    def missing(self, step: int) -> tuple[int, int, int]:
        """Number of steps from 1 to `step` without a readable line, the first and the last of them; or (0, 0, 0)."""
        there = self.steps[: bisect.bisect_right(self.steps, step)]
        if len(there) >= step:
            return 0, 0, 0
        first = next((place for place, found in enumerate(there, 1) if found != place), len(there) + 1)
        last = next(
            (step - back for back, found in enumerate(reversed(there)) if found != step - back), step - len(there)
        )
        return step - len(there), first, last


def rising(steps: list[int], lines: list[int]) -> list[int]:
    """Places of a longest rising subsequence of `steps`, in O(n log n). Of two equal steps that fit, the one whose distance
    in lines from the record before it equals its distance in steps is taken; else the first."""
    best: list[int] = []  # for each length, the end of the subsequence whose last step is lowest
    lowest: list[int] = []
    before = [-1] * len(steps)

    def fits(place: int) -> bool:
        step, line = (steps[before[place]], lines[before[place]]) if before[place] >= 0 else (0, 0)
        return steps[place] - step == lines[place] - line

    for place, step in enumerate(steps):
        length = bisect.bisect_left(lowest, step)
        before[place] = best[length - 1] if length else -1
        if length == len(best):
            best.append(place)
            lowest.append(step)
        elif step < lowest[length] or (fits(place) and not fits(best[length])):
            best[length], lowest[length] = place, step
    found = []
    place = best[-1] if best else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None if it is not a record."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if type(step) is int and 0 < step < 1 << 53 else None


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All readable records of a `metrics.jsonl`, in order."""
    path = Path(path)
    if not path.exists():
        raise EarthworksError(f"{path} does not exist; is {path.parent} a run folder?")
    return Log.read(path).records


def log_fault(path: str | Path, state: dict[str, Any]) -> str | None:
    """A sentence about lines of a run's log that are missing or altered, according to the state of a checkpoint; None if
    it is as written."""
    return missing_steps(path, state["step"]) or altered(path, state)


def altered(path: str | Path, state: dict[str, Any]) -> str | None:
    """As `log_fault`, where no step is missing."""
    log = state.get("log")  # not yet in checkpoints before format 2
    if not isinstance(log, dict) or type(log.get("bytes")) is not int:
        return None
    if beginning_digest(Path(path), log["bytes"]).hexdigest() == log.get("sha256"):
        return None
    return (
        f"{path} is not as it was written up to step {state['step']:,}: a line in it was altered, and its numbers are "
        "used"
    )


def missing_steps(path: str | Path, step: int) -> str | None:
    """A sentence about the steps up to `step` that are missing from a run's log; None if it has all."""
    path = Path(path)
    if not path.exists():
        return f"{path} is missing: the measurements of {step:,} steps are lost" if step else None
    return not_in(Log.read(path, keep=lambda _: {}), path, step)


def not_in(log: Log, path: Path, step: int) -> str | None:
    """As `missing_steps`, for a log that was read already."""
    missing, first, last = log.missing(step)
    if not missing:
        return None
    which = f"step {first:,}" if missing == 1 else f"{missing:,} steps from {first:,} to {last:,}"
    return f"{path} has no readable line for {which}: it was damaged after it was written; all other lines are used"
