"""Record of the inputs that a run reads again on resume, and check that they are unchanged: RUN/inputs.json.

    {"inputs": [{"what": "tokens", "given": "corpus/packed", "path": "/home/me/corpus/packed",
                 "files": [{"name", "bytes", "mtime_ns", "blocks", "sha256"}, ...]}]}

`given` is as the user wrote it, `path` absolute (relative to the run for its own data/), so that a run resumed in another
working directory reads the same files. The digests are those of the input's own manifest, written when it was made. Sizes
and `blocks_digest` are compared at every start; the SHA-256 is compared for a file whose modification time differs from
the record, which is then updated, and for every file with --verify.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from earthworks.corpus import PackedTokens, is_packed
from earthworks.runs import EarthworksError, RunFolder, inside, lock, read_json, write_json
from earthworks.runs.files import blocks_digest, sha256
from earthworks.runs.manifest import MANIFEST, description, manifest_files

TOKENS, WEIGHTS = "tokens", "weights"


def record_inputs(run: RunFolder, data: str, init: tuple[str, Path] | None) -> None:
    """Write inputs.json at the start of a run: its packed tokens, and the checkpoint that its weights are from."""
    own = not is_packed(data)
    tokens = described(TOKENS, data, run.data if own else Path(data))
    inputs = [{**tokens, "path": run.data.name} if own else tokens]
    if init is not None:
        inputs.append(described(WEIGHTS, *init))
    write_json(run.path / "inputs.json", {"inputs": inputs})


def described(what: str, given: str, path: Path) -> dict[str, Any]:
    """An input: the files of its manifest, as that describes them, and the manifest itself."""
    files = [{"name": name, **complete(inside(path, name), entry)} for name, entry in manifest_files(path).items()]
    files.append({"name": MANIFEST, **description(path / MANIFEST)})
    return {"what": what, "given": given, "path": os.path.abspath(path), "files": files}


def complete(file: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """A file's manifest entry; fields that manifests of format 1 lack are taken from the file as it is now."""
    now = {} if {"blocks", "mtime_ns"} <= entry.keys() else {"blocks": blocks_digest(file), "mtime_ns": 0}
    return {**now, **entry}


def read_inputs(run: RunFolder) -> list[dict[str, Any]]:
    """The inputs that a run recorded; none for one of format 1."""
    file = run.path / "inputs.json"
    if not os.path.lexists(file):
        return []
    content = read_json(file)
    inputs = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(inputs, list) or not all(is_input(each) for each in inputs):
        raise EarthworksError(f"{file} does not list the inputs of a run: it was altered")
    return inputs


def is_input(value: Any) -> bool:
    kinds = {"bytes": int, "mtime_ns": int, "blocks": str, "sha256": str, "name": str}
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("what", "given", "path"))
        and isinstance(value.get("files"), list)
        and all(
            isinstance(file, dict) and all(type(file.get(key)) is kind for key, kind in kinds.items())
            for file in value["files"]
        )
    )


def packed_folder(run: RunFolder) -> Path:
    """Folder of a run's tokens: its own data/, or the packed folder it was given, whatever the working directory."""
    data = str(run.read_config().get("data"))
    entry = recorded(run, TOKENS)
    if entry is None:
        return Path(data) if is_packed(data) else run.data
    if entry["given"] == data:  # else its owner has written in config.yaml where it is now
        return run.path / entry["path"]
    return Path(data)


def recorded(run: RunFolder, what: str) -> dict[str, Any] | None:
    return next((entry for entry in read_inputs(run) if entry["what"] == what), None)


def open_tokens(run: RunFolder, *, verify: bool = False) -> PackedTokens:
    """The tokens of a run, compared with what it recorded at its start, or, in format 1, with their manifest.

    Raises EarthworksError naming the folder that is not there, or the first file that differs.
    """
    path = packed_folder(run)
    if not is_packed(path):
        raise EarthworksError(
            f"the tokens of {run.path} are no longer in {path}: put them back, or set data: in {run.config_file} to their "
            "new folder"
        )
    entry = recorded(run, TOKENS)
    if entry is not None:
        compare(run, entry, path, verify=verify)
    return PackedTokens.open(path, verify=verify, compared=entry is not None)


def weights_folder(run: RunFolder, init: str) -> Path | None:
    """The checkpoint that a run's first weights were taken from, compared; None where the run recorded none."""
    entry = recorded(run, WEIGHTS)
    if entry is None:
        return None
    path = Path(entry["path"])
    if path.parent.name != "checkpoints":
        raise EarthworksError(
            f"{run.path / 'inputs.json'} names {path} as the initial weights, which is not a checkpoint of a run: it was "
            "altered; put the file back, or start a new run"
        )
    if not path.is_dir():
        raise EarthworksError(
            f"{path}, from which {run.path} took its initial weights (--init {init}), no longer exists: put it back, "
            "or start the run again"
        )
    compare(run, entry, path, verify=True)
    return path


def compare(run: RunFolder, entry: dict[str, Any], path: Path, *, verify: bool) -> None:
    """Compare an input with its record; the times of copied files are updated."""
    changed = []
    for file in entry["files"]:
        found = inside(path, file["name"])
        if not found.is_file():
            raise EarthworksError(
                f"{found} is missing: {path} has changed since {run.path} was started; put the file back"
            )
        status = found.stat()
        moved = status.st_mtime_ns != file["mtime_ns"]
        if (
            status.st_size != file["bytes"]
            or blocks_digest(found) != file["blocks"]
            or ((moved or verify) and sha256(found) != file["sha256"])
        ):
            raise EarthworksError(
                f"{found} is not the file that {run.path} was started with (see its inputs.json): put the original back, "
                "or start a new run"
            )
        if moved:
            changed.append((file, status.st_mtime_ns))
    if not changed:
        return
    for file, time in changed:
        file["mtime_ns"] = time
    with suppress(EarthworksError), lock(run.path, "inputs.json"):  # a reader may not be allowed to write there
        others = [each for each in read_inputs(run) if each["what"] != entry["what"]]
        write_json(run.path / "inputs.json", {"inputs": [entry, *others]})
