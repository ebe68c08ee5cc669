"""Conversion of bytes to documents (text files, JSON lines, Parquet rows), and the counts of what was read."""

import codecs
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from earthworks.corpus.document import Document, LongDocument
from earthworks.corpus.readers.html_text import extract
from earthworks.corpus.readers.streams import LONGEST_LINE, Unreadable, lines, shown

Bytes = TypeVar("Bytes", bytes, bytearray)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_COLUMNS = ("text", "content", "raw_content", "document")
HTML_COLUMN = "html"
COLUMNS = (*TEXT_COLUMNS, HTML_COLUMN)
KEPT_FAULTS = 1000  # most faults listed; all are counted
READABLE = ".txt, .jsonl, .parquet, .html or .warc, also with .gz, .xz or .zst"
MAGIC = (  # first bytes of files that are not text; most others are detected by a NUL
    (b"%PDF-", "a PDF"),
    (b"\x1f\x8b", "compressed by gzip: rename it to end in .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: rename it to end in .zst"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz: rename it to end in .xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file: rename it to end in .parquet"),
    (b"\xff\xfe", "UTF-16 text: convert it, for instance by iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text: convert it, for instance by iconv -f UTF-16 -t UTF-8"),
)
ROWS = 1024  # most rows of a Parquet file held at once
TEXT_AT_ONCE = 1 << 26  # target for their bytes of text, since documents may be long
PAGES = 1 << 20  # compressed bytes of each column held at once


@dataclass(frozen=True, slots=True)
class Fault:
    """A record or file that was skipped: the file, with the line, row or record if there is one, and the reason."""

    where: str
    what: str


@dataclass(slots=True)
class Reading:
    """Counts made while reading; `notice` reports those that the user should know.

    `tolerant`: a bad record, or the rest of a file after damage, is skipped, counted in `num_faults` and listed in
    `faults` (the first 1,000). Otherwise it raises.
    """

    documents: int = 0
    bytes: int = 0
    replaced_bytes: int = 0
    skipped_files: int = 0
    empty_documents: int = 0
    other_records: int = 0
    num_faults: int = 0
    faults: list[Fault] = field(default_factory=list)
    tolerant: bool = False

    def notice(self) -> str | None:
        """One line on what was replaced or skipped; None if nothing was."""
        counts = (
            (self.replaced_bytes, "undecodable bytes became U+FFFD"),
            (self.skipped_files, f"files were skipped (not {READABLE})"),
            (self.other_records, "WARC records were skipped (not a successful HTML response)"),
            (self.empty_documents, "empty documents were skipped"),
            (self.num_faults, "records or files could not be read"),
        )
        parts = [f"{count:,} {what}" for count, what in counts if count]
        return "; ".join(parts) if parts else None

    def fault(self, where: str, error: Unreadable) -> None:
        """Record the error, or raise it."""
        if not self.tolerant:
            raise error from None
        self.num_faults += 1
        if len(self.faults) < KEPT_FAULTS:
            self.faults.append(Fault(shown(where), str(error)))


def counted(found: Iterable[Document | LongDocument], reading: Reading) -> Iterator[Document | LongDocument]:
    """The non-empty documents. The bytes of a long one are counted as its blocks are read."""
    for document in found:
        if isinstance(document, Document):
            text = document.text
            if not text:
                reading.empty_documents += 1
                continue
            reading.bytes += len(text) if text.isascii() else len(text.encode())
        reading.documents += 1
        yield document


def text_bytes(content: Bytes, path: str) -> Bytes:
    """Return `content` (possibly only the start of a file), or raise Unreadable if it cannot be text."""
    for magic, what in MAGIC:
        if content.startswith(magic):
            raise Unreadable(f"{path} is not plain text but {what}")
    if b"\0" in content[: 1 << 16]:
        raise Unreadable(f"{path} is a binary file (it contains NUL bytes); expected UTF-8 text")
    return content


def decode(content: Bytes, reading: Reading) -> str:
    """UTF-8 without its byte-order mark; each undecodable byte becomes one U+FFFD and is counted."""
    view = memoryview(content)[len(BYTE_ORDER_MARK) if content.startswith(BYTE_ORDER_MARK) else 0 :]
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        return without_surrogates(str(view, "utf-8", "surrogateescape"), reading)


def decoded_blocks(source: Iterable[bytes], reading: Reading) -> Iterator[str]:
    """`decode` of the concatenated blocks, block by block; their bytes are counted as well."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    for block in itertools.chain(source, [b""]):
        text = decoder.decode(block, not block)
        try:
            reading.bytes += len(text.encode())
        except UnicodeEncodeError:
            text = without_surrogates(text, reading)
            reading.bytes += len(text.encode())
        if text:
            yield text


def without_surrogates(text: str, reading: Reading) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD, and count them."""
    text, count = re.subn("[\ud800-\udfff]", "\ufffd", text)
    reading.replaced_bytes += count
    return text


# JSON lines


def read_lines(source: Iterable[bytes], path: str, name: str, reading: Reading) -> Iterator[Document]:
    """The documents of a JSON-lines file; blank lines are skipped."""
    for number, line in enumerate(lines(source), 1):
        if number == 1 and line is not None:
            text_bytes(line, path)
        if line is not None and (not line or line.isspace()):
            continue
        where = f"line {number} of {path}"
        try:
            if line is None:
                raise Unreadable(f"{where} has more than {LONGEST_LINE:,} bytes")
            document = record_document(json_object(line, where, reading), f"{name}:{number}", name, where)
        except Unreadable as error:
            reading.fault(f"{path}, line {number}", error)
            continue
        yield document


def json_object(line: bytes, where: str, reading: Reading) -> dict[str, Any]:
    """The object on a line; input refused by orjson (bad UTF-8, lone surrogates, NaN) goes to the standard parser."""
    import orjson

    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        text = decode(line, reading)
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            try:
                loose = json.dumps(json.loads(text), ensure_ascii=False)
                record = json.loads(without_surrogates(loose, reading))
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"{where} is not JSON ({error}); expected one object per line") from None
    if not isinstance(record, dict):
        raise Unreadable(f"{where} is JSON but not an object; expected one object per line, with a field text")
    return record


