"""`earthworks corpus build`: turn raw documents into a curated, deduplicated, decontaminated corpus.

    plan.json                the recipe and the shards, shared by all processes
    values/SHARD.parquet     one row per document read: id, bytes, dropped_by, language, the value of every rule
    rejected/SHARD.jsonl.zst documents dropped by filters, with the names of these filters
    contamination/SHARD.jsonl  documents that share n-grams with test items, with the passage
    duplicates.parquet       dropped copies and the documents kept for them: exact or near, with the Jaccard similarity
    removed/SHARD.jsonl.zst  the documents dropped as copies or as contaminated
    documents/SHARD.jsonl.zst  the corpus
    times.json               the time at which each file was written, and a digest of 64 of its blocks
    manifest.json            counts, histograms, faults, SHA-256 of all these; written last

Of the five stages, three work shard by shard (filter_stage.py, select_stage.py) and two on all shards
(duplicate_stages.py). Finished stages of a shard are not repeated, whichever process did them (stages.py). One command,
or several ranks, write to a folder at a time (planning.py); a build removes only files it has written (finishing.py).
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
    """Location and manifest of a corpus; the manifest is None while shards of other ranks are missing."""

    location: str
    manifest: dict[str, Any] | None
    message: str

    def __str__(self) -> str:
        return self.message

    @property
    def exit_code(self) -> int:
        """0, or 3 if records or files could not be read."""
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
    """Curate documents into a training corpus. Rerunning the same command resumes an interrupted build.

    Args:
        output: the folder or fsspec URL to build in.
        input: what to read: files or folders of text, JSON lines, Parquet, HTML or WARC, `hf:NAME`, a URL.
        subsets: in a recipe, several inputs by name, each with `input`, `weight` and `stages`.
        stages: filters for documents of --input: any of language, quality, repetition (default: the last two).
        profile: set of rule definitions.
        bounds: rule bounds that replace the profile's, as {words: [100, 50000], dup_10: 0.2}.
        language: the language kept by the stage `language`.
        exact: drop exact copies (ignoring white space).
        near: drop near copies: n-gram Jaccard similarity above this; null to keep them.
        ngram: words per n-gram, for near copies and tests.
        hashes: maximum number of permutations of a MinHash signature.
        recall: probability that a pair exactly at `near` is compared.
        tests: files or folders of test sets to remove from the corpus.
        test_rule: `jaccard` (the paper's: a document very similar to a test document) or `any` (any shared n-gram).
        strict: stop at the first unreadable record.
        seed: seed of the permutations and of the choice between copies.
        executor: `local`, or `ray` (extra `ray`).
        workers: number of shards processed at once (default: the processors of this machine).
        rank: process only the shards of this rank, from 0.
        world_size: number of ranks.
        verify: compare every file already written by its full SHA-256, even if its time is unchanged.
    """
    if output is None:
        raise EarthworksError("--output is required: the folder to build in")
    if executor not in EXECUTORS:
        raise EarthworksError(f"--executor is {executor!r}; it must be {' or '.join(EXECUTORS)}")
    if world_size < 1 or (rank is None and world_size > 1) or (rank is not None and not 0 <= rank < world_size):
        raise EarthworksError(f"--rank {rank} of --world_size {world_size}: ranks go from 0 to world_size - 1")
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise EarthworksError(f"--workers is {workers}; it must be at least 1")
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
                clean(store, shards)  # cut short by a kill
        remove_free_locks(store)
        return Built(store.location, manifest, f"{store.location} is already built\n{summary(manifest)}")
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
                note(f"finished work is kept in {store.location}: rerun the same command to continue")
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
    """Run the stages. Return None if all are done, else a message about the work of other ranks that is missing."""
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
            return "the share of this rank is done; when all ranks are done, rerun without --rank"
        if not part and not (done and intact(store, stage, None, shards, full=verify)):
            counts = OVER_ALL[stage](store, recipe, shards)
            note(f"{stage}: " + ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()))
            store.record(record_of(stage), counts)
    return "the share of this rank is done; rerun without --rank to write the manifest" if part else None


def perform(location: str, stage: str, name: str) -> dict[str, Any]:
    """Run one stage on one shard; called by an executor in any process."""
    store = Store(location)
    recipe, shards, tests = parsed_plan(store.read(PLAN), f"{store.location}/{PLAN}")
    if stage == "filter":
        refuse_changed_tests(store, tests, recipe)
    gc.freeze()  # exempt present objects from the collections that many small documents trigger: saves an eighth of the time
    try:
        return {"shard": name, **BY_SHARD[stage](store, recipe, shards[name])}
    finally:
        gc.unfreeze()


def run_stage(
    store: Store, stage: str, mine: list[Shard], shards: list[Shard], execution: Any, *, verify: bool
) -> None:
    """Run a stage, with progress, on the shards that are not done or whose files were altered."""
    there = sorted(finished(store, stage, mine))
    with said_when_slow(f"{stage}: comparing finished files with their digests"):
        done = {name for name in there if intact(store, stage, name, shards, full=verify)}
    missing = {shard.name: shard for shard in mine if shard.name not in done}
    total = sum(max(shard.bytes, 1) for shard in missing.values()) / 1e6
    documents = size = kept = 0
    started = time.monotonic()
    with Progress(
        f"{stage}: {len(done)} of {len(mine)} shards already done;" if done else stage, total, "MB"
    ) as progress:
        for counts in execution.run(perform, store.location, stage, list(missing)):
            documents, size = documents + counts.get("documents", 0), size + counts.get("bytes", 0)
            kept += counts.get("kept", 0)
            seconds = max(time.monotonic() - started, 1e-9)
            extra = f"; {documents / seconds:,.0f} documents/s, {size / 1e6 / seconds:,.1f} MB of text/s"
            progress.advance(
                max(missing[counts["shard"]].bytes, 1) / 1e6, f"{extra}, {kept / max(documents, 1):.0%} kept"
            )


def compile_kernels(recipe: Recipe) -> None:
    """Compile once here rather than in every worker, with a notice if it takes more than a second."""
    import pyarrow as pa

    from earthworks.corpus.pipeline.filter_stage import keys_of

    with said_when_slow("compiling the rules for this processor (once; kept on disk)"):
        texts = pa.array(["a few words of text, to compile for"], pa.large_string())
        rule_values(texts, recipe.profile)
        keys_of(texts, recipe)
