"""Files that documents are read from, local or on any file system of fsspec: their names, kinds, sizes and versions."""

import os
import stat
from dataclasses import dataclass, field, replace
from typing import Any

from earthworks.corpus.readers.streams import Unreadable, compression
from earthworks.runs import EarthworksError

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".html", ".htm", ".warc")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that can be read.

    `name`: below the folder asked for, with `/`, as its documents are called. `path`: within its file system. `bytes`:
    on disk. `token`: another one means that the content may be another (size and time of change, or what the remote
    store calls its version). `sha256`: of a file of a built corpus, which is compared at its end. Can be pickled.
    """

    name: str
    path: str
    bytes: int
    token: str
    files: Any = field(repr=False, compare=False)
    sha256: str | None = None


def file_system(location: str) -> tuple[Any, str]:
    """The fsspec file system and the path in it of a local path or a URL."""
    if "://" in location:
        import fsspec.core

        try:
            return fsspec.core.url_to_fs(location)
        except (ValueError, ImportError) as error:
            raise EarthworksError(f"{location} cannot be opened: {error}") from None
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(), location


def distinct_names(files: list[InputFile]) -> list[InputFile]:
    """Names that are not UTF-8 can become equal when they are shown; the second is then `NAME (2)`, as ids must differ."""
    taken = {file.name for file in files}
    if len(taken) == len(files):
        return files
    seen: set[str] = set()
    for place, file in enumerate(files):
        number, name = 2, file.name
        while name in seen or (name in taken and name != file.name):
            name, number = f"{file.name} ({number})", number + 1
        seen.add(name)
        files[place] = replace(file, name=name)
    return files


def is_local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def is_file(files: Any, path: str) -> bool:
    """Whether opening it gives bytes and not, as a pipe would, an endless wait."""
    try:
        return not is_local(files) or stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # a broken link: reading it says so


def input_file(files: Any, name: str, path: str, info: dict[str, Any]) -> InputFile:
    size, versions = (
        info.get("size") or 0,
        ("ETag", "etag", "checksum", "mtime", "LastModified", "last_modified", "updated"),
    )
    token = next((str(info[each]) for each in (*versions, "created") if info.get(each) is not None), "")
    if is_local(files):
        try:
            found = os.stat(path)  # of what a link leads to
            size, token = found.st_size, str(found.st_mtime_ns)
        except OSError:
            pass
    name = name.encode(errors="surrogateescape").decode(errors="replace")  # names need not be UTF-8, identities do
    return InputFile(name, path, size, f"{size}-{token}", files)


def kind_of(name: str) -> str | None:
    """The suffix that says how to read a file, below .gz, .xz or .zst; None for other files."""
    name = name.lower()
    name = name.removesuffix(compression(name))
    return next((kind for kind in KINDS if name.endswith(kind)), None)


def opened(file: InputFile) -> Any:
    try:
        return file.files.open(file.path, "rb")
    except OSError as error:
        raise Unreadable(f"{file.path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a remote file system has its own types
        raise Unreadable(f"{file.path} cannot be read: {type(error).__name__}: {error}") from error
