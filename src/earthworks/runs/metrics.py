"""`metrics.jsonl`: one line a step, never a step twice or missing."""

import json
import math
import os
from pathlib import Path
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import one_sentence, write_all, write_bytes


class Metrics:
    """Appends one JSON line per call. On opening, lines after `step` (those a killed run wrote past its last
    checkpoint) are cut away, as is what a crash left unreadable at the end."""

    def __init__(self, path: str | Path, step: int = 0):
        self.path = Path(path)
        lines = readable_lines(self.path) if self.path.exists() else []
        write_bytes(self.path, b"".join(line + b"\n" for line, record in lines if record.get("step", 0) <= step))
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def append(self, **values: Any) -> None:
        """Write one line, at once visible to readers; numbers that are not finite become null, as JSON has none."""
        with one_sentence(self.path):
            write_all(self.descriptor, (json.dumps(finite(values)) + "\n").encode())

    def sync(self) -> None:
        """fsync: called before a checkpoint takes its name, so that the checkpoint never knows more than the log."""
        with one_sentence(self.path):
            os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


def finite(value: Any) -> Any:
    """The same with null for every number that is not finite, at any depth."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readable_lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Every line and its record, up to the first that was not written to its end.

    A killed process leaves half a line, a power cut a stretch of zeros."""
    lines = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            lines.append((line, json.loads(line)))
        except ValueError:
            break
    return lines


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All records of a `metrics.jsonl`, in order."""
    path = Path(path)
    if not path.exists():
        raise EarthworksError(f"{path} does not exist; is {path.parent} a run folder?")
    return [record for _, record in readable_lines(path)]
