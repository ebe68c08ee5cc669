"""The first stage of a build: read a shard's documents, evaluate every rule, and split them into kept and rejected.

work/kept/SHARD.jsonl.zst        documents that passed every filter of their subset
rejected/SHARD.jsonl.zst         the rest, each with `dropped_by`, the names of all filters that drop it
values/SHARD.parquet             one row per document: id, bytes, dropped_by, language, the value of every rule
work/keys/SHARD.npy              uint64 (3 + bands, kept): exact key (two rows), 1 if it has a signature, key of each band
contamination/SHARD.jsonl        kept documents that share n-grams with test items
work/filter/SHARD.json           counts; written last, its presence marks the shard as done
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import numpy as np

from earthworks.corpus.decontamination.hits import ItemIndex, context, hits, index_items
from earthworks.corpus.decontamination.items import Item, file_items, item_files
from earthworks.corpus.dedup.duplicates import exact_keys
from earthworks.corpus.dedup.minhash import band_keys, bands_for, signatures, signed
from earthworks.corpus.document import Document
from earthworks.corpus.pipeline.recipe import Recipe, Subset
from earthworks.corpus.pipeline.shards import Shard, changed, state
from earthworks.corpus.readers.files import InputFile
from earthworks.corpus.readers.records import Reading
from earthworks.corpus.rules.profiles import PROFILES, failing, rule_values
from earthworks.corpus.store import Store

BATCH = 1 << 23  # characters held at once
MOST = 1 << 16  # most documents held at once: 8 million of one letter each would take 4 GB
LEVEL = 1  # of zstd: compresses 284 MB of text/s by a factor of 2.4; level 3: 140 MB/s, 2.7
KEPT: tuple[str, ...] = ()  # shared: a list per document would trigger the garbage collector, a tenth of the time
PASSAGE = 2000  # characters recorded of a shared passage


def filter_shard(store: Store, recipe: Recipe, shard: Shard) -> dict[str, Any]:
    """Do all of the above for one shard; return its counts. A pure function of the recipe and the shard's files."""
    import pyarrow as pa

    subset = next(each for each in recipe.subsets if each.name == shard.subset)
    reading = Reading(tolerant=not recipe.strict)
    tally = Tally(recipe)
    keys: list[np.ndarray] = []
    hits: list[dict[str, Any]] = []
    tests = tuple(file for place in recipe.tests for file in item_files(place))
    index = test_index(tests, recipe.ngram) if tests else None
    with (
        store.writing(f"work/kept/{shard.name}.jsonl.zst") as kept_file,
        store.writing(f"rejected/{shard.name}.jsonl.zst") as rejected_file,
        writer(kept_file) as kept_lines,
        writer(rejected_file) as rejected_lines,
        Table(store, f"values/{shard.name}.parquet") as rows,
    ):
        for batch in batches(shard.read(reading)):
            texts = pa.array([each.text for each in batch], pa.large_string())
            table, dropped_by = judged(batch, texts, recipe, subset)
            rows.add(table)
            tally.add(table, dropped_by)
            stay = np.array([not names for names in dropped_by])
            for document, names in zip(batch, dropped_by):
                (rejected_lines if names else kept_lines).write(line(document, names))
            if recipe.exact or recipe.near or recipe.tests:
                remaining = texts.filter(pa.array(stay))
                keys.append(keys_of(remaining, recipe))
                hits += contamination(remaining, kept_ids(table), tally.kept - int(stay.sum()), index)
            else:
                keys.append(np.zeros((3, int(stay.sum())), np.uint64))
        files = shard.digests()  # before outputs get their names: a changed input leaves nothing behind
    stacked = np.concatenate(keys, axis=1) if keys else np.empty((3 + num_bands(recipe), 0), np.uint64)
    write_array(store, f"work/keys/{shard.name}.npy", stacked)
    if recipe.tests:
        store.write(f"contamination/{shard.name}.jsonl", b"".join(dumped(hit) for hit in hits))
    counts = tally.counts() | {
        "shard": shard.name,
        "files": files,
        "faults": [{"where": fault.where, "what": fault.what} for fault in reading.faults],
        "num_faults": reading.num_faults,
        "empty_documents": reading.empty_documents,
        "other_records": reading.other_records,
        "replaced_bytes": reading.replaced_bytes,
    }
    store.record(f"work/filter/{shard.name}.json", counts)
    return counts


def batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Batches of documents with BATCH characters or MOST documents."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH or len(batch) == MOST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def judged(batch: list[Document], texts: Any, recipe: Recipe, subset: Subset) -> tuple[Any, list[Sequence[str]]]:
    """Rule values of a batch as a table, and for each document the names of the filters that drop it."""
    import pyarrow as pa

    profile = PROFILES[recipe.profile]
    values = rule_values(texts, recipe.profile)
    columns: dict[str, Any] = {}
    drops: dict[str, np.ndarray] = {}
    if "language" in subset.stages:
        from earthworks.corpus.rules.language import languages

        codes, probabilities = languages(texts)
        columns = {"language": pa.array(list(codes)), "language_probability": pa.array(probabilities, pa.float64())}
        drops["language"] = np.array([code != recipe.language for code in codes])
    applied = [*(profile.quality if "quality" in subset.stages else ())]
    applied += [*(profile.repetition if "repetition" in subset.stages else ())]
    drops |= failing(values, {name: recipe.all_bounds[name] for name in applied})
    dropped_by: list[Sequence[str]] = [KEPT] * len(batch)
    for name, dropped in drops.items():
        for index in np.flatnonzero(dropped):
            dropped_by[index] = [*dropped_by[index], name]
    start = {"id": pa.array([each.id for each in batch], pa.string())}
    start["source"] = pa.array([each.source for each in batch], pa.string())
    start["bytes"] = pa.array(np.diff(np.frombuffer(texts.buffers()[1], np.int64)[: len(texts) + 1]))
    start["dropped_by"] = pa.array(dropped_by, pa.list_(pa.string()))
    missing = {
        "language": pa.nulls(len(batch), pa.string()),
        "language_probability": pa.nulls(len(batch), pa.float64()),
    }
    return pa.table({**start, **missing, **columns, **values}), dropped_by


def line(document: Document, dropped_by: Sequence[str] = KEPT) -> bytes:
    """A document as one line of JSON, unchanged."""
    record = {"id": document.id, "text": document.text, "source": document.source, **document.metadata}
    if dropped_by:
        record["dropped_by"] = dropped_by
    return dumped(record)


def dumped(record: dict[str, Any]) -> bytes:
    import orjson

    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # integers beyond 64 bits, Parquet dates and the like
        return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode(errors="replace")


# Keys compared by later stages


def bands_and_rows(recipe: Recipe) -> tuple[int, int]:
    return bands_for(recipe.near, recipe.hashes, recipe.recall) if recipe.near else (0, 0)


def num_bands(recipe: Recipe) -> int:
    return bands_and_rows(recipe)[0]


def keys_of(texts: Any, recipe: Recipe) -> np.ndarray:
    """(3 + bands, documents) uint64."""
    bands, rows = bands_and_rows(recipe)
    found = np.zeros((3 + bands, len(texts)), np.uint64)
    found[:2] = exact_keys(texts).T
    if bands:
        minima = signatures(texts, recipe.ngram, bands * rows, recipe.seed)
        found[2] = signed(minima)
        found[3:] = band_keys(minima, rows).T
    return found


def kept_ids(table: Any) -> list[str]:
    """Ids of the documents in a table of values that no filter drops."""
    return [id for id, names in zip(table["id"].to_pylist(), table["dropped_by"].to_pylist()) if not names]


