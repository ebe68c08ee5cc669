"""Files that are either wholly there or not there at all, and reading that a stranger's folder cannot abuse.

Everything is written to a temporary name beside its target, fsynced, and renamed; the folder that received the name is
fsynced too. A process killed between any two system calls leaves the old state or the new one, never a mixture.
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
    """Replace `path` by `data` atomically, making its folder if there is none; `new`: only where nothing is at `path`.

    Raises EarthworksError (exit code 1) when the system refuses, as on a full disk; `path` is then what it was. With `new`,
    for a name that is taken (exit code 2): nobody's file is overwritten, even one that came a moment ago.
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
    """Rename a file to a name that nothing has; EarthworksError where something has it."""
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
    """Before any work: EarthworksError when something is at the name where a result is to be written."""
    if os.path.lexists(path):
        raise taken(path)


def taken(path: str | Path) -> EarthworksError:
    return EarthworksError(f"{path} exists already and may be somebody's: choose another name, or move it away")


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
    """Write every byte: the system may take fewer than it is given."""
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
    """Lets an EarthworksError about `temporary`, or about a file in it, name `path`, which the user knows."""
    try:
        yield
    except EarthworksError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns a write that the system refused into an EarthworksError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        intact = "; what was saved before is intact" if saved_before(path) else ""
        raise EarthworksError(f"could not write {path}: {reason}{intact}", exit_code=1) from error


def saved_before(path: Path) -> bool:
    """Whether there is anything in the folder where a path, or the temporary folder that it is in, gets its name."""
    given = next((each for each in path.parents if is_temporary(each.name)), path)
    with suppress(OSError):
        return not all(map(is_temporary, os.listdir(given.parent)))
    return False


# Reading


class Regular(io.FileIO):
    """A file whose reading fails in one sentence."""

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
    return EarthworksError(f"{path} cannot be read: {reason}; give a file that this user may read and that is whole")


@contextmanager
def open_regular(path: str | Path, *, follow: bool = True) -> Iterator[io.BufferedReader]:
    """A file opened to read its bytes, and nothing else: a pipe would be waited for and a device never ends.

    Raises EarthworksError where there is no file, it may not be read, it is not a regular one, or a library that reads it
    complains of what it holds; an error of the system elsewhere passes through.
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
            f"{path} cannot be read: it is no regular file, but a folder, a pipe or a device; give a file"
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
    """At most `most` bytes from the beginning of a regular file; a link to one is refused."""
    with open_regular(path, follow=False) as stream:
        return stream.read(most)


def read_regular(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; else one sentence."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size  # a buffer of the limit would be allocated whole
        data = stream.read(min(limit, size) + 1)
        if len(data) > size:  # it grew, or is of a file system that does not know sizes
            data += stream.read(max(0, limit + 1 - len(data)))
    if len(data) > limit:
        raise EarthworksError(
            f"{path} has more than the {limit:,} bytes that such a file may have: it was altered, or is of another kind; "
            "give the one that is meant"
        )
    return data


def inside(folder: Path, name: object) -> Path:
    """The path of a name that a file in `folder` gives: relative, without `..`, and, links followed, still in there.

    Raises EarthworksError for any other; whether the file exists is not asked.
    """
    if not isinstance(name, str) or not name or "\0" in name or len(name.encode(errors="replace")) > 4096:
        raise EarthworksError(
            f"{folder} names a file {str(name)[:80]!r}, which is no file name: the folder was altered; take it again "
            "from where it came"
        )
    pure = PurePosixPath(name)
    found = folder / name
    outside = pure.is_absolute() or ".." in pure.parts
    if outside or not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(folder)):
        raise EarthworksError(
            f"{folder} names the file {name!r}, which is outside it: nothing outside is read or written; copy the file "
            "itself into the folder, or leave it out"
        )
    return found


def sha256(path: str | Path) -> str:
    """The SHA-256 of a regular file, in hexadecimal."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blocks_digest(path: str | Path) -> str:
    """SHA-256 of a file's size and of 64 blocks of 4 KiB, evenly spaced from its first byte to its last: one that was
    replaced, cut or rearranged is noticed after reading 256 KiB, however large it is. A single byte between the blocks
    is not: that takes `sha256`."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256(f"{size}\n".encode())
        last = max(0, size - BLOCK)
        for place in sorted({last * index // (BLOCKS - 1) for index in range(BLOCKS)}):
            stream.seek(place)
            digest.update(stream.read(BLOCK))
    return digest.hexdigest()
