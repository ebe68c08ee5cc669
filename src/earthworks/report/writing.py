"""Write pages and figures, overwriting only those that Earthworks wrote.

A page carries `<meta name="generator" content="Earthworks ...">`, a figure the text chunk Software. Files without these
marks are the user's: a page is then refused with an error; a figure is skipped, because the page includes it anyway.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from earthworks.runs import EarthworksError, write_bytes
from earthworks.runs.files import read_beginning
from earthworks.runs.progress import note

PAGE_MARKS = (b'<meta name="generator" content="Earthworks ', " · Earthworks</title>".encode())  # the second until 0.1
FIGURE_MARKS = (b"tEXtSoftware\0Earthworks ",)
HEAD = 1 << 16  # number of leading bytes searched for a mark


def refuse_foreign(path: str | Path, marks: tuple[bytes, ...] = PAGE_MARKS) -> None:
    """EarthworksError if `path` exists and was not written by Earthworks; call this before any work."""
    if os.path.lexists(path) and not is_marked(Path(path), marks):
        raise EarthworksError(
            f"{path} already exists and was not written by Earthworks: choose another name, or move it away"
        )


def is_marked(path: Path, marks: tuple[bytes, ...]) -> bool:
    """Whether a regular file, not a link, has one of the marks near its start."""
    try:
        head = read_beginning(path, HEAD)
    except EarthworksError:
        return False
    return any(mark in head for mark in marks)


def write_page(path: str | Path, html: str) -> Path:
    """Write a page, overwriting only one that Earthworks wrote; EarthworksError for any other file."""
    path = Path(path)
    refuse_foreign(path)
    write_bytes(path, html.encode(), new=not os.path.lexists(path))
    return path


def write_figures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write each as FOLDER/NAME.png; a user's own file of that name is kept, with a notice."""
    if folder.is_symlink():
        raise EarthworksError(
            f"{folder} is a link, but figures are written into a folder of the run itself: remove the link"
        )
    for name, png in pictures.items():
        path = folder / f"{name}.png"
        there = os.path.lexists(path)
        if there and not is_marked(path, (*FIGURE_MARKS, b"tEXtTitle\0" + name.encode())):  # the second until 0.1
            note(f"notice: {path} was not written by Earthworks and is kept as it is")
            continue
        write_bytes(path, png, new=not there)
