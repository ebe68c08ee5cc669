"""Markdown in which names of runs, files and people stay plain text, never markup, HTML or links."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from earthworks.runs.terminal import shown

# Special characters anywhere; then those at the start of a line; then those that turn text into links.
# A backslash before ASCII punctuation makes it literal (CommonMark 0.31, section 2.4).
SPECIAL = re.compile(r"[\\`*_{}#|~$<>&@]|^[-+=](?!\d)|^\d+[.)](?=\s|$)|\](?=\S)|:(?=//)|(?<=www)\.", re.IGNORECASE)
NUMBER = re.compile(r"[-–\d]")


def plain(value: Any) -> str:
    """A value as one line of text, to be followed by white space, a comma, a colon with white space, or nothing."""
    text = " ".join("".join(each if each.isprintable() else " " for each in str(value)).split())
    return SPECIAL.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", text)


def called(location: Any) -> str:
    """Public name of data: the last part of a local path, which may identify a machine; other locations in full."""
    parts = [each.split("=")[0] for each in str(location).split(",")]
    return ", ".join(each if re.match(r"\w+:", each) else PurePosixPath(each).name or each for each in parts)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; columns of numbers are right-aligned."""
    cells = [[plain(cell) for cell in row] for row in rows]
    columns = list(zip(*cells))
    marks = ["---:" if all(NUMBER.match(cell) for cell in column) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([plain(cell) for cell in header], marks, *cells))


def bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {each}" for each in items)


def inert(value: Any) -> Any:
    """The value with control characters and bidirectional marks shown as their code points."""
    if isinstance(value, dict):
        return {inert(key): inert(each) for key, each in value.items()}
    if isinstance(value, list):
        return [inert(each) for each in value]
    return shown(value) if isinstance(value, str) else value


def front_matter(metadata: dict[str, Any]) -> str:
    """Metadata as the YAML block at the start of a card."""
    metadata = {key: inert(value) for key, value in metadata.items()}
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n"
