"""The sources named in `--data`, with their sampling weights."""

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.corpus.manifest import manifest_of, named_files
from earthworks.corpus.readers.any_source import python_docs_subsets
from earthworks.corpus.readers.files import file_system
from earthworks.corpus.readers.hugging_face import hugging_face_parts
from earthworks.corpus.readers.python_docs import WEIGHTS
from earthworks.runs import EarthworksError


@dataclass(slots=True)
class Source:
    """One subset of a corpus: its name, its location for `read`, and its share of the training samples (None: in
    proportion to its tokens)."""

    name: str
    location: str
    weight: float | None = None


def sources(data: str) -> list[Source]:
    """The sources of `--data`, checked to exist.

    `a.txt`, `a.txt,b/` (samples in proportion to their tokens) or `a.jsonl=0.7,b/=0.3` (weights for all or for none;
    they need not add up to one). A string that is an existing path is taken as this path, even if it contains `,` or `=`.
    `python-docs` stands for its two subsets, weighted 0.7 and 0.3 unless given together with unweighted sources; a folder
    made by `corpus build` for its subsets, with the weights of its recipe.
    Raises EarthworksError for a source that does not exist, is named twice, or has a weight that is not positive.
    """
    parts = [data] if exists_locally(data) else [part.strip() for part in data.split(",")]
    found = []
    for part in parts:
        location, weight = weighted(part)
        check(location)
        if location == "python-docs" and not exists_locally(location):
            share = 1.0 if len(parts) == 1 and weight is None else weight
            found += [
                Source(f"python-docs/{subset}", f"python-docs/{subset}", share and share * WEIGHTS[subset])
                for subset in WEIGHTS
            ]
        elif manifest := built(location):
            found += built_subsets(location, manifest, weight, alone=len(parts) == 1)
        else:
            found.append(Source(PurePosixPath(location).name or location, location, weight))
    without = [source.location for source in found if source.weight is None]
    if without and len(without) < len(found):
        raise EarthworksError(f"--data gives a weight to some sources and none to {without[0]}: weight all or none")
    names = [source.name for source in found]
    for source in found:
        if [other.location for other in found].count(source.location) > 1:
            raise EarthworksError(f"--data names {source.location} twice")
        if names.count(source.name) > 1 or source.location.startswith("python-docs/"):
            source.name = source.location
    return found


def built(location: str) -> dict[str, Any] | None:
    """The manifest of the corpus at a location."""
    return manifest_of(location) if exists_locally(location) or "://" in location else None


def built_subsets(location: str, manifest: dict[str, Any], weight: float | None, alone: bool) -> list[Source]:
    """The non-empty subsets of a built corpus; their weights apply if it is the only source or has a weight itself."""
    named_files(location)  # check presence and size of all files before any work
    subsets = {name: each for name, each in manifest["subsets"].items() if each["final"]}
    if not subsets:
        raise EarthworksError(f"{location} is an empty corpus: no document was kept")
    weights = [each["weight"] for each in subsets.values()]
    if any(weight is not None and not (weight > 0 and math.isfinite(weight)) for weight in weights):
        raise EarthworksError(f"{location}/manifest.json has a weight that is not a positive number: it was altered")
    if None in weights and weight is not None:
        weights = [each["final_bytes"] for each in subsets.values()]
    share = 1.0 if alone and weight is None else weight
    total = 1.0 if None in weights else sum(weights)
    return [
        Source(name, f"{location.rstrip('/')}/documents/{name}", each and share and share * each / total)
        for name, each in zip(subsets, weights)
    ]


def weighted(part: str) -> tuple[str, float | None]:
    """`web/=0.3` -> ("web/", 0.3)."""
    location, sign, number = part.rpartition("=")
    if not sign or exists_locally(part):
        return part, None
    try:
        weight = float(number)
    except ValueError:
        return part, None
    if not (weight > 0 and math.isfinite(weight)):
        raise EarthworksError(f"--data gives {location} the weight {number}: a weight is a positive number")
    return location, weight


def exists_locally(location: str) -> bool:
    try:
        return Path(location).exists()
    except (OSError, ValueError):  # too long, or contains a NUL: not a path
        return False


def check(location: str) -> None:
    """Raise EarthworksError if there is nothing at `location`."""
    if not location:
        raise EarthworksError("--data has an empty part: expected SOURCE[=WEIGHT][,SOURCE[=WEIGHT]...]")
    if location == "-" or exists_locally(location):
        return
    if location.startswith("hf:"):
        hugging_face_parts(location)
    elif location.split("/")[0] == "python-docs":
        python_docs_subsets(location)
    elif "://" in location:
        files, path = file_system(location)
        try:
            there = files.exists(path)
        except Exception as error:  # anything that the network or the protocol raises
            raise EarthworksError(f"{location} cannot be reached: {error}", exit_code=1) from error
        if not there:
            raise EarthworksError(f"{location} does not exist")
    else:
        raise EarthworksError(f"{location} does not exist; expected a file, a folder, hf:NAME, a URL, - or python-docs")
