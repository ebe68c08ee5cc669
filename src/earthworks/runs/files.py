"""Files that are either wholly there or not there at all, and reading that a stranger's folder cannot abuse.

Everything is written to a temporary name beside its target, fsynced, and renamed; the folder that received the name is
fsynced too. A process killed between any two system calls leaves the old state or the new one, never a mixture.
All writing goes through `os.open`, `os.write`, `os.fsync` and `os.replace` or `os.rename`: a test can stop at each.

A temporary name holds host, process and 64 random bits, so no two writers share one and nobody else's file has one.
Nothing is removed but what the writer itself made, name by name; a folder goes only when its manifest names all of it.
"""

import errno
import functools
import hashlib
import io
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.runs.errors import EarthworksError

MANIFEST = "manifest.json"
# How temporary names begin: of files that were never finished, or that are being deleted. Readers skip them.
TEMPORARY = ".tmp-earthworks-"
OURS = re.compile(re.escape(TEMPORARY) + r"(?P<host>[A-Za-z0-9._]*)-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})[0-9a-f]{8}-")
PROCESS = secrets.token_hex(4)  # tells this process from a dead one of the same number
IDLE = 86400.0  # seconds after which `sweep` takes what no process of this machine wrote for a leftover
CHUNK = 1 << 22
BLOCKS, BLOCK = 64, 4096  # what `blocks_digest` reads of a file
LARGEST_MANIFEST = 1 << 28
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # exFAT, many SMB and FUSE mounts


