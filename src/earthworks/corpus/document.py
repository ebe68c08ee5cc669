"""The one record that flows through the room, and its stand-in for a text too long to be held."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """A text and where it came from.

    `id` names the document within its source; `text` holds no lone surrogates, so it always encodes to UTF-8;
    `source` names the file, data set or module; `metadata` is whatever else the record carried.
    """

    id: str
    text: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LongDocument:
    """A text that is read anew, block by block, each time it is asked for.

    `blocks(reading)` yields strings that make up the text, and counts its bytes in `reading`.
    """

    id: str
    source: str
    blocks: Callable[[Any], Iterator[str]]


class Extent:
    """The UTF-8 bytes and the words, separated by white space, of a text that comes in pieces."""

    def __init__(self) -> None:
        self.bytes = self.words = 0
        self.within = False  # a word goes on from the piece before

    def add(self, piece: str) -> None:
        """One more piece, which is not empty."""
        self.bytes += len(piece.encode())
        self.words += len(piece.split()) - (self.within and not piece[0].isspace())
        self.within = not piece[-1].isspace()
