"""Documents from any source: files, folders, standard input, Hugging Face data sets, fsspec URLs, `python-docs`.

`read("books/")` yields one Document per .txt file, per line of a .jsonl (or .json, of lines), per row of a .parquet, per
page: a .html (or .htm) file or a response of a .warc; each also as .gz, .xz or .zst. A folder is read recursively in
sorted order of its paths; hidden files are skipped silently, files of other kinds are counted. Text is UTF-8: a
byte-order mark is dropped, line ends are kept, and every byte that is not UTF-8 (and every lone surrogate in JSON)
becomes one U+FFFD and is counted. Pages are reduced to their main text by html_text.py.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.corpus.document import Document, LongDocument
from earthworks.corpus.manifest import named_files, read_checked
from earthworks.corpus.readers.files import (
    InputFile,
    distinct_names,
    file_system,
    input_file,
    is_file,
    is_local,
    kind_of,
    opened,
)
from earthworks.corpus.readers.html_text import LARGEST_PAGE, need_trafilatura
from earthworks.corpus.readers.hugging_face import read_hugging_face
from earthworks.corpus.readers.python_docs import WEIGHTS, python_docs
from earthworks.corpus.readers.records import (
    READABLE,
    Reading,
    counted,
    decode,
    decoded_blocks,
    extracted,
    read_lines,
    read_parquet,
    text_bytes,
)
from earthworks.corpus.readers.streams import LARGEST_FILE, Unreadable, beginning, blocks, compression, limited, whole
from earthworks.corpus.readers.warc import read_warc
from earthworks.runs import EarthworksError

LONG = 1 << 24  # bytes of a text above which `read_texts` yields it block by block
BLOCK = 1 << 20  # bytes of standard input decoded at once


def read(data: str, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one source, in an order that depends only on the source. Empty texts are skipped.

    `data`: a file, a folder, `-` (standard input, plain text, one document), `hf:NAME[:CONFIG][:SPLIT]` (a data set of
    the Hugging Face Hub, or a local folder of one; the split is `train` unless given, as in `hf:NAME::test`), a URL of
    fsspec such as `s3://...`, `python-docs`, `python-docs/prose` or `python-docs/code`.

    The text of a record is its field `text`, else `content`, `raw_content` or `document`; `id` and `source` are those of
    the record if present, else made from the file name and the number of the line or row.
    A record without these but with a field `html` is a page. Memory: one document, for .parquet one row group's columns.
    Raises EarthworksError for unreadable sources, and for the first bad record unless `reading` is tolerant.
    """
    reading = Reading() if reading is None else reading
    yield from some(held(documents(data, reading), reading), data, reading)


def read_texts(data: str, reading: Reading | None = None) -> Iterator[Document | LongDocument]:
    """`read` without holding long texts: a .txt file or standard input of more than 16 MiB is a LongDocument."""
    reading = Reading() if reading is None else reading
    yield from some(counted(documents(data, reading, LONG), reading), data, reading)


def held(found: Iterable[Document | LongDocument], reading: Reading) -> Iterator[Document]:
    """The non-empty documents of a source without long ones."""
    for document in counted(found, reading):
        assert isinstance(document, Document)
        yield document


def some(found: Iterable[Any], data: str, reading: Reading) -> Iterator[Any]:
    before = reading.documents
    yield from found
    if reading.documents == before:
        raise EarthworksError(f"{data} contains no text: a corpus needs at least one non-empty document")


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
    """All of standard input, cached because a corpus is read more than once."""
    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise EarthworksError(
            f"standard input has more than {LARGEST_FILE:,} bytes, the limit for one document: save it as several files"
        )
    return content


def python_docs_subsets(data: str) -> list[str]:
    """`python-docs` -> all its subsets, `python-docs/prose` -> only this one."""
    name = data.partition("/")[2]
    if name and name not in WEIGHTS:
        raise EarthworksError(f"{data} does not exist; python-docs has the subsets {' and '.join(WEIGHTS)}")
    return [name] if name else list(WEIGHTS)


def files_of(location: str, reading: Reading | None = None) -> list[InputFile]:
    """The files at a path or URL (a file, or a folder recursively) in the order of their names; nothing is opened.

    Hidden files are skipped; unsupported files, links to folders, pipes and the like are counted in `reading`. Raises
    EarthworksError if there is nothing to read; a folder that cannot be listed is a fault.
    """
    reading = Reading() if reading is None else reading
    if (named := named_files(location)) is not None:
        return named
    files, path = file_system(location)
    if files.isfile(path):
        if kind_of(path) is None:
            raise EarthworksError(
                f"unsupported file type: {location} (expected {READABLE}; send plain text through `-`)"
            )
        return [input_file(files, PurePosixPath(path).name, path, files.info(path))]
    if not files.isdir(path):
        if is_local(files) and os.path.exists(path):
            raise EarthworksError(
                f"{location} cannot be read: it is not a regular file, but a pipe or a device; give a file or a folder, "
                "or send the text through standard input with -"
            )
        raise EarthworksError(f"{location} does not exist")

    def refused(error: OSError) -> None:
        where = error.filename or location
        reading.fault(str(where), Unreadable(f"{where} cannot be listed: {error.strerror or error}"))

    if is_local(files):  # its `find` silently skips folders that it cannot list
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
        raise EarthworksError(f"{location} contains no readable files: expected {READABLE}")
    return distinct_names(readable)


def read_input(file: InputFile, reading: Reading) -> Iterator[Document]:
    """The non-empty documents of one file, in order, counted in `reading`.

    If it is tolerant, every bad record is one fault, and damage or a refused read is one fault after the good documents
    before it; otherwise the first raises EarthworksError. A missing extra always does.
    """
    return held(read_file(file, reading), reading)


def read_file(file: InputFile, reading: Reading, most: int = LARGEST_FILE) -> Iterator[Document | LongDocument]:
    """The documents of one file; a text of more than `most` bytes is a LongDocument."""
    if file.sha256 is not None:
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
