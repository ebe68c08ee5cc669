"""`python-docs`: a corpus available wherever Python is installed, read from the installation without a network.

* prose: the language reference included in `pydoc` (one document per topic) and the docstrings of the standard library
  (one document per module: each docstring, dedented, under its qualified name). Repeated docstrings are skipped: 4 % of
  them, such as tkinter's 29 "Internal function.";
* code: the source of the same modules without docstrings, so that held-out prose is not seen in training as part of the
  code.

Files are visited in sorted order and never imported or run, so every process with the same Python reads the same
documents. Excluded: tests, other installed packages, and `TABLES`. Python 3.11: 620 documents of prose in 2.4 MB, 598
of code in 7.7 MB.
"""

import ast
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from earthworks.corpus.document import Document
from earthworks.runs import EarthworksError

WEIGHTS = {"prose": 0.7, "code": 0.3}  # sampling weights of the two subsets
OTHERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
TABLES = (  # mostly numbers and names: generated, or settings of the machine that built Python
    "_sysconfigdata",
    "config-",
    "encodings/",
    "html/entities.py",
    "locale.py",
    "pydoc_data/",
    "stringprep.py",
)
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def python_docs(subset: str) -> tuple[Document, ...]:
    """The documents of `prose` or `code`; no two have the same text."""
    return both_subsets()[subset]


@cache
def both_subsets() -> dict[str, tuple[Document, ...]]:
    """Both subsets in one pass over the library: about five seconds, mostly parsing, and 10 MB of memory."""
    prose = list(topics())
    code = []
    seen: set[str] = set()  # docstrings, and whole texts of code
    for name, source, tree in modules():
        members = [(name, tree), *definitions(tree)]
        parts = []
        for member, node in members:
            text = (ast.get_docstring(node) or "").strip()
            if text and text not in seen:
                seen.add(text)
                parts.append(f"{member}\n\n{text}\n")
        if parts:
            prose.append(Document(name, "\n".join(parts), "python-docs/prose", {"kind": "docstrings"}))
        text = without_docstrings(source, [node for _, node in members]).strip("\n")
        if text and text not in seen:
            seen.add(text)
            code.append(Document(name, text + "\n", "python-docs/code", {"kind": "code"}))
    return {"prose": tuple(prose), "code": tuple(code)}


def topics() -> Iterator[Document]:
    """The language reference; empty if a distribution of Python omits it."""
    try:
        from pydoc_data.topics import topics as texts
    except ImportError:
        return
    names = {
        texts[name]: name for name in sorted(texts, reverse=True)
    }  # two names may have the same text: keep the first
    for text, name in sorted(names.items(), key=lambda item: item[1]):
        yield Document(f"topic {name}", text.strip() + "\n", "python-docs/prose", {"kind": "reference"})


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """(dotted name, source, syntax tree) of each module of the standard library, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in OTHERS]  # not entered: site-packages can be very large
        paths += [(Path(folder) / name).relative_to(root) for name in names if name.endswith(".py")]
    paths = sorted(path for path in paths if not path.as_posix().startswith(TABLES))
    if not paths:
        raise EarthworksError(f"python-docs: no source of the standard library in {root}; give your own --data")
    for path in paths:
        content = (root / path).read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        # form feeds separate pages in some old modules; str.splitlines would split lines there, Python does not
        source = content.decode(encoding).replace("\r\n", "\n").replace("\f", "")
        yield ".".join(path.with_suffix("").parts).removesuffix(".__init__"), source, ast.parse(source)


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """(name within the module, node) of every class and function, in the order of the source."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
            yield from definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # under an if, a try, a with
            yield from definitions(child, prefix)


def without_docstrings(source: str, nodes: list[ast.Module | Definition]) -> str:
    """The source without the docstrings of `nodes` and the blank lines after them; `pass` fills an empty body."""
    lines = source.split("\n")
    removed: set[int] = set()
    for node in nodes:
        if ast.get_docstring(node, clean=False) is None:
            continue
        string = node.body[0]
        assert string.end_lineno is not None
        assert string.end_col_offset is not None
        first, last = string.lineno - 1, string.end_lineno - 1
        before = lines[first].encode()[: string.col_offset].decode()  # the tree counts in UTF-8 bytes
        after = lines[last].encode()[string.end_col_offset :].decode().lstrip("; ")
        removed.update(range(first, last + 1))
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            lines[first] = f"{before}pass  {after}".rstrip()
        elif before.strip() or after.strip():
            lines[first] = before + after
        else:
            while last + 1 < len(lines) and not lines[last + 1].strip():
                last += 1
                removed.add(last)
            continue
        removed.discard(first)
    return "\n".join(line for number, line in enumerate(lines) if number not in removed)
