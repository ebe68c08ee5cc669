"""Safe YAML reading: plain values, and a limit on alias expansion.

An alias (`*name`) repeats what its anchor (`&name`) holds, so nine lines of ten aliases each expand to a billion values.
The expanded size of a file is computed before any of it is built.
"""

from pathlib import Path
from typing import Any

import yaml

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import read_regular

LARGEST = 1 << 20  # bytes: the parser takes seconds per megabyte
MOST_VALUES = 1_000_000  # with aliases expanded; a text counts as one for each 20 characters
DEEPEST = 100
LONGEST_NUMBER = 400  # characters; the largest float in full has 309


def read_yaml(path: str | Path, *, what: str | None = None, most: int = MOST_VALUES) -> Any:
    """The value of a YAML file. Raises EarthworksError for one that is missing, damaged, too large, or expands too far;
    the message starts with `what`, by default the path."""
    return parse_yaml(read_regular(path, LARGEST), what or str(path), most=most)


def parse_yaml(text: bytes | str, where: str, *, most: int = MOST_VALUES) -> Any:
    """The value of a YAML text, which may expand to at most `most` values; `where` names it in errors."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if weight(node)[0] > most:
            raise EarthworksError(f"{where} expands to more than {most:,} values: remove its aliases")
        return loader.construct_document(node)
    except RecursionError:
        raise EarthworksError(f"{where} is nested too deeply: reduce its levels") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, EarthworksError):
            raise
        raise EarthworksError(f"{where} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def weight(node: yaml.Node, counted: dict[int, tuple[int, int]] | None = None) -> tuple[int, int]:
    """Number of values and levels of a node with aliases expanded; raises ValueError for one that contains itself, is too
    deep, or is a number with too many digits."""
    counted = {} if counted is None else counted
    if id(node) in counted:
        values, levels = counted[id(node)]
        if not values:
            raise ValueError("an alias inside its own anchor")
        return values, levels
    counted[id(node)] = 0, 0
    values, levels = 1, 1
    if isinstance(node, yaml.ScalarNode):
        values += len(node.value) // 20
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value):,} digits")
    else:
        pairs = node.value if isinstance(node, yaml.SequenceNode) else (each for pair in node.value for each in pair)
        for more, deeper in (weight(child, counted) for child in pairs):
            values, levels = values + more, max(levels, 1 + deeper)
    if levels > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels")
    counted[id(node)] = values, levels
    return values, levels
