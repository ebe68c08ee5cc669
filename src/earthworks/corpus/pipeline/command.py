"""`earthworks corpus build`: raw documents to a curated, de-duplicated, decontaminated corpus, every decision on record.

    plan.json                the recipe and the shards: what every process goes by
    values/SHARD.parquet     a row a document read: id, bytes, dropped_by, language, the value of every rule
    rejected/SHARD.jsonl.zst what the filters dropped, with the names of all that do
    contamination/SHARD.jsonl  documents that share n-grams with test items, with the passage
    duplicates.parquet       who was dropped for whom: exact or near, with the Jaccard similarity
    removed/SHARD.jsonl.zst  the documents dropped for that, or as contaminated
    documents/SHARD.jsonl.zst  the corpus
    times.json               when each of these was written, and a digest of 64 blocks of it
    manifest.json            counts, histograms, faults, SHA-256 of all these; written last

Five stages; three go shard by shard (filter_stage.py, select_stage.py), two see all shards (duplicate_stages.py). A stage
that was done for a shard is not done again, whoever did it (stages.py). One command writes in a folder at a time, or several
ranks (planning.py); what it removes there it has written itself (finishing.py).
"""

import gc
import os
import time
from dataclasses import dataclass
from typing import Any

from earthworks.corpus.manifest import read_manifest, summary
from earthworks.corpus.pipeline.executors import EXECUTORS
from earthworks.corpus.pipeline.finishing import clean, conclude, folders_of, leftovers, verify_built
from earthworks.corpus.pipeline.planning import (
    PLAN,
    alone,
    parsed_plan,
    planned,
    refuse_changed_tests,
    remove_free_locks,
)
from earthworks.corpus.pipeline.recipe import Recipe, recipe_of
from earthworks.corpus.pipeline.shards import Shard
from earthworks.corpus.pipeline.stages import BY_SHARD, OVER_ALL, STAGES, finished, intact, record_of
from earthworks.corpus.rules.profiles import rule_values
from earthworks.corpus.store import Store
from earthworks.runs import EarthworksError, Progress
from earthworks.runs.errors import Stopped
from earthworks.runs.lock import Held
from earthworks.runs.progress import note, said_when_slow

LEFT_OUT = 3  # exit code: done, but something could not be read


@dataclass
class Built:
    """Where the corpus is and its manifest; None while shards of other ranks are missing."""

    location: str
    manifest: dict[str, Any] | None
    message: str

    def __str__(self) -> str:
        return self.message

    @property
    def exit_code(self) -> int:
        """0; 3 when records or files could not be read."""
        return LEFT_OUT if self.manifest and self.manifest["num_faults"] else 0


def build(
    output: str | None = None,
    *,
    input: str | None = None,
    subsets: dict[str, Any] | None = None,
    stages: list[str] | None = None,
    profile: str = "literal",
    bounds: dict[str, Any] | None = None,
    language: str = "en",
    exact: bool = True,
    near: float | None = 0.8,
    ngram: int = 13,
    hashes: int = 128,
    recall: float = 0.98,
    tests: list[str] | None = None,
    test_rule: str = "jaccard",
    strict: bool = False,
    seed: int = 0,
    executor: str = "local",
    workers: int | None = None,
    rank: int | None = None,
    world_size: int = 1,
    verify: bool = False,
) -> Built:
    """Curate documents into a corpus to train on. The same command goes on where an earlier one stopped.

    Args:
        output: the folder or fsspec URL to build in.
        input: what to read: files or folders of text, JSON lines, Parquet, HTML or WARC, `hf:NAME`, a URL.
        subsets: in a recipe, several inputs by name, each with `input`, `weight` and `stages`.
        stages: the filters that documents of --input pass, of language, quality, repetition (the last two by default).
        profile: whose definition of the rules.
        bounds: other bounds of rules than the profile's, as {words: [100, 50000], dup_10: 0.2}.
        language: the language that the stage `language` keeps.
        exact: drop exact copies (white space aside).
        near: drop near copies: n-gram Jaccard similarity above this; null for none.
        ngram: words of an n-gram, for near copies and tests.
        hashes: permutations of a MinHash signature, at most.
        recall: chance that a pair just at `near` is compared.
        tests: files or folders of test sets that the corpus must not hold.
        test_rule: `jaccard` (the paper's: a document much like a test document) or `any` (any shared n-gram).
        strict: stop at the first record that cannot be read.
        seed: of the permutations, and of which of two copies stays.
        executor: `local`, or `ray` (extra `ray`).
        workers: shards done at once; by default the processors of this machine.
        rank: do only the shards of this rank, from 0.
        world_size: number of ranks.
        verify: compare every file that was written before in full, whatever its time says.
    """
    if output is None:
        raise EarthworksError("corpus build wants --output, the folder to build in")
    if executor not in EXECUTORS:
        raise EarthworksError(f"--executor is {executor!r}; it must be {' or '.join(EXECUTORS)}")
    if world_size < 1 or (rank is None and world_size > 1) or (rank is not None and not 0 <= rank < world_size):
        raise EarthworksError(f"--rank {rank} of --world_size {world_size}: ranks go from 0 to world_size - 1")
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise EarthworksError(f"--workers is {workers}; at least 1")
    recipe = recipe_of(
        input,
        subsets,
        stages,
        bounds,
        profile=profile,
        language=language,
        exact=exact,
        near=near,
        ngram=ngram,
        hashes=hashes,
        recall=recall,
        tests=tuple(tests or ()),
        test_rule=test_rule,
        strict=strict,
        seed=seed,
    )
    store = Store(output)
    part = rank is not None and world_size > 1
    if (manifest := read_manifest(store)) is not None:
        shards = planned(store, recipe)
        verify_built(store, manifest, full=verify)
        if leftovers(store, shards):
            with alone(store, None):
                clean(store, shards)  # which a kill prevented
        remove_free_locks(store)
        return Built(store.location, manifest, f"{store.location} was built before\n{summary(manifest)}")
    with alone(store, rank if part else None) as held:
        shards = planned(store, recipe)
        folders = folders_of(shards)
        store.remove_temporary(folders, alone=not part)
        try:
            compile_kernels(recipe)
            with EXECUTORS[executor](workers) as execution:
                mine = shards if rank is None else shards[rank::world_size]
                unfinished = conduct(store, recipe, shards, mine, execution, held, part=part, verify=verify)
            if unfinished is not None:
                return Built(store.location, None, unfinished)
            if held is not None:
                held.check()
            manifest = conclude(store, recipe, shards)
            clean(store, shards)
        except BaseException as error:
            store.remove_temporary(folders, alone=False)
            if isinstance(error, KeyboardInterrupt | Stopped):
                note(f"what is done is kept in {store.location}: the same command continues")
            raise
    return Built(store.location, manifest, summary(manifest))


