"""Files that are either wholly there or not there at all.

Everything is written to a temporary name beside its target, fsynced, and renamed; the folder that received the name is
fsynced too. A process killed between any two system calls leaves the old state or the new one, never a mixture.
All writing goes through `os.open`, `os.write`, `os.fsync` and `os.replace` or `os.rename`: a test can stop at each.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from earthworks.runs.errors import EarthworksError

MANIFEST = "manifest.json"
# Prefix of names that were never finished, or are being deleted: readers skip them, and whoever next writes or deletes
# the same name removes them.
TEMPORARY = ".tmp-"
CHUNK = 1 << 22


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data` atomically, making its folder if there is none.

    Raises EarthworksError (exit code 1) when the system refuses, as on a full disk; `path` is then what it was.
    """
    path = Path(path)
    temporary = path.with_name(TEMPORARY + path.name)
    with one_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_through(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    """Atomically write `value` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or damaged one is one sentence."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise EarthworksError(f"{path} does not exist") from None
    except OSError as error:
        raise EarthworksError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EarthworksError(f"{path} is not readable JSON ({error}); it was altered or cut short") from None


def write_through(path: Path, data: bytes | memoryview) -> None:
    """Write and fsync, without the rename: for files inside a folder that is itself still temporary."""
    with one_sentence(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: the system may take fewer than it is given."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view[:CHUNK]) :]


def sync(path: Path) -> None:
    """fsync a file, or a folder, so that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: fill the temporary folder this yields; on leaving, a manifest with
    the size and SHA-256 of every file is added, everything is fsynced, and the folder takes its name.

    An existing folder with anything in it is refused (EarthworksError) before any work: no order of renames replaces
    one folder by another in a single step, so a crash could leave neither. If the old one may go, call `remove_folder`.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise EarthworksError(f"{path} already exists and is not an empty folder: choose another name, or delete it")
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with one_sentence(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        yield temporary
        with one_sentence(path):
            entries = sorted(temporary.rglob("*"))
            files = {}
            for file in (entry for entry in entries if entry.is_file()):
                sync(file)  # it may come from a library that did not
                files[file.relative_to(temporary).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
            write_through(temporary / MANIFEST, (json.dumps({"files": files}, indent=2) + "\n").encode())
            for folder in [temporary, *(entry for entry in entries if entry.is_dir())]:
                sync(folder)
            os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    with one_sentence(path):
        sync(path.parent)


def remove_folder(path: str | Path) -> None:
    """Delete a folder in one step: it loses its name first, so that no reader finds it half deleted."""
    path = Path(path)
    doomed = path.with_name(TEMPORARY + "removed-" + path.name)
    with one_sentence(path):
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        sync(path.parent)
        shutil.rmtree(doomed)


def verify_manifest(path: str | Path) -> None:
    """Compare every file of a folder made by `new_folder` with its manifest; name the first that differs."""
    path = Path(path)
    manifest = read_json(path / MANIFEST)
    try:
        expected = {path / name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (TypeError, KeyError, AttributeError):
        raise EarthworksError(f"{path / MANIFEST} does not list files with their sizes: it was altered") from None
    for file, (size, digest) in expected.items():
        if not file.exists():
            raise EarthworksError(f"{file} is missing: the folder was altered after it was written")
        if file.stat().st_size != size:
            raise EarthworksError(
                f"{file} has {file.stat().st_size} bytes where {size} were written: it was cut short or altered"
            )
        if sha256(file) != digest:
            raise EarthworksError(f"{file} does not match its SHA-256: it was altered after it was written")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns a write that the system refused into an EarthworksError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        sentence = f"could not write {path}: {reason}; what was saved before is intact"
        raise EarthworksError(sentence, exit_code=1) from error
