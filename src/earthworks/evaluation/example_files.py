"""Data files for bias and toxicity: find them by name, decompress them and check their fields."""

import csv
import math
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from earthworks.corpus.readers.streams import blocks
from earthworks.runs import EarthworksError
from earthworks.runs.files import read_regular
from earthworks.runs.json_files import parse_json

ENDINGS = ("", ".gz", ".xz", ".zst")
LARGEST = 1 << 30  # bytes of a file, compressed and uncompressed


def bias_folder(data: str | Path) -> Path:
    """`data`, or its subfolder `bias` if there is one."""
    folder = Path(data)
    if not folder.is_dir():
        raise EarthworksError(f"--data {data} is not a folder; expected one with winogender/, bbq/ etc.")
    return folder / "bias" if (folder / "bias").is_dir() else folder


def find(folder: Path, name: str) -> Path:
    """The file of that name, compressed or not."""
    for ending in ENDINGS:
        if (folder / (name + ending)).is_file():
            return folder / (name + ending)
    raise EarthworksError(f"{folder / name} does not exist (nor with the ending {', '.join(ENDINGS[1:])})")


def stem(path: Path) -> str:
    """`Age.jsonl.gz` -> `Age`."""
    return path.name.split(".")[0]


def text_of(path: Path) -> str:
    """The whole file as text; bytes that are not UTF-8 become U+FFFD."""
    parts, size = [], 0
    for block in blocks(BytesIO(read_regular(path, LARGEST)), str(path)):
        parts.append(block)
        size += len(block)
        if size > LARGEST:
            raise EarthworksError(f"{path} holds more than {LARGEST >> 20:,} MiB of text; expected a file of examples")
    return b"".join(parts).decode("utf-8-sig", errors="replace")


def lines_of(path: Path) -> list[str]:
    """The non-empty lines, stripped."""
    return [line.strip() for line in text_of(path).split("\n") if line.strip()]


def json_of(text: str, where: str) -> Any:
    """Parse JSON from a user's file; `where` names file and line. Excessive nesting raises an EarthworksError."""
    try:
        return parse_json(text)
    except ValueError as error:
        deep = ", it is nested too deeply" if "nested" in str(error) else ""
        raise EarthworksError(f"{where} is not JSON{deep}") from None


def records_of(path: Path, *fields: str, other: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The records of a .jsonl, .csv or .tsv file; `fields` must hold text, `other` must not be empty."""
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        records = table_of(text_of(path), "\t" if ".tsv" in name else ",", path)
    else:
        lines = enumerate(text_of(path).split("\n"), 1)
        records = [(number, json_of(line, f"line {number} of {path}")) for number, line in lines if line.strip()]
    if not records:
        raise EarthworksError(f"{path} has no records")
    for place, (number, record) in enumerate(records, 1):
        if not isinstance(record, dict):
            raise EarthworksError(f"line {number} of {path} is not an object with fields")
        for field in (*fields, *other):
            if record.get(field) is None or not str(record[field]).strip():
                raise EarthworksError(f"record {place} of {path} has an empty field {field}")
        for field in fields:
            if not isinstance(record[field], str):
                shown = str(record[field])[:40]
                raise EarthworksError(f"record {place} of {path} has {shown} in the field {field}; expected text")
    return [record for _, record in records]


def table_of(text: str, separator: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a .csv or .tsv file, keyed by its header row, each with the number of its last line."""
    csv.field_size_limit(LARGEST)  # a text may be a whole book; Python's own limit is 128 KiB
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator)
    try:
        header = next(reader, [])
        rows = []
        for row in reader:
            if any(row[len(header) :]):
                raise EarthworksError(
                    f"line {reader.line_num} of {path} has {len(row)} fields, but the header has {len(header)}: quote "
                    "texts that contain the separator"
                )
            if row:
                rows.append((reader.line_num, dict(zip(header, row))))
    except csv.Error as error:
        raise EarthworksError(f"line {reader.line_num} of {path} cannot be read: {error}") from None
    return rows


def number_of(value: Any, where: str) -> float:
    """A finite number from a user's file, possibly written as text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise EarthworksError(f"{where} has {str(value)[:40]}; expected a number")
    return number
