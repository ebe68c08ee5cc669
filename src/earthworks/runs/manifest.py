"""Folders with a manifest: created atomically, verified against it, and deleted only if it lists every file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import blocks_digest, called, inside, one_sentence, sha256, sync, write_through
from earthworks.runs.json_files import read_json
from earthworks.runs.temporary import is_folder, is_temporary, remove_temporary, sweep, temporary_name

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 28


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Create a folder atomically: fill the temporary folder this yields; on leaving, a manifest with size, SHA-256,
    `blocks_digest` and time of every file is added, everything is fsynced, and the folder takes its name.

    A non-empty existing folder is refused (EarthworksError) before any work: no order of renames replaces one folder by
    another in a single step, so a crash could leave neither. To replace the old one, call `remove_folder` first.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise EarthworksError(f"{path} already exists and is not an empty folder: choose another name, or delete it")
    temporary = temporary_name(path)
    try:
        with one_sentence(path):
            temporary.mkdir(parents=True)
        with called(path, temporary):
            yield temporary
        with one_sentence(path), called(path, temporary):
            entries = sorted(temporary.rglob("*"))
            files = {}
            for file in (entry for entry in entries if entry.is_file()):
                sync(file)  # a library may have written it without fsync
                files[file.relative_to(temporary).as_posix()] = description(file)
            write_through(temporary / MANIFEST, (json.dumps({"files": files}, indent=2) + "\n").encode())
            for folder in [temporary, *(entry for entry in entries if entry.is_dir())]:
                sync(folder)
            os.rename(temporary, path)
    except BaseException:
        remove_temporary(temporary)
        raise
    with one_sentence(path):
        sync(path.parent)
    sweep(path)


def description(file: Path) -> dict[str, Any]:
    """The manifest entry of a file."""
    found = file.stat()
    digests = {"sha256": sha256(file), "blocks": blocks_digest(file)}
    return {"bytes": found.st_size, **digests, "mtime_ns": found.st_mtime_ns}


def strangers(path: Path) -> list[str]:
    """Names in a folder made by `new_folder` that its manifest does not list."""
    named = {MANIFEST, *manifest_files(path)}
    folders = {parent.as_posix() for name in named for parent in PurePosixPath(name).parents}
    found = (entry for entry in path.rglob("*"))
    return sorted(
        name
        for entry in found
        if (name := entry.relative_to(path).as_posix()) not in (named if not is_folder(entry) else folders)
        and not any(is_temporary(part) for part in PurePosixPath(name).parts)
    )


def remove_folder(path: str | Path) -> bool:
    """Delete a folder made by `new_folder`; returns False, with nothing changed, when it contains a file that its
    manifest does not list, or has no readable manifest.

    It is renamed first, so that no reader finds it half deleted; then the listed files are deleted one by one. If a file
    was added meanwhile, it gets its name back (False).
    """
    path = Path(path)
    try:
        if path.is_symlink() or strangers(path):
            return False
        names = [*manifest_files(path), MANIFEST]
    except EarthworksError:
        return False
    doomed = temporary_name(path)
    with one_sentence(path):
        os.rename(path, doomed)
        sync(path.parent)
        for name in names:
            with suppress(FileNotFoundError):
                (doomed / name).unlink()
        for parent in sorted({parent for name in names for parent in PurePosixPath(name).parents}, reverse=True):
            with suppress(OSError):
                (doomed / parent).rmdir()
        if os.path.lexists(doomed):  # a file was added meanwhile
            with suppress(OSError):
                os.rename(doomed, path)
            return False
    sweep(path)
    return True


def manifest_files(path: Path) -> dict[str, dict[str, Any]]:
    """The manifest entries of a folder's files; EarthworksError if the manifest is unusable."""
    manifest = read_json(path / MANIFEST, limit=LARGEST_MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not files or not all(is_description(entry) for entry in files.values()):
        raise EarthworksError(f"{path / MANIFEST} does not list files with their sizes and SHA-256: it was altered")
    for name in files:
        inside(path, name)
    return files


def is_description(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)


def verify_manifest(
    path: str | Path, *, names: list[str] | None = None, full: bool = True
) -> dict[str, dict[str, Any]]:
    """Compare the files of a folder made by `new_folder` with its manifest, and return the manifest's entries.

    `names`: these alone (a name that the manifest does not list is refused); by default all. `full`: by SHA-256;
    otherwise by size and `blocks_digest`, and by SHA-256 only if the modification time differs.
    Raises EarthworksError naming the first file that differs.
    """
    path = Path(path)
    files = manifest_files(path)
    for name in files if names is None else names:
        if name not in files:
            raise EarthworksError(
                f"{path / MANIFEST} does not list {name}: the folder was altered after it was written"
            )
        verify_file(inside(path, name), files[name], full=full)
    return files


def verify_file(file: Path, written: dict[str, Any], *, full: bool = True) -> None:
    """Compare one file with its manifest entry, as `verify_manifest` does."""
    if not file.exists():
        raise EarthworksError(
            f"{file} is missing, and its {MANIFEST} names it: the folder was altered after it was written"
        )
    found = file.stat()
    if found.st_size != written["bytes"]:
        raise EarthworksError(
            f"{file} has {found.st_size} bytes where its {MANIFEST} says {written['bytes']}: it was cut short, or one of "
            "the two was altered"
        )
    if not full and "blocks" in written:
        if blocks_digest(file) != written["blocks"]:
            raise EarthworksError(
                f"{file} does not match its digest in {MANIFEST}: one of the two was altered after it was written"
            )
        if found.st_mtime_ns == written.get("mtime_ns"):
            return
    if sha256(file) != written["sha256"]:
        raise EarthworksError(
            f"{file} does not match its SHA-256 in {MANIFEST}: one of the two was altered after it was written"
        )
