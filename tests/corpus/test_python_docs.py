import ast
import inspect
import os
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path

import pytest

from earthworks.corpus import read
from earthworks.corpus.readers import python_docs as module
from earthworks.corpus.readers.python_docs import definitions, python_docs, without_docstrings
from earthworks.runs import EarthworksError


def strip(source: str) -> str:
    tree = ast.parse(source)
    return without_docstrings(source, [tree, *(node for _, node in definitions(tree))])


class Stripper(ast.NodeTransformer):
    """The same on the syntax tree: a docstring goes, and `pass` comes where nothing else is left."""

    def strip(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = strip


def test_code_is_the_library_without_its_docstrings():
    root = Path(sysconfig.get_path("stdlib"))
    documents = {document.id: document.text for document in python_docs("code")}
    for name in ("argparse", "json.decoder", "tkinter", "typing", "turtle", "asyncio.base_events", "_pydecimal", "cgi"):
        path = root / (name.replace(".", "/") + ".py")
        path = path if path.exists() else root / name / "__init__.py"
        if path.exists():  # some are gone in later versions
            expected = Stripper().visit(ast.parse(path.read_bytes()))
            assert ast.dump(ast.parse(documents[name])) == ast.dump(expected), name


def test_no_docstring_is_left_in_the_code():
    for document in python_docs("code")[::7]:
        tree = ast.parse(document.text)
        for _, node in [("", tree), *definitions(tree)]:
            assert not ast.get_docstring(node), (document.id, node)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Doc."""\n\nx = 1\n', "x = 1\n"),
        ('def f():\n    """Doc\n    more."""\n\n    return 1\n', "def f():\n    return 1\n"),
        ('def f():\n    "Doc"\ng = 1\n', "def f():\n    pass\ng = 1\n"),
        ('def f(): "Doc"\n', "def f(): pass\n"),
        ('def f(): "Doc"; return 1\n', "def f(): return 1\n"),
        ('class é(A, b="ü"): "Doc"  # why\n', 'class é(A, b="ü"): pass  # why\n'),
        ('class A:\n    "Doc"  # why\n    x = 1\n', "class A:\n    # why\n    x = 1\n"),
        ('async def f():\n    """A\n\n\n    B"""\n    await x\n', "async def f():\n    await x\n"),
        ('if x:\n    def f():\n        """Doc"""\n', "if x:\n    def f():\n        pass\n"),
        ('x = 1\n"""not a docstring"""\n', 'x = 1\n"""not a docstring"""\n'),
    ],
)
def test_docstrings_are_cut_out_of_source(source, expected):
    assert strip(source) == expected
    assert ast.dump(ast.parse(strip(source))) == ast.dump(Stripper().visit(ast.parse(source)))


def test_prose_holds_the_docstrings_that_inspect_sees():
    import argparse
    import json.decoder

    documents = {document.id: document.text for document in python_docs("prose")}
    parser = documents["argparse"]
    assert parser.startswith("argparse\n\n" + inspect.getdoc(argparse))
    assert "\n\nArgumentParser\n\n" + inspect.getdoc(argparse.ArgumentParser) in parser
    assert "\n\nHelpFormatter.add_usage\n\n" not in parser  # it has none
    assert (
        "JSONDecoder.raw_decode\n\n" + inspect.getdoc(json.decoder.JSONDecoder.raw_decode) in documents["json.decoder"]
    )


def test_the_reference_is_in_the_prose():
    topics = pytest.importorskip("pydoc_data.topics").topics
    documents = {document.id: document for document in python_docs("prose")}
    assert documents["topic assert"].text.strip() == topics["assert"].strip()
    assert documents["topic assert"].metadata == {"kind": "reference"}
    assert sum(name.startswith("topic ") for name in documents) == len(set(topics.values()))


def test_prose_is_not_repeated_and_not_in_the_code():
    docstrings = [
        part for d in python_docs("prose") if d.metadata["kind"] == "docstrings" for part in d.text.split("\n\n")
    ]
    everything = "\n".join(document.text for document in python_docs("code"))
    paragraphs = [part for part in docstrings if len(part) > 300][::8]
    assert len(paragraphs) > 50
    assert not [part for part in paragraphs if part in everything]
    for subset in ("prose", "code"):
        texts = [document.text for document in python_docs(subset)]
        assert len(texts) == len(set(texts))
        assert all(text.strip() and text.endswith("\n") for text in texts)


def test_nothing_but_the_library_is_read():
    names = {document.id for subset in ("prose", "code") for document in python_docs(subset)}
    assert {"argparse", "json.decoder", "asyncio"} <= names
    assert not [name for name in names if {"test", "tests", "idle_test"} & set(name.split("."))]
    assert not [name for name in names if name.startswith(("numpy", "torch", "pip.", "encodings", "pydoc_data"))]


def test_there_is_enough_of_it():
    megabytes = {subset: sum(len(d.text.encode()) for d in python_docs(subset)) / 1e6 for subset in ("prose", "code")}
    assert 1.5 < megabytes["prose"] < 6
    assert 4 < megabytes["code"] < 20


def digest() -> str:
    texts = [document.id + document.text for subset in ("prose", "code") for document in python_docs(subset)]
    return sha256("\0".join(texts).encode()).hexdigest()


@pytest.mark.slow
def test_every_process_reads_the_same():
    here = str(Path(__file__).parent)
    program = f"import sys; sys.path.insert(0, {here!r}); import test_python_docs as t; print(t.digest())"
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest()


def test_a_python_without_topics_still_has_docstrings(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert list(module.topics()) == []


def test_a_python_without_source_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(EarthworksError, match="no source of the standard library"):
        next(module.modules())


def test_the_names_of_the_subsets_can_be_read():
    assert [d.id for d in read("python-docs/prose")] == [d.id for d in python_docs("prose")]
    assert len(list(read("python-docs"))) == len(python_docs("prose")) + len(python_docs("code"))
