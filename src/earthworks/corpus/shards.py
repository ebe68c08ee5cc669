"""The inputs of a build cut into shards: what one worker does at a time, and what is done again after a crash.

The cut depends on the inputs' names and sizes alone, never on the number of workers or machines, so that any of them can
go on where others stopped.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from earthworks.corpus.document import Document
from earthworks.corpus.reading import InputFile, Reading, documents, file_system, files_of, held, is_local, read_input
from earthworks.corpus.recipe import Recipe
from earthworks.corpus.source import exists_locally

SHARD_BYTES = 1 << 26  # of the files as they lie there; a larger file is a shard by itself


@dataclass(frozen=True)
class Shard:
    """Some files of one subset, or a source that is no file (`python-docs`, `-`, `hf:`), named by its place."""

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
        """Its documents that hold text, in order; ids are unique within a file."""
        if self.source is not None:
            yield from held(documents(self.source, reading), reading)
        for file in self.files:
            yield from read_input(file, reading)

    def as_json(self) -> dict[str, Any]:
        files = [
            {"name": each.name, "path": each.path, "bytes": each.bytes, "token": each.token} for each in self.files
        ]
        return {"subset": self.subset, "number": self.number, "files": files, "source": self.source}

    @classmethod
    def from_json(cls, written: dict[str, Any], recipe: Recipe) -> "Shard":
        place = next(subset.input for subset in recipe.subsets if subset.name == written["subset"])
        system = None if written["source"] else file_system(place)[0]
        return cls(**{**written, "files": tuple(InputFile(**file, files=system) for file in written["files"])})


def digest(file: InputFile) -> str:
    """SHA-256 of a local file; of a remote one what its store calls its version; of one that cannot be read, that."""
    if not is_local(file.files):
        return file.token
    try:
        with open(file.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"not readable: {error.strerror}"


def cut(recipe: Recipe, reading: Reading) -> list[Shard]:
    """All shards of a recipe: of each subset the files in sorted order, together until they make up SHARD_BYTES.

    `reading` counts what is passed over and the folders that may not be listed."""
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
