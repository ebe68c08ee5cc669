"""What may import what, and what is not imported until it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

HEAVY = (
    "torch",
    "numpy",
    "pyarrow",
    "tokenizers",
    "matplotlib",
    "jinja2",
    "datasets",
    "transformers",
    "scipy",
    "numba",
)


def test_a_room_imports_only_from_lower_floors(capsys):
    """The contracts of pyproject.toml."""
    config = Path(__file__).parent.parent / "pyproject.toml"
    assert lint_imports(config_filename=str(config), no_cache=True) == 0, capsys.readouterr().out


def loaded_after(statement: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after `statement`."""
    report = "import sys; sys.stderr.write(chr(10) + ' '.join(sys.modules))"
    program = f"{statement}\n{report}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(HEAVY) & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import earthworks",
        "import earthworks.cli",
        "import earthworks.cli; earthworks.cli.main(['--help'])",
        "import earthworks.cli; earthworks.cli.main(['gopher', '--help'])",
        "import earthworks.cli; earthworks.cli.main(['--version'])",
    ],
)
def test_asking_what_there_is_loads_nothing_heavy(statement):
    assert loaded_after(statement) == set()


def test_the_measure_above_sees_what_is_loaded():
    assert "numpy" in loaded_after("import numpy")
