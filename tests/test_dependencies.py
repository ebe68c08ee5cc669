"""What the package imports is declared, with bounds that were tried."""

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lower_bounds import ROOT, constraints, declared, lower_bound, normal, parsed, pinned

SOURCE = ROOT / "src" / "earthworks"
EXTRAS = ("hf", "tensorboard", "ot", "ray", "extract", "eval")
# The distribution of a module whose extra need not be installed here, and what comes only with another package.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "ot": "pot", "lm_eval": "lm-eval"}
WITH_ANOTHER = {"triton": "torch"}  # on Linux torch requires the version that it was built with


def imported() -> Iterator[tuple[str, Path]]:
    """The top name of every module that is imported anywhere in the package, and where."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.append(node.module)
            for name in names:
                yield name.split(".")[0], file.relative_to(SOURCE)


def test_every_module_that_is_imported_is_declared():
    required = declared(*EXTRAS)
    missing = {
        f"{module} in {file}"
        for module, file in imported()
        if module not in sys.stdlib_module_names | {"earthworks"}
        and normal(WITH_ANOTHER.get(module, DISTRIBUTIONS.get(module, module))) not in required
    }
    assert not missing


def test_every_requirement_is_used():
    used = {normal(DISTRIBUTIONS.get(module, module)) for module, _ in imported()}
    assert not declared().keys() - used


@pytest.mark.parametrize("name", declared())
def test_a_requirement_has_a_lower_bound_at_or_below_the_tested_version_and_is_installed_within_its_bounds(name):
    versions = declared()[name]
    low, tested = number(lower_bound(versions)), number(pinned()[name])
    assert low <= tested
    installed = number(importlib.metadata.version(name))
    assert low <= installed
    if "<" in versions:
        (below,) = (number(part[1:]) for part in versions.split(",") if part.startswith("<"))
        assert tested < below
        assert installed < below


def number(version: str) -> tuple[int, ...]:
    """`number("2.13.0+cpu")` -> (2, 13, 0)."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def test_packages_whose_internals_are_used_have_an_upper_bound():
    """numba.core promises nothing from one version to the next, and the code that LLVM is given is written by hand."""
    internals = {"numba.core", "llvmlite.ir"}
    uses = "".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    assert any(f"from {module}" in uses for module in internals)  # else the bounds may go
    for name in ("numba", "llvmlite"):
        assert ",<" in declared()[name]


def test_the_oldest_versions_are_named_one_by_one():
    lines = dict(line.split("==") for line in constraints())
    assert lines.keys() >= declared().keys()
    assert lines["numpy"] == lower_bound(declared()["numpy"])
    assert lines["torch"] == pinned()["torch"]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("torch>=2.11", ("torch", ">=2.11")),
        ("jsonargparse[signatures]>=4.40", ("jsonargparse", ">=4.40")),
        ("lxml_html_clean>=0.4", ("lxml-html-clean", ">=0.4")),
        ("triton>=3.6; platform_system == 'Linux'", ("triton", ">=3.6")),
        ("py3langid>=0.4,<0.5", ("py3langid", ">=0.4,<0.5")),
    ],
)
def test_a_requirement_is_read_as_pip_reads_it(line, meant):
    assert parsed(line) == meant
