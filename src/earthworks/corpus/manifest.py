"""Reading a corpus made by `corpus build`: its manifest, verified files, and a short summary.

Only files named in the manifest are read, and files read to the end are compared with their SHA-256. A corpus of format 1
has digests for documents/ only: its other files are not verified.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from earthworks.corpus.document import Document
from earthworks.corpus.readers.files import InputFile, input_file, opened
from earthworks.corpus.readers.records import Reading, read_lines
from earthworks.corpus.readers.streams import Unreadable, blocks
from earthworks.corpus.sealing import SEAL, digest_of, has_shape, parsed
from earthworks.corpus.store import Checked, Store
from earthworks.runs import EarthworksError, inside
from earthworks.runs.progress import note_once
from earthworks.runs.terminal import one_line

KIND = "earthworks corpus"
FORMAT = f"{KIND} 2"
READ = (f"{KIND} 1", FORMAT)  # formats that can be read
TIMES = "times.json"
LINES = ("documents", "rejected", "removed")  # folders whose files hold one document per line
COUNTS = ("documents", "bytes", "kept", "kept_bytes", "exact_copies", "near_copies", "contaminated", "final")
TALLY = {
    **dict.fromkeys((*COUNTS, "final_bytes", "num_faults"), int),
    "dropped": {"*": int},
    "dropped_alone": {"*": int},
}
RECIPE = {
    "subsets": [{"name": str, "input": str, "weight": (float, None), "stages": [str]}],
    **{"profile": str, "bounds": {"*": [float]}, "language": str, "exact": bool, "near": (float, None)},
    **{"ngram": int, "hashes": int, "recall": float, "tests": [str], "test_rule": str, "strict": bool, "seed": int},
}
INPUT = {"name": str, "bytes": int, "digest": str}
SHAPE = {
    **TALLY,
    "recipe": RECIPE,
    "digest": str,
    "subsets": {"*": {**TALLY, "weight": (float, None), "stages": [str]}},
    "histograms": {"*": [int]},
    "edges": {"*": [float]},
    "faults": [{"where": str, "what": str}],
    "inputs": {"*": [INPUT]},
    "outputs": {"*": str},
}
FILES = {"*": {"bytes": int, "sha256": str}}


def manifest_of(location: str | Path) -> dict[str, Any] | None:
    """The manifest of a built corpus, in a folder or at a URL; None if there is none.

    Raises EarthworksError if it was altered, has a later format, or is missing because the build is unfinished."""
    store = Store(str(location))
    manifest = read_manifest(store)
    if manifest is None and is_plan(store):
        raise EarthworksError(
            f"{location} is an unfinished build: rerun the same earthworks corpus build command to finish it"
        )
    return manifest


def read_manifest(store: Store) -> dict[str, Any] | None:
    """`manifest_of`, but allowing a build in progress."""
    where = f"{store.location}/manifest.json"
    if not store.exists("manifest.json"):
        return None
    try:
        manifest = parsed(store.read("manifest.json"), where)
    except EarthworksError:
        if is_plan(store):
            raise
        return None  # another program's file of the same name
    form = manifest.get("format")
    if not isinstance(form, str) or not form.startswith(KIND):
        if is_plan(store):
            raise EarthworksError(f"{where} is not the manifest of a corpus: it was altered")
        return None
    if form not in READ:
        raise EarthworksError(
            f"{where} has the format {form!r}; this version reads up to {FORMAT!r}: install a later earthworks"
        )
    if (form == FORMAT or SEAL in manifest) and manifest.pop(SEAL, None) != digest_of(manifest):
        raise EarthworksError(f"{where} does not match the SHA-256 at its end: it was altered after it was written")
    if not has_shape(manifest, SHAPE) or (form == FORMAT and not has_shape(manifest.get("files"), FILES)):
        raise EarthworksError(f"{where} lacks fields of a corpus manifest, or has wrong ones: it was altered")
    for shard in (*manifest["inputs"], *manifest["outputs"]):
        if shard.split("/")[0] not in manifest["subsets"] or shard.count("/") != 1:
            raise EarthworksError(f"{where} names the shard {shard!r}, which is in none of its subsets: it was altered")
    return manifest


def is_plan(store: Store) -> bool:
    """Whether a build plan exists, readable or not."""
    try:
        return store.exists("plan.json") and b'"recipe"' in store.read("plan.json")[:200]
    except EarthworksError:
        return False


def times_of(store: Store) -> dict[str, Any]:
    """Modification time and `blocks_digest` of every local file as written; {} if unavailable: SHA-256 decides then."""
    try:
        times = store.read_record(TIMES)
    except EarthworksError:
        return {}
    return times if has_shape(times, {"*": {"blocks": str, "mtime_ns": int}}) else {}


def written_files(store: Store, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Size, digests and time of every file as written, for `Store.verify`; in format 1, SHA-256 of documents/ only."""
    if "files" not in manifest:
        return {f"documents/{shard}.jsonl.zst": {"sha256": digest} for shard, digest in manifest["outputs"].items()}
    times = times_of(store)
    return {name: {**entry, **times.get(name, {})} for name, entry in manifest["files"].items()}


