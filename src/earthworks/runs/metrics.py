"""`metrics.jsonl`: one line a step, never a step twice; what is missing is said."""

import hashlib
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
    """Appends one JSON line per call. On opening, the file is cut after the last line of a step up to `step`: what a killed
    run wrote past its last checkpoint goes, and what a crash left unreadable at the end. Nothing before is touched, a
    damaged line included."""

    def __init__(self, path: str | Path, step: int = 0):
        self.path = Path(path)
        end = Log.read(self.path).end_of(step) if os.path.lexists(self.path) else 0
        self.bytes, self.digest = end, beginning_digest(self.path, end)
        with one_sentence(self.path):
            self.descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self.descriptor, end)
            os.fsync(self.descriptor)

    def append(self, **values: Any) -> None:
        """Write one line, at once visible to readers; numbers that are not finite become null, as JSON has none."""
        line = (json.dumps(finite(values)) + "\n").encode()
        with one_sentence(self.path):
            write_all(self.descriptor, line)
        self.bytes += len(line)
        self.digest.update(line)

    def state(self) -> dict[str, Any]:
        """Length and SHA-256 of the log so far: kept in each checkpoint, so that a number altered later is noticed."""
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}

    def sync(self) -> None:
        """fsync: called before a checkpoint takes its name, so that the checkpoint never knows more than the log."""
        with one_sentence(self.path):
            os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


def beginning_digest(path: Path, length: int) -> Any:
    """SHA-256, to be continued, of the first `length` bytes of a file (of all, where it has fewer)."""
    digest = hashlib.sha256()
    if length:
        with open_regular(path) as stream:
            while length > 0 and (block := stream.read(min(length, CHUNK))):
                digest.update(block)
                length -= len(block)
    return digest


@dataclass(frozen=True)
class Log:
    """What a metrics.jsonl holds: its readable records in order, where each one's line ends, and how many lines before the
    last readable one are damaged."""

    records: list[Record]
    ends: list[int]
    damaged: int

    @classmethod
    def read(cls, path: Path, keep: Callable[[Record], Record] | None = None) -> "Log":
        """`keep` takes what is wanted of a record, `step` included, before the next one is read.

        A killed process leaves half a line at the end, a power cut a stretch of zeros; neither counts as damage. Any
        other line that is no record (a mapping with a step that is a whole number from 1, in rising order) does."""
        records: list[Record] = []
        ends: list[int] = []
        damaged = pending = place = 0
        with open_regular(path) as stream:
            whole = True  # whether a piece begins a line
            while line := stream.readline(LONGEST):
                place += len(line)
                record = parsed(line) if whole and line.endswith(b"\n") else None
                whole = line.endswith(b"\n")
                if record is None or (records and record["step"] <= records[-1]["step"]):
                    pending += 1
                    continue
                records.append(keep(record) if keep else record)
                ends.append(place)
                damaged, pending = damaged + pending, 0
        return cls(records, ends, damaged)

    def end_of(self, step: int) -> int:
        """Where the last line of a step up to `step` ends."""
        return max((end for end, record in zip(self.ends, self.records) if record["step"] <= step), default=0)

    def missing(self, step: int) -> tuple[int, int, int]:
        """How many of the steps from 1 to `step` no readable line is about, the first of them, and the last (0, 0, 0)."""
        there = [record["step"] for record in self.records if record["step"] <= step]
        if len(there) >= step:
            return 0, 0, 0
        first = next((place for place, found in enumerate(there, 1) if found != place), len(there) + 1)
        last = next(
            (step - back for back, found in enumerate(reversed(there)) if found != step - back), step - len(there)
        )
        return step - len(there), first, last


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for what is none."""
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
    """A sentence about what a run's log does not have, or has otherwise, of what the state of a checkpoint says was written;
    None where it is as written."""
    return missing_steps(path, state["step"]) or altered(path, state)


def altered(path: str | Path, state: dict[str, Any]) -> str | None:
    """The same where no step is missing."""
    log = state.get("log")  # not yet in checkpoints before format 2
    if not isinstance(log, dict) or type(log.get("bytes")) is not int:
        return None
    if beginning_digest(Path(path), log["bytes"]).hexdigest() == log.get("sha256"):
        return None
    return (
        f"{path} is not as it was written up to step {state['step']:,}: a line in it was altered, and is used as it is"
    )


def missing_steps(path: str | Path, step: int) -> str | None:
    """A sentence about the steps up to `step` that a run's log does not have; None where it has all."""
    path = Path(path)
    if not path.exists():
        return f"{path} is missing: the measurements of {step:,} steps are lost" if step else None
    return not_in(Log.read(path), path, step)


def not_in(log: Log, path: Path, step: int) -> str | None:
    """The same of a log that was read."""
    missing, first, last = log.missing(step)
    if not missing:
        return None
    which = f"step {first:,}" if missing == 1 else f"{missing:,} steps from {first:,} to {last:,}"
    return f"{path} has no readable line for {which}: it was damaged after it was written; all other lines are used"
