"""One writer at a time: `with lock(run, "training"):` holds while the block runs; a second writer is told who holds it.

The lock is a record lock of the operating system (fcntl) on a small file in the folder. The system frees it when the
process ends, however it ends, and children do not inherit it. The file names its holder (host, boot, process, start); its
time is renewed every 15 s (a heartbeat). Where locks of another host are not visible, as on some network file systems, a
holder on another host counts while its heartbeat is younger than 60 s; a holder that slept longer notices by `Held.check`
that it has lost the lock.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import one_sentence
from earthworks.runs.json_files import parse_json
from earthworks.runs.progress import note
from earthworks.runs.temporary import boot_id, clock

HEARTBEAT, STALE = 15.0, 60.0  # seconds
PATIENCE = 5.0  # seconds to wait for another command that writes the same file, which takes milliseconds
WORK = ("training", "building")  # on a whole folder (`building-rank-0` too); any other lock is on a result file
BUSY = (errno.EACCES, errno.EAGAIN)
held_here: set[tuple[int, str]] = set()  # (process, file): closing one descriptor would free a lock held by another


class Busy(EarthworksError):
    """Another process holds the lock."""


class Held:
    """A held lock. `check` raises EarthworksError when it was lost."""

    def __init__(self, path: Path, descriptor: int, owner: dict[str, Any]):
        self.path, self.descriptor, self.owner = path, descriptor, owner
        self.over = threading.Event()
        self.heart = threading.Thread(target=self.beat, daemon=True)

    def beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.descriptor)

    def check(self) -> None:
        """Raise EarthworksError when the lock was lost."""
        if not same_file(self.path, self.descriptor) or read_owner(self.descriptor).get("token") != self.owner["token"]:
            happened = "taken over by another process" if os.path.lexists(self.path) else "removed"
            raise EarthworksError(
                f"{self.path} was {happened} while this process was writing, so it stops; what was saved before is "
                "intact",
                exit_code=1,
            )


@contextmanager
def lock(folder: str | Path, what: str, *, patience: float = 0.0) -> Iterator[Held]:
    """Hold the lock on `what` (`training`, or the name of a result file) in a folder that exists.

    Raises Busy, naming the holder, when another process still holds it after `patience` seconds; EarthworksError when the
    file system cannot lock, and when the lock's file cannot be written.
    """
    path = Path(folder) / f".earthworks-lock-{what}"
    key = (os.getpid(), os.path.realpath(path))
    owner = {
        **{"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid()},
        **{"started": datetime.now().astimezone().isoformat(timespec="seconds"), "token": secrets.token_hex(8)},
    }
    deadline = time.monotonic() + patience
    while True:
        try:
            if key in held_here:
                raise Busy(f"{what} in {folder} is already being written by this process: wait until it is done")
            descriptor = acquire(path, Path(folder), what, owner["boot"])
            break
        except Busy:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
    held_here.add(key)
    held = Held(path, descriptor, owner)
    try:
        with one_sentence(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        held.heart.start()
        yield held
    finally:
        held.over.set()
        if os.getpid() == key[0]:  # not in a child that was forked inside
            if held.heart.is_alive():
                held.heart.join()
            if same_file(path, descriptor) and read_owner(descriptor).get("token", "") in ("", owner["token"]):
                with suppress(OSError):
                    path.unlink()
            held_here.discard(key)
            os.close(descriptor)


@contextmanager
def unless_busy(then: str) -> Iterator[None]:
    """For output at the end of a command, when its work is done: if another command is writing there, print a notice with
    the command to run `then`."""
    try:
        yield
    except Busy as error:
        note(f"notice: {error}; then run {then}")


def acquire(path: Path, folder: Path, what: str, boot: str) -> int:
    """A descriptor of the lock's file, locked."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EarthworksError(f"could not write {path}: {error.strerror}", exit_code=1) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EarthworksError(f"{path} is not a regular file and was not made by Earthworks: remove it")
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in BUSY:
                    raise busy(folder, what, read_owner(descriptor)) from None
                raise EarthworksError(
                    f"the file system of {folder} cannot lock files ({error.strerror}), so two processes could write there "
                    "at once: choose a folder on another file system",
                    exit_code=1,
                ) from None
            if not same_file(path, descriptor):  # its holder removed it between opening and locking
                os.close(descriptor)
                continue
            owner = read_owner(descriptor)
            if owner and owner.get("boot") != boot and age(path, descriptor) < STALE:
                raise busy(folder, what, owner)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def refuse_held(folder: str | Path, what: str) -> None:
    """Raise EarthworksError when another process holds the lock on `what`, without taking it: any number of processes
    may check at once."""
    path = Path(folder) / f".earthworks-lock-{what}"
    if (os.getpid(), os.path.realpath(path)) in held_here:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        owner = read_owner(descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: checks do not block each other
        except OSError as error:
            if error.errno in BUSY:
                raise busy(Path(folder), what, owner) from None
        if owner and owner.get("boot") != boot_id() and age(path, descriptor) < STALE:
            raise busy(Path(folder), what, owner)
    finally:
        os.close(descriptor)


def busy(folder: Path, what: str, owner: dict[str, Any]) -> Busy:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this machine')}, since {owner.get('started', 'just now')}"
    doing = "trained or built" if what.split("-")[0] in WORK else f"given its {what}"
    return Busy(f"{folder} is being {doing} by another command ({who}): wait until it has ended, or stop it")


def read_owner(descriptor: int) -> dict[str, Any]:
    """The holder of a lock according to its file; empty if unreadable."""
    try:
        owner = parse_json(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    if not isinstance(owner, dict) or not {"host", "boot", "pid", "started", "token"} <= owner.keys():
        return {}
    return {key: str(value)[:100] for key, value in owner.items()}


def same_file(path: Path, descriptor: int) -> bool:
    """Whether the name still refers to the open file."""
    try:
        there, here = os.stat(path, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def age(path: Path, descriptor: int) -> float:
    """Seconds since the last heartbeat by the clock of the file system."""
    return abs(clock(path.parent) - os.fstat(descriptor).st_mtime)
