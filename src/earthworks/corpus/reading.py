"""Documents from anywhere: files, folders, standard input, Hugging Face data sets, fsspec URLs, `python-docs`.

`read("books/")` yields one Document per .txt file, per line of a .jsonl (or .json, of lines), per row of a .parquet,
each also as .gz, .xz or .zst. A folder is read to its depth in the sorted order of its paths; its hidden files are passed
over in silence, files of other kinds are counted. Text is UTF-8: a byte-order mark is dropped, line ends stay as they
are, and every byte that is not UTF-8 (and every lone surrogate in JSON) becomes one U+FFFD and is counted.
"""

import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from earthworks.corpus.document import Document
from earthworks.corpus.python_docs import WEIGHTS, python_docs
from earthworks.runs import EarthworksError
from earthworks.runs.errors import missing_extra

TEXT_COLUMNS = ("text", "content", "raw_content", "document")
KINDS = (".txt", ".jsonl", ".json", ".parquet")
READABLE = ".txt, .jsonl or .parquet, also with .gz, .xz or .zst"
MAGIC = (  # first bytes of files that are not text; most others betray themselves by a NUL
    (b"%PDF-", "a PDF"),
    (b"\x1f\x8b", "compressed by gzip: give its name the ending .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: give its name the ending .zst"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz: give its name the ending .xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file: give its name the ending .parquet"),
    (b"\xff\xfe", "UTF-16 text: convert it, for instance by iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text: convert it, for instance by iconv -f UTF-16 -t UTF-8"),
)
FIRST_BLOCK = 1 << 16
ROWS = 1024  # rows of a Parquet file held at once, beside the row group's compressed columns


@dataclass(slots=True)
class Reading:
    """What was counted while reading; `notice` says what the person should know of it."""

    documents: int = 0
    bytes: int = 0
    replaced_bytes: int = 0
    skipped_files: int = 0
    empty_documents: int = 0

    def notice(self) -> str | None:
        """One line on what was replaced or left out, or None when nothing was."""
        counts = (
            (self.replaced_bytes, "undecodable bytes became U+FFFD"),
            (self.skipped_files, f"files were passed over (not {READABLE})"),
            (self.empty_documents, "empty documents were left out"),
        )
        parts = [f"{count:,} {what}" for count, what in counts if count]
        return "; ".join(parts) if parts else None


def read(data: str, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one source, in an order that depends on nothing but the source. Empty texts are left out.

    `data`: a file, a folder, `-` (standard input, plain text, one document), `hf:NAME[:CONFIG][:SPLIT]` (a data set of
    the Hugging Face Hub, or a local folder of one; the split is `train` unless given, as in `hf:NAME::test`), a URL of
    fsspec such as `s3://...`, `python-docs`, `python-docs/prose` or `python-docs/code`.

    The text of a record is its field `text`, else `content`, `raw_content` or `document`; `id` and `source` are taken
    from the record when they are there, else made from the file's name and the number of the line or row.
    Memory: one document, for .parquet one row group's columns. Raises EarthworksError for what cannot be read.
    """
    reading = Reading() if reading is None else reading
    found = False
    for document in documents(data, reading):
        if not document.text:
            reading.empty_documents += 1
            continue
        found = True
        reading.documents += 1
        reading.bytes += len(document.text.encode())
        yield document
    if not found:
        raise EarthworksError(f"{data} holds no text: a corpus needs at least one document that is not empty")


def documents(data: str, reading: Reading) -> Iterator[Document]:
    """The documents of one source, whatever its kind."""
    if data == "-":
        yield Document("-", decode(text_bytes(standard_input(), "standard input"), reading), "-")
    elif data.split("/")[0] == "python-docs" and not Path(data).exists():
        for subset in python_docs_subsets(data):
            yield from python_docs(subset)
    elif data.startswith("hf:"):
        yield from read_hugging_face(data, reading)
    else:
        yield from read_files(data, reading)


@cache
def standard_input() -> bytes:
    """Everything on standard input, kept, because a corpus is read more than once."""
    return sys.stdin.buffer.read()


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


def read_files(location: str, reading: Reading) -> Iterator[Document]:
    """One file, or a folder to its depth."""
    files, path = file_system(location)
    if files.isfile(path):
        if kind_of(path) is None:
            raise EarthworksError(
                f"{location} is of no kind that can be read: expected {READABLE} (plain text can come through `-`)"
            )
        yield from read_file(files, path, PurePosixPath(path).name, reading)
        return
    if not files.isdir(path):
        raise EarthworksError(f"{location} does not exist")
    root = str(files.info(path)["name"])
    names = {PurePosixPath(name).relative_to(root).as_posix(): name for name in files.find(path)}
    readable = 0
    for relative in sorted(names):
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        if kind_of(relative) is None:
            reading.skipped_files += 1
            continue
        readable += 1
        yield from read_file(files, names[relative], relative, reading)
    if not readable:
        raise EarthworksError(f"{location} holds nothing that can be read: expected files of kind {READABLE}")


def kind_of(name: str) -> str | None:
    """The suffix that says how to read a file, below .gz, .xz or .zst; None for other files."""
    name = name.lower().removesuffix(".gz").removesuffix(".xz").removesuffix(".zst")
    return next((kind for kind in KINDS if name.endswith(kind)), None)


def read_file(files: Any, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """The documents of one file; `name` is what its documents are called after."""
    try:
        with files.open(path, "rb") as raw:
            stream = decompressed(raw, path)
            kind = kind_of(path)
            if kind == ".txt":
                yield Document(name, decode(text_bytes(stream.read(), path), reading), name)
            elif kind == ".parquet":
                yield from read_parquet(raw if stream is raw else io.BytesIO(stream.read()), path, name, reading)
            else:
                yield from read_lines(stream, path, name, reading)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise EarthworksError(f"{path} cannot be decompressed ({error}); it is damaged or cut short") from None
    except OSError as error:
        raise EarthworksError(f"{path} cannot be read: {error.strerror or error}") from None


def decompressed(raw: Any, path: str) -> BinaryIO:
    """The stream without its .gz, .xz or .zst."""
    if path.lower().endswith(".gz"):
        return gzip.open(raw, "rb")  # type: ignore[return-value]
    if path.lower().endswith(".xz"):
        return lzma.open(raw, "rb")  # type: ignore[return-value]
    if path.lower().endswith(".zst"):
        import pyarrow  # zstandard's own reader takes a file that was cut short for a complete one

        return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), FIRST_BLOCK)  # type: ignore[arg-type]
    return raw


def text_bytes(content: bytes, path: str) -> bytes:
    """`content`, if it can be text."""
    for magic, what in MAGIC:
        if content.startswith(magic):
            raise EarthworksError(f"{path} is not plain text but {what}")
    if b"\0" in content[:FIRST_BLOCK]:
        raise EarthworksError(f"{path} is a binary file (it holds NUL bytes); expected UTF-8 text")
    return content


def decode(content: bytes, reading: Reading) -> str:
    """UTF-8 without its byte-order mark; each undecodable byte becomes one U+FFFD and is counted."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return without_surrogates(content.decode(errors="surrogateescape"), reading)


def without_surrogates(text: str, reading: Reading) -> str:
    """Lone surrogates, which no UTF-8 can hold, replaced by U+FFFD and counted."""
    text, count = re.subn("[\ud800-\udfff]", "\ufffd", text)
    reading.replaced_bytes += count
    return text


def read_lines(stream: BinaryIO, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """One JSON object per line; blank lines are passed over."""
    for number, line in enumerate(stream, 1):
        if number == 1:
            text_bytes(line, path)
        if line.strip():
            yield record_document(
                json_object(line, f"line {number} of {path}", reading), f"{name}:{number}", name, path
            )


def json_object(line: bytes, where: str, reading: Reading) -> dict[str, Any]:
    """The object on a line; what orjson refuses (bad UTF-8, lone surrogates, NaN) goes through the standard parser."""
    import orjson

    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            loose = json.loads(decode(line, reading))
        except ValueError as error:
            raise EarthworksError(f"{where} is not JSON ({error}); expected one object per line") from None
        record = json.loads(without_surrogates(json.dumps(loose, ensure_ascii=False), reading))
    if not isinstance(record, dict):
        raise EarthworksError(f"{where} is JSON but not an object; expected one object per line, with a field text")
    return record


def record_document(record: dict[str, Any], number: str, name: str, where: str) -> Document:
    """The Document of a record, whose other fields become its metadata."""
    column = text_column(list(record), where)
    text = record.pop(column)
    if text is None:
        text = ""
    elif not isinstance(text, str):
        raise EarthworksError(f"the field {column} of {where} holds {type(text).__name__}, not text ({number})")
    id, source = record.pop("id", None), record.pop("source", None)
    return Document(number if id is None else str(id), text, name if source is None else str(source), record)


def text_column(columns: list[str], where: str) -> str:
    """The first of TEXT_COLUMNS that is there."""
    for column in TEXT_COLUMNS:
        if column in columns:
            return column
    raise EarthworksError(
        f"{where} has the fields {', '.join(columns) or '(none)'}; expected the text in one called "
        + ", ".join(TEXT_COLUMNS[:-1])
        + f" or {TEXT_COLUMNS[-1]}"
    )


def read_parquet(stream: Any, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """The rows of a Parquet file; only the columns of text, id and source are read."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(stream)
        columns = file.schema_arrow.names
        wanted = [text_column(columns, path), *(column for column in ("id", "source") if column in columns)]
        row = 0
        for batch in file.iter_batches(ROWS, columns=wanted):
            for record in batch.to_pylist():
                if isinstance(record[wanted[0]], bytes):
                    record[wanted[0]] = decode(record[wanted[0]], reading)
                yield record_document(record, f"{name}:{row}", name, path)
                row += 1
    except pyarrow.ArrowException as error:
        raise EarthworksError(f"{path} is not a readable Parquet file ({first_line(error)})") from None


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


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
