"""Reader for web pages in WARC files (ISO 28500) that tolerates malformed and damaged files.

It replaces warcio, which stops at the first bad header, reads lines of any length, and treats a member that cannot be
decompressed as ended. On sound files both give the same (tested).

A record is `WARC/1.x`, header lines, a blank line, Content-Length bytes, two line ends. In .warc.gz each record is usually
a gzip member of its own, and reading resumes after damage at the next member; otherwise at the next line `WARC/1.x`.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

from earthworks.corpus.document import Document
from earthworks.corpus.readers.http_response import page_of
from earthworks.corpus.readers.records import Reading, extracted
from earthworks.corpus.readers.streams import BLOCK, PIECES, Unreadable, blocks, compression, fetch

HELD = 1 << 26  # bytes of the largest record kept in memory: 64 MiB
LONGEST_HEADER = 1 << 16  # bytes of all header lines of a record
VERSION = b"WARC/"
FIRST_LINE = rb"WARC/[01]\.\d{1,4} {0,16}\r?\n"
START_BYTES = 64  # enough to recognize the start of a record
# The end of a record, and the start of the next
HIDDEN = re.compile(rb"\r?\n\r?\n(?=" + FIRST_LINE + rb"(?:WARC|Content)-)", re.IGNORECASE)
NEAR = 1 << 16  # bytes after a record's end within which the next record counts as hidden
GZIP = b"\x1f\x8b\x08"
FIRST_PIECE = 256  # bytes of a gzip member that are decompressed at first
START = re.compile(rb"(?<![^\n])" + FIRST_LINE)
HEADERS_END = re.compile(rb"\r?\n(?:\r?\n|(?P<next>" + FIRST_LINE + rb"))")
END = object()
MEMBER = object()  # separates the bytes of two gzip members


def read_warc(raw: Any, path: str, name: str, reading: Reading) -> Iterator[Document]:
    """A document for every HTTP response with status 200 to 299 and type HTML: id = WARC-Record-ID, metadata url, date.

    Other records are counted in `reading.other_records`. A record with a wrong Content-Length, damaged compression, or
    a malformed HTTP response is one fault; reading continues after it.
    """
    source = Source(gzip_members(raw, path) if compression(path) == ".gz" else plain(raw, path))
    number, more = 0, True
    while more:
        more = source.seek()
        if source.complaint:
            after = f"after record {number} of {path}" if number else f"at the start of {path}"
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
    """The Document of a record; None if it is not a successful response with a page. `content` None: longer than HELD."""
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
    """The blocks of a stream, then its error if there is one."""
    try:
        yield from blocks(raw, path)
    except Unreadable as error:
        yield error


def gzip_members(raw: Any, path: str) -> Iterator[Any]:
    """The bytes of the members of a .gz file, MEMBER after each, and an Unreadable in place of the rest of a damaged one.

    The search for the next member starts within the piece that failed. To bound the data read twice, members shortly
    after damage are decompressed in pieces of doubling size."""
    largest = PIECES[".gz"]
    member, rest, size, sound = None, b"", largest, True
    good = largest  # bytes read since the last damage
    try:
        while block := fetch(raw, BLOCK, path):
            data, at = rest + block, 0
            while at < len(data):
                if member is None:
                    start, at = at, data.find(GZIP, at)
                    if sound and data[start : at if at >= 0 else -2].strip(b"\0"):
                        yield Unreadable(f"{path} contains bytes that are not gzip")
                        sound = False
                    if at < 0:
                        break
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                    size = largest if good >= largest else FIRST_PIECE
                piece = data[at : at + size]
                size = min(2 * size, largest)
                try:
                    content = member.decompress(piece)
                except zlib.error as error:
                    if sound:
                        yield Unreadable(f"{path} cannot be decompressed ({error})")
                    member, sound, good = None, False, 0
                    at += 1
                    continue
                if content:
                    yield content
                at += len(piece) - len(member.unused_data)
                good += len(piece) - len(member.unused_data)
                if member.eof:
                    member, sound = None, True
                    yield MEMBER
            rest = data[-2:] if at < 0 else b""
        if member is not None:
            yield Unreadable(f"{path} cannot be decompressed (it ends in the middle); it is damaged or cut short")
    except Unreadable as error:
        yield error


class Source:
    """The bytes of a file, with stops that no record can cross: before a gzip member that starts with `WARC/`, at a gap
    left by damage, at the end.

    The bytes of a record are kept until its length is confirmed, and no byte is searched twice for the same thing: the time
    is linear in the size of the file for any content."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items
        self.data, self.at = bytearray(), 0
        self.stop: Any = None  # MEMBER, END or an Unreadable
        self.pending = b""  # the first bytes of the member before which reading stopped
        self.between = False  # the last item was the end of a member
        self.damaged = False  # the rest of a record already reported as damaged follows
        self.complaint: str | None = None
        self.searched = 0  # end of the data searched for a hidden record
        self.hidden_record = -1  # start of the last one found

    def fill(self) -> bool:
        """Read more bytes; False at a stop."""
        while not self.stop:
            item = next(self.items, END)
            if item is MEMBER:
                self.between = True
            elif not isinstance(item, bytes):
                self.stop = item
            elif self.between and VERSION.startswith(item[: len(VERSION)]):
                self.stop, self.pending, self.between = MEMBER, item, False
            else:
                if 2 * self.at > len(self.data):  # not each time, because the rest has to be moved
                    del self.data[: self.at]
                    self.searched -= self.at
                    self.hidden_record -= self.at
                    self.at = 0
                self.data += item
                self.between = False
                return True
        return False

    def held(self, size: int) -> bool:
        """Whether `size` bytes precede the next stop; they are then in `data`."""
        while len(self.data) - self.at < size:
            if not self.fill():
                return False
        return True

    def seek(self) -> bool:
        """Go to the start of the next record; False if there is none. `complaint` describes what was skipped."""
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
            self.data = bytearray(self.pending if self.stop is MEMBER else b"")
            self.at, self.searched, self.hidden_record = 0, 0, -1
            self.stop = None
        self.complaint = gap or (f"{passed:,} bytes that belong to no record" if passed else None)
        if excused:
            self.complaint = None
        return found is not None

    def record(self, where: str) -> tuple[dict[str, str], bytes | None]:
        """The headers, names in lower case, and the content (None if longer than HELD) of the record at this position."""
        headers = self.headers(where)
        length = headers.get("content-length", "").strip()
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            self.damaged = True
            raise Unreadable(f"{where} has the Content-Length {length[:40]!r}; expected a number of bytes")
        size = int(length)
        content, missing, kept = None, 0, 0
        if size > HELD:
            missing = self.skip(size)
        elif self.held(size):
            kept = size
        else:
            missing, kept = size - (len(self.data) - self.at), len(self.data) - self.at
        if not missing and self.ended(kept):
            if size <= HELD:
                content = bytes(memoryview(self.data)[self.at : self.at + kept])
            self.at += kept
            return headers, content
        self.damaged = True
        hidden = self.hidden(self.at + kept + NEAR)
        self.at = self.at + kept if hidden is None else hidden
        if isinstance(self.stop, Unreadable) and missing and hidden is None:
            raise Unreadable(f"{where} ends in the middle: {self.stop}")
        raise Unreadable(f"the Content-Length of {where}, {length}, does not match its end")

    def headers(self, where: str) -> dict[str, str]:
        """The header lines up to a blank line. Raises Unreadable if there is none, or the next record starts before it."""
        from_here = len(VERSION)  # relative to `at`, which `fill` moves
        while True:
            end = HEADERS_END.search(self.data, self.at + from_here, self.at + LONGEST_HEADER)
            if end or len(self.data) - self.at >= LONGEST_HEADER:
                break
            from_here = max(from_here, len(self.data) - self.at - START_BYTES)
            if not self.fill():
                break
        if end is None or end["next"]:
            self.damaged = True
            self.at = end.start("next") if end else self.at + len(VERSION)
            raise Unreadable(f"{where} has header lines that do not end")
        lines = self.data[self.at : end.start()].decode(errors="replace").splitlines()
        self.at = end.end()
        pairs = (line.partition(":") for line in lines[1:])
        return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}

    def skip(self, size: int) -> int:
        """Skip the next `size` bytes, but stop before a record hidden in them, since a wrong length may swallow the rest
        of the file. Returns the number of missing bytes."""
        while True:
            here = min(len(self.data) - self.at, size)
            if self.hidden(self.at + here) is not None:
                return size
            if here == size:
                self.at += size
                return 0
            passed = max(here - START_BYTES, 0)
            self.at += passed
            size -= passed
            if not self.fill():
                size -= len(self.data) - self.at
                self.at = len(self.data)
                return size

    def hidden(self, limit: int) -> int | None:
        """Start in `data` of a record swallowed by a wrong length, if it is before `limit`."""
        if self.hidden_record < self.at:
            start = max(self.at, self.searched)
            found = HIDDEN.search(self.data, start)
            self.hidden_record = found.end() if found else -1
            self.searched = found.end() if found else max(start, len(self.data) - START_BYTES)
        return self.hidden_record if self.at <= self.hidden_record <= limit else None

    def ended(self, size: int) -> bool:
        """Whether a record may end after `size` bytes: line ends follow, then the start of a record or a stop."""
        while True:
            following = self.data[self.at + size : self.at + size + START_BYTES]
            rest = following.lstrip(b"\r\n")
            if len(rest) >= len(VERSION):
                return rest.startswith(VERSION)
            if len(following) == START_BYTES:
                return VERSION.startswith(rest)
            if not self.fill():
                return not rest
