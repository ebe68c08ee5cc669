"""The sentinel sees whatever is done to a stranger's file, and leaves nothing of its own."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sentinel

HARM: dict[str, Callable[[Path], object]] = {
    "removed": lambda folder: (folder / "notes.txt").unlink(),
    "removed with its folder": lambda folder: shutil.rmtree(folder / "thesis"),
    "moved": lambda folder: (folder / ".tmp-mine").rename(folder / "moved"),
    "written again": lambda folder: (folder / "notes.txt").write_text("other"),
    "written again as it was": lambda folder: (folder / "notes.txt").write_bytes((folder / "notes.txt").read_bytes()),
    "replaced by the same": lambda folder: (
        shutil.copy2(folder / "notes.txt", folder / "n").__fspath__() and os.replace(folder / "n", folder / "notes.txt")
    ),
    "opened to all": lambda folder: (folder / "locked.txt").chmod(0o644),
    "touched": lambda folder: (folder / "work" / "mine.txt").touch(),
    "added to": lambda folder: (folder / "thesis" / "new.txt").touch(),
    "linked elsewhere": lambda folder: (
        (folder / "link-to-notes").unlink() or (folder / "link-to-notes").symlink_to("thesis")
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_stranger_s_file_that_is_harmed_is_named(tmp_path, harm):
    with pytest.raises(AssertionError, match="strangers' files were harmed"), sentinel.strangers(tmp_path):
        HARM[harm](tmp_path)


def test_strangers_come_and_go_around_above_and_inside_a_run(tmp_path):
    run = tmp_path / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("kind: gopher")
    before = sorted(tmp_path.rglob("*"))
    with sentinel.unharmed(run):
        for place in (tmp_path, run.parent, run):
            assert (place / "thesis" / "chapter.txt").is_file()
            assert (place / "link-to-notes").is_symlink()
        assert (run / "checkpoints" / ".tmp-mine").is_file()
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_planted_in_what_a_command_reads_or_must_find_empty(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "corpus").mkdir()
    with sentinel.unharmed(tmp_path / "raw" / "corpus", inputs=[tmp_path / "raw"]):
        assert not list((tmp_path / "raw").iterdir())
        assert (tmp_path / "notes.txt").exists()
    with sentinel.unharmed(tmp_path / "corpus"):
        assert not list((tmp_path / "corpus").iterdir())


@pytest.mark.parametrize(
    ("line", "written", "read"),
    [
        ("--data raw --run runs/a --max_steps 3", ["runs/a"], ["raw"]),
        ("--data=raw --resume=runs/a", ["runs/a"], ["raw"]),
        ("--json raw", ["raw"], []),
        ("raw other", ["raw", "other"], []),
        ("recipe.yaml", ["built"], ["raw"]),
        ("--output samples.npy raw --num 3", ["samples.npy", "raw"], []),
    ],
)
def test_what_a_command_writes_and_reads_is_taken_from_its_arguments(tmp_path, monkeypatch, line, written, read):
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "recipe.yaml").write_text("output: built\nsubsets:\n  web: {}\n  books:\n    input: raw\n")
    assert sentinel.written_and_read(line.split()) == ([Path(name) for name in written], [Path(name) for name in read])
