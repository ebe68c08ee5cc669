"""The web pages of a WARC file (ISO 28500), also where the file lies or is damaged.

Our own reader, because it must go on: warcio stops at the first bad header, reads lines of any length, and takes a
member that cannot be decompressed for one that ended. On sound files it gives what warcio gives (a test).

A record is `WARC/1.x`, header lines, a blank line, Content-Length bytes, two line ends. In .warc.gz each record is usually
a gzip member of its own, and then the next member is the place to go on from; elsewhere it is the next line `WARC/1.x`.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

from earthworks.corpus.document import Document
from earthworks.corpus.records import Reading, extracted
from earthworks.corpus.responses import page_of
from earthworks.corpus.streams import BLOCK, PIECES, Unreadable, blocks, compression, fetch

HELD = 1 << 26  # bytes of a record kept in memory: 64 MiB. What lies further in is passed over
LONGEST_HEADER = 1 << 16  # bytes of all header lines of a record
VERSION = b"WARC/"
# A record's end, and the next one's begin
HIDDEN = re.compile(rb"\r?\n\r?\n(?=WARC/[01]\.\d+ *\r?\n(?:WARC|Content)-)", re.IGNORECASE)
GZIP = b"\x1f\x8b\x08"
START = re.compile(rb"(?<![^\n])WARC/[01]\.\d+ *\r?\n")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
END = object()
MEMBER = object()  # stands between the bytes of one gzip member and those of the next


def read_warc(raw: Any, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """A document for every HTTP response with status 200 to 299 and type HTML: id = WARC-Record-ID, metadata url, date.

    Other records are counted in `reading.other_records`. A record whose Content-Length does not lead to its end, whose
    compression is damaged, or that is no HTTP response where it says so is one fault; what follows it is read.
    """
    source = Source(gzip_members(raw, path) if compression(path) == ".gz" else plain(raw, path))
    number, more = 0, True
    while more:
        more = source.seek()
        if source.complaint:
            after = f"after record {number} of {path}" if number else f"at the begin of {path}"
            reading.fault(f"{path}, after record {number}", Unreadable(f"{after}: {source.complaint}"))
        if not more:
            break
        number += 1
        where = f"record {number} of {path}"
        try:
            headers, content = source.record(where)
            document = response_document(headers, content, where, f"{name}:{number}", name)
        except Unreadable as error:
            reading.fault(f"{path}, record {number}", error)
            continue
        if document is None:
            reading.other_records += 1
        else:
            yield document


def response_document(
    headers: dict[str, str], content: bytes | None, where: str, number: str, name: str
) -> Document | None:
    """The Document of a record, None if it is not one of a page that was found. `content` None: longer than HELD."""
    url = headers.get("warc-target-uri", "").strip("<> ")
    if headers.get("warc-type") != "response" or not url.lower().startswith(("http:", "https:")):
        return None
    if content is None:
        raise Unreadable(f"{where} has more than {HELD:,} bytes")
    page = page_of(content, where, cut_short="warc-truncated" in headers)
    if page is None:
        return None
    body, charset = page
    id = headers.get("warc-record-id") or number
    return Document(id, extracted(body, url, where, charset), name, {"url": url, "date": headers.get("warc-date")})


def plain(raw: Any, path: str) -> Iterator[bytes | Unreadable]:
    """The blocks of a stream, at last what is wrong with it."""
    try:
        yield from blocks(raw, path)
    except Unreadable as error:
        yield error


def gzip_members(raw: Any, path: str) -> Iterator[Any]:
    """The bytes of the members of a .gz, MEMBER after each, an Unreadable in place of the rest of a damaged one."""
    member, rest, size, sound = None, b"", PIECES[".gz"], True
    try:
        while block := fetch(raw, BLOCK, path):
            data, at = rest + block, 0
            while at < len(data):
                if member is None:
                    begin, at = at, data.find(GZIP, at)
                    if sound and data[begin : at if at >= 0 else -2].strip(b"\0"):
                        yield Unreadable(f"{path} holds bytes that are no gzip")
                        sound = False
                    if at < 0:
                        break
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                piece = data[at : at + size]
                try:
                    content = member.decompress(piece)
                except zlib.error as error:
                    if sound:
                        yield Unreadable(f"{path} cannot be decompressed ({error})")
                    member, sound = None, False
                    at += 1
                    continue
                if content:
                    yield content
                at += len(piece) - len(member.unused_data)
                if member.eof:
                    member, sound = None, True
                    yield MEMBER
            rest = data[-2:] if at < 0 else b""
        if member is not None:
            yield Unreadable(f"{path} cannot be decompressed (it ends in the middle); it is damaged or cut short")
    except Unreadable as error:
        yield error


class Source:
    """The bytes of a file, with stops where a record cannot go on: before a gzip member that begins with `WARC/`, at a
    gap left by damage, at the end."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items
        self.data, self.at = b"", 0
        self.stop: Any = None  # MEMBER, END or an Unreadable
        self.pending = b""  # the first bytes of the member at whose begin we stopped
        self.between = False  # the last thing seen was the end of a member
        self.damaged = False  # what follows is the rest of a record that was complained about
        self.complaint: str | None = None

    def fill(self) -> bool:
        """Some more bytes, False at a stop."""
        while not self.stop:
            item = next(self.items, END)
            if item is MEMBER:
                self.between = True
            elif not isinstance(item, bytes):
                self.stop = item
            elif self.between and VERSION.startswith(item[: len(VERSION)]):
                self.stop, self.pending, self.between = MEMBER, item, False
            else:
                self.data, self.at, self.between = self.data[self.at :] + item, 0, False
                return True
        return False

    def seek(self) -> bool:
        """Goes to the begin of the next record, False when there is none; `complaint` says what was in the way."""
        excused, passed, gap = self.damaged, 0, None
        self.damaged = False
        while True:
            found = START.search(self.data, self.at)
            here = self.data[self.at : found.start() if found else len(self.data)]
            if found:
                passed += len(here.strip())
                self.at = found.start()
                break
            keep = len(here) if len(here) < 32 else len(here) - here.rfind(b"\n", len(here) - 32) - 1
            keep = min(keep, 32)
            passed += len(here[: len(here) - keep].strip())
            self.at = len(self.data) - keep
            if self.fill():
                continue
            passed += len(self.data[self.at :].strip())
            if self.stop is END:
                break
            gap = gap or (str(self.stop) if self.stop is not MEMBER else None)
            self.data, self.at = self.pending if self.stop is MEMBER else b"", 0
            self.stop = None
        self.complaint = gap or (f"{passed:,} bytes that belong to no record" if passed else None)
        if excused:
            self.complaint = None
        return found is not None

    def record(self, where: str) -> tuple[dict[str, str], bytes | None]:
        """The headers, names in lower case, and the content (None if longer than HELD) of the record that begins here."""
        headers = self.headers(where)
        length = headers.get("content-length", "").strip()
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            self.damaged = True
            raise Unreadable(f"{where} has the Content-Length {length[:40]!r}; expected a number of bytes")
        content, missing = self.take(int(length))
        if not missing and self.ended():
            return headers, content
        self.damaged = True
        swallowed = (content or b"") + self.data[self.at :]
        if hidden := HIDDEN.search(swallowed):
            self.data, self.at = swallowed, hidden.end()
        if isinstance(self.stop, Unreadable) and missing and not hidden:
            raise Unreadable(f"{where} ends in the middle: {self.stop}")
        raise Unreadable(f"the Content-Length of {where}, {length}, does not lead to its end")

    def headers(self, where: str) -> dict[str, str]:
        while not (end := BLANK_LINE.search(self.data, self.at)):
            if len(self.data) - self.at > LONGEST_HEADER or not self.fill():
                self.damaged = True
                self.at += len(VERSION)
                raise Unreadable(f"{where} has header lines without an end")
        lines = self.data[self.at : end.start()].decode(errors="replace").splitlines()
        self.at = end.end()
        pairs = (line.partition(":") for line in lines[1:])
        return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}

    def take(self, length: int) -> tuple[bytes | None, int]:
        """The next `length` bytes (None if more than HELD), and how many of them are missing."""
        parts, held, window = [], 0, b""
        while length:
            if self.at == len(self.data) and not self.fill():
                break
            part = self.data[self.at : self.at + length]
            self.at += len(part)
            length -= len(part)
            held += len(part)
            parts.append(part)
            if held > HELD:  # not kept, but looked through: a length like this may swallow the rest of the file
                window = b"".join([window, *parts])
                parts = []
                if hidden := HIDDEN.search(window):
                    self.data, self.at = window[hidden.end() :] + self.data[self.at :], 0
                    return None, max(length, 1)
                window = window[-256:]
        return (b"".join(parts) if held <= HELD else None), length

    def ended(self) -> bool:
        """Whether a record may end here: after line ends a record begins, or there is a stop."""
        while True:
            rest = self.data[self.at : self.at + 64].lstrip(b"\r\n")
            if len(rest) >= len(VERSION):
                return rest.startswith(VERSION)
            if not self.fill():
                return not rest
