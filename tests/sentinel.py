"""The sentinel: strangers' files around, above and inside the folder that a command writes, which no command may change.

`with unharmed(folder):` plants them, and afterwards compares what is there by content, mode, time, inode and link; then
they go again, so that a test finds its own files only. The fixture `command`, the runs of tests/tiny_runs.py and other
helpers do so around everything that they run; `strangers(folder)` is for a test that plants them itself.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

OLD = 1_000_000_000_000_000_000  # modified in 2001, so that a file that is written again shows

# Nothing is planted outside this folder: the tests' temporary one, which tests/conftest.py sets.
ground: Path | None = None

# Names that a person may give, and that a command could take for its own.
FILES = ("notes.txt", "thesis/chapter.txt", ".tmp-mine", ".tmp-thesis/chapter.txt", "work/mine.txt", "locked.txt")
FEWER = (".tmp-mine", ".tmp-thesis/chapter.txt", "thesis/chapter.txt")  # for the folders inside the folder
SHARED = ("work",)  # of these folders, which a command may put its own files into as well
LINK = "link-to-notes"
WRITTEN = ("run", "output", "resume")  # options that name what a command writes
SWITCHES = ("json", "open", "debug")  # options that no value follows
MADE = ("config.yaml", "plan.json", "manifest.json")  # what is in a run or a corpus: other folders may have to be empty


class Strangers:
    """Files planted in folders, how they looked then, and what has happened to them since."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.before: dict[Path, tuple] = {}

    def plant(self, folder: Path, names: Iterable[str] = FILES) -> None:
        """Make those of the names that are not there yet."""
        for name in names:
            path = folder / name
            if not os.path.lexists(path.parent):
                path.parent.mkdir()
                self.paths.append(path.parent)
            if path.parent.is_dir() and not path.parent.is_symlink() and not os.path.lexists(path):
                path.write_text(f"mine: {name}")
                path.chmod(0 if name == "locked.txt" else 0o640)
                self.paths.append(path)
        if "notes.txt" in names and not os.path.lexists(folder / LINK):
            (folder / LINK).symlink_to("notes.txt")
            self.paths.append(folder / LINK)
        for path in reversed(self.paths):  # a folder after what was put into it
            os.utime(path, ns=(OLD, OLD), follow_symlinks=False)
        self.before = {path: looks(path) for path in self.paths}

    def harmed(self) -> list[str]:
        """A line for each that is not as it was."""
        return [
            f"{path}: {'gone' if now is None else f'{was} became {now}'}"
            for path, was in self.before.items()
            if (now := looks(path)) != was
        ]

    def uproot(self) -> None:
        """Remove what was planted; a folder that something else was put into stays."""
        for path in reversed(self.paths):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def looks(path: Path) -> tuple | None:
    """All that can change of a file but the time it was last read; None when it is gone."""
    try:
        found = path.lstat()
    except OSError:
        return None
    content = ""
    if stat.S_ISDIR(found.st_mode) and path.name in SHARED:
        return stat.filemode(found.st_mode), found.st_ino
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return stat.filemode(found.st_mode), found.st_size, found.st_mtime_ns, found.st_ino, content


@contextlib.contextmanager
def strangers(*folders: Path, names: Iterable[str] = FILES) -> Iterator[Strangers]:
    """Strangers' files in each of these folders while the block runs; fails when one was harmed."""
    planted = Strangers()
    try:
        for folder in folders:
            planted.plant(folder, names)
        yield planted
    finally:
        harmed = planted.harmed()
        planted.uproot()
    assert not harmed, "strangers' files were harmed:\n" + "\n".join(harmed)


@contextlib.contextmanager
def unharmed(*targets: Path, inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Strangers' files around and above each target, and inside one that is a run or a corpus already.

    Nothing is planted where the command reads whatever it finds: in an input or below it.
    """
    inputs = [each.resolve() for each in inputs]
    targets = tuple(Path(os.path.abspath(each)) for each in targets)
    outside = [place for each in targets for place in (each.parent, each.parent.parent)]
    inside = [each for each in targets if any((each / name).is_file() for name in MADE)]
    deeper = [
        entry
        for each in inside
        if (each / "config.yaml").is_file() or (each / "manifest.json").is_file()  # so that nothing is made anew
        for entry in each.iterdir()
        if entry.is_dir() and not entry.is_symlink() and entry.name not in {Path(name).parts[0] for name in FILES}
    ]

    def allowed(place: Path) -> bool:
        real = place.resolve()
        return (
            ground is not None
            and real.is_relative_to(ground)
            and real != ground  # which has its own: see tests/conftest.py
            and real.is_dir()
            and os.access(real, os.W_OK)
            and not any(real.is_relative_to(each) for each in inputs)
        )

    everywhere = dict.fromkeys(place for place in (*outside, *inside) if allowed(place))
    below = dict.fromkeys(place for place in deeper if allowed(place))
    with strangers(*everywhere), strangers(*below, names=FEWER):
        yield


def around(arguments: Iterable[object]) -> contextlib.AbstractContextManager[None]:
    """`unharmed` for what the arguments of a command say that it writes and reads."""
    targets, inputs = written_and_read([str(each) for each in arguments])
    return unharmed(*targets, inputs=inputs)


def written_and_read(arguments: list[str]) -> tuple[list[Path], list[Path]]:
    """Folders that a command line writes, and those that it reads.

    Written is what --run, --output and --resume name, there or in a YAML file, and every folder that stands alone, as
    the run of `report` does."""
    targets, inputs = [], []
    given: list[tuple[str, str]] = []
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument[2:].partition("=")
            if not equals:
                option = "" if option in SWITCHES else option
                continue
            given.append((option, value))
        else:
            given.append((option, argument))
        option = ""
    for name, value in [*given, *(each for _, file in given for each in settings_of(file))]:
        if name in WRITTEN:
            targets.append(Path(value))
        elif os.path.isdir(value):
            (inputs if name else targets).append(Path(value))
        elif "*" in value or "," in value or "=" in value:  # patterns, or several: whatever is there may be read
            parts = (part.rpartition("=")[2] for part in value.split(","))
            inputs += [folder for part in parts if (folder := Path(part).parent).is_absolute()]
            inputs += [Path(part) for part in parts if os.path.isdir(part)]
    return targets, inputs


def settings_of(value: str) -> list[tuple[str, str]]:
    """The names and values in a YAML file, line by line: enough to find folders, whatever the file is."""
    if not value.endswith((".yaml", ".yml")) or not os.path.isfile(value) or os.path.getsize(value) > 1 << 16:
        return []
    lines = Path(value).read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.strip(" -").partition(":") for line in lines)
    return [(name.strip(), rest.strip(" '\"[]")) for name, _, rest in pairs]
