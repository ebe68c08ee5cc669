"""Where a build writes: a folder or an fsspec URL, in which every file is wholly there or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from earthworks.corpus.reading import file_system
from earthworks.runs import EarthworksError
from earthworks.runs.files import one_sentence, remove_leftovers, sync, temporary_name


class Store:
    """Files under `location` by their relative names.

    A local file is written under a temporary name of its writer's own, fsynced and renamed, so that two writers of the
    same bytes cannot harm each other; a remote object appears when it is closed, as object stores have it.
    """

    def __init__(self, location: str):
        self.location = location.rstrip("/") or "/"
        self.files, self.root = file_system(self.location)
        self.local = "://" not in location

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A new file, there under its name when the block ends without an error."""
        if self.local:
            target = Path(self.path(name))
            temporary = temporary_name(target)
            with one_sentence(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with open(temporary, "wb") as stream:
                        yield stream
                        stream.flush()
                        os.fsync(stream.fileno())
                    os.replace(temporary, target)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
                sync(target.parent)
            return
        stream = self.files.open(self.path(name), "wb")
        try:
            yield stream
        except BaseException:
            with suppress(Exception):
                stream.discard()
            raise
        try:
            stream.close()
        except Exception as error:  # whatever the network raises
            raise EarthworksError(f"could not write {self.location}/{name}: {error}", exit_code=1) from error

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    def open(self, name: str) -> Any:
        return self.files.open(self.path(name), "rb")

    def read(self, name: str) -> bytes:
        return self.files.cat_file(self.path(name))

    def exists(self, name: str) -> bool:
        return self.files.exists(self.path(name))

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder; none when it does not exist."""
        try:
            found = self.files.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            raise EarthworksError(f"{self.location} lies below a file: --output names a folder to build in") from None
        return {str(name).rsplit("/", 1)[-1] for name in found} - {""}

    def remove(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            self.files.rm(self.path(folder), recursive=True)

    def remove_temporary(self) -> None:
        """What writers that were killed left behind."""
        if self.local:
            for folder in (Path(self.root), *(path for path in Path(self.root).rglob("*") if path.is_dir())):
                remove_leftovers(folder)
