"""The document record used throughout the package, and its stand-in for texts too long to hold in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """A text and where it came from.

    `id` names the document within its source; `text` holds no lone surrogates, so it always encodes to UTF-8;
    `source` names the file, data set or module; `metadata` holds all other fields of the record.
    """

    id: str
    text: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LongDocument:
    """A text that is read again, block by block, each time it is requested.

    `blocks(reading)` yields the text in pieces, and counts its bytes in `reading`.
    """

    id: str
    source: str
    blocks: Callable[[Any], Iterator[str]]


class Extent:
    """Number of UTF-8 bytes and white-space-separated words of a text that arrives in pieces."""

    def __init__(self) -> None:
        self.bytes = self.words = 0
        self.within = False  # the previous piece ended inside a word

    def add(self, piece: str) -> None:
        """Add one non-empty piece."""
        self.bytes += len(piece.encode())
        self.words += len(piece.split()) - (self.within and not piece[0].isspace())
        self.within = not piece[-1].isspace()
