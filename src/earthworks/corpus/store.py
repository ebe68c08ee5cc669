"""Where a build writes: a folder or an fsspec URL, in which every file is wholly there or not there at all."""

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

LOCKS = ".earthworks-lock-"  # how runs.lock names its files
CHUNK = 1 << 20


class Store:
    """Files under `location` by their relative names.

    A local file is written under a temporary name of its writer's own, fsynced and renamed, so that two writers of the
    same bytes cannot harm each other; a remote object appears when it is closed, as object stores have it. `written` says
    of each file since the last `record` how many bytes it has, their SHA-256, and of a local one its `blocks_digest` and
    time, as `runs.manifest.verify_file` compares them.
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
        """A new file, there under its name when the block ends without an error."""
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
                    except OSError as error:  # of what is read meanwhile: `Digesting.write` says its own
                        where = error.filename or f"what {target} is made of"
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
        except Exception as error:  # whatever the network raises
            raise EarthworksError(f"could not write {self.location}/{name}: {error}", exit_code=1) from error
        self.written[name] = digesting.description()

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    def record(self, name: str, value: dict[str, Any]) -> None:
        """Write what a stage counted, and beside it `written`: the file's presence says that the stage is done."""
        written, self.written = self.written, {}
        self.write(name, sealed({**value, "written": written}))
        self.written = {}

    def read_record(self, name: str) -> dict[str, Any]:
        """What a sealed file says."""
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
                raise EarthworksError(f"{self.location}/{name} has more than the {limit:,} bytes it may have")
            return self.files.cat_file(self.path(name))
        except FileNotFoundError:
            raise EarthworksError(f"{self.location}/{name} does not exist") from None

    def exists(self, name: str) -> bool:
        return self.files.exists(self.path(name))

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder; none when it does not exist."""
        try:
            found = self.files.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            raise EarthworksError(
                f"{self.location} is or is below a file: --output names a folder to build in"
            ) from None
        except OSError as error:
            raise EarthworksError(f"{self.location} cannot be read: {error.strerror or error}", exit_code=1) from None
        return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in found} - {""}

    def strangers(self) -> set[str]:
        """Names in the location itself that no command leaves there on its way."""
        return {name for name in self.names("") if not (is_temporary(name) or name.startswith(LOCKS))}

    def verify(self, name: str, written: dict[str, Any], *, full: bool) -> None:
        """Raises EarthworksError when a file is not what was written. `full`: by its SHA-256; else a local one by size,
        `blocks_digest` and time (and by SHA-256 where the time is another), a remote one by its size."""
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
            raise EarthworksError(f"{where} has {size} bytes where {written['bytes']} were written: it was altered")
        if full:
            with self.files.open(self.path(name), "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != written["sha256"]:
                    raise EarthworksError(f"{where} does not match its SHA-256: it was altered after it was written")

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove files by name; what is not there or will not go is left."""
        for name in names:
            with suppress(OSError):
                self.files.rm_file(self.path(name))

    def remove_empty(self, folders: Iterable[str]) -> None:
        """Remove these folders where nothing is in them; object stores have none."""
        for folder in folders if self.local else ():
            with suppress(OSError):
                os.rmdir(self.path(folder))

    def remove_temporary(self, folders: Iterable[str], *, alone: bool) -> None:
        """What writers that were killed left behind in folders of the build: processes of this machine, and, for who is
        `alone` in writing here, of any."""
        for folder in (Path(self.path(each)) for each in folders if self.local):
            if alone:
                remove_leftovers(folder)
            elif folder.is_dir():
                for entry in folder.iterdir():
                    if left_by_the_dead(entry.name):
                        remove_temporary(entry)


class Digesting:
    """A stream to write to that counts the bytes and takes their SHA-256."""

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
        """Whoever opened the stream closes it."""

    def tell(self) -> int:
        return self.bytes

    def description(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}


class Checked:
    """A stream to read from, whose bytes are compared at the end with what was written."""

    closed = False

    def __init__(self, stream: Any, where: str, sha256: str):
        self.stream, self.where, self.sha256 = stream, where, sha256
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data

    def finish(self) -> None:
        """Read what is left; raises EarthworksError when it was altered."""
        while self.read(CHUNK):
            pass
        if self.digest.hexdigest() != self.sha256:
            raise EarthworksError(f"{self.where} does not match its SHA-256: it was altered after it was written")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Whoever opened the stream closes it."""


def folders_above(names: Iterable[str]) -> list[str]:
    """All folders that files of these names are in, the deepest first, without the location itself."""
    found = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    return sorted(found - {"."}, key=lambda folder: (-folder.count("/"), folder))
