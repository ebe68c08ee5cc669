"""One HTML file about one run or several: no script, no network, readable in light, dark and print.

The kind of a run (`kind` in its config.yaml) names the file that knows what to show; this one knows how a page is put
together. Everything that a run folder holds is untrusted text: it is cut to what a page can show, control characters in
it are made visible, Jinja escapes it, and the page forbids itself scripts.
"""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from earthworks import __version__
from earthworks.report.numbers import cut_to, flatten, readable, setting
from earthworks.report.reading import Reading
from earthworks.report.writing import refuse_foreign, write_figures, write_page
from earthworks.runs import EarthworksError, RunFolder, lock
from earthworks.runs.lock import PATIENCE
from earthworks.runs.progress import note
from earthworks.runs.settings import changed_settings

if TYPE_CHECKING:
    from earthworks.report.figures import Drawing

# kind -> module with `describe(run) -> Page` and `compare(runs) -> Page`; imported when asked for, as they draw.
KINDS = {"gopher": "earthworks.report.language_model", "wgan": "earthworks.report.generative"}
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


def write_report(runs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the page about `runs` and return where it is.

    One run: RUN/report.html, and each figure as RUN/figures/NAME.png. Several runs of one kind: a comparison, by
    default report.html in the innermost folder that holds them all. What a run has not written yet is left out, so a
    run that is still going, or was killed at its first step, has a page too.
    Raises EarthworksError when a folder holds no run or a kind of run that has no page, a run is named twice, or the
    kinds differ.
    """
    folders = [RunFolder.open(path) for path in runs]
    if not folders:
        raise EarthworksError("no run was named: earthworks report RUN [RUN ...]")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise EarthworksError(f"a run is named twice among {', '.join(map(str, runs))}: name each once")
    module = importlib.import_module(KINDS[common_kind(folders)])
    single = len(folders) == 1
    target = Path(output or (folders[0].report if single else common_folder(folders) / "report.html"))
    refuse_foreign(target)
    readings = [Reading(folder) for folder in folders]
    page: Page = module.describe(readings[0]) if single else module.compare(readings)
    if single:
        page.sections += about(readings[0])
    html = finished(page, readings)
    with nullcontext() if output or not single else lock(folders[0].path, "report.html", patience=PATIENCE):
        if single:
            write_figures(folders[0].figures, {drawing.name: drawing.png for drawing in page.drawings})
        return write_page(target, html)


def write_joint_report(
    runs: Mapping[str, str | Path], title: str, output: str | Path, pages: Mapping[str, str | Path] | None = None
) -> Path:
    """One page about runs of several kinds, each under the name it is given here: their sections one after the other.

    `pages`: other pages to link to, by what to call them."""
    refuse_foreign(output)
    joint = Page(title, "", [])
    joint.links = [(name, os.path.relpath(path, Path(output).parent)) for name, path in (pages or {}).items()]
    readings = []
    for name, path in runs.items():
        reading = Reading(RunFolder.open(path))
        readings.append(reading)
        page: Page = importlib.import_module(KINDS[common_kind([reading.folder])]).describe(reading)
        joint.verdict = f"{joint.verdict} {page.verdict}".strip()
        joint.tiles = [*joint.tiles, *page.tiles[:3]]
        for section in [*page.sections, *about(reading)]:
            joint.sections.append(Section(f"{name}: {section.title}", section.note, section.parts))
    return write_page(output, finished(joint, readings))


def finished(page: Page, readings: Sequence[Reading]) -> str:
    """The page as HTML, with what was left out of it, which is also said on the terminal."""
    for reading in readings:
        if sentence := changed_settings(reading.folder):
            reading.leave_out(sentence)
    page.left_out = [sentence for reading in readings for sentence in reading.left_out]
    for sentence in page.left_out:
        note(f"notice: missing from the report, or altered: {sentence}")
    return render(page)


def common_kind(folders: Sequence[RunFolder]) -> str:
    """The kind that all these runs are of."""
    kinds = {str(folder.read_config().get("kind", "nothing")): folder.path for folder in folders}
    if len(kinds) > 1:
        said = ", ".join(f"{path} is {kind}" for kind, path in kinds.items())
        raise EarthworksError(f"runs of different kinds cannot be compared ({said}): name runs of one kind")
    (kind,) = kinds
    if kind not in KINDS:
        expected = " or ".join(KINDS)
        raise EarthworksError(f"{kinds[kind] / 'config.yaml'} gives the kind {kind!r}; a report wants {expected}")
    return kind


def common_folder(folders: Sequence[RunFolder]) -> Path:
    """The innermost folder that holds every run."""
    return Path(os.path.commonpath([folder.path.resolve().parent for folder in folders]))


def names(folders: Sequence[RunFolder]) -> list[str]:
    """What to call each run: its folder's name, or its path below the common folder when two share a name."""
    short = [folder.path.resolve().name for folder in folders]
    if len(set(short)) == len(short):
        return short
    return [str(folder.path.resolve().relative_to(common_folder(folders))) for folder in folders]


def about(reading: Reading) -> list[Section]:
    """What the run was told, and what it ran on: these two are the same for every kind of run."""
    config = reading.attempt("config.yaml", lambda: settings_table("Settings", reading.folder.read_config()), None)
    environment = reading.mapping("environment.json")
    table = reading.attempt("environment.json", lambda: settings_table("Environment", environment), None)
    return [
        Section(
            "Configuration",
            "config.yaml of the run: give it to the command that made it and it runs again.",
            [config] if config else [],
        ),
        Section("Environment", "What the numbers above were obtained with.", [table] if table else []),
    ]


def settings_table(caption: str, mapping: dict[str, Any]) -> Table:
    """Every key of a nested mapping and its value."""
    rows = [(key, setting(value)) for key, value in flatten(mapping).items()]
    return Table(caption, ("key", "value"), rows, empty="Nothing was recorded.", kind="settings")


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
