"""One writer at a time: `with lock(run, "training"):` holds while the block runs; who comes second is told who writes.

The lock is a record lock of the operating system (fcntl) on a small file in the folder. The system frees it when the
process ends, however it ends, and children do not inherit it. The file says who holds it: host, boot, process, start; its
time is renewed every 15 s (a heartbeat). Where a lock of another host is not seen by this one, as on some network file
systems, a holder on another host counts while its heartbeat is younger than 60 s; a holder that slept longer notices by
`Held.check` that it has lost the lock.
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
PATIENCE = 5.0  # seconds for another command that is writing the same file, which takes milliseconds
WORK = ("training", "building")  # on a whole folder (`building-rank-0` too); any other lock is on a result file
BUSY = (errno.EACCES, errno.EAGAIN)
held_here: set[tuple[int, str]] = set()  # (process, file): closing one descriptor would free a lock held by another


class Busy(EarthworksError):
    """Somebody else holds the lock."""


class Held:
    """A lock that is held. `check` raises EarthworksError when it is no longer."""

    def __init__(self, path: Path, descriptor: int, owner: dict[str, Any]):
        self.path, self.descriptor, self.owner = path, descriptor, owner
        self.over = threading.Event()
        self.heart = threading.Thread(target=self.beat, daemon=True)

    def beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.descriptor)

    def check(self) -> None:
        """Raises EarthworksError when the file is no longer ours."""
        if not same_file(self.path, self.descriptor) or read_owner(self.descriptor).get("token") != self.owner["token"]:
            happened = "taken over by another process" if os.path.lexists(self.path) else "removed"
            raise EarthworksError(
                f"{self.path} was {happened} while this process was writing: it stops here, so that only one writes; "
                "what was saved before is intact",
                exit_code=1,
            )


@contextmanager
def lock(folder: str | Path, what: str, *, patience: float = 0.0) -> Iterator[Held]:
    """Hold the lock on `what` (`training`, or the name of a result file) in a folder that exists.

    Raises Busy when another process holds it, after `patience` seconds, with who that is; EarthworksError when the file
    system cannot lock, and when the lock's file cannot be written.
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
                raise Busy(f"{what} in {folder} is being written by this process already: wait until it is done")
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
    """What a command writes at its end, when its work is done: where another one is writing there, a notice says which
    command makes up for it `then`."""
    try:
        yield
    except Busy as error:
        note(f"notice: {error}; then give {then}")


def acquire(path: Path, folder: Path, what: str, boot: str) -> int:
    """A descriptor of the lock's file, locked."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EarthworksError(f"could not write {path}: {error.strerror}", exit_code=1) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EarthworksError(f"{path} is not a regular file: somebody else made it, remove it")
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in BUSY:
                    raise busy(folder, what, read_owner(descriptor)) from None
                raise EarthworksError(
                    f"the file system of {folder} cannot lock files ({error.strerror}), so nothing keeps two processes from "
                    "writing there at once: choose a folder on another one",
                    exit_code=1,
                ) from None
            if not same_file(path, descriptor):  # its holder removed it between our open and our lock
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
    """Raises EarthworksError when another process holds the lock on `what`, without taking it: any number of processes
    may ask at once."""
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
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: who asks does not stand in another's way
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
    """Who holds a lock, as its file says; nothing where it says nothing readable."""
    try:
        owner = parse_json(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    if not isinstance(owner, dict) or not {"host", "boot", "pid", "started", "token"} <= owner.keys():
        return {}
    return {key: str(value)[:100] for key, value in owner.items()}


def same_file(path: Path, descriptor: int) -> bool:
    """Whether the name still leads to the open file."""
    try:
        there, here = os.stat(path, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def age(path: Path, descriptor: int) -> float:
    """Seconds since the last heartbeat by the clock of the file system."""
    return abs(clock(path.parent) - os.fstat(descriptor).st_mtime)
