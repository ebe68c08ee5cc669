"""Result files of a run: checked before measuring, stored piece by piece, written by one process at a time.

RUN/NAME.partial.jsonl holds the pieces measured so far by an unfinished evaluation, one per line: the key, which is
everything that determines the value (task, seed, checkpoint, data, ...), the value, and a digest of both. Rerunning the
command reuses the pieces with the same key. The file is removed once the whole result is written.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from earthworks import __version__, runs
from earthworks.runs import EarthworksError, read_result, write_bytes
from earthworks.runs.errors import INTERRUPTED, TRY_AGAIN, Stopped
from earthworks.runs.files import called, one_sentence, open_regular, sha256, write_all, write_through
from earthworks.runs.json_files import digest_of, finite, parse_json
from earthworks.runs.lock import PATIENCE, lock
from earthworks.runs.progress import note
from earthworks.runs.temporary import temporary_name

LARGEST_LINE = 1 << 28  # bytes

Fits = Callable[[Any], bool]

TEXTS = (
    {"prompt", "text", "toxicity"},
    {"attribute", "group", "prompt", "text", "sentiment"},
)  # keys of the records


def already_there(folder: Path, name: str) -> dict[str, Any]:
    """The content of FOLDER/NAME, {} if it does not exist; EarthworksError if it is unreadable, so that it is not
    silently overwritten."""
    there = folder / name
    if not os.path.lexists(there):
        return {}
    try:
        value = read_result(there)
    except EarthworksError as error:
        raise EarthworksError(f"{error}; it would be overwritten: move or delete it") from None
    return value


def ready_to_write(folder: Path, name: str) -> None:
    """Check before measuring: EarthworksError if FOLDER/NAME cannot be written, or exists and cannot be read."""
    already_there(folder, name)
    if not folder.exists():
        return
    probe = temporary_name(folder / name)
    try:
        with called(folder / name, probe):
            write_through(probe, b"{}")
    except EarthworksError as error:
        raise EarthworksError(f"nothing was measured: {error}", 1) from None
    finally:
        with suppress(OSError):
            probe.unlink()


def write_result(folder: Path, name: str, result: Any, texts: dict[str, bytes] | None = None) -> None:
    """Replace FOLDER/NAME and the files of `texts`, under a lock."""
    with one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, name, patience=PATIENCE):
        already_there(folder, name)
        for beside in texts or {}:
            refuse_foreign_lines(folder / beside)
        runs.write_result(folder / name, result)
        for beside, content in (texts or {}).items():
            write_bytes(folder / beside, content)


def refuse_foreign_lines(path: Path) -> None:
    """EarthworksError if a file holds anything but the records of texts that are written here."""
    if not os.path.lexists(path):
        return
    try:
        with open_regular(path, follow=False) as lines:
            ours = all(parse_json(line).keys() in TEXTS for line in iter(lambda: lines.readline(LARGEST_LINE), b""))
    except (ValueError, AttributeError):
        ours = False
    if not ours:
        raise EarthworksError(f"{path} was not written by Earthworks and would be overwritten: move it away")


class NotKept(EarthworksError):
    """A result could not be written: measuring must stop, or more would be lost."""


class Partial:
    """Pieces of a result. `common`: the shared part of their keys. `taken`, `kept`: numbers of reused and new pieces."""

    def __init__(self, path: Path | None):
        self.path = path
        self.common: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.used: set[str] = set()
        self.taken = self.kept = 0

    def piece(self, key: dict[str, Any], compute: Callable[[], Any], fits: Fits) -> Any:
        """The stored value of this key if there is one that `fits`, else the computed one, which is stored."""
        if self.path is None or not self.common:
            return compute()
        key = finite({"earthworks": __version__, **self.common, **key})
        self.used.add(digest_of(key))
        there = self.found.get(digest_of(key))
        if there is not None and fits(there):
            self.taken += 1
            return there
        value = finite(compute())
        line = json.dumps({"sha256": digest_of({"key": key, "value": value}), "key": key, "value": value}) + "\n"
        self.append(line.encode())
        self.kept += 1
        return value

    def open(self) -> None:
        """Read the pieces of an interrupted evaluation, and check that more can be written."""
        assert self.path is not None
        if os.path.lexists(self.path):
            damaged = 0
            for line, record in records_in(self.path):
                if record is None:
                    damaged += line.endswith(b"\n")  # the last line may be cut by a kill
                else:
                    self.found[digest_of(record["key"])] = record["value"]
            if damaged:
                note(f"damaged lines in {self.path}: {damaged}; their content is measured again")
        self.append(b"\n")  # ends a cut line, and tests whether the disk is writable

    def append(self, line: bytes) -> None:
        """Append a line and sync it to disk."""
        assert self.path is not None
        try:
            with one_sentence(self.path):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
                try:
                    write_all(descriptor, line)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except EarthworksError as error:
            raise NotKept(str(error), error.exit_code) from None

    def remove(self) -> None:
        """Remove the used pieces once the result is written, and the file unless it holds those of another evaluation."""
        if self.path is None:
            return
        others = {name for name in self.found if name not in self.used}
        if others:
            lines = [line for line, record in records_in(self.path) if record and digest_of(record["key"]) in others]
            write_bytes(self.path, b"".join(lines))
        else:
            with one_sentence(self.path):
                self.path.unlink(missing_ok=True)


def records_in(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """The lines of a file of pieces with their records, None for a damaged or cut line."""
    with open_regular(path) as lines:
        while line := lines.readline(LARGEST_LINE):
            if not line.strip():
                continue
            try:
                record = parse_json(line)
                whole = record.pop("sha256") == digest_of(record)
            except (ValueError, TypeError, KeyError, AttributeError):
                record, whole = None, False
            yield line, record if whole else None


@contextmanager
def partial_result(folder: Path | None, name: str, unit: str, texts: str | None = None) -> Iterator[Partial]:
    """Store the pieces of FOLDER/NAME.json until the block has written it; `unit` is the name of a piece,
    `texts` the file written together with the result.

    One command at a time stores pieces: another that measures the same run meanwhile stores none, and prints a notice. If
    `folder` is None (a model in memory), nothing is stored. Ctrl-C and SIGTERM become an EarthworksError (exit codes 130
    and 75) that reports what was stored.
    """
    if folder is None:
        yield Partial(None)
        return
    ready_to_write(folder, f"{name}.json")
    if texts:
        refuse_foreign_lines(folder / texts)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder, f"{name}.partial.jsonl"))
            partial = Partial(folder / f"{name}.partial.jsonl")
        except EarthworksError as error:
            note(f"results are not stored until the end: {error}")
            partial = Partial(None)
        if partial.path is not None:
            partial.open()
        try:
            yield partial
        except (KeyboardInterrupt, Stopped) as stop:
            if not partial.found and not partial.kept:
                partial.remove()
                raise
            what = "interrupted" if isinstance(stop, KeyboardInterrupt) else str(stop)
            code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TRY_AGAIN
            raise EarthworksError(
                f"{what}; {partial.taken + partial.kept} {unit} are stored in {partial.path}: rerun the command to continue",
                code,
            ) from None
        except BaseException:
            if not partial.found and not partial.kept:
                partial.remove()
            raise
        if partial.taken:
            note(f"{partial.taken} {unit} reused from an interrupted evaluation")
        partial.remove()


def files_digest(files: list[Path]) -> list[list[str]]:
    """Names and SHA-256 of files, sorted by name."""
    return [[file.name, sha256(file)] for file in sorted(files) if file.is_file()]
