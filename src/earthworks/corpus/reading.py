"""Documents from anywhere: files, folders, standard input, Hugging Face data sets, fsspec URLs, `python-docs`.

`read("books/")` yields one Document per .txt file, per line of a .jsonl (or .json, of lines), per row of a .parquet, per
page: a .html (or .htm) file or a response of a .warc; each also as .gz, .xz or .zst. A folder is read to its depth in
the sorted order of its paths; its hidden files are left out in silence, files of other kinds are counted. Text is
UTF-8: a byte-order mark is dropped, line ends stay as they are, and every byte that is not UTF-8 (and every lone
surrogate in JSON) becomes one U+FFFD and is counted. Pages come as the text that extraction.py finds in them.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.corpus.document import Document, LongDocument
from earthworks.corpus.extraction import LARGEST_PAGE, need_trafilatura
from earthworks.corpus.python_docs import WEIGHTS, python_docs
from earthworks.corpus.records import (
    READABLE,
    Reading,
    counted,
    decode,
    decoded_blocks,
    extracted,
    first_line,
    read_lines,
    read_parquet,
    record_document,
    text_bytes,
    without_surrogates,
)
from earthworks.corpus.streams import LARGEST_FILE, Unreadable, beginning, blocks, compression, limited, whole
from earthworks.corpus.warc import read_warc
from earthworks.runs import EarthworksError
from earthworks.runs.errors import missing_extra

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".html", ".htm", ".warc")
LONG = 1 << 24  # bytes of a text from which on `read_texts` gives it block by block
BLOCK = 1 << 20  # bytes of standard input decoded at once


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


def read(data: str, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one source, in an order that depends on nothing but the source. Empty texts are left out.

    `data`: a file, a folder, `-` (standard input, plain text, one document), `hf:NAME[:CONFIG][:SPLIT]` (a data set of
    the Hugging Face Hub, or a local folder of one; the split is `train` unless given, as in `hf:NAME::test`), a URL of
    fsspec such as `s3://...`, `python-docs`, `python-docs/prose` or `python-docs/code`.

    The text of a record is its field `text`, else `content`, `raw_content` or `document`; `id` and `source` are taken
    from the record when they are there, else made from the file's name and the number of the line or row.
    A record without these but with a field `html` is a page. Memory: one document, for .parquet one row group's columns.
    Raises EarthworksError for what cannot be read, and for the first bad record unless `reading` is tolerant.
    """
    reading = Reading() if reading is None else reading
    yield from some(held(documents(data, reading), reading), data, reading)


def read_texts(data: str, reading: Reading | None = None) -> Iterator[Document | LongDocument]:
    """`read` where no text need be held whole: a .txt file or standard input of more than 16 MiB is a LongDocument."""
    reading = Reading() if reading is None else reading
    yield from some(counted(documents(data, reading, LONG), reading), data, reading)


def held(found: Iterable[Document | LongDocument], reading: Reading) -> Iterator[Document]:
    """The documents that are not empty, of a source without long ones."""
    for document in counted(found, reading):
        assert isinstance(document, Document)
        yield document


def some(found: Iterable[Any], data: str, reading: Reading) -> Iterator[Any]:
    before = reading.documents
    yield from found
    if reading.documents == before:
        raise EarthworksError(f"{data} holds no text: a corpus needs at least one document that is not empty")


def documents(data: str, reading: Reading, most: int = LARGEST_FILE) -> Iterator[Document | LongDocument]:
    """The documents of one source, whatever its kind; a text of more than `most` bytes is a LongDocument."""
    if data == "-":
        content = text_bytes(standard_input(), "standard input")
        if len(content) > most:
            view = memoryview(content)
            parts = [view[at : at + BLOCK] for at in range(0, len(view), BLOCK)]
            yield LongDocument("-", "-", lambda counts: decoded_blocks(map(bytes, parts), counts))
        else:
            yield Document("-", decode(content, reading), "-")
    elif data.split("/")[0] == "python-docs" and not Path(data).exists():
        for subset in python_docs_subsets(data):
            yield from python_docs(subset)
    elif data.startswith("hf:"):
        yield from read_hugging_face(data, reading)
    else:
        for file in files_of(data, reading):
            yield from read_file(file, reading, most)


@cache
def standard_input() -> bytes:
    """Everything on standard input, kept, because a corpus is read more than once."""
    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise EarthworksError(
            f"standard input holds more than {LARGEST_FILE:,} bytes, the most that is read as one document: "
            "save it as several files"
        )
    return content


def python_docs_subsets(data: str) -> list[str]:
    """`python-docs` -> all its subsets, `python-docs/prose` -> that one."""
    name = data.partition("/")[2]
    if name and name not in WEIGHTS:
        raise EarthworksError(f"{data} does not exist; python-docs has the subsets {' and '.join(WEIGHTS)}")
    return [name] if name else list(WEIGHTS)


# Files


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