# Documents


def named_files(location: str) -> list[InputFile] | None:
    """The document files at a location: a built corpus, or a folder below its documents/, rejected/ or removed/.

    None if the location is something else. Raises EarthworksError if a file is missing or has a different size; files that
    the manifest does not name are skipped with a notice."""
    for corpus, below in corpora(location):
        manifest = manifest_of(corpus)
        if manifest is not None:
            store = Store(corpus)
            written = written_files(store, manifest)
            names = [name for name in written if name.startswith(f"{below}/")]
            return named(store, below, written, names) if names else None
    return None


def corpora(location: str) -> Iterator[tuple[str, str]]:
    """Folders that may be the corpus containing a location, each with the subfolder that the location selects."""
    place = location.rstrip("/") if "://" in location else os.path.abspath(location)
    yield location, "documents"
    above, _, name = place.rpartition("/")
    if name in LINES:
        yield above or "/", name
    above, _, kind = above.rpartition("/")
    if kind in LINES:
        yield above or "/", f"{kind}/{name}"


def named(store: Store, below: str, written: dict[str, dict[str, Any]], names: list[str]) -> list[InputFile]:
    found = []
    for name in names:
        path = str(inside(Path(store.root), name)) if store.local else store.path(name)
        if not store.files.exists(path):
            raise EarthworksError(
                f"{store.location}/{name} is missing although the manifest names it: the corpus was altered"
            )
        if not store.files.isfile(path):
            raise EarthworksError(f"{store.location}/{name} is not a regular file: the corpus was altered")
        file = input_file(store.files, name.removeprefix(f"{below}/"), path, store.files.info(path))
        file = replace(file, sha256=written[name]["sha256"])
        if file.bytes != written[name].get("bytes", file.bytes):
            expected = written[name]["bytes"]
            raise EarthworksError(f"{store.location}/{name} has {file.bytes} bytes; {expected} were written")
        found.append(file)
    say_strangers(store, below, set(names))
    return found


def say_strangers(store: Store, below: str, names: set[str]) -> None:
    root = str(store.files.info(store.root)["name"]).rstrip("/")
    there = {str(path).removeprefix(f"{root}/") for path in store.files.find(f"{root}/{below}")}
    others = sorted(name for name in there - names if not PurePosixPath(name).name.startswith("."))
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        note_once(f"notice: {store.location}/{others[0]}{more} is not in the manifest of the corpus, and is not read")


def read_checked(file: InputFile, reading: Reading) -> Iterator[Document]:
    """The documents of a file whose SHA-256 is known. Raises EarthworksError after the last one on a mismatch."""
    with opened(file) as raw:
        assert file.sha256 is not None
        checked = Checked(raw, file.path, file.sha256)
        try:
            yield from read_lines(blocks(checked, file.path), file.path, file.name, reading)
        except Unreadable as error:
            checked.finish()  # its error is more specific
            reading.fault(file.path, error)
        checked.finish()


# Summary


def summary(manifest: dict[str, Any]) -> str:
    """The result of a build, one line per subset."""
    rows = [("subset", "read", "kept by filters", "copies", "contaminated", "in the corpus", "MB", "weight")]
    counted = list(manifest["subsets"].items())
    for name, each in [*counted, ("together", manifest)] if len(counted) > 1 else counted:
        weight = each.get("weight")
        rows.append(
            (
                *(name, f"{each['documents']:,}", f"{each['kept']:,} ({each['kept'] / max(each['documents'], 1):.0%})"),
                *(f"{each['exact_copies'] + each['near_copies']:,}", f"{each['contaminated']:,}", f"{each['final']:,}"),
                *(f"{each['final_bytes'] / 1e6:,.1f}", f"{weight:g}" if weight else ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    dropped = sorted(manifest["dropped"].items(), key=lambda item: -item[1])[:6]
    if dropped:
        lines += ["", "dropped most by: " + ", ".join(f"{name} {count:,}" for name, count in dropped)]
    if manifest["num_faults"]:
        lines += ["", f"{manifest['num_faults']:,} records or files could not be read (manifest.json lists them):"]
        lines += [one_line(f"  {fault['where']}: {fault['what']}") for fault in manifest["faults"][:3]]
    return "\n".join(line.rstrip() for line in lines)