def record_document(record: dict[str, Any], number: str, name: str, where: str) -> Document:
    """The Document of a record; its other fields become metadata. Without a text field, the text is extracted from the
    field `html`."""
    column = text_column(record, where)
    text = record.pop(column)
    if text is None:
        text = ""
    elif not isinstance(text, str):
        raise Unreadable(f"the field {column} of {where} holds {type(text).__name__}, not text ({number})")
    elif column == HTML_COLUMN:
        text = extracted(text, record.get("url"), where)
    id, source = record.pop("id", None), record.pop("source", None)
    return Document(number if id is None else str(id), text, name if source is None else str(source), record)


def text_column(columns: Collection[str], where: str) -> str:
    """The first of TEXT_COLUMNS that is present, else `html`."""
    for column in COLUMNS:
        if column in columns:
            return column
    raise Unreadable(
        f"{where} has the fields {', '.join(columns) or '(none)'}; expected the text in one named "
        + ", ".join(TEXT_COLUMNS[:-1])
        + f" or {TEXT_COLUMNS[-1]}, or a web page in one named {HTML_COLUMN}"
    )


def extracted(page: bytes | str, url: Any, where: str, charset: str | None = None) -> str:
    """The text of a web page; "" if there is none."""
    try:
        return extract(page, url if isinstance(url, str) else None, charset) or ""
    except Unreadable as error:
        raise Unreadable(f"{where} cannot be extracted: {error}") from None


# Parquet


def read_parquet(stream: Any, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """The documents of a Parquet file; only the columns for text, id and source (and url with `html`) are read."""

    def wanted(schema: Any) -> list[str]:
        column = text_column(schema.names, path)
        others = ("id", "source", "url") if column == HTML_COLUMN else ("id", "source")
        return [column, *(each for each in others if each in schema.names)]

    for row, record in enumerate(parquet_rows(stream, path, wanted, reading, text=True)):
        where = f"row {row} of {path}"
        column = text_column(record, path)
        try:
            if isinstance(record[column], bytes):
                record[column] = decode(record[column], reading)
            document = record_document(record, f"{name}:{row}", name, where)
        except Unreadable as error:
            reading.fault(f"{path}, row {row}", error)
        else:
            yield document


def parquet_rows(
    stream: Any, path: str, columns: Callable[[Any], list[str]], reading: Reading, *, text: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a few at a time, with the columns that `columns` selects from its schema.

    `text`: the first of these must hold text. Raises Unreadable after the rows before the damage."""
    import pyarrow
    import pyarrow.parquet

    if isinstance(stream, bytearray):
        stream = pyarrow.BufferReader(stream)
    try:
        # a row group, which may be the whole file, comes page by page
        file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=PAGES)
        schema = file.schema_arrow
        wanted = columns(schema)
        for each in wanted:
            if (count := schema.names.count(each)) > 1:
                raise Unreadable(f"{path} has {count} columns named {each}; expected one: rename or drop the others")
        if text and not any(is_kind(schema.field(wanted[0]).type) for is_kind in text_kinds()):
            raise Unreadable(f"the field {wanted[0]} of {path} holds {schema.field(wanted[0]).type}, not text")
        for batch in file.iter_batches(rows_at_once(file.metadata, wanted, path), columns=wanted):
            yield from records(batch, reading)
    except Unreadable:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError) as error:
        # the last four from values that no Python type can represent, such as dates after the year 9999
        raise Unreadable(f"{path} is not a readable Parquet file ({first_line(error)})") from None


def rows_at_once(metadata: Any, columns: list[str], path: str) -> int:
    """Number of rows with about TEXT_AT_ONCE bytes in these columns according to the file's metadata, at most ROWS."""
    prefixes = tuple(f"{column}." for column in columns)
    largest = 1.0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        parts = map(group.column, range(group.num_columns))
        size = sum(each.total_uncompressed_size for each in parts if f"{each.path_in_schema}.".startswith(prefixes))
        largest = max(largest, size / max(group.num_rows, 1))
    if largest > LONGEST_LINE:
        raise Unreadable(f"{path} has rows of more than {LONGEST_LINE:,} bytes of text")
    return max(1, min(ROWS, int(TEXT_AT_ONCE / largest)))


def text_kinds() -> list[Any]:
    import pyarrow.types as kinds

    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "dictionary", "null")
    return [getattr(kinds, f"is_{name}") for name in names if hasattr(kinds, f"is_{name}")]


def records(batch: Any, reading: Reading) -> list[dict[str, Any]]:
    """The rows of a batch, even if strings are not UTF-8, which Arrow does not check."""
    import pyarrow

    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        plain = [each.dictionary_decode() if pyarrow.types.is_dictionary(each.type) else each for each in batch.columns]
        textual = [any(is_kind(each.type) for is_kind in text_kinds()) for each in plain]
        columns = [
            [value if value is None else decode(value, reading) for value in column.cast("large_binary").to_pylist()]
            if is_text
            else column.to_pylist()
            for column, is_text in zip(plain, textual)
        ]
        return [dict(zip(batch.schema.names, values)) for values in zip(*columns)]


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
