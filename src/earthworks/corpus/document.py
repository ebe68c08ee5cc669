"""The one record that flows through the room."""

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
