"""The JSON files of a build, each sealed with the SHA-256 of its values.

Plans, stage records and manifests decide what is read, kept and removed, so a flipped byte must not pass as a different
number. The digest covers the sorted values: white space and order do not matter.
"""

import hashlib
import json
import re
from typing import Any

from earthworks.runs import EarthworksError
from earthworks.runs.json_files import parse_json, refuse_many

SEAL = "sha256"
LARGEST = 1 << 28  # most bytes of a sealed file
MOST_VALUES = 8_000_000  # most values in it: the plan of a million files has six million


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; lone surrogates (from file names that are not UTF-8) are escaped, so that they round-trip."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return (re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n").encode()


def digest_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(value: dict[str, Any]) -> bytes:
    """The sealed file of `value`. Raises EarthworksError if it would be too large to be read back."""
    value = json.loads(json.dumps(value))  # as it will be read back: tuples as lists, keys as strings
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
        f"the input has more files than one build can list (a file of the build would hold {why}): merge input files, or "
        "build several corpora"
    )


def unsealed(data: bytes, where: str) -> dict[str, Any]:
    """The value of a file made by `sealed`. Raises EarthworksError for any other file, or an altered one."""
    value = parsed(data, where)
    if value.pop(SEAL, None) != digest_of(value):
        raise EarthworksError(f"{where} does not match the SHA-256 at its end: it was altered after it was written")
    return value


def parsed(data: bytes, where: str) -> dict[str, Any]:
    """The mapping in a JSON file."""
    try:
        value = parse_json(data, MOST_VALUES)
        if b"Infinity" in data:  # a bound of a recipe, which `parse_json` turns into null
            value = json.loads(data)
    except ValueError as error:
        raise EarthworksError(f"{where} is not readable JSON ({error}): it was altered or cut short") from None
    if not isinstance(value, dict):
        raise EarthworksError(f"{where} is JSON but not a mapping: it was altered")
    return value


def has_shape(value: Any, shape: Any) -> bool:
    """Whether a value read from JSON has a given shape.

    A type, or a tuple of alternatives, matches its values (`float` also whole numbers, `int` no booleans); `[shape]` a list
    of such values; `{"*": shape}` a mapping with any keys; any other mapping at least these keys, with these shapes.
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
