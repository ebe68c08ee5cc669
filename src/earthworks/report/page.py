"""One HTML file about one run or several: no script, no network, readable in light, dark and print.

What a page says of a kind of run is in pages/, which runs it is about in assembly.py; this file knows how a page is put
together. Everything that a run folder holds is untrusted text: it is cut to what a page can show, control characters in
it are made visible, Jinja escapes it, and the page forbids itself scripts.
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
    """Rows of text under a header; the first cell of a row names it. `empty` is shown when there are no rows."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = ""
    kind: str = "numbers"  # "words": set as code, flush left; "settings": the same, and folded away
    macro: ClassVar[str] = "table"


@dataclass
class Texts:
    """Titled texts that open and close, whitespace kept; the last is open."""

    texts: Sequence[tuple[str, str]]
    macro: ClassVar[str] = "texts"


@dataclass
class Coloured:
    """A text in pieces, each with the class of its colour and the words shown when the pointer rests on it."""

    title: str
    legend: Sequence[str]
    pieces: Sequence[tuple[str, int, str]]
    macro: ClassVar[str] = "coloured"


@dataclass
class Passages:
    """Texts beside one another, each titled and in pieces of which some are marked."""

    columns: Sequence[tuple[str, Sequence[tuple[str, bool]]]]
    macro: ClassVar[str] = "passages"


@dataclass
class Veiled:
    """Titled texts that may offend: folded away, and each blurred until it is clicked; no script is needed for it."""

    title: str
    texts: Sequence[tuple[str, str]]
    macro: ClassVar[str] = "veiled"


@dataclass
class Section:
    """A headed part of the page; `note` says how to read it, units included."""

    title: str
    note: str
    parts: Sequence["Drawing | Table | Texts | Coloured | Passages | Veiled"]


@dataclass
class Page:
    """What a kind of run has to say: a headline, a few numbers, sections."""

    title: str
    verdict: str
    tiles: Sequence[tuple[str, str, str]]  # what it is, the number, a remark
    sections: list[Section] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # to other pages: what to call them, where they are
    left_out: list[str] = field(default_factory=list)  # sentences about what could not be used

    @property
    def drawings(self) -> list["Drawing"]:
        """The figures of all sections."""
        from earthworks.report.figures import Drawing

        return [part for section in self.sections for part in section.parts if isinstance(part, Drawing)]


def common_folder(folders: Sequence[RunFolder]) -> Path:
    """The innermost folder that holds every run."""
    return Path(os.path.commonpath([folder.path.resolve().parent for folder in folders]))


def names(folders: Sequence[RunFolder]) -> list[str]:
    """What to call each run: its folder's name, or its path below the common folder when two share a name."""
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
    return re.sub("[\ud800-\udfff]", "\ufffd", html)  # names of files need not be UTF-8, pages are


def for_reading(value: Any) -> Any:
    """What the template shows of a value: text made readable, and cut where it is longer than a page can show."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return cut_to(readable(value), LONGEST)
