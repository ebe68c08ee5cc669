"""What may import what, and what is not imported until it is needed."""

import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import grimp
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


PACKAGE = Path(__file__).parents[1] / "src" / "earthworks"


def test_a_room_imports_only_from_lower_floors(capsys):
    """The contracts of pyproject.toml."""
    config = Path(__file__).parent.parent / "pyproject.toml"
    assert lint_imports(config_filename=str(config), no_cache=True) == 0, capsys.readouterr().out


def test_no_files_import_each_other_in_a_circle():
    graph = grimp.build_graph("earthworks", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError with the circle


def test_a_folder_holds_at_most_15_files():
    folders = [
        folder for folder in (PACKAGE, *PACKAGE.rglob("*/")) if folder.is_dir() and "__pycache__" not in folder.parts
    ]
    crowded = {folder: count for folder in folders if (count := sum(map(Path.is_file, folder.iterdir()))) > 15}
    assert not crowded


def test_no_name_of_a_file_stands_in_three_rooms():
    rooms = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in ("__init__", "command"):
            rooms[path.stem].add(path.relative_to(PACKAGE).parts[0])
    assert not {name: found for name, found in rooms.items() if len(found) > 2}


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
