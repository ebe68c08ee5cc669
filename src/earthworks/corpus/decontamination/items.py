"""Test items from files of any layout, as the texts that a training document might contain.

A .txt file is one item. A record of a .jsonl or .parquet file is one item, whatever the names of its fields. Its strings
are taken in the order of the record, the strings of a list being alternatives; its texts are
* every string by itself (a passage, a question),
* every pair of strings that are not alternatives, in either order (a question with each of its answers),
* all strings concatenated: for up to four fields in every order, for more in the order of the record.

So the order of the keys in a file does not matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from earthworks.corpus.readers.any_source import files_of
from earthworks.corpus.readers.files import InputFile, kind_of, opened
from earthworks.corpus.readers.records import Reading, decode, json_object, parquet_rows, text_bytes
from earthworks.corpus.readers.streams import LONGEST_LINE, Unreadable, blocks, compression, lines, whole

ORDERED = 4  # groups of strings that are joined in every order: 24 of them
KINDS = (".txt", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Item:
    """One test item: its name, and its strings in order, with alternatives in one group.

    A question with two choices is Item("q1", (("Why?",), ("Because.", "Why not."))), a passage Item("p1", (("Once ...",),)).
    """

    id: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def texts(self) -> list[str]:
        """The distinct texts in which it may occur."""
        texts = [each for group in self.groups for each in group]
        orders = permutations(self.groups) if len(self.groups) <= ORDERED else [self.groups]
        texts += [" ".join(each for group in order for each in group) for order in orders]
        for first, second in permutations(self.groups, 2):
            texts += [f"{a} {b}" for a in first for b in second]
        return list(dict.fromkeys(texts))


def read_items(path: str) -> Iterator[Item]:
    """The items of a file, or of a folder recursively in the order of its paths; ids are FILE:LINE from 1.

    Raises EarthworksError if the path does not exist, contains nothing readable, or is damaged.
    """
    for file in item_files(path):
        yield from file_items(file)


def item_files(path: str) -> list[InputFile]:
    """The files that `read_items` reads."""
    return [file for file in files_of(path) if kind_of(file.path) in KINDS]


def file_items(file: InputFile) -> Iterator[Item]:
    reading = Reading()
    path, name, kind = file.path, file.name, kind_of(file.path)
    with opened(file) as raw:
        if kind == ".txt":
            yield Item(name, ((decode(text_bytes(whole(blocks(raw, path), path), path), reading),),))
        elif kind == ".parquet":
            stream = whole(blocks(raw, path), path) if compression(path) else raw
            for number, record in enumerate(parquet_rows(stream, path, lambda schema: schema.names, reading), 1):
                yield Item(f"{name}:{number}", groups_of(record))
        else:
            for number, line in enumerate(lines(blocks(raw, path)), 1):
                if line is None:
                    raise Unreadable(
                        f"line {number} of {path} has more than {LONGEST_LINE:,} bytes: split it into several"
                    )
                if line.strip():
                    where = f"line {number} of {path}"
                    try:
                        groups = groups_of(json_object(line, where, reading))
                    except RecursionError:
                        raise Unreadable(f"{where} is JSON that is nested too deeply") from None
                    yield Item(f"{name}:{number}", groups)


def groups_of(record: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group) for value in record.values() for group in alternatives(value))


def alternatives(value: Any) -> list[list[str]]:
    """The groups of strings in a field: a string or the strings of a list form one; an object has those of its fields."""
    if isinstance(value, str):
        return [[value]] if value.strip() else []
    if isinstance(value, dict):
        return [group for each in value.values() for group in alternatives(each)]
    if isinstance(value, list):
        found = [text for each in value for group in alternatives(each) for text in group]
        return [found] if found else []
    return []
