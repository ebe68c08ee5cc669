"""Machine code on disk is used while everything that it was made from is unchanged, and never after."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from earthworks import compilation
from earthworks.compilation import cache

INNER = "from earthworks.compilation import compiled\n\n@compiled\ndef inner(x):\n    return x + {amount}\n"
OUTER = (
    "from earthworks.compilation import compiled\nfrom earthworks.inner import inner\n"
    "from earthworks.constant import TEN\n\n@compiled\ndef outer(x):\n    return inner(x) * TEN\n"
)
CALL = "from earthworks.outer import outer; print(outer(1), len(outer.stats.cache_hits))"


def twice(x):
    return x + x


def as_kept(folder: Path, function=twice):
    """A dispatcher that knows nothing yet, with its machine code in `folder`."""
    dispatcher = njit(function)
    dispatcher._cache = cache.KernelCache(function, folder)
    return dispatcher


def was_read(dispatcher) -> int:
    return sum(dispatcher.stats.cache_hits.values())


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the package with three more modules: a kernel, one that calls it, and a constant of that."""
    package = tmp_path / "copy" / "earthworks"
    shutil.copytree(cache.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "inner.py").write_text(INNER.format(amount=1))
    (package / "constant.py").write_text("TEN = 10\n")
    (package / "outer.py").write_text(OUTER)
    return package


def called(package: Path) -> tuple[int, int]:
    """(outer(1), how many of its overloads were read from disk) in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
    value, read = done.stdout.split()
    return int(value), int(read)


def test_a_change_in_an_imported_kernel_is_seen_and_old_machine_code_is_cleared_away(copy):
    assert called(copy) == (20, 0)
    assert called(copy) == (20, 1)
    (old,) = (copy / "__pycache__").glob("kernels-*")
    (copy / "inner.py").write_text(INNER.format(amount=2))
    assert called(copy) == (30, 0)
    (copy / "constant.py").write_text("TEN = 100\n")
    assert called(copy) == (300, 0)
    (new,) = (copy / "__pycache__").glob("kernels-*")
    assert old != new


def test_every_module_with_a_compiled_function_is_a_source():
    found = cache.sources(cache.PACKAGE)
    for path in cache.PACKAGE.rglob("*.py"):
        text = path.read_text()
        if "import numba" in text or "from numba" in text or "@compiled" in text:
            assert path in found, path


def test_entries_of_other_types_processors_and_byte_code_are_not_mixed(tmp_path):
    def thrice(x):
        return x + x + x

    thrice.__qualname__ = "twice"
    for function, factor in ((twice, 2), (thrice, 3), (twice, 2)):
        dispatcher = as_kept(tmp_path, function)
        assert [dispatcher(1), dispatcher(1.5)] == [factor, 1.5 * factor]
        assert np.array_equal(dispatcher(np.ones(2)), np.full(2, factor))
    assert was_read(dispatcher) == 3
    assert len(list(tmp_path.iterdir())) == 6


def test_code_that_holds_addresses_of_this_process_is_not_kept(tmp_path):
    large = np.arange(200_000)  # numba refers to such a constant by its address

    def looked_up(k):
        return large[k]

    assert as_kept(tmp_path, looked_up)(7) == 7
    assert not list(tmp_path.iterdir())


def test_a_damaged_entry_is_compiled_again(tmp_path):
    as_kept(tmp_path)(1)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", whole[:100], b"\x80\x05K\x01.", bytes(len(whole))):
        entry.write_bytes(damaged)
        again = as_kept(tmp_path)
        assert (again(2), was_read(again)) == (4, 0)
    again = as_kept(tmp_path)
    assert (again(2), was_read(again)) == (4, 1)


def test_a_folder_that_is_cleared_away_or_full_costs_nothing_but_time(tmp_path, monkeypatch):
    gone = as_kept(tmp_path / "gone")
    assert gone(1) == 2

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "full").mkdir()
    assert as_kept(tmp_path / "full")(1) == 2
    assert not list((tmp_path / "full").iterdir())


def test_machine_code_is_kept_in_the_first_place_that_can_be_written(tmp_path, monkeypatch):
    def parent() -> Path:
        chosen = cache.folder.__wrapped__()
        return chosen.parent if chosen else Path("nowhere")

    package = tmp_path / "package"
    mine = cache.digest(str(package).encode())
    monkeypatch.setattr(cache, "PACKAGE", package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "asked"))
    assert parent() == tmp_path / "asked" / mine
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert parent() == package / "__pycache__"
    shutil.rmtree(package)
    package.write_text("no folder can be made in here")
    assert parent() == tmp_path / "home" / "earthworks" / mine
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert parent() == Path("nowhere")
    monkeypatch.setattr(cache, "folder", lambda: None)
    assert compilation.compiled(twice)(2) == 4
