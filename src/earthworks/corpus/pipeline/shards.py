"""Division of a build's inputs into shards, the unit of work of one worker and of recovery after a crash.

The division depends only on the names and sizes of the inputs, not on the number of workers or machines, so any of them
can continue the work of others.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from earthworks.corpus.document import Document
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.readers.any_source import documents, files_of, held, read_input
from earthworks.corpus.readers.files import InputFile, file_system, is_local
from earthworks.corpus.readers.records import Reading
from earthworks.corpus.readers.sources import exists_locally
from earthworks.runs import EarthworksError, sha256

SHARD_BYTES = 1 << 26  # of the files as stored; a larger file is a shard by itself


@dataclass(frozen=True)
class Shard:
    """Some files of one subset, or a source that is not a file (`python-docs`, `-`, `hf:`)."""

    subset: str
    number: int
    files: tuple[InputFile, ...]
    source: str | None = None

    @property
    def name(self) -> str:
        return f"{self.subset}/{self.number:05d}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def read(self, reading: Reading) -> Iterator[Document]:
        """The non-empty documents, in order; ids are unique within a file. Raises EarthworksError after the documents of
        a file that changed or vanished while it was read."""
        if self.source is not None:
            yield from held(documents(self.source, reading), reading)
        for file in self.files:
            before = state(file)
            yield from read_input(file, reading)
            if before != state(file):
                raise changed(file)

    def digests(self) -> list[dict[str, Any]]:
        """Name, size and digest of each file."""
        found = []
        for file in self.files:
            before = state(file)
            found.append({"name": file.name, "bytes": file.bytes, "digest": digest(file)})
            if before != state(file):
                raise changed(file)
        return found

    def as_json(self) -> dict[str, Any]:
        names = ("name", "path", "bytes", "token", "sha256")
        files = [{name: getattr(each, name) for name in names} for each in self.files]
        return {"subset": self.subset, "number": self.number, "files": files, "source": self.source}

    @classmethod
    def from_json(cls, written: dict[str, Any], recipe: Recipe) -> "Shard":
        place = next(subset.input for subset in recipe.subsets if subset.name == written["subset"])
        system = None if written["source"] else file_system(place)[0]
        return cls(**{**written, "files": tuple(InputFile(**file, files=system) for file in written["files"])})


def state(file: InputFile) -> str | None:
    """Current size and time of a local file; None for a remote one, whose store serves one version of it.

    Raises EarthworksError if its size is not that of the plan, or it is no longer a file."""
    if not is_local(file.files):
        return None
    try:
        found = os.stat(file.path)
    except FileNotFoundError:
        if not file.bytes:  # a link that was broken from the start
            return ""
        raise EarthworksError(
            f"{file.path} vanished while the corpus was built: restore it, and rerun the same command", exit_code=1
        ) from None
    except OSError:
        return ""  # no permission: reading it reports that
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.bytes:
        raise changed(file)
    return f"{found.st_size}-{found.st_mtime_ns}"


def changed(file: InputFile) -> EarthworksError:
    return EarthworksError(
        f"{file.path} changed while the corpus was built: the input of one build must not change, so choose another "
        "--output once nothing writes to the input",
        exit_code=1,
    )


def digest(file: InputFile) -> str:
    """SHA-256 of a local file, the store's version of a remote one, or the error of an unreadable one."""
    if not is_local(file.files):
        return file.token
    try:
        return sha256(file.path)
    except EarthworksError as error:
        return f"not readable: {str(error).removeprefix(f'{file.path} cannot be read: ')}"


def cut(recipe: Recipe, reading: Reading) -> list[Shard]:
    """All shards of a recipe: the files of each subset in sorted order, grouped up to SHARD_BYTES.

    `reading` counts skipped files and folders that cannot be listed."""
    found = []
    for subset in recipe.subsets:
        if not is_files(subset.input):
            found.append(Shard(subset.name, 0, (), subset.input))
            continue
        group: list[InputFile] = []
        number = 0
        for file in files_of(subset.input, reading):
            if group and sum(each.bytes for each in group) + file.bytes > SHARD_BYTES:
                found.append(Shard(subset.name, number, tuple(group)))
                group, number = [], number + 1
            group.append(file)
        found.append(Shard(subset.name, number, tuple(group)))
    return found


def is_files(location: str) -> bool:
    return exists_locally(location) or not (
        location == "-" or location.startswith("hf:") or location.split("/")[0] == "python-docs"
    )
