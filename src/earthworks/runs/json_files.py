"""JSON without NaN, and safe reading of untrusted JSON files."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import read_regular, write_bytes
from earthworks.runs.yaml_files import read_yaml

LARGEST = 1 << 24  # bytes of a JSON file, unless its reader allows more
LARGEST_RESULT = 1 << 28  # tasks.json holds the credit of each item
MOST_VALUES = 3_000_000  # in a text: they take up to 250 bytes each
DIGEST = "sha256"
# files that `write_result` writes into a run: other files read by `read_result` have no digest
RESULTS = ("evaluation.json", "passage.json", "tasks.json", "bias.json", "toxicity.json", "toxicity_detection.json")
RESULTS += ("scaling.json", "held_out.json")
DEEPEST = 100  # levels of lists and mappings in it


def finite(value: Any) -> Any:
    """`value` with null for every non-finite number, at any depth: JSON has none."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON, as in files and `--json` output."""
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # in the name of a file that is not UTF-8; escaped it can be written, and read back as it was
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(path: str | Path, value: Any) -> None:
    """Atomically write `value` as indented JSON; numbers that are not finite become null."""
    write_bytes(path, (json_text(value) + "\n").encode(errors="replace"))


def read_json(path: str | Path, *, limit: int = LARGEST) -> Any:
    """Read a JSON file; EarthworksError if it is missing, damaged, too large, too deep or not a regular file."""
    data = read_regular(path, limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise EarthworksError(f"{path} is not readable JSON ({error}); it was altered or cut short") from None


def write_result(path: str | Path, result: dict[str, Any]) -> None:
    """`write_json` of a measurement, with the SHA-256 of the rest under the key `sha256`, so that a number altered later,
    by a disk or by hand, is detected."""
    write_json(path, with_digest(result))


def with_digest(result: dict[str, Any]) -> dict[str, Any]:
    """A result with the SHA-256 of the rest of it."""
    rest = {key: value for key, value in result.items() if key != DIGEST}
    return {**rest, DIGEST: digest_of(rest)}


def read_result(path: str | Path, *, limit: int = LARGEST_RESULT) -> dict[str, Any]:
    """A result of `write_result`, without its digest; EarthworksError when it was altered. Results of format 1 runs, which
    have no digest, are not checked."""
    result = read_json(path, limit=limit)
    if not isinstance(result, dict):
        raise EarthworksError(f"{path} does not hold a result (a mapping): it was altered")
    written = result.pop(DIGEST, None)
    if written is None and Path(path).name in RESULTS and of_format_2(Path(path).parent):
        raise EarthworksError(f"{path} has lost its SHA-256: it was altered after it was measured; measure again")
    if written is not None and written != digest_of(result):
        raise EarthworksError(
            f"{path} does not match the SHA-256 in it: it was altered after it was measured; measure again"
        )
    return result


def of_format_2(folder: Path) -> bool:
    """Whether a folder is a run whose results have digests."""
    config = folder / "config.yaml"
    found = read_yaml(config) if config.is_file() else None
    return isinstance(found, dict) and found.get("format", 1) != 1


def digest_of(value: dict[str, Any]) -> str:
    """SHA-256 of a value as JSON, its keys sorted."""
    text = json.dumps(json.loads(json_text(value, indent=None)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_json(data: bytes | str, most: int = MOST_VALUES) -> Any:
    """The value of a JSON text; NaN and infinities, which JSON does not have, are read as null.

    Raises ValueError for invalid JSON, and for more than `most` values or 100 levels of nesting."""
    refuse_many(data, most)
    try:
        value = json.loads(data, parse_constant=lambda _: None, parse_float=finite_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [each for values in inner for each in values]
        if not level:
            return value
    raise ValueError("nested too deeply")


def refuse_many(data: bytes | str, most: int) -> None:
    """Raise ValueError, before parsing, for a JSON text that may hold more than `most` values."""
    text = data if isinstance(data, bytes) else data.encode(errors="replace")
    if sum(map(text.count, (b"[", b"{", b","))) > most:
        raise ValueError(f"more than {most:,} values")


def finite_float(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None