@functools.cache
def host() -> str:
    """This machine's name, in signs that a file name may have, with a digest of its start and of what numbers its
    processes: containers may share a name and not see each other's processes."""
    processes = ""
    with suppress(OSError):
        processes = os.readlink("/proc/self/ns/pid")
    seen = hashlib.sha256(f"{boot_id()} {processes}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())[:32]}.{seen}"


def boot_id() -> str:
    """What names this start of this machine: two processes with the same see each other's locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def temporary_name(path: Path) -> Path:
    """A name beside `path` that only this call makes: `.tmp-earthworks-HOST-PID-RANDOM-NAME`."""
    return path.with_name(f"{TEMPORARY}{host()}-{os.getpid()}-{PROCESS}{secrets.token_hex(4)}-{path.name[:40]}")


def is_temporary(name: str) -> bool:
    """Whether a name is one of `temporary_name`'s."""
    return OURS.match(name) is not None


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
def one_sentence(path: Path) -> Iterator[None]:
    """Turns a write that the system refused into an EarthworksError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        intact = "; what was saved before is intact" if saved_before(path) else ""
        raise EarthworksError(f"could not write {path}: {reason}{intact}", exit_code=1) from error


@contextmanager
def called(path: Path, temporary: Path) -> Iterator[None]:
    """Lets an EarthworksError about `temporary`, or about a file in it, name `path`, which the user knows."""
    try:
        yield
    except EarthworksError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise


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


# Folders with a manifest


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: fill the temporary folder this yields; on leaving, a manifest with
    size, SHA-256, `blocks_digest` and time of every file is added, everything is fsynced, and the folder takes its name.

    An existing folder with anything in it is refused (EarthworksError) before any work: no order of renames replaces
    one folder by another in a single step, so a crash could leave neither. If the old one may go, call `remove_folder`.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise EarthworksError(f"{path} already exists and is not an empty folder: choose another name, or delete it")
    temporary = temporary_name(path)
    try:
        with one_sentence(path):
            temporary.mkdir(parents=True)
        with called(path, temporary):
            yield temporary
        with one_sentence(path), called(path, temporary):
            entries = sorted(temporary.rglob("*"))
            files = {}
            for file in (entry for entry in entries if entry.is_file()):
                sync(file)  # it may come from a library that did not
                files[file.relative_to(temporary).as_posix()] = description(file)
            write_through(temporary / MANIFEST, (json.dumps({"files": files}, indent=2) + "\n").encode())
            for folder in [temporary, *(entry for entry in entries if entry.is_dir())]:
                sync(folder)
            os.rename(temporary, path)
    except BaseException:
        remove_temporary(temporary)
        raise
    with one_sentence(path):
        sync(path.parent)
    sweep(path)


def description(file: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    found = file.stat()
    digests = {"sha256": sha256(file), "blocks": blocks_digest(file)}
    return {"bytes": found.st_size, **digests, "mtime_ns": found.st_mtime_ns}


def remove_temporary(path: Path) -> None:
    """Remove what stands under one of our own temporary names; what will not go stays, and is skipped by readers."""
    assert is_temporary(path.name), path
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(folder, name))
    with suppress(OSError):
        path.rmdir()


def remove_leftovers(folder: Path, *, idle: float = 0.0) -> None:
    """Remove what writers that were killed left in a folder, under temporary names: what a process of this machine that
    still runs is writing is left alone. Of other machines all of it goes, for a caller that holds the lock of whoever
    writes there; for others, with `idle`, what has not changed for so long (seconds)."""
    for entry in list(folder.iterdir()) if is_folder(folder) else []:
        if is_leftover(entry, idle):
            remove_temporary(entry)


def sweep(path: Path) -> None:
    """Remove what writers of the same name left beside it when they were killed, once in the life of a process."""
    sweep_once(os.getpid(), path.absolute())


@functools.lru_cache(maxsize=1 << 12)
def sweep_once(process: int, path: Path) -> None:
    with suppress(OSError):  # the folder may be one that can be written and not listed
        for entry in path.parent.iterdir():
            if entry.name.endswith(f"-{path.name[:40]}") and is_leftover(entry, IDLE):
                remove_temporary(entry)


def is_leftover(entry: Path, idle: float) -> bool:
    """Whether what stands under a temporary name was left there: by a process of this machine that has ended, or by
    one of another machine, or before this one was started again, and nothing in it has changed for `idle` seconds."""
    found = OURS.match(entry.name)
    if found is None or found["host"] == host():
        return left_by_the_dead(entry.name)
    return not idle or unchanged_for(entry) > idle


def unchanged_for(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was changed; 0 where that cannot be told."""
    try:
        changed = max(each.stat(follow_symlinks=False).st_mtime for each in (path, *path.rglob("*")))
    except OSError:
        return 0.0
    return clock(path.parent) - changed


def clock(folder: Path) -> float:
    """The time by the clock of a folder's file system, whatever this machine's says."""
    probe = temporary_name(folder / "clock")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return os.stat(probe).st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def left_by_the_dead(name: str) -> bool:
    """Whether a temporary name was made by a process of this machine that has ended."""
    found = OURS.match(name)
    if found is None or found["host"] != host():
        return False
    pid = int(found["pid"])
    return found["process"] != PROCESS if pid == os.getpid() else not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def strangers(path: Path) -> list[str]:
    """Names in a folder made by `new_folder` that its manifest does not have: nothing that was written with it."""
    named = {MANIFEST, *manifest_files(path)}
    folders = {parent.as_posix() for name in named for parent in PurePosixPath(name).parents}
    found = (entry for entry in path.rglob("*"))
    return sorted(
        name
        for entry in found
        if (name := entry.relative_to(path).as_posix()) not in (named if not is_folder(entry) else folders)
        and not any(is_temporary(part) for part in PurePosixPath(name).parts)
    )


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def remove_folder(path: str | Path) -> bool:
    """Delete a folder made by `new_folder`; False, and nothing is touched, when it holds a file that its manifest does
    not name (somebody put it there), or has no readable manifest.

    It loses its name first, so that no reader finds it half deleted; then what the manifest names goes, name by name.
    With a file that came in meanwhile it gets its name back (False).
    """
    path = Path(path)
    try:
        if path.is_symlink() or strangers(path):
            return False
        names = [*manifest_files(path), MANIFEST]
    except EarthworksError:
        return False
    doomed = temporary_name(path)
    with one_sentence(path):
        os.rename(path, doomed)
        sync(path.parent)
        for name in names:
            with suppress(FileNotFoundError):
                (doomed / name).unlink()
        for parent in sorted({parent for name in names for parent in PurePosixPath(name).parents}, reverse=True):
            with suppress(OSError):
                (doomed / parent).rmdir()
        if os.path.lexists(doomed):  # a file came in between
            with suppress(OSError):
                os.rename(doomed, path)
            return False
    sweep(path)
    return True


def manifest_files(path: Path) -> dict[str, dict[str, Any]]:
    """What the manifest of a folder says of each of its files; one sentence where it says nothing usable."""
    from earthworks.runs.json_files import read_json

    manifest = read_json(path / MANIFEST, limit=LARGEST_MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not files or not all(is_description(entry) for entry in files.values()):
        raise EarthworksError(f"{path / MANIFEST} does not list files with their sizes and SHA-256: it was altered")
    for name in files:
        inside(path, name)
    return files


def is_description(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)


def verify_manifest(
    path: str | Path, *, names: list[str] | None = None, full: bool = True
) -> dict[str, dict[str, Any]]:
    """Compare the files of a folder made by `new_folder` with its manifest, and return what that says of each.

    `names`: these alone (a name that the manifest does not have is refused); by default all. `full`: by their SHA-256;
    otherwise by size and `blocks_digest`, and by SHA-256 only where the time of change is another than was written.
    Raises EarthworksError naming the first file that differs.
    """
    path = Path(path)
    files = manifest_files(path)
    for name in files if names is None else names:
        if name not in files:
            raise EarthworksError(
                f"{path / MANIFEST} does not name {name}: the folder was altered after it was written"
            )
        verify_file(inside(path, name), files[name], full=full)
    return files


def verify_file(file: Path, written: dict[str, Any], *, full: bool = True) -> None:
    """One file against what was written of it, as `verify_manifest` does."""
    if not file.exists():
        raise EarthworksError(f"{file} is missing: the folder was altered after it was written")
    found = file.stat()
    if found.st_size != written["bytes"]:
        raise EarthworksError(
            f"{file} has {found.st_size} bytes where {written['bytes']} were written: it was cut short or altered"
        )
    if not full and "blocks" in written:
        if blocks_digest(file) != written["blocks"]:
            raise EarthworksError(f"{file} does not match its digest: it was altered after it was written")
        if found.st_mtime_ns == written.get("mtime_ns"):
            return
    if sha256(file) != written["sha256"]:
        raise EarthworksError(
            f"{file} does not match its SHA-256 in {MANIFEST}: one of the two was altered after it was written"
        )
