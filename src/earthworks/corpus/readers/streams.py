"""Streaming decompression of files into blocks, and of blocks into lines, without holding whole files.

All data before damage is yielded before the error is raised (for .gz up to the 16 KiB of compressed data around it: zlib
returns nothing of a piece it fails in), and no decompression bomb yields more than 128 MiB at a time.
"""

import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from earthworks.runs import EarthworksError

BLOCK = 1 << 18  # bytes yielded at once, if the source has as many
LARGEST_FILE = 1 << 30  # bytes, decompressed, of a file that is one document (.txt) or can only be read whole
LONGEST_LINE = 1 << 28  # bytes: 256 MiB, many times the longest book as a JSON line
# Compressed bytes given to a decoder at once: they expand to at most 16 MiB with zlib (1,032 to 1), 128 MiB with zstd (4
# bytes for a block of 128 KiB) and about 14 MiB with xz (7,000 to 1). Less at the start of a file, and after a piece that
# expanded by a factor of BOMB.
PIECES = {".gz": 1 << 14, ".zst": 1 << 12, ".xz": 1 << 11}
BOMB = 64
XZ_MEMORY = 1 << 27  # bytes of memory for decompressing .xz: xz -9 needs 65 MB
NO_CHARACTER = re.compile("[\ud800-\udfff]")


class Unreadable(EarthworksError):
    """A damaged or malformed record or file, which tolerant reading skips."""

    def __init__(self, message: str):
        super().__init__(shown(message))


def shown(text: str) -> str:
    """The text with U+FFFD in place of bytes of a file name that are not UTF-8."""
    return NO_CHARACTER.sub("\ufffd", text)


def compression(name: str) -> str:
    """.gz, .xz, .zst, or nothing."""
    suffix = PurePosixPath(name.lower()).suffix
    return suffix if suffix in PIECES else ""


def blocks(raw: Any, path: str) -> Iterator[bytes]:
    """The content of an open file, decompressed according to its name. Raises Unreadable after the last good byte."""
    suffix = compression(path)
    return decompressed(raw, suffix, path) if suffix else iter(lambda: fetch(raw, BLOCK, path), b"")


def fetch(raw: Any, size: int, path: str) -> bytes:
    """Up to `size` bytes of the open file; all errors of its file system are raised as Unreadable."""
    try:
        return raw.read(size)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # remote file systems raise their own types, and those of the network library
        raise Unreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def decoder(suffix: str) -> Any:
    if suffix == ".gz":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if suffix == ".xz":
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj(write_size=1 << 16)


def decompressed(raw: Any, suffix: str, path: str) -> Iterator[bytes]:
    """The decompressed members or frames of a file, in sequence. A file that ends within one is reported as damaged, which
    zstandard's own stream reader does not do."""
    import zstandard

    current, ready, size, complaint, most = None, [], 0, "", PIECES[suffix] // BOMB
    try:
        while chunk := fetch(raw, BLOCK, path):
            at = 0
            while at < len(chunk):
                piece, at, before = chunk[at : at + most], at + most, size
                while piece:
                    if current is None:
                        piece = piece.lstrip(b"\0")  # padding, allowed by gzip and xz between members
                        if not piece:
                            break
                        current = decoder(suffix)
                    ready.append(current.decompress(piece))
                    size += len(ready[-1])
                    piece = current.unused_data if current.eof else b""
                    current = None if current.eof else current
                most = min(2 * most, PIECES[suffix]) if size - before < BOMB * most else PIECES[suffix] // BOMB
                if size >= BLOCK:
                    yield b"".join(ready)
                    ready, size = [], 0
        if current is not None:
            complaint = "it ends in the middle: Truncated"
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        complaint = str(error)
        if "Memory usage limit" in complaint:
            yield b"".join(ready)
            raise Unreadable(
                f"{path} needs more than {XZ_MEMORY >> 20} MiB of memory for decompression: recompress it with xz -9 or less"
            ) from None
    except Unreadable as error:
        yield b"".join(ready)
        raise error from None
    yield b"".join(ready)
    if complaint:
        raise Unreadable(f"{path} cannot be decompressed ({complaint}); it is damaged or cut short")


def lines(source: Iterable[bytes], longest: int = LONGEST_LINE) -> Iterator[bytes | None]:
    """The lines of a sequence of blocks without their b"\\n"; None in place of a line longer than `longest` bytes.

    Memory: one block and one line, plus a second copy of the line while it is assembled. A line is dropped as soon as it is
    too long. A non-empty rest after the last b"\\n" is a line.
    """
    parts: list[bytes] = []
    held = 0
    for block in source:
        head, newline, rest = block.partition(b"\n")
        held += len(head)
        if held <= longest:
            parts.append(head)
        else:
            parts = []
        if not newline:
            continue
        yield b"".join(parts) if held <= longest else None
        whole = rest.split(b"\n")
        parts = [whole.pop()]
        held = len(parts[0])
        if len(rest) <= longest:
            yield from whole
        else:
            yield from (line if len(line) <= longest else None for line in whole)
    if held:
        yield b"".join(parts) if held <= longest else None


def whole(source: Iterable[bytes], path: str, limit: int = LARGEST_FILE) -> bytearray:
    """All blocks together. Raises Unreadable for more than `limit` bytes."""
    content, ended = beginning(source, limit)
    if not ended:
        raise Unreadable(f"{path} has more than {limit:,} bytes, the limit for one document")
    return content


def beginning(source: Iterable[bytes], limit: int) -> tuple[bytearray, bool]:
    """The joined blocks, up to the first that exceeds `limit` bytes in total; and whether these are all."""
    content = bytearray()
    for block in source:
        content += block
        if len(content) > limit:
            return content, False
    return content, True


def limited(source: Iterable[bytes], path: str) -> Iterator[bytes]:
    """The blocks, unchanged. Raises Unreadable above LARGEST_FILE bytes."""
    size = 0
    for block in source:
        size += len(block)
        if size > LARGEST_FILE:
            raise Unreadable(
                f"{path} has more than {LARGEST_FILE:,} bytes, the limit for one document: split it into several files, "
                "or into the lines of a .jsonl"
            )
        yield block
