"""The bytes of a file as blocks, decompressed on the way, and blocks as lines: nothing here holds a whole file.

Every byte before a damaged place comes out before the complaint about it (of .gz up to the 16 KiB of compressed data
around it: zlib gives nothing of a piece it fails in), and no decompression bomb makes more than 128 MiB at a time.
"""

import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from earthworks.runs import EarthworksError

BLOCK = 1 << 18  # bytes given out at once, where the source has as many
LARGEST_FILE = 1 << 30  # bytes, decompressed, of a file that is one document (.txt) or can only be read whole
LONGEST_LINE = 1 << 28  # bytes: 256 MiB, a JSON line of the longest book many times over
# Compressed bytes given to a decoder at once: they can become at most 16 MiB by zlib (1,032 to 1), 128 MiB by zstd (4
# bytes for a block of 128 KiB) and about 14 MiB by xz (7,000 to 1). A file begins with less, and after
# a piece that grew by BOMB it is less again.
PIECES = {".gz": 1 << 14, ".zst": 1 << 12, ".xz": 1 << 11}
BOMB = 64
XZ_MEMORY = 1 << 27  # bytes that .xz may be decompressed with: xz -9 asks for 65 MB
NO_CHARACTER = re.compile("[\ud800-\udfff]")


class Unreadable(EarthworksError):
    """A record or file that is damaged or of the wrong form: the mistake that tolerant reading leaves out."""

    def __init__(self, message: str):
        super().__init__(shown(message))


def shown(text: str) -> str:
    """With U+FFFD for what is not UTF-8 in the name of a file."""
    return NO_CHARACTER.sub("\ufffd", text)


def compression(name: str) -> str:
    """.gz, .xz, .zst, or nothing."""
    suffix = PurePosixPath(name.lower()).suffix
    return suffix if suffix in PIECES else ""


def blocks(raw: Any, path: str) -> Iterator[bytes]:
    """What the open file holds, decompressed as its name says. Raises Unreadable after the last good byte."""
    suffix = compression(path)
    return decompressed(raw, suffix, path) if suffix else iter(lambda: fetch(raw, BLOCK, path), b"")


def fetch(raw: Any, size: int, path: str) -> bytes:
    """Up to `size` bytes of the open file, whatever its file system raises being one kind of complaint."""
    try:
        return raw.read(size)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a remote file system has its own types, and those of the network library below
        raise Unreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def decoder(suffix: str) -> Any:
    if suffix == ".gz":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if suffix == ".xz":
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj(write_size=1 << 16)


def decompressed(raw: Any, suffix: str, path: str) -> Iterator[bytes]:
    """The members or frames of a compressed file, one after the other. A file that ends within one is damaged, which
    zstandard's own stream reader does not notice."""
    import zstandard

    current, ready, size, complaint, most = None, [], 0, "", PIECES[suffix] // BOMB
    try:
        while chunk := fetch(raw, BLOCK, path):
            at = 0
            while at < len(chunk):
                piece, at, before = chunk[at : at + most], at + most, size
                while piece:
                    if current is None:
                        piece = piece.lstrip(b"\0")  # padding, which gzip and xz allow between members
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
                f"{path} asks for more than {XZ_MEMORY >> 20} MiB of memory to be decompressed: compress it anew with xz -9 "
                "or less"
            ) from None
    except Unreadable as error:
        yield b"".join(ready)
        raise error from None
    yield b"".join(ready)
    if complaint:
        raise Unreadable(f"{path} cannot be decompressed ({complaint}); it is damaged or cut short")


def lines(source: Iterable[bytes], longest: int = LONGEST_LINE) -> Iterator[bytes | None]:
    """The lines of a sequence of blocks without their b"\\n"; None in place of one of more than `longest` bytes.

    Memory: one block and one line, and one line more while it is put together. A line is dropped, not held, from the
    moment it is too long. What follows the last b"\\n" is a line if there is anything.
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
        raise Unreadable(f"{path} holds more than {limit:,} bytes, the most that is read as one document")
    return content


def beginning(source: Iterable[bytes], limit: int) -> tuple[bytearray, bool]:
    """The blocks together, up to the one with which they have more than `limit` bytes; whether that is all."""
    content = bytearray()
    for block in source:
        content += block
        if len(content) > limit:
            return content, False
    return content, True


def limited(source: Iterable[bytes], path: str) -> Iterator[bytes]:
    """The blocks. Raises Unreadable for more than LARGEST_FILE bytes."""
    size = 0
    for block in source:
        size += len(block)
        if size > LARGEST_FILE:
            raise Unreadable(
                f"{path} holds more than {LARGEST_FILE:,} bytes, the most that is read as one document: cut it into "
                "several files, or into the lines of a .jsonl"
            )
        yield block
