"""The web pages of a WARC file (ISO 28500), also where the file is wrong or damaged.

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
from earthworks.corpus.readers.http_response import page_of
from earthworks.corpus.readers.records import Reading, extracted
from earthworks.corpus.readers.streams import BLOCK, PIECES, Unreadable, blocks, compression, fetch

HELD = 1 << 26  # bytes of a record kept in memory: 64 MiB. What is further in is left out
LONGEST_HEADER = 1 << 16  # bytes of all header lines of a record
VERSION = b"WARC/"
FIRST_LINE = rb"WARC/[01]\.\d{1,4} {0,16}\r?\n"
BEGIN = 64  # bytes that are enough to see that a record begins
# A record's end, and the next one's begin
HIDDEN = re.compile(rb"\r?\n\r?\n(?=" + FIRST_LINE + rb"(?:WARC|Content)-)", re.IGNORECASE)
NEAR = 1 << 16  # bytes after a record's end within which its next one is taken for hidden
GZIP = b"\x1f\x8b\x08"
FIRST_PIECE = 256  # bytes of a gzip member that are decompressed at first
START = re.compile(rb"(?<![^\n])" + FIRST_LINE)
HEADERS_END = re.compile(rb"\r?\n(?:\r?\n|(?P<next>" + FIRST_LINE + rb"))")
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
    """The bytes of the members of a .gz, MEMBER after each, an Unreadable in place of the rest of a damaged one.

    The search for the next member begins within the piece that failed. So that no more is read twice than was read
    once, members soon after damage are decompressed in pieces that double in size."""
    largest = PIECES[".gz"]
    member, rest, size, sound = None, b"", largest, True
    good = largest  # bytes read since the last damage
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
    """The bytes of a file, with stops where a record cannot go on: before a gzip member that begins with `WARC/`, at a
    gap left by damage, at the end.

    The bytes of a record stay until it is known to end where it says, and no byte is searched twice for the same thing:
    the time grows with the size of the file, whatever is in it."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items
        self.data, self.at = bytearray(), 0
        self.stop: Any = None  # MEMBER, END or an Unreadable
        self.pending = b""  # the first bytes of the member at whose begin we stopped
        self.between = False  # the last thing seen was the end of a member
        self.damaged = False  # what follows is the rest of a record that was complained about
        self.complaint: str | None = None
        self.searched = 0  # up to here the data were searched for a hidden record,
        self.hidden_record = -1  # and this is the last one found: where it begins

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
                if 2 * self.at > len(self.data):  # not each time, because what is left has to be moved
                    del self.data[: self.at]
                    self.searched -= self.at
                    self.hidden_record -= self.at
                    self.at = 0
                self.data += item
                self.between = False
                return True
        return False

    def held(self, size: int) -> bool:
        """Whether that many bytes come before the next stop; they are in `data` then."""
        while len(self.data) - self.at < size:
            if not self.fill():
                return False
        return True

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
            self.data = bytearray(self.pending if self.stop is MEMBER else b"")
            self.at, self.searched, self.hidden_record = 0, 0, -1
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
        raise Unreadable(f"the Content-Length of {where}, {length}, does not lead to its end")

    def headers(self, where: str) -> dict[str, str]:
        """The lines up to a blank one. Where the next record begins before it, or it does not come, they are damaged."""
        from_here = len(VERSION)  # relative to `at`, which `fill` moves
        while True:
            end = HEADERS_END.search(self.data, self.at + from_here, self.at + LONGEST_HEADER)
            if end or len(self.data) - self.at >= LONGEST_HEADER:
                break
            from_here = max(from_here, len(self.data) - self.at - BEGIN)
            if not self.fill():
                break
        if end is None or end["next"]:
            self.damaged = True
            self.at = end.start("next") if end else self.at + len(VERSION)
            raise Unreadable(f"{where} has header lines without an end")
        lines = self.data[self.at : end.start()].decode(errors="replace").splitlines()
        self.at = end.end()
        pairs = (line.partition(":") for line in lines[1:])
        return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}

    def skip(self, size: int) -> int:
        """Goes past the next `size` bytes, or to before a record hidden in them, for a length like this may swallow the
        rest of the file; how many are missing."""
        while True:
            here = min(len(self.data) - self.at, size)
            if self.hidden(self.at + here) is not None:
                return size
            if here == size:
                self.at += size
                return 0
            passed = max(here - BEGIN, 0)
            self.at += passed
            size -= passed
            if not self.fill():
                size -= len(self.data) - self.at
                self.at = len(self.data)
                return size

    def hidden(self, limit: int) -> int | None:
        """Where in `data` a record begins that another with a wrong length swallowed, if it does before `limit`."""
        if self.hidden_record < self.at:
            begin = max(self.at, self.searched)
            found = HIDDEN.search(self.data, begin)
            self.hidden_record = found.end() if found else -1
            self.searched = found.end() if found else max(begin, len(self.data) - BEGIN)
        return self.hidden_record if self.at <= self.hidden_record <= limit else None

    def ended(self, size: int) -> bool:
        """Whether a record may end after `size` bytes: after line ends a record begins, or there is a stop."""
        while True:
            following = self.data[self.at + size : self.at + size + BEGIN]
            rest = following.lstrip(b"\r\n")
            if len(rest) >= len(VERSION):
                return rest.startswith(VERSION)
            if len(following) == BEGIN:
                return VERSION.startswith(rest)
            if not self.fill():
                return not rest
