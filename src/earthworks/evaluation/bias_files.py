"""The files that bias and toxicity are measured on: found by name, compressed or not, their fields checked."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from earthworks.corpus.streams import blocks
from earthworks.runs import EarthworksError

ENDINGS = ("", ".gz", ".xz", ".zst")


def bias_folder(data: str | Path) -> Path:
    """`data`, or its folder `bias` where it has one."""
    folder = Path(data)
    if not folder.is_dir():
        raise EarthworksError(f"--data {data} is not a folder; expected one that holds winogender/, bbq/ and the like")
    return folder / "bias" if (folder / "bias").is_dir() else folder


def find(folder: Path, name: str) -> Path:
    """The file of that name, also compressed."""
    for ending in ENDINGS:
        if (folder / (name + ending)).is_file():
            return folder / (name + ending)
    raise EarthworksError(f"{folder / name} is not there (nor with {', '.join(ENDINGS[1:])})")


def stem(path: Path) -> str:
    """`Age.jsonl.gz` -> `Age`."""
    return path.name.split(".")[0]


def text_of(path: Path) -> str:
    """The whole file as text; bytes that are not UTF-8 become U+FFFD."""
    try:
        with open(path, "rb") as raw:
            return b"".join(blocks(raw, str(path))).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise EarthworksError(f"{path} cannot be read: {error}") from None


def lines_of(path: Path) -> list[str]:
    """Lines with something on them, stripped."""
    return [line.strip() for line in text_of(path).split("\n") if line.strip()]


def records_of(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The records of a .jsonl, .csv or .tsv file, each with something in all of these fields."""
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        separator = "\t" if ".tsv" in name else ","
        records: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text_of(path)), delimiter=separator))
    else:
        records = []
        for number, line in enumerate(text_of(path).split("\n"), 1):
            if not line.strip():
                continue
            try:
                records.append(json.loads(line))
            except ValueError:
                raise EarthworksError(f"line {number} of {path} is not JSON") from None
    if not records:
        raise EarthworksError(f"{path} holds no records")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise EarthworksError(f"record {number} of {path} is not an object with fields")
        for field in fields:
            if record.get(field) is None or not str(record[field]).strip():
                raise EarthworksError(f"record {number} of {path} has nothing in the field {field}")
    return records
