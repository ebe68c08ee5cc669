"""One writer at a time, and nobody is kept out by the dead."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from earthworks.runs import EarthworksError, lock
from earthworks.runs.lock import boot_id, refuse_held, unless_busy

HOLDER = """
import sys, time
from earthworks.runs import lock
with lock(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_who_comes_second_is_told_who_writes_and_does_not_wait(tmp_path, holder):
    with (
        pytest.raises(EarthworksError, match=f"another command .process {holder.pid} on .*since 20") as error,
        lock(tmp_path, "training"),
    ):
        pass
    assert error.value.exit_code == 2
    with lock(tmp_path, "tasks.json"):  # another result is another lock
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_died_is_free(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with lock(tmp_path, "training"):
        assert files(tmp_path) == [".earthworks-lock-training"]
    assert files(tmp_path) == []


def test_a_stopped_process_keeps_its_lock(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(EarthworksError, match="another command"), lock(tmp_path, "training"):
        pass
    holder.send_signal(signal.SIGCONT)


def test_who_has_patience_waits_for_a_short_lock(tmp_path, holder):
    threading.Timer(0.2, holder.kill).start()
    with lock(tmp_path, "training", patience=60):
        pass


def test_what_is_written_at_the_end_of_a_command_gives_way_to_another_writer(tmp_path, capsys):
    with lock(tmp_path, "report.html"), unless_busy("earthworks report RUN"), lock(tmp_path, "report.html"):
        pytest.fail("two writers")
    assert "wait until it is done; then run earthworks report RUN" in capsys.readouterr().err


def test_the_same_process_does_not_get_a_lock_twice_and_keeps_the_first(tmp_path):
    with lock(tmp_path, "training"):
        with (
            pytest.raises(EarthworksError, match="already being written by this process"),
            lock(tmp_path / "." / "", "training"),
        ):
            pass
        second = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True)
        assert "another command" in second.stderr
    with lock(tmp_path, "training"):
        pass


def test_a_forked_child_does_not_hold_it_and_does_not_free_it(tmp_path):
    with lock(tmp_path, "training"):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        second = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True)
        assert "another command" in second.stderr
    with lock(tmp_path, "training"):  # while the child lives
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def write_owner(folder: Path, age: float, **owner: object) -> Path:
    """A lock's file as a holder on another host leaves it, which this system does not lock."""
    path = folder / ".earthworks-lock-training"
    path.write_text(
        json.dumps({"host": "far", "boot": "another", "pid": 1, "started": "2026-01-01", "token": "t", **owner})
    )
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_holder_on_another_host_counts_for_a_minute_after_its_last_heartbeat(tmp_path):
    write_owner(tmp_path, 50)
    with pytest.raises(EarthworksError, match="process 1 on far, since 2026"), lock(tmp_path, "training"):
        pass
    write_owner(tmp_path, 70)
    with lock(tmp_path, "training"):
        pass
    write_owner(tmp_path, 0, boot=boot_id())  # of this boot: the system's own lock is the truth, and it is free
    with lock(tmp_path, "training"):
        pass


def test_a_holder_that_slept_while_another_took_over_notices(tmp_path):
    with lock(tmp_path, "training") as held:
        held.check()
        write_owner(tmp_path, 0)
        with pytest.raises(EarthworksError, match="taken over by another process") as error:
            held.check()
        assert error.value.exit_code == 1
    assert files(tmp_path) == [".earthworks-lock-training"]  # the other's, and not removed


def test_a_holder_whose_file_was_removed_stops_and_says_so(tmp_path):
    with lock(tmp_path, "training") as held:
        held.path.unlink()
        with pytest.raises(EarthworksError, match="lock-training was removed while this process was writing"):
            held.check()
    assert files(tmp_path) == []


def test_asking_for_a_lock_that_this_process_holds_does_not_free_it(tmp_path):
    with lock(tmp_path, "training"):
        refuse_held(tmp_path, "training")
        second = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True)
        assert "another command" in second.stderr


@pytest.mark.parametrize(
    ("what", "doing"),
    [
        ("training", "being trained or built"),
        ("building-rank-3", "being trained or built"),
        ("training.json", "being given its training.json"),
    ],
)
def test_who_comes_second_is_told_what_is_being_done(tmp_path, what, doing):
    write_owner(tmp_path, 0).rename(tmp_path / f".earthworks-lock-{what}")
    for second in (lambda: lock(tmp_path, what).__enter__(), lambda: refuse_held(tmp_path, what)):
        with pytest.raises(EarthworksError, match=doing):
            second()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"pid": {"a": [1]}}', b"[" * 4096])
def test_a_lock_file_that_says_nothing_is_free(tmp_path, content):
    (tmp_path / ".earthworks-lock-training").write_bytes(content)
    refuse_held(tmp_path, "training")
    with lock(tmp_path, "training"):
        pass


def test_a_link_or_a_pipe_in_its_place_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".earthworks-lock-training").symlink_to(tmp_path / "mine")
    with pytest.raises(EarthworksError, match="could not write"), lock(tmp_path, "training"):
        pass
    (tmp_path / ".earthworks-lock-training").unlink()
    os.mkfifo(tmp_path / ".earthworks-lock-training")
    with pytest.raises(EarthworksError, match="is not a regular file"), lock(tmp_path, "training"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_system_that_cannot_lock_is_one_sentence(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refused)
    with pytest.raises(EarthworksError, match=r"cannot lock files .No locks available"), lock(tmp_path, "training"):
        pass
