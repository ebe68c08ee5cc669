"""YAML as it is read here: plain values, and no file that unfolds into more than it says.

An alias (`*name`) repeats what its anchor (`&name`) holds, so nine lines of ten aliases each stand for a billion values.
What a file stands for is counted before any of it is built.
"""

from pathlib import Path
from typing import Any

import yaml

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import read_regular

LARGEST = 1 << 20  # bytes: the parser takes seconds a megabyte
MOST_VALUES = 1_000_000  # aliases unfolded
DEEPEST = 100


def read_yaml(path: str | Path, *, what: str | None = None) -> Any:
    """The value of a YAML file. Raises EarthworksError for one that is missing, damaged, too large, or unfolds too far;
    the sentence begins with `what`, by default the path."""
    return parse_yaml(read_regular(path, LARGEST), what or str(path))


def parse_yaml(text: bytes | str, where: str) -> Any:
    """The value of a YAML text; `where` is what a complaint is about."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if weight(node) > MOST_VALUES:
            raise EarthworksError(
                f"{where} stands for more than {MOST_VALUES:,} values: write out what its aliases repeat"
            )
        return loader.construct_document(node)
    except RecursionError:
        raise EarthworksError(f"{where} is nested too deeply for YAML") from None
    except (yaml.YAMLError, ValueError, UnicodeDecodeError, OverflowError, TypeError) as error:
        if isinstance(error, EarthworksError):
            raise
        raise EarthworksError(f"{where} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def weight(node: yaml.Node, counted: dict[int, int] | None = None, depth: int = 0) -> int:
    """How many values a node stands for, aliases unfolded; raises ValueError for one that holds itself."""
    counted = {} if counted is None else counted
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels")
    known = counted.get(id(node))
    if known == 0:
        raise ValueError("an alias stands inside what it names")
    if known is not None:
        return known
    counted[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1 + sum(weight(child, counted, depth + 1) for child in children)
    counted[id(node)] = total
    return total
