"""The oldest versions that pyproject.toml allows, as constraints for pip: `make test-minimum` installs them.

torch is the one exception: it is that of constraints.txt, because its older wheels on the package index bring several GB
of CUDA with them.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTED = ("torch", "pytest", "pytest-xdist", "hypothesis")


def declared(*extras: str) -> dict[str, str]:
    """The distributions that the package and these extras require, and which versions of each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for each in extras for line in project["optional-dependencies"][each])]
    return dict(parsed(line) for line in lines)


def parsed(requirement: str) -> tuple[str, str]:
    """`parsed("Rich[x]>=13,<16; python_version > '3'")` -> ("rich", ">=13,<16")."""
    found = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)", requirement)
    assert found, requirement
    return normal(found[1]), found[2].strip()


def normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lower_bound(versions: str) -> str:
    """The version after `>=`; fails when there is none."""
    found = re.search(r">=([\d.]+)", versions)
    assert found, versions
    return found[1]


def pinned() -> dict[str, str]:
    """The versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def constraints() -> list[str]:
    """A line for each requirement, and for the tools that run the tests."""
    oldest = {name: lower_bound(versions) for name, versions in declared().items()}
    return [f"{name}=={version}" for name, version in {**oldest, **{each: pinned()[each] for each in TESTED}}.items()]


if __name__ == "__main__":
    print("\n".join(constraints()))
