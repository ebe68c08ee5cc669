"""The names that people type, in commands and in config.yaml, stay what they were.

`python tests/test_names.py --write` after a flag was added on purpose; one that is gone or renamed breaks somebody's script.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path

NAMES = Path(__file__).with_name("names.json")


def flags() -> dict[str, list[str]]:
    """The parameters of every command, in order, which are its flags and the keys of its configuration."""
    from earthworks.cli import COMMANDS, SINGLE

    entries = {f"{room} {verb}": entry for room, verbs in COMMANDS.items() for verb, entry in verbs.items()} | SINGLE
    return {
        name: sorted(inspect.signature(getattr(importlib.import_module(module), function)).parameters)
        for name, (module, function, _) in entries.items()
    }


def test_no_flag_and_no_key_of_a_configuration_changes_its_name():
    assert flags() == json.loads(NAMES.read_text())


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    NAMES.write_text(json.dumps(flags(), indent=1) + "\n")
