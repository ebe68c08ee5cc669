"""Temporary names for files being written and folders being deleted.

A temporary name contains host, process and 64 random bits, so no two writers share one and no other file has one.
A writer removes only what it made itself, name by name.
"""

import functools
import hashlib
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

# Prefixes of temporary names: of unfinished files, and of those being deleted. Readers skip them.
TEMPORARY = ".tmp-earthworks-"
OURS = re.compile(re.escape(TEMPORARY) + r"(?P<host>[A-Za-z0-9._]*)-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})[0-9a-f]{8}-")
PROCESS = secrets.token_hex(4)  # tells this process from a dead one of the same number
IDLE = 86400.0  # seconds after which `sweep` treats files of other machines as leftovers


@functools.cache
def host() -> str:
    """This machine's name, in characters allowed in file names, with a digest of its boot and process namespace:
    containers may share a name and not see each other's processes."""
    processes = ""
    with suppress(OSError):
        processes = os.readlink("/proc/self/ns/pid")
    seen = hashlib.sha256(f"{boot_id()} {processes}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())[:32]}.{seen}"


def boot_id() -> str:
    """Identifier of this boot of this machine: two processes with the same one see each other's locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def temporary_name(path: Path) -> Path:
    """A unique name next to `path`: `.tmp-earthworks-HOST-PID-RANDOM-NAME`."""
    return path.with_name(f"{TEMPORARY}{host()}-{os.getpid()}-{PROCESS}{secrets.token_hex(4)}-{path.name[:40]}")


def is_temporary(name: str) -> bool:
    """Whether a name is one of `temporary_name`'s."""
    return OURS.match(name) is not None


def remove_temporary(path: Path) -> None:
    """Remove a file or folder with one of our own temporary names; what cannot be removed is skipped by readers."""
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
    """Remove what killed writers left in a folder under temporary names, except files of processes of this machine that
    still run. Files of other machines are all removed, for callers that hold the folder's write lock; for others, with
    `idle`, only those unchanged for that number of seconds."""
    for entry in list(folder.iterdir()) if is_folder(folder) else []:
        if is_leftover(entry, idle):
            remove_temporary(entry)


def sweep(path: Path) -> None:
    """Remove what killed writers of the same name left next to it, once per process."""
    sweep_once(os.getpid(), path.absolute())


@functools.lru_cache(maxsize=1 << 12)
def sweep_once(process: int, path: Path) -> None:
    with suppress(OSError):  # the folder may be writable and not listable
        for entry in path.parent.iterdir():
            if entry.name.endswith(f"-{path.name[:40]}") and is_leftover(entry, IDLE):
                remove_temporary(entry)


def is_leftover(entry: Path, idle: float) -> bool:
    """Whether a temporary file is a leftover: of an ended process of this machine, or of another machine or an earlier
    boot and unchanged for `idle` seconds."""
    found = OURS.match(entry.name)
    if found is None or found["host"] == host():
        return left_by_the_dead(entry.name)
    return not idle or unchanged_for(entry) > idle


def unchanged_for(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was changed; 0 if unknown."""
    try:
        changed = max(each.stat(follow_symlinks=False).st_mtime for each in (path, *path.rglob("*")))
    except OSError:
        return 0.0
    return clock(path.parent) - changed


def clock(folder: Path) -> float:
    """The time by the clock of a folder's file system, which may differ from this machine's."""
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


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
