"""The storage of a build: a folder or fsspec URL in which every file is either complete or absent."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.corpus.readers.files import file_system, is_local
from earthworks.corpus.sealing import LARGEST, sealed, unsealed
from earthworks.runs import EarthworksError, inside, read_regular
from earthworks.runs.files import blocks_digest, one_sentence, open_regular, sync
from earthworks.runs.manifest import verify_file
from earthworks.runs.temporary import is_temporary, left_by_the_dead, remove_leftovers, remove_temporary, temporary_name

LOCKS = ".earthworks-lock-"  # prefix of the files of runs.lock
CHUNK = 1 << 20


class Store:
    """Files under `location` by their relative names.

    A local file is written under a temporary name unique to its writer, fsynced and renamed, so that two writers of the
    same bytes cannot harm each other; a remote object appears when it is closed. `written` has, for each file since the
    last `record`, its size and SHA-256, and for a local one also its `blocks_digest` and modification time, as
    `runs.manifest.verify_file` compares them.
    """

    def __init__(self, location: str):
        self.location = location.rstrip("/") or "/"
        self.files, self.root = file_system(self.location)
        self.local = is_local(self.files)  # by a path or by file://
        self.written: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator["Digesting"]:
        """A new file that appears under its name when the block ends without an error."""
        if not self.local:
            with self.sending(name) as stream:
                yield stream
            return
        target = Path(self.path(name))
        temporary = temporary_name(target)
        with one_sentence(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "wb") as stream:
                    digesting = Digesting(stream, target)
                    try:
                        yield digesting
                    except OSError as error:  # from an input: `Digesting.write` raises its own errors
                        where = error.filename or f"the input of {target}"
                        raise EarthworksError(
                            f"could not read {where}: {error.strerror or error}", exit_code=1
                        ) from error
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            sync(target.parent)
            self.written[name] = digesting.description() | {
                "blocks": blocks_digest(target),
                "mtime_ns": target.stat().st_mtime_ns,
            }

    @contextmanager
    def sending(self, name: str) -> Iterator["Digesting"]:
        stream = self.files.open(self.path(name), "wb")
        digesting = Digesting(stream, Path(self.path(name)))
        try:
            yield digesting
        except BaseException:
            with suppress(Exception):
                stream.discard()
            raise
        try:
            stream.close()
        except Exception as error:  # anything that the network raises
            raise EarthworksError(f"could not write {self.location}/{name}: {error}", exit_code=1) from error
        self.written[name] = digesting.description()

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    def record(self, name: str, value: dict[str, Any]) -> None:
        """Write a stage's counts together with `written`: the presence of this file marks the stage as done."""
        written, self.written = self.written, {}
        self.write(name, sealed({**value, "written": written}))
        self.written = {}

    def read_record(self, name: str) -> dict[str, Any]:
        """The value of a sealed file."""
        return unsealed(self.read(name), f"{self.location}/{name}")

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        if self.local:
            with open_regular(self.path(name)) as stream:
                yield stream
            return
        with self.files.open(self.path(name), "rb") as stream:
            yield stream

    def read(self, name: str, limit: int = LARGEST) -> bytes:
        """A whole file of at most `limit` bytes."""
        if self.local:
            return read_regular(self.path(name), limit)
        try:
            if self.files.info(self.path(name))["size"] > limit:
                raise EarthworksError(f"{self.location}/{name} is larger than the limit of {limit:,} bytes")
            return self.files.cat_file(self.path(name))
        except FileNotFoundError:
            raise EarthworksError(f"{self.location}/{name} does not exist") from None

    def exists(self, name: str) -> bool:
        return self.files.exists(self.path(name))

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder; empty if it does not exist."""
        try:
            found = self.files.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            raise EarthworksError(
                f"{self.location} is a file or below one: --output must name a folder to build in"
            ) from None
        except OSError as error:
            raise EarthworksError(f"{self.location} cannot be read: {error.strerror or error}", exit_code=1) from None
        return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in found} - {""}

    def strangers(self) -> set[str]:
        """Names directly in the location, except locks and temporary files."""
        return {name for name in self.names("") if not (is_temporary(name) or name.startswith(LOCKS))}

    def verify(self, name: str, written: dict[str, Any], *, full: bool) -> None:
        """Raise EarthworksError if a file is not what was written.

        `full`: compare its SHA-256. Otherwise a local file is compared by size, `blocks_digest` and time (and by SHA-256
        if the time differs), a remote one by its size."""
        if self.local:
            file = inside(Path(self.root), name)
            size = {} if "bytes" in written else {"bytes": file.stat().st_size if file.is_file() else 0}
            verify_file(file, {**size, **written}, full=full)
            return
        where = f"{self.location}/{name}"
        try:
            size = self.files.info(self.path(name))["size"]
        except FileNotFoundError:
            raise EarthworksError(f"{where} is missing: it was removed after it was written") from None
        if size != written.get("bytes", size):
            raise EarthworksError(f"{where} has {size} bytes; {written['bytes']} were written: it was altered")
        if full:
            with self.files.open(self.path(name), "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != written["sha256"]:
                    raise EarthworksError(f"{where} does not match its SHA-256: it was altered after it was written")

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove files by name; ignore those that are missing or cannot be removed."""
        for name in names:
            with suppress(OSError):
                self.files.rm_file(self.path(name))

    def remove_empty(self, folders: Iterable[str]) -> None:
        """Remove the given folders if they are empty; object stores have none."""
        for folder in folders if self.local else ():
            with suppress(OSError):
                os.rmdir(self.path(folder))

    def remove_temporary(self, folders: Iterable[str], *, alone: bool) -> None:
        """Remove what killed writers left in folders of the build: those of this machine, or with `alone` (no other
        writer is active) those of any machine."""
        for folder in (Path(self.path(each)) for each in folders if self.local):
            if alone:
                remove_leftovers(folder)
            elif folder.is_dir():
                for entry in folder.iterdir():
                    if left_by_the_dead(entry.name):
                        remove_temporary(entry)


class Digesting:
    """A writable stream that counts its bytes and computes their SHA-256."""

    closed = False

    def __init__(self, stream: Any, target: Path):
        self.stream, self.target, self.digest, self.bytes = stream, target, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.bytes += len(view)
        with one_sentence(self.target):
            self.stream.write(view)
        return len(view)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        """Do nothing: the opener of the stream closes it."""

    def tell(self) -> int:
        return self.bytes

    def description(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}


class Checked:
    """A readable stream whose bytes are compared at the end with the SHA-256 of what was written."""

    closed = False

    def __init__(self, stream: Any, where: str, sha256: str):
        self.stream, self.where, self.sha256 = stream, where, sha256
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data

    def finish(self) -> None:
        """Read the rest; raise EarthworksError if the file was altered."""
        while self.read(CHUNK):
            pass
        if self.digest.hexdigest() != self.sha256:
            raise EarthworksError(f"{self.where} does not match its SHA-256: it was altered after it was written")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: the opener of the stream closes it."""


def folders_above(names: Iterable[str]) -> list[str]:
    """All folders containing files of the given names, deepest first, without the location itself."""
    found = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    return sorted(found - {"."}, key=lambda folder: (-folder.count("/"), folder))
