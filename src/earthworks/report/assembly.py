"""The report of one run, of several compared, or of runs of different kinds on one page."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from earthworks.report.numbers import flatten, setting
from earthworks.report.page import Page, Section, Table, common_folder, render
from earthworks.report.reading import Reading
from earthworks.report.writing import refuse_foreign, write_figures, write_page
from earthworks.runs import EarthworksError, RunFolder, lock
from earthworks.runs.changed_settings import changed_settings
from earthworks.runs.lock import PATIENCE
from earthworks.runs.progress import note

KINDS = ("gopher", "wgan")  # kinds of runs that have a page


def pages_of(kind: str) -> Any:
    """The module with `describe(run) -> Page` and `compare(runs) -> Page`; imported lazily, as it draws."""
    if kind == "gopher":
        from earthworks.report.pages import language_model

        return language_model
    from earthworks.report.pages import generative

    return generative


def write_report(runs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the page about `runs` and return its path.

    One run: RUN/report.html, and each figure as RUN/figures/NAME.png. Several runs of one kind: a comparison, by
    default report.html in the innermost folder that contains them all. What a run has not written yet is left out, so a
    run that is still in progress, or was killed at its first step, has a page too.
    Raises EarthworksError if a folder holds no run or a kind of run that has no page, a run is named twice, or the kinds
    differ.
    """
    folders = [RunFolder.open(path) for path in runs]
    if not folders:
        raise EarthworksError("no run was named: earthworks report RUN [RUN ...]")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise EarthworksError(f"a run is named twice among {', '.join(map(str, runs))}: name each once")
    module = pages_of(common_kind(folders))
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
    """One page about runs of several kinds, with their sections in sequence, each prefixed with the run's name in `runs`.

    `pages`: other pages to link to, by name."""
    refuse_foreign(output)
    joint = Page(title, "", [])
    joint.links = [(name, os.path.relpath(path, Path(output).parent)) for name, path in (pages or {}).items()]
    readings = []
    for name, path in runs.items():
        reading = Reading(RunFolder.open(path))
        readings.append(reading)
        page: Page = pages_of(common_kind([reading.folder])).describe(reading)
        joint.verdict = f"{joint.verdict} {page.verdict}".strip()
        joint.tiles = [*joint.tiles, *page.tiles[:3]]
        for section in [*page.sections, *about(reading)]:
            joint.sections.append(Section(f"{name}: {section.title}", section.note, section.parts))
    return write_page(output, finished(joint, readings))


def finished(page: Page, readings: Sequence[Reading]) -> str:
    """The page as HTML, with a list of what was left out, which is also printed."""
    for reading in readings:
        if sentence := changed_settings(reading.folder):
            reading.leave_out(sentence)
    page.left_out = [sentence for reading in readings for sentence in reading.left_out]
    for sentence in page.left_out:
        note(f"notice: missing from the report, or altered: {sentence}")
    return render(page)


def common_kind(folders: Sequence[RunFolder]) -> str:
    """The common kind of the runs."""
    kinds = {str(folder.read_config().get("kind", "nothing")): folder.path for folder in folders}
    if len(kinds) > 1:
        said = ", ".join(f"{path} is {kind}" for kind, path in kinds.items())
        raise EarthworksError(f"runs of different kinds cannot be compared ({said}): name runs of one kind")
    (kind,) = kinds
    if kind not in KINDS:
        expected = " or ".join(KINDS)
        raise EarthworksError(
            f"{kinds[kind] / 'config.yaml'} gives the kind {kind!r}; a report can be made for {expected}"
        )
    return kind


def about(reading: Reading) -> list[Section]:
    """Sections on configuration and environment, common to all kinds of runs."""
    config = reading.attempt("config.yaml", lambda: settings_table("Settings", reading.folder.read_config()), None)
    environment = reading.mapping("environment.json")
    table = reading.attempt("environment.json", lambda: settings_table("Environment", environment), None)
    return [
        Section(
            "Configuration",
            "config.yaml of the run; pass it to the command that made the run to repeat it.",
            [config] if config else [],
        ),
        Section("Environment", "The environment in which the numbers above were measured.", [table] if table else []),
    ]


def settings_table(caption: str, mapping: dict[str, Any]) -> Table:
    """A table of all keys of a nested mapping with their values."""
    rows = [(key, setting(value)) for key, value in flatten(mapping).items()]
    return Table(caption, ("key", "value"), rows, empty="Nothing was recorded.", kind="settings")
