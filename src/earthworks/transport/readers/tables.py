"""Reader of points from a .csv file, one per row; column names and an index are not coordinates."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earthworks.runs import EarthworksError
from earthworks.runs.files import open_regular
from earthworks.runs.memory import refuse_beyond_memory
from earthworks.runs.progress import note

PANDAS = "Unnamed: "  # pandas' name for an unnamed column
INDEX_NAMES = ("index", "id", "idx", "row")  # ambiguous: an index or a coordinate
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
BYTES_A_BYTE = 25  # of memory for each byte of a file of short numbers: 2.5 GB for 100 MB
FEW_COLUMNS, FEW_ROWS = 4, 3  # fewer could be a point of integers, or count by chance


def read_csv(path: Path) -> np.ndarray:
    """The numbers (n, d) of a table; prints a notice for skipped column names and a skipped index.

    Cells are separated by commas, or by semicolons or tabs where the first line has them; there commas are decimal,
    except that tables with tabs in which every comma may separate thousands are refused. Names: a first row
    without any number, or of 0, 1, ..., d - 1. Index: a column that has no name and counts from 0 or from 1. Raises
    EarthworksError for ambiguous tables, with the way to resolve them, and for a cell that is not a number.
    """
    if path.is_file():
        refuse_beyond_memory(f"the table {path} (a .npy file takes a twentieth)", BYTES_A_BYTE * path.stat().st_size)
    rows = list(cells(path))
    if not rows:
        raise EarthworksError(f"{path} is empty: it holds no row of numbers")
    names, notices = None, []
    if is_header(path, rows):
        names = rows.pop(0)[1]
        if all(is_number(name) for name in names[1:] or names):
            notices.append(f"its first line, {','.join(names)[:40]!r}, as column names")
    if not rows:
        raise EarthworksError(f"{path} is empty: it holds no row of numbers")
    width = len(names) if names is not None else len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise EarthworksError(
                f"line {line} of {path} has {len(row)} numbers; the {'first line' if names else 'lines above'} {width}"
            )
    values = numbers(path, rows, names)
    if is_index(path, rows, names, values):
        notices.append("its first column, which counts the rows, as an index")
        values = values[:, 1:]
    if not values.shape[1]:
        raise EarthworksError(f"{path} holds an index but no coordinates")
    for notice in notices:
        note(f"notice: {path}: took {notice}, not as coordinates")
    return np.ascontiguousarray(values)


def cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, its cells without surrounding spaces) of every line that is not blank."""
    try:
        with open_regular(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            first = next((line for line in text if line.strip()), "")
            text.seek(0)
            delimiter = next((each for each in ";\t" if each in first), ",")
            reader = csv.reader(text, delimiter=delimiter)
            doubtful, decimal = "", False
            for row in reader:
                found = [cell.strip() for cell in row]
                for cell in (each for each in found if delimiter == "\t" and "," in each):
                    if THOUSANDS.fullmatch(cell):
                        doubtful = doubtful or f"line {reader.line_num} of {path} has the cell {cell[:40]!r}"
                    else:
                        decimal = decimal or is_number(cell.replace(",", "."))
                if any(found):
                    yield reader.line_num, found if delimiter == "," else decimal_points(path, reader.line_num, found)
            if doubtful and not decimal:
                raise EarthworksError(
                    f"{doubtful}, whose comma may separate thousands: remove thousands separators, or write "
                    "decimal points"
                )
    except (UnicodeDecodeError, csv.Error):
        raise EarthworksError(f"{path} is not a text file of numbers separated by commas") from None


def decimal_points(path: Path, line: int, row: list[str]) -> list[str]:
    """The cells with decimal commas as points; "1.234,5" and "1,234,567" have thousands separators, and are refused."""
    for cell in row:
        if cell.count(",") > 1 or ("," in cell and "." in cell and is_number(cell.replace(",", ""))):
            raise EarthworksError(f"line {line} of {path} has the cell {cell[:40]!r}: remove thousands separators")
    return [point if is_number(point := cell.replace(",", ".")) else cell for cell in row]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_whole(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal()


def is_header(path: Path, rows: list[tuple[int, list[str]]]) -> bool:
    """Whether the first row holds names. Raises EarthworksError where it may be names or a point."""
    line, row = rows[0]
    numeric = [is_number(cell) for cell in row]
    if not any(numeric):
        return True
    counted = [str(k) for k in range(len(row))]
    if not numeric[0] and (row[0] == "" or row[0].startswith(PANDAS)) and row[1:] == counted[:-1]:
        return True  # columns numbered by pandas, after its index
    if not all(numeric):
        raise EarthworksError(
            f"line {line} of {path} is neither all numbers nor all names: {','.join(row)[:60]!r}; give every column "
            "a name, or every cell a number"
        )
    if row != counted:
        return False
    if len(row) < FEW_COLUMNS and all(is_whole(cell) for _, each in rows[1:] for cell in each):
        if len(rows) == 1:
            return False
        raise EarthworksError(
            f"line {line} of {path}, {','.join(row)!r}, may be column names or a point: use words as names, or write "
            "the point as 0.0,..."
        )
    return True


def numbers(path: Path, rows: list[tuple[int, list[str]]], names: list[str] | None) -> np.ndarray:
    """(n, d) float64. Raises EarthworksError for the first cell that is not a number."""
    try:
        if any("_" in cell for _, row in rows for cell in row):
            raise ValueError
        return np.array([[float(cell) for cell in row] for _, row in rows])
    except ValueError:
        line, column, cell = next(
            (line, k, cell) for line, row in rows for k, cell in enumerate(row) if not is_number(cell)
        )
        where = f"column {names[column] if names and names[column] else column + 1}"
        what = "is missing" if not cell else f"is {cell[:40]!r}"
        raise EarthworksError(
            f"line {line} of {path} is not all numbers: {where} {what}; remove such rows, or columns of text"
        ) from None


def is_index(path: Path, rows: list[tuple[int, list[str]]], names: list[str] | None, values: np.ndarray) -> bool:
    """Whether the first column is an index. Raises EarthworksError where it may be one."""
    counts = all(is_whole(row[0]) for _, row in rows) and any(
        bool((values[:, 0] == np.arange(start, start + len(values))).all()) for start in (0, 1)
    )
    if names is not None:
        unnamed = [k for k, name in enumerate(names) if not name or name.startswith(PANDAS)]
        if unnamed == [0] and counts:
            return True
        if unnamed:
            raise EarthworksError(
                f"column {unnamed[0] + 1} of {path} has no name and does not count the rows: name it if it is a coordinate, "
                "or remove it if it is an index"
            )
        if not counts or len(names) == 1 or names[0].lower() not in INDEX_NAMES:
            return False
    elif not counts or len(rows) < FEW_ROWS or values.shape[1] == 1:
        return False
    raise EarthworksError(
        f"the first column of {path} counts its rows and may be an index: remove it, or, if it is a coordinate, add a "
        "first line that names all columns, such as time,x"
    )
