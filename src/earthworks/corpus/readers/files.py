"""Input files, local or on any fsspec file system: their names, kinds, sizes and versions."""

import os
import stat
from dataclasses import dataclass, field, replace
from typing import Any

from earthworks.corpus.readers.streams import Unreadable, compression
from earthworks.runs import EarthworksError

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".html", ".htm", ".warc")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A readable file.

    `name`: path relative to the requested folder, with `/`; names its documents. `path`: within its file system. `bytes`:
    size on disk. `token`: changes when the content may have changed (size and modification time, or the version in the
    remote store). `sha256`: for files of a built corpus, compared at the end. Can be pickled.
    """

    name: str
    path: str
    bytes: int
    token: str
    files: Any = field(repr=False, compare=False)
    sha256: str | None = None


def file_system(location: str) -> tuple[Any, str]:
    """The fsspec file system of a local path or URL, and the path within it."""
    if "://" in location:
        import fsspec.core

        try:
            return fsspec.core.url_to_fs(location)
        except (ValueError, ImportError) as error:
            raise EarthworksError(f"{location} cannot be opened: {error}") from None
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(), location


def distinct_names(files: list[InputFile]) -> list[InputFile]:
    """Make names unique: names that are not UTF-8 can become equal when shown; the second is then `NAME (2)`."""
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
    """Whether it can be read without blocking forever, as a pipe would."""
    try:
        return not is_local(files) or stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # a broken link: reading it reports that


def input_file(files: Any, name: str, path: str, info: dict[str, Any]) -> InputFile:
    size, versions = (
        info.get("size") or 0,
        ("ETag", "etag", "checksum", "mtime", "LastModified", "last_modified", "updated"),
    )
    token = next((str(info[each]) for each in (*versions, "created") if info.get(each) is not None), "")
    if is_local(files):
        try:
            found = os.stat(path)  # of the target of a link
            size, token = found.st_size, str(found.st_mtime_ns)
        except OSError:
            pass
    name = name.encode(errors="surrogateescape").decode(errors="replace")  # names need not be UTF-8, but ids must be
    return InputFile(name, path, size, f"{size}-{token}", files)


def kind_of(name: str) -> str | None:
    """The suffix that determines how a file is read, without .gz, .xz or .zst; None for other files."""
    name = name.lower()
    name = name.removesuffix(compression(name))
    return next((kind for kind in KINDS if name.endswith(kind)), None)


def opened(file: InputFile) -> Any:
    try:
        return file.files.open(file.path, "rb")
    except OSError as error:
        raise Unreadable(f"{file.path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # remote file systems raise their own types
        raise Unreadable(f"{file.path} cannot be read: {type(error).__name__}: {error}") from error
