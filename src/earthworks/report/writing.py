"""Pages and figures are written over those that Earthworks wrote, and over nobody else's.

A page carries `<meta name="generator" content="Earthworks ...">`, a figure the text chunk Software. What has neither is a
person's: a page is then refused, with what to do; a figure stays away, as the page holds the drawing anyway.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from earthworks.runs import EarthworksError, write_bytes
from earthworks.runs.files import read_beginning
from earthworks.runs.progress import note

PAGE_MARKS = (b'<meta name="generator" content="Earthworks ', " · Earthworks</title>".encode())  # the second until 0.1
FIGURE_MARKS = (b"tEXtSoftware\0Earthworks ",)
HEAD = 1 << 16  # bytes at the beginning in which a mark is looked for


def refuse_foreign(path: str | Path, marks: tuple[bytes, ...] = PAGE_MARKS) -> None:
    """EarthworksError when a file is at `path` that Earthworks did not write: to be called before any work."""
    if os.path.lexists(path) and not is_marked(Path(path), marks):
        raise EarthworksError(
            f"{path} exists already and is not a file that Earthworks wrote: choose another name, or move it away"
        )


def is_marked(path: Path, marks: tuple[bytes, ...]) -> bool:
    """Whether a regular file, not a link to one, has one of the marks near its beginning."""
    try:
        head = read_beginning(path, HEAD)
    except EarthworksError:
        return False
    return any(mark in head for mark in marks)


def write_page(path: str | Path, html: str) -> Path:
    """Write a page, over one that Earthworks wrote if there is one; EarthworksError where another file is."""
    path = Path(path)
    refuse_foreign(path)
    write_bytes(path, html.encode(), new=not os.path.lexists(path))
    return path


def write_figures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write each as FOLDER/NAME.png; a person's own file of that name stays, and that is said."""
    if folder.is_symlink():
        raise EarthworksError(
            f"{folder} is a link: figures are written into a folder of the run itself, remove the link"
        )
    for name, png in pictures.items():
        path = folder / f"{name}.png"
        there = os.path.lexists(path)
        if there and not is_marked(path, (*FIGURE_MARKS, b"tEXtTitle\0" + name.encode())):  # the second until 0.1
            note(f"notice: {path} is not a figure that Earthworks wrote: it stays as it is")
            continue
        write_bytes(path, png, new=not there)