def files_of(location: str, reading: Reading | None = None) -> list[InputFile]:
    """The files at a path or URL, one or a folder's to its depth, in the order of their names; nothing is opened.

    Hidden files are left out; those of kinds that cannot be read, links to folders, pipes and the like are counted in
    `reading`. Raises EarthworksError where there is nothing to read; a folder that may not be listed is a fault.
    """
    from earthworks.corpus.built import named_files

    reading = Reading() if reading is None else reading
    if (named := named_files(location)) is not None:
        return named
    files, path = file_system(location)
    if files.isfile(path):
        if kind_of(path) is None:
            raise EarthworksError(
                f"{location} is of no kind that can be read: expected {READABLE} (plain text can come through `-`)"
            )
        return [input_file(files, PurePosixPath(path).name, path, files.info(path))]
    if not files.isdir(path):
        if is_local(files) and os.path.exists(path):
            raise EarthworksError(
                f"{location} cannot be read: it is no regular file, but a pipe or a device; give a file or a folder, or "
                "send the text through standard input with -"
            )
        raise EarthworksError(f"{location} does not exist")

    def refused(error: OSError) -> None:
        where = error.filename or location
        reading.fault(str(where), Unreadable(f"{where} cannot be listed: {error.strerror or error}"))

    if is_local(files):  # whose `find` leaves out in silence what it may not list
        for _ in os.walk(path, onerror=refused):
            pass
    root = str(files.info(path)["name"])
    infos = files.find(path, detail=True)
    found = {PurePosixPath(path).relative_to(root).as_posix(): path for path in infos}
    readable = []
    for relative in sorted(found):
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        if kind_of(relative) is None or not is_file(files, found[relative]):
            reading.skipped_files += 1
            continue
        readable.append(input_file(files, relative, found[relative], infos[found[relative]]))
    if not readable:
        raise EarthworksError(f"{location} holds nothing that can be read: expected files of kind {READABLE}")
    return distinct_names(readable)


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


def read_input(file: InputFile, reading: Reading) -> Iterator[Document]:
    """The documents of one file that are not empty, in order, counted in `reading`.

    If it is tolerant, every bad record is one fault, and what is damaged or may not be read is one fault after the good
    documents before it; else the first raises EarthworksError. A missing extra always does.
    """
    return held(read_file(file, reading), reading)


def read_file(file: InputFile, reading: Reading, most: int = LARGEST_FILE) -> Iterator[Document | LongDocument]:
    """The documents of one file; a text of more than `most` bytes is a LongDocument."""
    if file.sha256 is not None:
        from earthworks.corpus.built import read_checked

        yield from read_checked(file, reading)
        return
    path, name, kind = file.path, file.name, kind_of(file.path)
    if kind in (".html", ".htm", ".warc"):
        need_trafilatura(path)
    try:
        with opened(file) as raw:
            if kind == ".txt":
                content, ended = beginning(limited(blocks(raw, path), path), most)
                text_bytes(content, path)
                if ended:
                    yield Document(name, decode(content, reading), name)
                else:
                    yield LongDocument(name, name, partial(file_blocks, file))
            elif kind in (".html", ".htm"):
                page = bytes(whole(blocks(raw, path), path, LARGEST_PAGE))
                yield Document(name, extracted(page, None, path), name)
            elif kind == ".warc":
                yield from read_warc(raw, path, name, reading)
            elif kind == ".parquet":
                stream = whole(blocks(raw, path), path) if compression(path) else raw
                yield from read_parquet(stream, path, name, reading)
            else:
                yield from read_lines(blocks(raw, path), path, name, reading)
    except Unreadable as error:
        reading.fault(path, error)


def file_blocks(file: InputFile, reading: Reading) -> Iterator[str]:
    """The text of a .txt file."""
    with opened(file) as raw:
        yield from decoded_blocks(limited(blocks(raw, file.path), file.path), reading)


def opened(file: InputFile) -> Any:
    try:
        return file.files.open(file.path, "rb")
    except OSError as error:
        raise Unreadable(f"{file.path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a remote file system has its own types
        raise Unreadable(f"{file.path} cannot be read: {type(error).__name__}: {error}") from error


# Hugging Face


def read_hugging_face(data: str, reading: Reading) -> Iterator[Document]:
    """A data set of the Hub or of a local folder, through the package `datasets`, which keeps a copy on disk."""
    name, config, split = hugging_face_parts(data)
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hf", data) from None
    try:
        folder = Path(name)
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(name)
            if isinstance(rows, datasets.DatasetDict):
                rows = rows[split]
        else:
            rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the package raises a score of types, its own and those of the network below
        raise EarthworksError(f"{data} could not be loaded: {first_line(error)}") from error
    for row, record in enumerate(rows):
        document = record_document(dict(record), f"{name}:{row}", name, data)
        document.text = without_surrogates(document.text, reading)
        yield document


def hugging_face_parts(data: str) -> tuple[str, str | None, str]:
    """`hf:NAME[:CONFIG][:SPLIT]` -> (name, config or None, split)."""
    name, *rest = data.removeprefix("hf:").split(":")
    if not name or len(rest) > 2:
        raise EarthworksError(f"{data}: expected hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT (hf:NAME::SPLIT)")
    config, split = (rest + ["", ""])[:2]
    return name, config or None, split or "train"
