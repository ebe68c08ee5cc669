"""Atomic writing of files, and safe reading from untrusted folders.

Everything is written to a temporary name next to its target, fsynced, and renamed; the containing folder is fsynced too.
A process killed between any two system calls leaves the old state or the new one, never a mixture.
All writing goes through `os.open`, `os.write`, `os.fsync` and `os.replace` or `os.rename`: a test can stop at each.
"""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.temporary import is_temporary, sweep, temporary_name

CHUNK = 1 << 22
BLOCKS, BLOCK = 64, 4096  # what `blocks_digest` reads of a file
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # exFAT, many SMB and FUSE mounts


# Writing


def write_bytes(path: str | Path, data: bytes | memoryview, *, new: bool = False) -> None:
    """Replace `path` by `data` atomically, creating its folder if needed; `new`: only if nothing is at `path`.

    Raises EarthworksError (exit code 1) when the system refuses, as on a full disk; `path` is then unchanged. With `new`,
    also for a name that is taken (exit code 2): no file is overwritten, even one created a moment ago.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with one_sentence(path), called(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_through(temporary, data)
            if new:
                take_name(temporary, path)
            else:
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)
    sweep(path)


def take_name(temporary: Path, path: Path) -> None:
    """Rename a file to an unused name; EarthworksError if the name is taken."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise taken(path) from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        claim(temporary, path)
    else:
        os.unlink(temporary)


def claim(temporary: Path, path: Path) -> None:
    """`take_name` on a file system without hard links: an empty file takes the name first."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        raise taken(path) from None
    try:
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def refuse_existing(path: str | Path) -> None:
    """Before any work: EarthworksError when the name of a result is taken."""
    if os.path.lexists(path):
        raise taken(path)


def taken(path: str | Path) -> EarthworksError:
    return EarthworksError(f"{path} already exists: choose another name, or move it away")


def write_through(path: Path, data: bytes | memoryview) -> None:
    """Write and fsync, without the rename: for files inside a folder that is itself still temporary."""
    with one_sentence(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: a single system call may write fewer."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view[:CHUNK]) :]


def sync(path: Path) -> None:
    """fsync a file, or a folder, so that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def called(path: Path, temporary: Path) -> Iterator[None]:
    """Make an EarthworksError about `temporary`, or about a file in it, name `path`, which the user knows."""
    try:
        yield
    except EarthworksError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn a failed write into an EarthworksError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        intact = "; what was saved before is intact" if saved_before(path) else ""
        raise EarthworksError(f"could not write {path}: {reason}{intact}", exit_code=1) from error


def saved_before(path: Path) -> bool:
    """Whether the destination folder of a path, or of the temporary folder that contains it, is not empty."""
    given = next((each for each in path.parents if is_temporary(each.name)), path)
    with suppress(OSError):
        return not all(map(is_temporary, os.listdir(given.parent)))
    return False


# Reading


class Regular(io.FileIO):
    """A file whose read errors become EarthworksErrors."""

    def __init__(self, descriptor: int, path: str | Path):
        super().__init__(descriptor)
        self.path = path

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise unreadable(self.path, error) from None


def unreadable(path: str | Path, error: OSError | ValueError) -> EarthworksError:
    reason = getattr(error, "strerror", None) or error
    return EarthworksError(f"{path} cannot be read: {reason}; check its permissions, and that it is complete")


@contextmanager
def open_regular(path: str | Path, *, follow: bool = True) -> Iterator[io.BufferedReader]:
    """Open a regular file to read its bytes: a pipe would block and a device never ends.

    Raises EarthworksError if the file is missing, unreadable or not regular, or if a library that reads it rejects its
    contents; other system errors are passed on.
    """
    try:
        links = 0 if follow else os.O_NOFOLLOW
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    except FileNotFoundError:
        raise EarthworksError(f"{path} does not exist: check the path, or put the file back") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise EarthworksError(
            f"{path} cannot be read: it is not a regular file but a folder, a pipe or a device; give a file"
        )
    reader: io.BufferedReader = io.BufferedReader(Regular(descriptor, path))
    with reader as stream:
        try:
            yield stream
        except OSError as error:
            if error.errno is not None:
                raise
            raise unreadable(path, error) from None


def read_beginning(path: str | Path, most: int) -> bytes:
    """At most `most` bytes from the start of a regular file; a link to one is refused."""
    with open_regular(path, follow=False) as stream:
        return stream.read(most)


def read_regular(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; EarthworksError for a larger one."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size  # a buffer of `limit` bytes would be allocated in full
        data = stream.read(min(limit, size) + 1)
        if len(data) > size:  # it grew, or its file system does not report sizes
            data += stream.read(max(0, limit + 1 - len(data)))
    if len(data) > limit:
        raise EarthworksError(
            f"{path} exceeds the limit of {limit:,} bytes for such a file: it was altered, or is of another kind; "
            "give the right file"
        )
    return data


def inside(folder: Path, name: object) -> Path:
    """The path of a name listed by a file in `folder`: relative, without `..`, and inside the folder after following links.

    Raises EarthworksError for any other; the file need not exist.
    """
    if not isinstance(name, str) or not name or "\0" in name or len(name.encode(errors="replace")) > 4096:
        raise EarthworksError(
            f"{folder} lists a file {str(name)[:80]!r}, which is not a valid file name: the folder was altered; copy it "
            "again from its source"
        )
    pure = PurePosixPath(name)
    found = folder / name
    outside = pure.is_absolute() or ".." in pure.parts
    if outside or not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(folder)):
        raise EarthworksError(
            f"{folder} lists the file {name!r}, which is outside it and is not read or written: copy the file itself "
            "into the folder, or leave it out"
        )
    return found


def sha256(path: str | Path) -> str:
    """The SHA-256 of a regular file, in hexadecimal."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blocks_digest(path: str | Path) -> str:
    """SHA-256 of a file's size and of 64 blocks of 4 KiB, evenly spaced from its first byte to its last: detects a
    replaced, cut or rearranged file by reading 256 KiB, whatever its size. A changed byte between the blocks is not
    detected: that takes `sha256`."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256(f"{size}\n".encode())
        last = max(0, size - BLOCK)
        for place in sorted({last * index // (BLOCKS - 1) for index in range(BLOCKS)}):
            stream.seek(place)
            digest.update(stream.read(BLOCK))
    return digest.hexdigest()
