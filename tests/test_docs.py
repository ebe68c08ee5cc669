"""Links between the documents and into the source lead somewhere."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document):
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing


SOURCE = re.compile(r"`((?:src/earthworks/)?(?:\w+/)+\w+\.py)`(?!\])")


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.name not in ("log.md", "CHANGELOG.md")])
def test_every_file_that_a_document_names_is_there(document):
    places = (ROOT, ROOT / "src" / "earthworks", ROOT / "tests")
    named = set(SOURCE.findall(document.read_text()))
    assert not [name for name in named if not any((place / name).exists() for place in places)]


COMMAND = re.compile(r"(?:^|`|\$ |    |bin/)earthworks ((?:[a-z]+ )?[a-z]+)((?:[^`\n]|\\\n)*)", re.MULTILINE)
FLAG = re.compile(r"(?<!\S)--([A-Za-z][\w-]*)")


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.name != "log.md"], ids=lambda path: path.name)
def test_every_command_that_a_document_shows_has_these_flags(document):
    flags = json.loads((ROOT / "tests" / "names.json").read_text())
    everywhere = {"config", "print_config", "debug", "help", "version"}
    for name, rest in COMMAND.findall(document.read_text()):
        known = name if name in flags else name.split()[0]
        if known not in flags:  # a sentence about earthworks
            assert known not in {each.split()[0] for each in flags} or len(name.split()) == 1, f"earthworks {name}"
            continue
        given = {flag.replace("-", "_") for flag in FLAG.findall(rest.split("#")[0].split(" | ")[0])}
        assert given <= {*flags[known], *everywhere}, f"earthworks {name} {rest}"


PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.name != "log.md"], ids=lambda path: path.name)
def test_every_python_example_is_python_and_its_imports_are_there(document):
    for block in PYTHON.findall(document.read_text()):
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Import | ast.ImportFrom) and "earthworks" in ast.unparse(statement):
                exec(compile(ast.Module([statement], []), document.name, "exec"), {})
