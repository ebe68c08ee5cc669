"""The stages of a build: their files, the records that mark them as done, and the verification of these.

A record is work/STAGE/SHARD.json, or work/STAGE.json for a stage that sees all shards. It is written last and names the
files of its stage with their SHA-256, so that a stage is redone only if one of them is missing or altered.
"""

from collections.abc import Callable, Iterable
from typing import Any

from earthworks.corpus.manifest import INPUT, TALLY
from earthworks.corpus.pipeline.duplicate_stages import ARRAYS, find_candidates, find_duplicates
from earthworks.corpus.pipeline.filter_stage import filter_shard
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.pipeline.select_stage import select_shard, shingle_shard
from earthworks.corpus.pipeline.shards import Shard
from earthworks.corpus.sealing import has_shape
from earthworks.corpus.store import Store
from earthworks.runs import EarthworksError
from earthworks.runs.progress import note

BY_SHARD = {"filter": filter_shard, "shingles": shingle_shard, "select": select_shard}
OVER_ALL: dict[str, Callable[[Store, Recipe, list[Shard]], dict[str, Any]]] = {
    "candidates": find_candidates,
    "duplicates": find_duplicates,
}
STAGES = ("filter", "candidates", "shingles", "duplicates", "select")
COPIES = ("exact_copies", "near_copies", "contaminated", "final", "final_bytes")
SHAPES: dict[str, Any] = {
    "filter": {
        **{name: shape for name, shape in TALLY.items() if name not in COPIES},
        **dict.fromkeys(("empty_documents", "other_records", "replaced_bytes"), int),
        "files": [INPUT],
        "faults": [{"where": str, "what": str}],
        "histograms": {"*": [int]},
    },
    "shingles": {"candidates": int},
    "select": {**dict.fromkeys(COPIES, int), "digest": str},
    "candidates": {"exact_copies": int, "candidates": int},
    "duplicates": {"exact": int, "near": int, "candidates": int, "comparisons": int},
}
WRITTEN = {"written": {"*": {"bytes": int, "sha256": str}}}


def record_of(stage: str, shard: str | None = None) -> str:
    return f"work/{stage}/{shard}.json" if stage in BY_SHARD else f"work/{stage}.json"


def files_of_stage(stage: str, shard: str | None, shards: Iterable[Shard]) -> list[str]:
    """Names of the files that a stage may write in addition to its record."""
    if stage == "filter":
        own = [f"work/kept/{shard}.jsonl.zst", f"work/keys/{shard}.npy", f"rejected/{shard}.jsonl.zst"]
        return [*own, f"values/{shard}.parquet", f"contamination/{shard}.jsonl"]
    if stage == "shingles":
        return [f"work/shingles/{shard}.npy", f"work/shingles/{shard}.sizes.npy"]
    if stage == "select":
        return [f"documents/{shard}.jsonl.zst", f"removed/{shard}.jsonl.zst"]
    if stage == "candidates":
        groups = [f"work/groups-{name}.npy" for name in ARRAYS]
        return ["work/exact.npy", *groups, *(f"work/candidates/{each.name}.npy" for each in shards)]
    return ["duplicates.parquet", "work/shingles.bin"]


def records(shards: list[Shard]) -> list[tuple[str, str | None]]:
    """Every (stage, shard) of a build; the shard is None for stages that see all of them."""
    return [
        (stage, name) for stage in STAGES for name in ([each.name for each in shards] if stage in BY_SHARD else [None])
    ]


def finished(store: Store, stage: str, shards: list[Shard]) -> set[str]:
    """Names of the shards for which the stage has a record."""
    folders = {shard.subset: store.names(f"work/{stage}/{shard.subset}") for shard in shards}
    return {shard.name for shard in shards if f"{shard.number:05d}.json" in folders[shard.subset]}


def intact(store: Store, stage: str, shard: str | None, shards: list[Shard], *, full: bool) -> bool:
    """Whether the files of a recorded stage are as its record states. If not, print a notice and remove the record, so
    that the stage is redone, with the same result."""
    name = record_of(stage, shard)
    try:
        record = store.read_record(name)
        if not has_shape(record, {**SHAPES[stage], **WRITTEN}):
            raise EarthworksError(f"{store.location}/{name} is not the record of the stage {stage}")
        written = record["written"]
        if not written or not written.keys() <= set(files_of_stage(stage, shard, shards)):
            raise EarthworksError(f"{store.location}/{name} names other files than those of the stage {stage}")
        for each, entry in written.items():
            store.verify(each, entry, full=full)
    except EarthworksError as error:
        if error.exit_code == 1:
            raise
        note(f"notice: {error}; redoing the stage {stage}{f' for shard {shard}' if shard else ''}")
        store.remove_files([name])
        return False
    return True
