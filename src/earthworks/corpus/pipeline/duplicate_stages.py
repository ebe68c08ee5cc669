"""The two stages of a build that see all shards: candidates for copies, and the choice of which to drop.

A document's priority is a seeded hash of its exact key: which copy stays depends on texts and seed, not on files or shards.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from earthworks.corpus.dedup.duplicates import Groups, exact_duplicates, near_duplicates, propose
from earthworks.corpus.pipeline.filter_stage import kept_ids, num_bands, write_array, write_table
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.pipeline.shards import Shard
from earthworks.corpus.store import Store
from earthworks.corpus.tokens.sample_order import key, mix
from earthworks.runs import EarthworksError

ARRAYS = ("candidates", "places", "groups", "sizes")  # of Groups


def find_candidates(store: Store, recipe: Recipe, shards: list[Shard]) -> dict[str, Any]:
    """Exact copies, and groups of documents that share the key of a band.

    work/exact.npy (copies, 2): a copy and the document kept for it, numbered over all shards; work/groups-*.npy: the arrays
    of `Groups`; work/candidates/SHARD.npy: rows of the shard whose n-grams are needed. Memory: 72 bytes per document for
    exact copies, then that of `propose`."""
    starts = document_starts(store, shards)
    kept = np.arange(starts[-1])
    if recipe.exact:
        kept = exact_duplicates(rows_of(store, shards, slice(0, 2)).T, priority(store, recipe, shards))
    copies = np.flatnonzero(kept != np.arange(len(kept)))
    write_array(store, "work/exact.npy", np.stack([copies, kept[copies]], axis=1))
    alive = (kept == np.arange(len(kept))) & (rows_of(store, shards, slice(2, 3))[0] == 1)
    del kept
    groups = propose(lambda band: rows_of(store, shards, slice(3 + band, 4 + band))[0], num_bands(recipe), alive)
    for name in ARRAYS:
        write_array(store, f"work/groups-{name}.npy", getattr(groups, name))
    for shard, first, last in zip(shards, starts, starts[1:]):
        inside = groups.candidates[(groups.candidates >= first) & (groups.candidates < last)] - first
        write_array(store, f"work/candidates/{shard.name}.npy", inside)
    return {"exact_copies": len(copies), "candidates": len(groups.candidates)}


def find_duplicates(store: Store, recipe: Recipe, shards: list[Shard]) -> dict[str, Any]:
    """Near copies among the candidates, verified by their n-grams. duplicates.parquet lists all copies."""
    import pyarrow as pa

    starts = document_starts(store, shards)
    exact = read_array(store, "work/exact.npy")
    dropped, kept = exact.T
    shared = union = np.zeros(len(exact), np.int64)
    counts = {"exact": len(exact), "near": 0, "candidates": 0, "comparisons": 0}
    if recipe.near:
        groups = Groups(*(array_of(store, f"work/groups-{name}.npy") for name in ARRAYS))
        found = near_duplicates(
            groups, priority(store, recipe, shards), lambda _: candidate_shingles(store, shards), recipe.near
        )
        counts |= {"near": len(found.dropped), "candidates": found.candidates, "comparisons": found.comparisons}
        dropped, kept = np.r_[dropped, found.dropped], np.r_[kept, found.kept]
        shared, union = np.r_[shared, found.shared], np.r_[union, found.union]
    order = np.argsort(dropped, kind="stable")
    columns: dict[str, Any] = {}
    for what, index in (("", dropped[order]), ("kept_", kept[order])):
        shard = np.searchsorted(starts, index, "right") - 1
        columns[f"{what}shard"] = pa.array([shards[k].name for k in shard], pa.string())
        columns[f"{what}row"] = pa.array(index - starts[shard])
        columns[f"{what}id"] = pa.array(ids_of(store, shards, starts, index), pa.string())
    columns["kind"] = pa.array(np.where(union == 0, "exact", "near")[order])
    columns["jaccard"] = pa.array(np.where(union == 0, 1.0, shared / np.maximum(union, 1))[order])
    columns |= {"shared": pa.array(shared[order]), "union": pa.array(union[order])}
    write_table(store, "duplicates.parquet", pa.table(columns))
    return counts


def ids_of(store: Store, shards: list[Shard], starts: np.ndarray, index: np.ndarray) -> list[str]:
    """Ids of documents numbered over all shards, in any order."""
    import pyarrow.parquet

    found = [""] * len(index)
    owner = np.searchsorted(starts, index, "right") - 1
    for k in np.unique(owner):
        with store.open(f"values/{shards[k].name}.parquet") as stream:
            ids = kept_ids(pyarrow.parquet.read_table(stream, columns=["id", "dropped_by"]))
        for place in np.flatnonzero(owner == k):
            found[place] = ids[index[place] - starts[k]]
    return found


def document_starts(store: Store, shards: list[Shard]) -> np.ndarray:
    """(shards + 1,) int64: index of each shard's first kept document among all kept documents, then their total."""
    counts = [array_of(store, f"work/keys/{shard.name}.npy").shape[1] for shard in shards]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def rows_of(store: Store, shards: list[Shard], rows: slice) -> np.ndarray:
    """The given rows of the keys of all shards, concatenated."""
    return np.concatenate([array_of(store, f"work/keys/{shard.name}.npy")[rows] for shard in shards], axis=1)


def priority(store: Store, recipe: Recipe, shards: list[Shard]) -> np.ndarray:
    """(documents,) uint64."""
    first, second = rows_of(store, shards, slice(0, 2))
    return mix(mix(first ^ key(recipe.seed)) ^ second)


def array_of(store: Store, name: str) -> np.ndarray:
    """An array of a stage, memory-mapped where possible."""
    if not store.local:
        return read_array(store, name)
    with array_errors(store, name), store.open(name):  # refuses anything but a regular file
        return np.load(store.path(name), mmap_mode="r")


def read_array(store: Store, name: str) -> np.ndarray:
    with array_errors(store, name), store.open(name) as stream:
        return np.load(stream if store.local else io.BytesIO(stream.read()), allow_pickle=False)


@contextmanager
def array_errors(store: Store, name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, EarthworksError):
            raise
        raise EarthworksError(
            f"{store.location}/{name} is damaged ({error}): rerun the same command with --verify to redo its shard"
        ) from None


def candidate_shingles(store: Store, shards: list[Shard]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct n-gram hashes of all candidates, concatenated, and the offset of each candidate's.

    On disk if the store is local: 8 bytes per n-gram."""
    sizes = [array_of(store, f"work/shingles/{shard.name}.sizes.npy") for shard in shards]
    offsets = np.r_[0, np.cumsum(np.concatenate(sizes), dtype=np.int64)]
    parts = [array_of(store, f"work/shingles/{shard.name}.npy") for shard in shards]
    if not store.local:
        return np.concatenate(parts), offsets
    with store.writing("work/shingles.bin") as stream:
        for part in parts:
            stream.write(np.ascontiguousarray(part).data)
    if not offsets[-1]:  # an empty file cannot be mapped
        return np.empty(0, np.uint64), offsets
    return np.asarray(np.memmap(store.path("work/shingles.bin"), np.uint64, "r")), offsets