def contamination(texts: Any, ids: list[str], first: int, index: ItemIndex | None) -> list[dict[str, Any]]:
    """Kept documents, numbered from `first`, that share n-grams with test items, each with the item and first passage."""
    if index is None:
        return []
    found = hits(texts, index)
    rows = []
    last, text = -1, ""
    for k, document in enumerate(found.document.tolist()):
        if document != last:
            last, text = document, texts[document].as_py()
        before, passage, after = context(text, int(found.start[k]), int(found.end[k]))
        rows.append(
            {
                "row": first + document,
                "id": ids[document],
                "item": index.items[found.item[k]].id,
                "shared": int(found.shared[k]),
                "jaccard": float(found.jaccard[k]),
                "context": [before, passage[:PASSAGE], after],
            }
        )
    return rows


@lru_cache(maxsize=1)
def test_index(files: tuple[InputFile, ...], n: int) -> ItemIndex:
    """The index of all test items, built once per process. Raises EarthworksError if a file has changed."""

    def items() -> Iterator[Item]:
        for file in files:
            yield from file_items(file)
            if state(file) not in (None, file.token):
                raise changed(file)

    return index_items(items(), n)


# Counts


class Tally:
    """Counts of documents and bytes, and histograms of every rule; they add up over shards."""

    def __init__(self, recipe: Recipe):
        self.documents = self.bytes = self.kept = self.kept_bytes = 0
        self.edges = {name: edges(name) for name in PROFILES[recipe.profile].bounds}
        self.histograms = {name: np.zeros(len(each) - 1, np.int64) for name, each in self.edges.items()}
        self.dropped: Counter[str] = Counter()
        self.dropped_alone: Counter[str] = Counter()

    def add(self, table: Any, dropped_by: list[Sequence[str]]) -> None:
        sizes = table["bytes"].to_numpy()
        stay = np.array([not names for names in dropped_by])
        self.documents += len(sizes)
        self.bytes += int(sizes.sum())
        self.kept += int(stay.sum())
        self.kept_bytes += int(sizes[stay].sum())
        for names in dropped_by:
            self.dropped.update(names)
            if len(names) == 1:
                self.dropped_alone.update(names)
        for name, each in self.edges.items():
            values = np.clip(table[name].to_numpy(), each[0], each[-1])
            self.histograms[name] += np.histogram(values, each)[0]

    def counts(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "kept": self.kept,
            "kept_bytes": self.kept_bytes,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_alone": dict(sorted(self.dropped_alone.items())),
            "histograms": {name: each.tolist() for name, each in self.histograms.items()},
        }


def edges(rule: str) -> np.ndarray:
    """Edges of a rule's histogram; values outside are counted in the first or last bin."""
    if rule == "words":
        return np.logspace(0, 6, 61)
    if rule == "mean_word_length":
        return np.linspace(0, 20, 41)
    if rule == "stop_words":
        return np.arange(-0.5, 9)
    return np.linspace(0, 1, 51)


# Files


def writer(stream: Any) -> Any:
    import zstandard

    return zstandard.ZstdCompressor(LEVEL).stream_writer(stream, closefd=False)


class Table:
    """A Parquet file written batch by batch; it appears if the block ends without an error and a batch was added."""

    def __init__(self, store: Store, name: str):
        self.store, self.name = store, name
        self.stack = ExitStack()
        self.parquet: Any = None

    def add(self, table: Any) -> None:
        import pyarrow.parquet

        if self.parquet is None:
            stream = self.stack.enter_context(self.store.writing(self.name))
            writer = pyarrow.parquet.ParquetWriter(stream, table.schema, compression="zstd")
            self.parquet = self.stack.enter_context(writer)
        self.parquet.write_table(table)

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)


def write_table(store: Store, name: str, table: Any) -> None:
    import pyarrow.parquet

    with store.writing(name) as stream:
        pyarrow.parquet.write_table(table, stream, compression="zstd")


def write_array(store: Store, name: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    store.write(name, buffer.getvalue())
