"""The HTML page in an HTTP response stored by a crawler."""

import importlib
import re
import zlib

from earthworks.corpus.readers.html_text import LARGEST_PAGE
from earthworks.corpus.readers.streams import Unreadable

STATUS = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})(?!\d)")
HEADERS_END = re.compile(rb"\r?\n\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.IGNORECASE)
HTML = ("text/html", "application/xhtml+xml")
LONGEST_HEADER = 1 << 20  # bytes of all header lines
MOST_ENCODINGS = 8  # nested


def page_of(response: bytes, where: str, cut_short: bool = False) -> tuple[bytes, str | None] | None:
    """The decoded body and the charset of its header; None unless it is HTML with a status of 200 to 299.

    `cut_short`: the crawler stopped early, so a truncated body is accepted. Crawlers often keep the headers of encodings
    that they undid: a body that is not chunked or compressed as declared is used unchanged. Raises Unreadable if it is
    not a response, and for damaged, unknown or too large (more than 10 MB) bodies.
    """
    status = STATUS.match(response)
    if not status:
        raise Unreadable(f"{where} is not an HTTP response")
    end = HEADERS_END.search(response, 0, LONGEST_HEADER)
    if not end:
        return None
    headers: dict[str, str] = {}
    for line in response[: end.start()].decode("latin-1").splitlines()[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    kind = headers.get("content-type", "")
    if not (status[1].startswith(b"2") and kind.partition(";")[0].strip().lower() in HTML):
        return None
    body = response[end.end() :]
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = without_chunks(body, where, cut_short)
    encodings = headers.get("content-encoding", "").lower().split(",")
    if len(encodings) > MOST_ENCODINGS:
        raise Unreadable(f"{where} has {len(encodings):,} encodings; up to {MOST_ENCODINGS} can be read")
    for encoding in reversed(encodings):
        body = unpacked(body, encoding.strip(), where, cut_short)
    charset = CHARSET.search(kind)
    return body, charset and charset[1]


def without_chunks(body: bytes, where: str, cut_short: bool) -> bytes:
    """Decode RFC 9112, 7.1: SIZE in hexadecimal [; EXTENSION] CRLF, SIZE bytes, CRLF, repeated until a SIZE of 0."""
    parts, at = bytearray(), 0
    while at < len(body):
        line_end = body.find(b"\r\n", at, at + 1024)
        digits = body[at:line_end].partition(b";")[0].strip() if line_end >= 0 else b""
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", digits):
            if not at:
                return body
            break
        size, at = int(digits, 16), line_end + 2
        if not size:
            return bytes(parts)
        parts += body[at : at + size]
        if at + size > len(body):
            break
        at += size + 2
    if cut_short:
        return bytes(parts)
    raise Unreadable(f"{where} has a chunked body that is damaged or cut short")


def unpacked(body: bytes, encoding: str, where: str, cut_short: bool) -> bytes:
    """Undo one Content-Encoding of the body."""
    if encoding in ("", "identity", "none", "utf-8") or not body:
        return body
    if encoding in ("gzip", "x-gzip"):
        return inflated(body, zlib.MAX_WBITS | 16, where, cut_short) if body.startswith(b"\x1f\x8b") else body
    if encoding == "deflate":  # with zlib's header, as in the RFC, or without it, as some servers send
        zlib_header = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        plain = body[:1] == b"<" or body.lstrip()[:1] == b"<"
        return body if plain else inflated(body, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS, where, cut_short)
    if encoding == "zstd":
        return from_zstd(body, where, cut_short) if body.startswith(b"\x28\xb5\x2f\xfd") else body
    if encoding == "br":
        return body if body.lstrip()[:1] == b"<" else from_brotli(body, where)
    raise Unreadable(f"{where} has the Content-Encoding {encoding[:40]}; gzip, deflate, zstd and br can be read")


def inflated(body: bytes, window: int, where: str, cut_short: bool) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        content = decoder.decompress(body, LARGEST_PAGE + 1)
    except zlib.error as error:
        raise Unreadable(f"{where} has a body that cannot be decompressed ({error})") from None
    return checked(content, decoder.eof or cut_short, where)


def from_zstd(body: bytes, where: str, cut_short: bool) -> bytes:
    import io

    import zstandard

    try:
        content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(LARGEST_PAGE + 1)
    except zstandard.ZstdError as error:
        raise Unreadable(f"{where} has a body that cannot be decompressed ({error})") from None
    return checked(content, True, where)


def from_brotli(body: bytes, where: str) -> bytes:
    try:
        brotli = importlib.import_module("brotli")  # in no extra: current archives store bodies without it
    except ImportError:
        raise Unreadable(f"{where} is compressed by brotli, which needs: pip install brotli") from None
    try:
        decoder = brotli.Decompressor()
        content = decoder.process(body, output_buffer_limit=LARGEST_PAGE + 1)
    except (brotli.error, TypeError) as error:
        raise Unreadable(f"{where} has a body that cannot be decompressed ({error})") from None
    return checked(content, decoder.is_finished(), where)


def checked(content: bytes, ended: bool, where: str) -> bytes:
    if len(content) > LARGEST_PAGE:
        raise Unreadable(f"{where} has a body of more than {LARGEST_PAGE:,} bytes after decompression")
    if not ended:
        raise Unreadable(f"{where} has a compressed body that is cut short")
    return content
