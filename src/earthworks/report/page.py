"""One HTML file about one run or several: no script, no network, readable in light, dark and print.

pages/ has the content for each kind of run, assembly.py selects the runs; this module builds the page. Everything in a
run folder is untrusted text: it is cut to what a page can show, its control characters are made visible, Jinja escapes
it, and the page forbids scripts.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from earthworks import __version__
from earthworks.report.numbers import cut_to, readable
from earthworks.runs import RunFolder

if TYPE_CHECKING:
    from earthworks.report.figures import Drawing

LONGEST = 20_000  # characters of one text on a page
MOST_ROWS = 2_000  # of a table


@dataclass
class Table:
    """Rows of text under a header; the first cell of a row names it. `empty` is shown if there are no rows."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = ""
    kind: str = "numbers"  # "words": set as code, left-aligned; "settings": the same, collapsed
    macro: ClassVar[str] = "table"


@dataclass
class Texts:
    """Titled, collapsible texts with whitespace preserved; the last is open."""

    texts: Sequence[tuple[str, str]]
    macro: ClassVar[str] = "texts"


@dataclass
class Coloured:
    """A text in pieces, each with the class of its colour and its tooltip."""

    title: str
    legend: Sequence[str]
    pieces: Sequence[tuple[str, int, str]]
    macro: ClassVar[str] = "coloured"


@dataclass
class Passages:
    """Titled texts side by side, in pieces of which some are marked."""

    columns: Sequence[tuple[str, Sequence[tuple[str, bool]]]]
    macro: ClassVar[str] = "passages"


@dataclass
class Veiled:
    """Titled texts that may offend: collapsed, and each blurred until clicked, without a script."""

    title: str
    texts: Sequence[tuple[str, str]]
    macro: ClassVar[str] = "veiled"


@dataclass
class Section:
    """A section of the page; `note` explains how to read it, including units."""

    title: str
    note: str
    parts: Sequence["Drawing | Table | Texts | Coloured | Passages | Veiled"]


@dataclass
class Page:
    """Content of a page: a headline, a few numbers, sections."""

    title: str
    verdict: str
    tiles: Sequence[tuple[str, str, str]]  # label, number, remark
    sections: list[Section] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # to other pages: name, location
    left_out: list[str] = field(default_factory=list)  # sentences on what could not be used

    @property
    def drawings(self) -> list["Drawing"]:
        """The figures of all sections."""
        from earthworks.report.figures import Drawing

        return [part for section in self.sections for part in section.parts if isinstance(part, Drawing)]


def common_folder(folders: Sequence[RunFolder]) -> Path:
    """The innermost folder that holds every run."""
    return Path(os.path.commonpath([folder.path.resolve().parent for folder in folders]))


def names(folders: Sequence[RunFolder]) -> list[str]:
    """Name of each run: that of its folder, or its path below the common folder if two share a name."""
    short = [folder.path.resolve().name for folder in folders]
    if len(set(short)) == len(short):
        return short
    return [str(folder.path.resolve().relative_to(common_folder(folders))) for folder in folders]


def render(page: Page) -> str:
    """The page as HTML."""
    import jinja2

    from earthworks.report.figures import PALETTE

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("earthworks", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=for_reading,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    template = environment.get_template("page.html")
    html = template.render(page=page, palette=PALETTE, style=style, version=__version__, most=MOST_ROWS)
    return re.sub("[\ud800-\udfff]", "\ufffd", html)  # file names need not be UTF-8, pages must be


def for_reading(value: Any) -> Any:
    """A value for the template: readable text, cut if it is too long for a page."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return cut_to(readable(value), LONGEST)
