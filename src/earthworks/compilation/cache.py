"""Disk cache of machine code, keyed by everything that it was made from.

    folder   kernels-<versions>-<sources>   versions: of Python, numba and llvmlite; sources: of every kernel
    file     <module>.<function>-<key>      key: the types, the processor and its features, the function's byte code

numba's own cache checks only the file that a function is in, and keeps using machine code that includes an outdated
function of another file; and two processes that compile a function for different types at once can leave the code of one
under the types of the other. Here a changed kernel has another folder, and each entry its own file, which contains its
key and is written atomically.
"""

import hashlib
import importlib.metadata
import os
import pickle
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

PACKAGE = Path(__file__).parents[1]
IMPORTS = re.compile(rb"^ *from earthworks\.([\w.]+) import", re.MULTILINE)


def kept(dispatcher: Any, function: Callable[..., Any]) -> Any:
    """`dispatcher`, numba's for `function`, with its machine code cached on disk if a folder is writable."""
    place = folder()
    if place is not None:
        dispatcher._cache = KernelCache(function, place)
    return dispatcher


class Entries(CompileResultCacheImpl):
    """numba's serialisation of compiled code, without its choice of a folder."""

    def __init__(self, function: Callable[..., Any]):
        self._lineno = function.__code__.co_firstlineno

    def check_cachable(self, cres: Any) -> bool:
        """Whether the code is the same in another process: not if it holds addresses of this one."""
        return not cres.library.has_dynamic_globals and all(each.can_cache for each in cres.lifted)


class KernelCache(FunctionCache):
    """The entries of one function. Unreadable entries are compiled again; unwritable ones are not kept."""

    def __init__(self, function: Callable[..., Any], folder: Path):
        self._name = f"{function.__module__}.{function.__qualname__}".replace("<", "").replace(">", "")
        self._py_func = function
        self._impl = Entries(function)
        self._cache_path = str(folder)
        self._source = hashlib.sha256(Path(function.__code__.co_filename).read_bytes()).hexdigest()
        self.enable()

    def _place(self, key: Any) -> Path:
        return Path(self._cache_path, f"{self._name[-100:]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}")

    def _key(self, signature: Any, codegen: Any) -> Any:
        return self._source, *self._index_key(signature, codegen)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        key = self._key(sig, target_context.codegen())
        try:
            known, data = pickle.loads(self._place(key).read_bytes())
            return self._impl.rebuild(target_context, data) if known == key else None
        except Exception:  # missing, or damaged: pickle raises anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or not self._impl.check_cachable(data):
            return
        key = self._key(sig, data.codegen)
        temporary = Path(self._cache_path, f".{os.getpid()}-{os.urandom(8).hex()}")
        try:
            temporary.write_bytes(dumps((key, self._impl.reduce(data))))
            temporary.replace(self._place(key))
        except OSError:  # a full disk, or a newer process has cleared the folder away
            temporary.unlink(missing_ok=True)


@cache
def folder() -> Path | None:
    """Cache folder of this process: in the first of `places` that is writable. Folders of other sources are deleted."""
    versions = (platform.python_version(), *map(importlib.metadata.version, ("numba", "llvmlite")))
    prefix = f"kernels-{digest(*(version.encode() for version in versions))}-"
    for place in places():
        chosen = place / (prefix + digest(*(path.read_bytes() for path in sources(PACKAGE))))
        try:
            new = not chosen.exists()
            chosen.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=chosen).close()
        except OSError:
            continue
        if new:
            for old in place.glob(f"{prefix}*"):
                if old != chosen:
                    shutil.rmtree(old, ignore_errors=True)
        return chosen
    return None


def places() -> list[Path]:
    """Candidate cache folders for this copy of the package: numba's setting, the package, the home folder."""
    mine = digest(str(PACKAGE).encode())
    asked = [Path(os.environ["NUMBA_CACHE_DIR"], mine)] if os.environ.get("NUMBA_CACHE_DIR") else []
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [*asked, PACKAGE / "__pycache__", *([Path(home, "earthworks", mine)] if os.path.isabs(home) else [])]


def sources(package: Path) -> list[Path]:
    """Source files of machine code: those that import `earthworks.compilation`, its own, and the modules that those
    import from, whose constants are in the machine code."""
    texts = {path: path.read_bytes() for path in package.rglob("*.py")}
    kernels = {path for path, text in texts.items() if b"earthworks.compilation import" in text}
    named = [Path(*name.decode().split(".")) for path in kernels for name in IMPORTS.findall(texts[path])]
    found = (
        kernels | {package / name.with_suffix(".py") for name in named} | {package / n / "__init__.py" for n in named}
    )
    return sorted(path for path in found | set((package / "compilation").glob("*.py")) if path in texts)


def digest(*contents: bytes) -> str:
    """16 hexadecimal digits for these contents in this order."""
    each = (hashlib.sha256(content).digest() for content in contents)
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]
