import errno
import itertools
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from earthworks.runs import (
    EarthworksError,
    new_folder,
    read_json,
    remove_folder,
    sha256,
    verify_manifest,
    write_bytes,
    write_json,
)
from earthworks.runs.files import CHUNK, write_through
from earthworks.runs.manifest import MANIFEST
from earthworks.runs.temporary import TEMPORARY, host, is_temporary, left_by_the_dead, remove_leftovers

CALLS = ("write", "fsync", "replace", "rename")
OLD, NEW = b"old" * 1000, b"new" * 2000


def die_at(action, call: int) -> bool:
    """Run `action` in a child process that dies at its `call`-th system call (a write dies halfway); True if it did."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def deadly(name, original):
            def wrapped(*arguments):
                if next(count) == call:
                    if name == "write":
                        original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os._exit(9)
                return original(*arguments)

            return wrapped

        try:
            for name in CALLS:
                setattr(os, name, deadly(name, getattr(os, name)))
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def refuse_at(monkeypatch, call: int, code: int) -> None:
    """Let the `call`-th system call from now fail with an error code."""
    count = itertools.count(1)

    def refusing(original):
        def wrapped(*arguments):
            if next(count) == call:
                raise OSError(code, os.strerror(code))
            return original(*arguments)

        return wrapped

    for name in CALLS:
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob(TEMPORARY + "*"))


def fill(path: Path) -> None:
    with new_folder(path) as folder:
        write_through(folder / "weights", NEW)
        (folder / "inner").mkdir()
        (folder / "inner" / "by-a-library").write_bytes(OLD)


def test_a_process_killed_at_any_call_leaves_the_old_file_or_the_new(tmp_path):
    file = tmp_path / "file"
    seen = set()
    for call in itertools.count(1):
        write_bytes(file, OLD)
        died = die_at(lambda: write_bytes(file, NEW), call)
        seen.add(file.read_bytes())
        if not died:
            break
    assert call == 5  # write, fsync, replace, fsync of the folder: each has killed once
    assert seen == {OLD, NEW}
    assert not unfinished(tmp_path)  # the next write took away what the killed ones left


def test_a_process_killed_at_any_call_leaves_no_folder_or_a_whole_one(tmp_path):
    target = tmp_path / "parent" / "folder"
    whole = 0
    for call in itertools.count(1):
        died = die_at(lambda: fill(target), call)
        if target.exists():
            whole += 1
            verify_manifest(target)
            assert (target / "weights").read_bytes() == NEW
            assert (target / "inner" / "by-a-library").read_bytes() == OLD
            shutil.rmtree(target)
        if not died:
            break
    assert call >= 8
    assert whole == 2  # killed at the very last fsync, and not killed
    assert not unfinished(tmp_path)


def test_a_process_killed_at_any_call_has_deleted_a_folder_or_not_touched_it(tmp_path):
    target = tmp_path / "folder"
    for call in itertools.count(1):
        if not target.exists():
            fill(target)
        died = die_at(lambda: remove_folder(target), call)
        if target.exists():
            verify_manifest(target)
        if not died:
            break
    assert call == 3
    assert not target.exists()
    assert not unfinished(tmp_path)


def left_by(folder: Path, host: str, name: str, seconds: float, pid: int | None = None) -> Path:
    """A folder that a writer left, or is writing, some seconds after its last change."""
    path = folder / f"{TEMPORARY}{host}-{pid or os.getpid()}-{'0' * 16}-{name}"
    path.mkdir()
    (path / "part").write_bytes(OLD)
    for each in (path / "part", path):
        os.utime(each, (time.time() - seconds,) * 2)
    return path


def test_what_a_writer_on_another_machine_is_writing_stays(tmp_path):
    living = [left_by(tmp_path, f"far{k}.0a1b2c3d", "file", seconds) for k, seconds in enumerate((1, 50, -30))]
    growing = left_by(tmp_path, "far", "file", 100_000)
    os.utime(growing / "part")
    dead = [left_by(tmp_path, "far", "other", 100_000), left_by(tmp_path, host(), "file", 1)]
    write_bytes(tmp_path / "file", NEW)  # takes the leftovers of its own name alone
    assert [each for each in dead if each.exists()] == dead[:1]
    remove_leftovers(tmp_path, idle=60.0)
    assert sorted(tmp_path.iterdir()) == sorted([*living, growing, tmp_path / "file"])
    remove_leftovers(tmp_path)  # for who holds the lock
    assert not unfinished(tmp_path)


def test_the_processes_of_a_container_of_the_same_name_are_not_taken_for_dead(tmp_path, monkeypatch):
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine = left_by(tmp_path, host(), "file", 1, gone.pid)
    assert left_by_the_dead(mine.name)
    host.cache_clear()
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[1]")  # elsewhere a living process has that number
    assert not left_by_the_dead(mine.name)
    assert is_temporary(mine.name)
    host.cache_clear()


def test_a_file_that_comes_into_a_folder_while_it_is_deleted_keeps_its_name(tmp_path, monkeypatch):
    fill(tmp_path / "folder")
    rename = os.rename

    def late(source, target):
        if source == tmp_path / "folder":
            (source / "note").write_text("mine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert not remove_folder(tmp_path / "folder")
    assert (tmp_path / "folder" / "note").read_text() == "mine"
    assert not unfinished(tmp_path)


def test_a_folder_that_cannot_be_listed_can_be_written_into(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", refusing(errno.EACCES))
    write_bytes(tmp_path / "file", NEW)
    fill(tmp_path / "folder")
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_leftovers_are_looked_for_once_and_not_at_every_write(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", OLD)
    monkeypatch.setattr(Path, "iterdir", pytest.fail)
    write_bytes(tmp_path / "file", NEW)


def test_every_byte_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []

    def recorded(name, original):
        def wrapped(subject, *arguments):
            events.append((name, os.fstat(subject).st_ino if isinstance(subject, int) else subject))
            return original(subject, *arguments)

        return wrapped

    for name in CALLS:
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    target = tmp_path / "folder"
    fill(target)
    renamed = next(place for place, (name, _) in enumerate(events) if name == "rename")
    synced = {subject for name, subject in events[:renamed] if name == "fsync"}
    assert synced == {entry.stat().st_ino for entry in (target, *target.rglob("*"))}
    assert events[renamed + 1 :] == [("fsync", tmp_path.stat().st_ino)]


@pytest.mark.parametrize("call", range(1, 5))
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch, call):
    file = tmp_path / "file"
    write_bytes(file, OLD)
    refuse_at(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(EarthworksError, match=r"could not write .*file: the disk is full; what was saved") as error:
        write_bytes(file, NEW)
    assert error.value.exit_code == 1
    assert file.read_bytes() == (OLD if call < 4 else NEW)  # at call 4 the name was already given
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("call", range(1, 9))
def test_a_full_disk_leaves_no_trace_of_a_folder(tmp_path, monkeypatch, call):
    # write and fsync of the one file, fsync of each, write and fsync of the manifest, fsync of both folders
    refuse_at(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(EarthworksError, match="the disk is full") as error:
        fill(tmp_path / "folder")
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", range(1, 9))
def test_a_refused_write_names_the_file_that_the_user_knows(tmp_path, monkeypatch, call):
    refuse_at(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(
        EarthworksError, match=rf"could not write {tmp_path}/folder(/weights|/manifest.json)?: "
    ) as error:
        fill(tmp_path / "folder")
    assert TEMPORARY not in str(error.value)
    refuse_at(monkeypatch, 1, errno.ENOSPC)
    with pytest.raises(EarthworksError, match=rf"could not write {tmp_path}/file: "):
        write_bytes(tmp_path / "file", NEW)


def test_other_refusals_keep_the_systems_own_words(tmp_path, monkeypatch):
    refuse_at(monkeypatch, 1, errno.EIO)
    with pytest.raises(EarthworksError, match="Input/output error"):
        write_bytes(tmp_path / "file", NEW)


def refusing(code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_new_file_can_be_written_where_there_are_no_hard_links(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", refusing(code))
    write_bytes(tmp_path / "file", NEW, new=True)
    with pytest.raises(EarthworksError, match="already exists"):
        write_bytes(tmp_path / "file", OLD, new=True)
    assert (tmp_path / "file").read_bytes() == NEW
    monkeypatch.setattr(os, "replace", refusing(errno.EIO))
    with pytest.raises(EarthworksError, match="Input/output error"):
        write_bytes(tmp_path / "other", OLD, new=True)
    assert os.listdir(tmp_path) == ["file"]


def test_what_was_saved_is_called_intact_where_there_is_any(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_bytes(OLD)
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(os, "write", refusing(errno.ENOSPC))
    for write in (lambda place: write_bytes(place / "other", NEW), lambda place: fill(place / "folder")):
        with pytest.raises(EarthworksError, match="the disk is full; what was saved before is intact"):
            write(tmp_path / "old")
        with pytest.raises(EarthworksError, match=r"the disk is full$"):
            write(tmp_path / "new")


def test_an_error_while_filling_passes_through_and_leaves_no_trace(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder") as folder:
        (folder / "weights").write_bytes(bytes(1 // 0))
    # A file that cannot be read is no failed write, and must not be called one.
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "folder"):
        (tmp_path / "missing").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_not_part_of_the_next_folder(tmp_path):
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder" / "mine").write_bytes(OLD)  # a person's: no name that we make
    assert die_at(lambda: fill(tmp_path / "folder"), 3)
    fill(tmp_path / "folder")
    assert sorted(entry.name for entry in (tmp_path / "folder").iterdir()) == ["inner", MANIFEST, "weights"]
    assert (tmp_path / ".tmp-folder" / "mine").read_bytes() == OLD
    assert not unfinished(tmp_path)


def test_a_folder_with_something_in_it_is_never_replaced(tmp_path):
    fill(tmp_path / "folder")
    with pytest.raises(EarthworksError, match="already exists") as error, new_folder(tmp_path / "folder"):
        raise AssertionError("the work must not start")
    assert error.value.exit_code == 2
    verify_manifest(tmp_path / "folder")
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    verify_manifest(tmp_path / "empty")
    write_bytes(tmp_path / "file", OLD)
    with pytest.raises(EarthworksError, match="already exists"), new_folder(tmp_path / "file"):
        pass


def test_a_truncated_altered_or_missing_file_is_named(tmp_path):
    target = tmp_path / "folder"
    fill(target)
    verify_manifest(target)
    weights = target / "weights"
    for content, complaint in (
        (NEW[:-1], "5999 bytes where its manifest.json says 6000"),
        (b"N" + NEW[1:], "does not match its SHA-256"),
    ):
        weights.write_bytes(content)
        with pytest.raises(EarthworksError, match=f"weights .*{complaint}|weights has {complaint}"):
            verify_manifest(target)
    weights.write_bytes(NEW)
    verify_manifest(target)
    (target / "inner" / "by-a-library").unlink()
    with pytest.raises(EarthworksError, match="by-a-library is missing"):
        verify_manifest(target)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": {"weights": 3}}', b"{}", b"\xff"])
def test_an_altered_manifest_is_one_sentence(tmp_path, content):
    fill(tmp_path / "folder")
    (tmp_path / "folder" / MANIFEST).write_bytes(content)
    with pytest.raises(EarthworksError, match=r"manifest\.json .*altered"):
        verify_manifest(tmp_path / "folder")


def test_the_digest_is_sha_256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_larger_than_one_write_arrives_whole(tmp_path, monkeypatch):
    data = os.urandom(2 * CHUNK + 17)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, block: write(descriptor, block[: max(1, len(block) // 2)]))
    write_bytes(tmp_path / "new" / "file", data)  # its folder is made, and short writes are carried on
    assert (tmp_path / "new" / "file").read_bytes() == data


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"text": "naïve ␀ 漢", "numbers": [1, 2.5, None], "nested": {"a": {}}}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "naïve" in (tmp_path / "value.json").read_text(encoding="utf-8")


def test_json_that_is_missing_cut_short_or_no_file_is_one_sentence(tmp_path):
    with pytest.raises(EarthworksError, match="does not exist"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "cut.json").write_text('{"a": 1, "b"')
    with pytest.raises(EarthworksError, match=r"cut\.json is not readable JSON"):
        read_json(tmp_path / "cut.json")
    with pytest.raises(EarthworksError, match="cannot be read: it is not a regular file"):
        read_json(tmp_path)
