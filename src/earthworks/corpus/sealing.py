"""The JSON files of a build: each ends in the SHA-256 of what it says, and is taken for nothing else than it is.

A plan, a record of a stage and a manifest decide what is read, kept and removed, so that a flipped byte in one must not
become another number. The digest is of the values, sorted: white space and order do not count.
"""

import hashlib
import json
import re
from typing import Any

from earthworks.runs import EarthworksError
from earthworks.runs.json_files import parse_json, refuse_many

SEAL = "sha256"
LARGEST = 1 << 28  # bytes of such a file
MOST_VALUES = 8_000_000  # in it: the plan of a million files has six million


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; a lone surrogate, as a file name that is not UTF-8 has it, as an escape, so that it comes back."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return (re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n").encode()


def digest_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(value: dict[str, Any]) -> bytes:
    """The file that holds `value`. Raises EarthworksError where it would be too large to be read again."""
    value = json.loads(json.dumps(value))  # as it will be read: tuples are lists then, keys are strings
    data = json_bytes({**value, SEAL: digest_of(value)})
    try:
        refuse_many(data, MOST_VALUES)
    except ValueError as error:
        raise too_large(error) from None
    if len(data) > LARGEST:
        raise too_large(f"more than {LARGEST:,} bytes")
    return data


def too_large(why: object) -> EarthworksError:
    return EarthworksError(
        f"the input has more files than one build can list (a file of the build would hold {why}): put several into one, or "
        "build several corpora"
    )


def unsealed(data: bytes, where: str) -> dict[str, Any]:
    """The value of a file that `sealed` made. Raises EarthworksError for any other, and for one that was altered."""
    value = parsed(data, where)
    if value.pop(SEAL, None) != digest_of(value):
        raise EarthworksError(f"{where} does not match the SHA-256 at its end: it was altered after it was written")
    return value


def parsed(data: bytes, where: str) -> dict[str, Any]:
    """The mapping in a JSON file."""
    try:
        value = parse_json(data, MOST_VALUES)
        if b"Infinity" in data:  # a bound of a recipe, of which `parse_json` makes null
            value = json.loads(data)
    except ValueError as error:
        raise EarthworksError(f"{where} is not readable JSON ({error}): it was altered or cut short") from None
    if not isinstance(value, dict):
        raise EarthworksError(f"{where} is JSON but not a mapping: it was altered")
    return value


def has_shape(value: Any, shape: Any) -> bool:
    """Whether a value read from JSON is of a shape.

    A type, or a tuple of them, is itself (`float` takes whole numbers as well, `int` no truth values); `[shape]` is a list
    of such; `{"*": shape}` a mapping with any names; any other mapping has at least these names, and of these shapes.
    """
    if isinstance(shape, tuple):
        return any(has_shape(value, each) for each in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(has_shape(each, shape[0]) for each in value)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        if "*" in shape:
            return all(has_shape(each, shape["*"]) for each in value.values())
        return all(name in value and has_shape(value[name], each) for name, each in shape.items())
    if shape is None:
        return value is None
    if shape is float:
        return type(value) in (int, float)
    return type(value) is shape
