"""The stages of a build that read the kept documents again: n-grams of candidates, and the final selection.

work/shingles/SHARD.npy       sorted distinct n-gram hashes of the shard's candidates, concatenated
documents/SHARD.jsonl.zst     the corpus
removed/SHARD.jsonl.zst       copies and contaminated documents, with the reason
"""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from earthworks.corpus.dedup.shingles import distinct, shingles
from earthworks.corpus.pipeline.duplicate_stages import array_of
from earthworks.corpus.pipeline.filter_stage import BATCH, dumped, write_array, writer
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.pipeline.shards import Shard
from earthworks.corpus.store import Checked, Store

TOO_SIMILAR = 0.8  # Jaccard similarity to a test document, by the paper's rule


@contextmanager
def kept_file(store: Store, shard: Shard) -> Iterator[Any]:
    """The file of a shard's kept documents, compared at its end with the SHA-256 of what was written."""
    name = f"work/kept/{shard.name}.jsonl.zst"
    written = store.read_record(f"work/filter/{shard.name}.json")["written"][name]
    with store.open(name) as raw:
        checked = Checked(raw, f"{store.location}/{name}", written["sha256"])
        try:
            yield checked
        except (OSError, ValueError):  # raised by decoders on damage
            checked.finish()
            raise
        checked.finish()


def kept_lines(store: Store, shard: Shard) -> Iterator[bytes]:
    with kept_file(store, shard) as checked:
        yield from open_lines(checked)


def open_lines(raw: Any) -> Any:
    """The lines of a .jsonl.zst file written by a build."""
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), 1 << 20)  # type: ignore[arg-type]


def shingle_shard(store: Store, recipe: Recipe, shard: Shard) -> dict[str, Any]:
    """Write the n-grams of the shard's candidates: 8 bytes per distinct one."""
    import orjson

    wanted = set(array_of(store, f"work/candidates/{shard.name}.npy").tolist())
    found, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]

    def add(texts: list[str]) -> None:
        hashes, offsets = distinct(*shingles(texts, recipe.ngram))
        found.append(hashes)
        sizes.append(np.diff(offsets))

    texts, size = [], 0
    for row, line in enumerate(kept_lines(store, shard) if wanted else ()):
        if row in wanted:
            texts.append(orjson.loads(line)["text"])
            size += len(texts[-1])
            if size >= BATCH:
                add(texts)
                texts, size = [], 0
    add(texts)
    write_array(store, f"work/shingles/{shard.name}.npy", np.concatenate(found))
    write_array(store, f"work/shingles/{shard.name}.sizes.npy", np.concatenate(sizes))
    counts = {"candidates": len(wanted)}
    store.record(f"work/shingles/{shard.name}.json", counts)
    return counts


def select_shard(store: Store, recipe: Recipe, shard: Shard) -> dict[str, Any]:
    """Split the kept documents into the corpus and those removed."""
    copies = copies_of(store, shard)
    contaminated = contaminated_rows(store, recipe, shard)
    counts: dict[str, int] = dict.fromkeys(("exact_copies", "near_copies", "contaminated", "final", "final_bytes"), 0)
    if not copies and not contaminated:
        filtered = store.read_record(f"work/filter/{shard.name}.json")
        counts |= {"final": filtered["kept"], "final_bytes": filtered["kept_bytes"]}
        with store.writing(documents_of(shard)) as target, kept_file(store, shard) as source:
            shutil.copyfileobj(source, target, 1 << 20)
        return concluded(store, shard, counts)
    with (
        store.writing(documents_of(shard)) as documents_file,
        store.writing(f"removed/{shard.name}.jsonl.zst") as removed_file,
        writer(documents_file) as kept,
        writer(removed_file) as removed,
    ):
        for row, line in enumerate(kept_lines(store, shard)):
            reasons: dict[str, Any] = {}
            if row in copies:
                counts[f"{copies[row]['kind']}_copies"] += 1
                reasons = {"dropped_by": [f"{copies[row]['kind']} copy"], "copy_of": copies[row]}
            elif row in contaminated:
                counts["contaminated"] += 1
                reasons = {"dropped_by": ["contaminated"], "items": contaminated[row]}
            else:
                counts["final"] += 1
                counts["final_bytes"] += text_bytes(line)
                kept.write(line)
                continue
            removed.write(dumped({**json.loads(line), **reasons}))
    return concluded(store, shard, counts)


def documents_of(shard: Shard) -> str:
    return f"documents/{shard.name}.jsonl.zst"


def concluded(store: Store, shard: Shard, counts: dict[str, int]) -> dict[str, Any]:
    result = {**counts, "digest": store.written[documents_of(shard)]["sha256"]}
    store.record(f"work/select/{shard.name}.json", result)
    return result


def text_bytes(line: bytes) -> int:
    import orjson

    return len(orjson.loads(line)["text"].encode())


def copies_of(store: Store, shard: Shard) -> dict[int, dict[str, Any]]:
    """By row of the shard's kept documents: the document it is a copy of."""
    import pyarrow.parquet

    with store.open("duplicates.parquet") as stream:
        table = pyarrow.parquet.read_table(stream, filters=[("shard", "==", shard.name)])
    rows = table.to_pylist()
    kept = {"shard": "kept_shard", "id": "kept_id", "kind": "kind", "jaccard": "jaccard"}
    return {row["row"]: {name: row[column] for name, column in kept.items()} for row in rows}


def contaminated_rows(store: Store, recipe: Recipe, shard: Shard) -> dict[int, list[str]]:
    """By row of the shard's kept documents: the test items for which it is dropped."""
    found: dict[int, list[str]] = {}
    for line in store.read(f"contamination/{shard.name}.jsonl").splitlines() if recipe.tests else ():
        hit = json.loads(line)
        if recipe.test_rule == "any" or hit["jaccard"] > TOO_SIMILAR:
            found.setdefault(hit["row"], []).append(hit["item"])
    return found
