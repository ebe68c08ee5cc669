"""`earthworks corpus build`: raw documents to a curated, de-duplicated, decontaminated corpus, every decision on record.

    plan.json                the recipe and the shards: what every process goes by
    values/SHARD.parquet     a row a document read: id, bytes, dropped_by, language, the value of every rule
    rejected/SHARD.jsonl.zst what the filters dropped, with the names of all that do
    contamination/SHARD.jsonl  documents that share n-grams with test items, with the passage
    duplicates.parquet       who was dropped for whom: exact or near, with the Jaccard similarity
    removed/SHARD.jsonl.zst  the documents dropped for that, or as contaminated
    documents/SHARD.jsonl.zst  the corpus
    manifest.json            counts, histograms, faults, digests; written last

Five stages; three go shard by shard (filtering.py, selecting.py), two see all shards (deciding.py). A stage that was done
for a shard is not done again, whoever did it.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from earthworks import __version__
from earthworks.corpus.built import FORMAT, summary
from earthworks.corpus.deciding import find_candidates, find_duplicates
from earthworks.corpus.executors import EXECUTORS
from earthworks.corpus.filtering import edges, filter_shard, json_bytes, read_json_of
from earthworks.corpus.reading import Reading
from earthworks.corpus.recipe import Recipe, recipe_of
from earthworks.corpus.rules import rule_values
from earthworks.corpus.selecting import select_shard, shingle_shard
from earthworks.corpus.shards import Shard, cut, digest
from earthworks.corpus.store import Store
from earthworks.runs import EarthworksError, Progress
from earthworks.runs.progress import note, said_when_slow

LEFT_OUT = 3  # exit code: done, but something could not be read
BY_SHARD = {"filter": filter_shard, "shingles": shingle_shard, "select": select_shard}
OVER_ALL: dict[str, Callable[[Store, Recipe, list[Shard]], dict[str, Any]]] = {
    "candidates": find_candidates,
    "duplicates": find_duplicates,
}
STAGES = ("filter", "candidates", "shingles", "duplicates", "select")


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
    shards = planned(store, recipe)
    if store.exists("manifest.json"):
        manifest = read_json_of(store, "manifest.json")
        clean(store)  # which a kill may have prevented
        return Built(store.location, manifest, f"{store.location} was built before\n{summary(manifest)}")
    compile_kernels(recipe)
    part = rank is not None and world_size > 1
    mine = shards if rank is None else shards[rank::world_size]
    with EXECUTORS[executor](workers) as execution:
        for stage in STAGES:
            if stage in BY_SHARD:
                run_stage(store, stage, mine, execution)
                if len(done := finished(store, stage, shards)) < len(shards):
                    said = (
                        f"stage {stage}: {len(done)} of {len(shards)} shards are done; the others belong to other ranks"
                    )
                    return Built(store.location, None, said)
            elif not store.exists(f"work/{stage}.json"):
                if part:
                    return Built(store.location, None, f"rank {rank} is done; when all are: the same without --rank")
                counts = OVER_ALL[stage](store, recipe, shards)
                note(f"{stage}: " + ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()))
                store.write(f"work/{stage}.json", json_bytes(counts))
    if part:
        return Built(store.location, None, f"rank {rank} is done; the same without --rank writes the manifest")
    manifest = conclude(store, recipe, shards)
    return Built(store.location, manifest, summary(manifest))


def planned(store: Store, recipe: Recipe) -> list[Shard]:
    """The shards, as plan.json has them from the first command on; refused when recipe or input are others now."""
    reading = Reading(tolerant=not recipe.strict)
    shards = cut(recipe, reading)
    plan = {"recipe": recipe.as_json(), "digest": recipe.digest, "shards": [shard.as_json() for shard in shards]}
    plan |= {"skipped_files": reading.skipped_files, "faults": [asdict(fault) for fault in reading.faults]}
    if store.exists("plan.json"):
        before = read_json_of(store, "plan.json")
        if before["digest"] != recipe.digest:
            changed = [name for name, value in plan["recipe"].items() if before["recipe"].get(name) != value]
            raise EarthworksError(
                f"{store.location} was begun with another recipe ({', '.join(changed)} changed): give it as it was, or "
                "build into another --output"
            )
        refuse_changed_input(store, [Shard.from_json(each, recipe) for each in before["shards"]], shards)
    else:
        if store.names(""):
            raise EarthworksError(f"{store.location} holds files of something else: choose an empty --output")
        store.write("plan.json", json_bytes(plan))
    return shards


def refuse_changed_input(store: Store, before: list[Shard], now: list[Shard]) -> None:
    """The files must be those of the plan. One whose time alone changed is read to compare its digest, if its shard is
    done; otherwise it does not matter."""
    old, new = ({(shard.subset, file.name): file for shard in each for file in shard.files} for each in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if key not in old or key not in new or old[key].bytes != new[key].bytes:
            what = "is new" if key not in old else "is gone" if key not in new else "has another size"
            raise EarthworksError(f"the input changed since {store.location} was begun: {key[1]} of {key[0]} {what}")
    for shard in now:
        touched = [file for file in shard.files if file.token != old[shard.subset, file.name].token]
        digests = digests_of(store, shard) if touched else {}
        for file in touched:
            if digests.get(file.name, digest(file)) != digest(file):
                begun = f"the input changed since {store.location} was begun"
                raise EarthworksError(f"{begun}: {file.name} of {shard.subset} has other content")


def digests_of(store: Store, shard: Shard) -> dict[str, str]:
    """Digests of the files of a shard by name, from when it was read; none when it was not."""
    if store.exists("manifest.json"):
        files = read_json_of(store, "manifest.json")["inputs"][shard.name]
    elif store.exists(f"work/filter/{shard.name}.json"):
        files = read_json_of(store, f"work/filter/{shard.name}.json")["files"]
    else:
        files = []
    return {each["name"]: each["digest"] for each in files}


def perform(location: str, stage: str, name: str) -> dict[str, Any]:
    """One shard of one stage: what an executor calls, in whatever process."""
    store = Store(location)
    plan = read_json_of(store, "plan.json")
    recipe = Recipe.from_json(plan["recipe"])
    written = next(each for each in plan["shards"] if name == f"{each['subset']}/{each['number']:05d}")
    shard = Shard.from_json(written, recipe)
    gc.freeze()  # what lives now is left alone by the collections that many small documents set off: an eighth of the time
    try:
        return {"shard": name, **BY_SHARD[stage](store, recipe, shard)}
    finally:
        gc.unfreeze()


def finished(store: Store, stage: str, shards: list[Shard]) -> set[str]:
    """Names of the shards that the stage is done for."""
    folders = {shard.subset: store.names(f"work/{stage}/{shard.subset}") for shard in shards}
    return {shard.name for shard in shards if f"{shard.number:05d}.json" in folders[shard.subset]}


def run_stage(store: Store, stage: str, shards: list[Shard], execution: Any) -> None:
    """The shards that are not done yet, with progress."""
    done = finished(store, stage, shards)
    missing = {shard.name: shard for shard in shards if shard.name not in done}
    total = sum(max(shard.bytes, 1) for shard in missing.values()) / 1e6
    documents = size = kept = 0
    begun = time.monotonic()
    with Progress(
        f"{stage}: {len(done)} of {len(shards)} shards were done;" if done else stage, total, "MB"
    ) as progress:
        for counts in execution.run(perform, store.location, stage, list(missing)):
            documents, size = documents + counts.get("documents", 0), size + counts.get("bytes", 0)
            kept += counts.get("kept", 0)
            seconds = max(time.monotonic() - begun, 1e-9)
            extra = f"; {documents / seconds:,.0f} documents/s, {size / 1e6 / seconds:,.1f} MB of text/s"
            progress.advance(
                max(missing[counts["shard"]].bytes, 1) / 1e6, f"{extra}, {kept / max(documents, 1):.0%} kept"
            )


def conclude(store: Store, recipe: Recipe, shards: list[Shard]) -> dict[str, Any]:
    """The manifest, from what the stages counted; then what only they needed goes."""
    filtered = [read_json_of(store, f"work/filter/{shard.name}.json") for shard in shards]
    selected = [read_json_of(store, f"work/select/{shard.name}.json") for shard in shards]
    manifest: dict[str, Any] = {"format": FORMAT, "earthworks": __version__, "recipe": recipe.as_json()}
    manifest["digest"] = recipe.digest
    manifest["subsets"] = {}
    for subset in recipe.subsets:
        inside = [index for index, shard in enumerate(shards) if shard.subset == subset.name]
        counts = added([filtered[index] for index in inside])
        final = added([selected[index] for index in inside])
        manifest["subsets"][subset.name] = {"weight": subset.weight, "stages": list(subset.stages), **counts, **final}
    manifest |= added([{**each, **last} for each, last in zip(filtered, selected)])
    manifest["edges"] = {name: np.round(edges(name), 12).tolist() for name in manifest["histograms"]}
    plan = read_json_of(store, "plan.json")
    manifest["skipped_files"] = plan["skipped_files"]
    manifest["num_faults"] += len(plan["faults"])
    manifest["faults"] = plan["faults"] + [fault for each in filtered for fault in each["faults"]]
    manifest["duplicates"] = read_json_of(store, "work/duplicates.json")
    manifest["inputs"] = {shard.name: each["files"] for shard, each in zip(shards, filtered)}
    manifest["outputs"] = {shard.name: each["digest"] for shard, each in zip(shards, selected)}
    store.write("manifest.json", json_bytes(manifest))
    clean(store)
    return manifest


def clean(store: Store) -> None:
    """Remove what only the stages needed."""
    store.remove("work")
    store.remove_temporary()


def added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of what can be added: numbers, mappings of them, histograms."""
    total: dict[str, Any] = {}
    for each in counts:
        for name, value in each.items():
            if isinstance(value, int):
                total[name] = total.get(name, 0) + value
            elif isinstance(value, Mapping):
                total[name] = {
                    key: plus(total.get(name, {}).get(key), value.get(key)) for key in {**total.get(name, {}), **value}
                }
    return total


def plus(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return [x + y for x, y in zip(a, b)] if isinstance(a, list) else a + b


def compile_kernels(recipe: Recipe) -> None:
    """Once, here, before workers each do it; said when it takes more than a second."""
    import pyarrow as pa

    from earthworks.corpus.filtering import keys_of

    with said_when_slow("compiling the rules for this processor (once; kept on disk)"):
        texts = pa.array(["a few words of text, to compile for"], pa.large_string())
        rule_values(texts, recipe.profile)
        keys_of(texts, recipe)
