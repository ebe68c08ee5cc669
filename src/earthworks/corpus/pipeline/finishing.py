"""The end of a build: writing the manifest, cleaning up, and verifying a finished corpus."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from earthworks import __version__
from earthworks.corpus.manifest import FORMAT, INPUT, TIMES, written_files
from earthworks.corpus.pipeline.filter_stage import edges
from earthworks.corpus.pipeline.planning import PLAN
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.pipeline.shards import Shard
from earthworks.corpus.pipeline.stages import files_of_stage, record_of, records
from earthworks.corpus.sealing import sealed
from earthworks.corpus.store import Store, folders_above
from earthworks.runs import EarthworksError, Progress
from earthworks.runs.temporary import is_temporary

KEPT_FAULTS = 10_000  # most faults listed in a manifest, which must stay readable; all are counted


def conclude(store: Store, recipe: Recipe, shards: list[Shard]) -> dict[str, Any]:
    """Write the manifest from the counts of the stages."""
    filtered = [store.read_record(record_of("filter", shard.name)) for shard in shards]
    selected = [store.read_record(record_of("select", shard.name)) for shard in shards]
    duplicates = store.read_record(record_of("duplicates"))
    written: dict[str, dict[str, Any]] = {}
    for each in (*filtered, duplicates, *selected):
        written |= each.pop("written")
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
    plan = store.read_record(PLAN)
    manifest["skipped_files"] = plan["skipped_files"]
    manifest["num_faults"] += len(plan["faults"])
    manifest["faults"] = (plan["faults"] + [fault for each in filtered for fault in each["faults"]])[:KEPT_FAULTS]
    manifest["duplicates"] = duplicates
    manifest["inputs"] = {shard.name: each["files"] for shard, each in zip(shards, filtered)}
    manifest["tests"] = [{name: each[name] for name in ("place", *INPUT)} for each in plan["tests"]]
    manifest["outputs"] = {shard.name: each["digest"] for shard, each in zip(shards, selected)}
    written = {name: entry for name, entry in sorted(written.items()) if not name.startswith("work/")}
    manifest["files"] = {name: {what: entry[what] for what in ("bytes", "sha256")} for name, entry in written.items()}
    if store.local:
        times = {name: {what: entry[what] for what in ("blocks", "mtime_ns")} for name, entry in written.items()}
        store.write(TIMES, sealed(times))  # not in the manifest, which must not depend on the time of writing
    store.write("manifest.json", sealed(manifest))
    return manifest


def leftovers(store: Store, shards: list[Shard]) -> bool:
    """Whether a build killed after writing its manifest left temporary or work files."""
    if any(store.exists(record_of(stage, shard)) for stage, shard in records(shards)):
        return True
    return store.local and any(is_temporary(name) for folder in folders_of(shards) for name in store.names(folder))


def clean(store: Store, shards: list[Shard]) -> None:
    """Remove the stages' work files by name: those that a record names, then the record. All other files stay."""
    names = []
    for stage, shard in records(shards):
        record = record_of(stage, shard)
        try:
            written = store.read_record(record).get("written")
        except EarthworksError:  # missing, or not a record of a build
            continue
        if isinstance(written, dict):
            own = [
                name for name in files_of_stage(stage, shard, shards) if name in written and name.startswith("work/")
            ]
            store.remove_files([*own, record])
            names += [*own, record]
    store.remove_empty(folders_above(names))
    store.remove_temporary(folders_of(shards), alone=True)


def folders_of(shards: list[Shard]) -> list[str]:
    """All folders that a build writes to."""
    names = [PLAN]
    for stage, shard in records(shards):
        names += [record_of(stage, shard), *files_of_stage(stage, shard, shards)]
    return ["", *folders_above(names)]


def verify_built(store: Store, manifest: dict[str, Any], *, full: bool) -> None:
    """Compare every file of a finished corpus with what was written; raise EarthworksError at the first difference."""
    files = written_files(store, manifest)
    total = sum(entry.get("bytes", 0) for entry in files.values()) / 1e6
    with Progress("comparing the corpus with its digests", total, "MB") as progress:
        for name, entry in files.items():
            try:
                store.verify(name, entry, full=full)
            except EarthworksError as error:
                raise EarthworksError(
                    f"{error}; {store.location} is no longer what was built: restore the file, or choose another "
                    "--output"
                ) from None
            progress.advance(entry.get("bytes", 0) / 1e6)


def added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all counts that can be added: numbers, mappings of numbers, histograms."""
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
