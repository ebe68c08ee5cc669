"""Read a run folder, which may be untrusted, for its page; unusable parts are left out and listed.

Only regular files inside the folder, of a size that a page can show, are read. Their content may have any form; an
error while a part of the page is made from it costs only that part.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from earthworks.report.numbers import known
from earthworks.runs import EarthworksError, RunFolder, inside, read_regular, read_result, verify_manifest
from earthworks.runs.metrics import Log, Record, altered, not_in

T = TypeVar("T")
LARGEST_JSON = 1 << 24  # bytes; parsing takes up to 25 times as much memory
LARGEST_LOG = 1 << 30
LARGEST_SAMPLE = 1 << 26
MOST_KEYS = 100  # of a record, and of a mapping in it
MOST_PIXELS = 1 << 24
MOST_POINTS = 20_000  # drawn of one sample


@dataclass
class Reading:
    """Reader of one run for its page; `left_out` has a sentence for everything that could not be used."""

    folder: RunFolder
    left_out: list[str] = field(default_factory=list)

    def attempt(self, name: str, build: Callable[[], T], otherwise: T) -> T:
        """`build()`, which reads the file `name`; if it fails, `otherwise` and a sentence in `left_out`."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # on overflow, and on glyphs missing from the font
                return build()
        except EarthworksError as error:
            self.leave_out(str(error))
        except Exception as error:  # untrusted files can raise anything
            what = f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
            self.leave_out(f"{self.folder.path / name} does not have the content that Earthworks writes ({what})")
        return otherwise

    def leave_out(self, sentence: str) -> None:
        if sentence not in self.left_out:
            self.left_out.append(sentence)

    def mapping(self, name: str) -> dict[str, Any]:
        """The object of a JSON file; empty if it is missing or unusable."""
        return self.attempt(name, lambda: read_mapping(self.folder, name) or {}, {})

    def records(self) -> list[Record]:
        """The records of metrics.jsonl; missing steps are listed in `left_out`."""
        return self.attempt("metrics.jsonl", self.read_records, [])

    def read_records(self) -> list[Record]:
        path = self.folder.metrics_file
        saved = self.folder.steps()[-1:]
        if not path.exists():
            if saved:
                self.leave_out(f"{path} is missing: the measurements of {saved[0]:,} steps are lost")
            return []
        size = refuse_large(path)
        log = Log.read(inside(self.folder.path, path.name), keep=drawn)
        step = max([0, *saved])
        state: dict[str, Any] = {}
        with suppress(EarthworksError):  # a run in training may have removed the checkpoint
            verify_manifest(self.folder.checkpoint(step), names=["state.json"])
            state = read_mapping(self.folder, f"checkpoints/step-{step}/state.json") or {}
        last = log.steps[-1] if log.steps else 0
        if size and not log.records:
            self.leave_out(f"{path} has no readable line")
        elif fault := not_in(log, path, max(last, step)) or altered(path, {**state, "step": step}):
            self.leave_out(fault)
        return log.records

    def samples(self, *suffixes: str) -> list[tuple[int, str]]:
        """(step, name in the run folder) of the samples over time, in order."""
        return self.attempt("samples", lambda: sample_names(self.folder, suffixes), [])


def refuse_large(path: Path) -> int:
    """The size of a log; EarthworksError if it is larger than any run writes."""
    if (size := path.stat().st_size) > LARGEST_LOG:
        raise EarthworksError(f"{path} has {size:,} bytes, more than the limit of {LARGEST_LOG:,}")
    return size


def drawn(record: Record) -> Record:
    """The numbers of a record that a page shows, including those in nested mappings, two levels deep."""
    found: Record = {"step": record["step"]}
    for key, value in list(record.items())[:MOST_KEYS]:
        if isinstance(value, dict):
            found[key[:MOST_KEYS]] = numbers_in(value, depth=2)
        elif known(value) or isinstance(value, bool):
            found[key[:MOST_KEYS]] = value
    return found


def numbers_in(mapping: dict[str, Any], depth: int) -> dict[str, Any]:
    pairs = ((key[:MOST_KEYS], value) for key, value in list(mapping.items())[:MOST_KEYS])
    return {
        key: numbers_in(value, depth - 1) if isinstance(value, dict) else value
        for key, value in pairs
        if known(value) or (depth and isinstance(value, dict))
    }


def read_mapping(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """The object of a JSON file of a run; None if it does not exist. Raises EarthworksError for other content,
    and for a result that was altered after it was measured."""
    path = inside(folder.path, name)
    if not path.exists():
        return None
    return read_result(path, limit=LARGEST_JSON)


def sample_names(folder: RunFolder, suffixes: tuple[str, ...]) -> list[tuple[int, str]]:
    if not folder.samples.is_dir():
        return []
    entries = [entry for entry in folder.samples.iterdir() if entry.suffix in suffixes]
    steps = ((entry.stem.removeprefix("step-"), entry) for entry in entries if entry.stem.startswith("step-"))
    found = [(int(step), entry) for step, entry in steps if step.isascii() and step.isdecimal() and len(step) < 16]
    return [(step, f"samples/{entry.name}") for step, entry in sorted(found)]


def read_sample(folder: RunFolder, name: str) -> bytes:
    return read_regular(inside(folder.path, name), LARGEST_SAMPLE)


def read_points(folder: RunFolder, name: str) -> np.ndarray:
    """(n, d) numbers of a .npy file, n at most 20,000. The header is checked against the file size before anything is
    allocated, because it may claim any shape."""
    data = read_sample(folder, name)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.kind not in "fiu" or len(shape) != 2 or not shape[1]:
        raise EarthworksError(f"{folder.path / name} does not hold points: expected (n, d) numbers")
    if shape[0] * shape[1] * dtype.itemsize != len(data) - stream.tell():
        raise EarthworksError(f"{folder.path / name} does not have the size given in its header: it was cut or altered")
    points = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    points = points[:MOST_POINTS].astype(float)
    return points[np.isfinite(points).all(1)]


def read_picture(folder: RunFolder, name: str) -> np.ndarray:
    """The pixels of a .png file, of at most 16 million."""
    from PIL import Image

    picture = Image.open(io.BytesIO(read_sample(folder, name)), formats=["PNG"])
    if picture.width * picture.height > MOST_PIXELS:
        raise EarthworksError(
            f"{folder.path / name} has {picture.width} x {picture.height} pixels, too many for a page"
        )
    return np.asarray(picture.convert("RGB" if picture.mode in ("RGB", "RGBA", "P") else "L"))


def lines_of(path: Path, longest: int = 1 << 20) -> Any:
    """The lines of a regular file of at most `longest` bytes."""
    from earthworks.runs.files import open_regular

    refuse_large(path)
    with open_regular(path) as stream:
        while line := stream.readline(longest):
            if line.endswith(b"\n") or len(line) < longest:
                yield line