def conduct(
    store: Store,
    recipe: Recipe,
    shards: list[Shard],
    mine: list[Shard],
    execution: Any,
    held: Held | None,
    *,
    part: bool,
    verify: bool,
) -> str | None:
    """Do the stages; what is missing where other ranks have to do theirs first, and None where all is done."""
    for stage in STAGES:
        if held is not None:
            held.check()
        if stage in BY_SHARD:
            run_stage(store, stage, mine, shards, execution, verify=verify)
            if len(done := finished(store, stage, shards)) < len(shards):
                return f"stage {stage}: {len(done)} of {len(shards)} shards are done; the others belong to other ranks"
            continue
        done = store.exists(record_of(stage))
        if part and not done:
            return "the share of this rank is done; when all ranks are: the same without --rank"
        if not part and not (done and intact(store, stage, None, shards, full=verify)):
            counts = OVER_ALL[stage](store, recipe, shards)
            note(f"{stage}: " + ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()))
            store.record(record_of(stage), counts)
    return "the share of this rank is done; the same without --rank writes the manifest" if part else None


def perform(location: str, stage: str, name: str) -> dict[str, Any]:
    """One shard of one stage: what an executor calls, in whatever process."""
    store = Store(location)
    recipe, shards, tests = parsed_plan(store.read(PLAN), f"{store.location}/{PLAN}")
    if stage == "filter":
        refuse_changed_tests(store, tests, recipe)
    gc.freeze()  # what lives now is left alone by the collections that many small documents set off: an eighth of the time
    try:
        return {"shard": name, **BY_SHARD[stage](store, recipe, shards[name])}
    finally:
        gc.unfreeze()


def run_stage(
    store: Store, stage: str, mine: list[Shard], shards: list[Shard], execution: Any, *, verify: bool
) -> None:
    """The shards that are not done yet, or whose files are not what was written, with progress."""
    there = sorted(finished(store, stage, mine))
    with said_when_slow(f"{stage}: comparing what was done before with its digests"):
        done = {name for name in there if intact(store, stage, name, shards, full=verify)}
    missing = {shard.name: shard for shard in mine if shard.name not in done}
    total = sum(max(shard.bytes, 1) for shard in missing.values()) / 1e6
    documents = size = kept = 0
    started = time.monotonic()
    with Progress(f"{stage}: {len(done)} of {len(mine)} shards were done;" if done else stage, total, "MB") as progress:
        for counts in execution.run(perform, store.location, stage, list(missing)):
            documents, size = documents + counts.get("documents", 0), size + counts.get("bytes", 0)
            kept += counts.get("kept", 0)
            seconds = max(time.monotonic() - started, 1e-9)
            extra = f"; {documents / seconds:,.0f} documents/s, {size / 1e6 / seconds:,.1f} MB of text/s"
            progress.advance(
                max(missing[counts["shard"]].bytes, 1) / 1e6, f"{extra}, {kept / max(documents, 1):.0%} kept"
            )


def compile_kernels(recipe: Recipe) -> None:
    """Once, here, before workers each do it; said when it takes more than a second."""
    import pyarrow as pa

    from earthworks.corpus.pipeline.filter_stage import keys_of

    with said_when_slow("compiling the rules for this processor (once; kept on disk)"):
        texts = pa.array(["a few words of text, to compile for"], pa.large_string())
        rule_values(texts, recipe.profile)
        keys_of(texts, recipe)
