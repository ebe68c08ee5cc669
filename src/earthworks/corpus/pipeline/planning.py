"""The plan of a build (plan.json), shared by all its processes, and the locks on its folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from earthworks.corpus.decontamination.items import item_files
from earthworks.corpus.manifest import INPUT, RECIPE, read_manifest
from earthworks.corpus.pipeline.recipe import Recipe
from earthworks.corpus.pipeline.shards import Shard, cut, digest
from earthworks.corpus.pipeline.stages import record_of
from earthworks.corpus.readers.files import InputFile
from earthworks.corpus.readers.records import Reading
from earthworks.corpus.sealing import LARGEST, SEAL, has_shape, parsed, sealed, too_large, unsealed
from earthworks.corpus.store import LOCKS, Store
from earthworks.runs import EarthworksError, lock
from earthworks.runs.files import one_sentence
from earthworks.runs.lock import Held, refuse_held
from earthworks.runs.progress import note_once

PLAN = "plan.json"
OF_A_SHARD = 1000  # bytes per shard that a manifest, which lists written files, has beyond the plan
OURS = {
    *("work", "values", "rejected", "contamination", "duplicates.parquet", "removed", "documents", "times.json"),
    "manifest.json",
}
TESTS = [{"place": str, **INPUT, "token": str}]
FILE = {"name": str, "path": str, "bytes": int, "token": str}
SHAPE = {
    **{"recipe": RECIPE, "digest": str, "skipped_files": int, "faults": [{"where": str, "what": str}]},
    "shards": [{"subset": str, "number": int, "files": [FILE], "source": (str, None)}],
}


@contextmanager
def alone(store: Store, rank: int | None) -> Iterator[Held | None]:
    """Lock a build for writing: all of it, or one rank's share alongside other ranks.

    Creates the folder if it does not exist, and removes it if it stays empty. Raises EarthworksError if another command
    is building there, or if the folder holds other files; foreign files that appear later are left alone."""
    names = store.strangers()
    if names and PLAN not in names:
        raise EarthworksError(f"{store.location} holds files that are not of a build: choose an empty --output")
    if not store.local:
        note_once(f"notice: {store.location} is not a local folder: nothing prevents a second build from writing there")
        yield None
        return
    folder = Path(store.root)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with one_sentence(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with lock(folder, "building" if rank is None else f"building-rank-{rank}") as held:
            if rank is not None:
                refuse_held(folder, "building")
            for name in sorted(store.names("")) if rank is None else ():
                if name.startswith(f"{LOCKS}building-rank-"):
                    with lock(folder, name.removeprefix(LOCKS)):  # removes the lock file of a killed rank
                        pass
            yield held
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()


def remove_free_locks(store: Store) -> None:
    """Remove lock files of killed builds; those of running builds stay."""
    for name in sorted(store.names("")) if store.local else ():
        if name.startswith(f"{LOCKS}building"):
            with suppress(EarthworksError), lock(store.root, name.removeprefix(LOCKS)):
                pass


def planned(store: Store, recipe: Recipe) -> list[Shard]:
    """The shards, as in plan.json, which the first command writes. Raises EarthworksError if recipe, input or test sets
    have changed since."""
    reading = Reading(tolerant=not recipe.strict)
    shards = cut(recipe, reading)
    plan = {"recipe": recipe.as_json(), "digest": recipe.digest, "shards": [shard.as_json() for shard in shards]}
    plan |= {"skipped_files": reading.skipped_files, "faults": [asdict(fault) for fault in reading.faults]}
    if not store.exists(PLAN):
        if taken := store.strangers() & OURS:  # since `alone` looked
            raise EarthworksError(
                f"{store.location}/{min(taken)} was created by another program while the build was starting: choose an "
                "empty --output",
                exit_code=1,
            )
        plan["tests"] = [
            {"place": place, "name": file.name, "bytes": file.bytes, "token": file.token, "digest": digest(file)}
            for (place, _), file in test_files(recipe).items()
        ]
        write_plan(store, plan)
        return shards
    manifest = read_manifest(store)
    before = read_plan(store.read(PLAN), f"{store.location}/{PLAN}", manifest)
    if before["recipe"] != plan["recipe"]:
        changed = [name for name, value in plan["recipe"].items() if before["recipe"].get(name) != value]
        raise EarthworksError(
            f"{store.location} was started with a different recipe ({', '.join(changed)} changed): rerun with the "
            "original recipe, or choose another --output"
        )
    refuse_changed_input(store, [Shard.from_json(each, recipe) for each in before["shards"]], shards)
    if manifest is None or "tests" in before:
        refuse_changed_tests(store, before.get("tests"), recipe)
    if manifest is None and list(map(cut_of, before["shards"])) != list(map(cut_of, plan["shards"])):
        write_plan(store, plan | {"tests": before["tests"]})  # the same files in another place
    return shards


def write_plan(store: Store, plan: dict[str, Any]) -> None:
    data = sealed(plan)
    if (needed := len(data) + OF_A_SHARD * len(plan["shards"])) > LARGEST:
        raise too_large(f"about {needed:,} bytes")
    store.write(PLAN, data)
    del store.written[PLAN]  # it belongs to no stage


def cut_of(shard: dict[str, Any]) -> dict[str, Any]:
    """A shard of a plan without the times of its files."""
    return {**shard, "files": [{**file, "token": ""} for file in shard["files"]]}


def read_plan(data: bytes, where: str, manifest: dict[str, Any] | None = None) -> dict[str, Any]:
    """A plan written by `planned`; next to a manifest of format 1 it has no digest."""
    plan = parsed(data, where)
    if SEAL in plan:
        plan = unsealed(data, where)
    elif manifest is None or "files" in manifest:
        raise EarthworksError(
            f"{where} was altered, or belongs to an unfinished build of an earlier version: choose another --output"
        )
    names = {subset["name"] for subset in plan["recipe"]["subsets"]} if has_shape(plan, SHAPE) else set()
    if (
        not names
        or any(shard["subset"] not in names for shard in plan["shards"])
        or not has_shape(plan.get("tests", []), TESTS)
    ):
        raise EarthworksError(f"{where} is not the plan of a build: it was altered")
    return plan


@lru_cache(maxsize=1)
def parsed_plan(data: bytes, where: str) -> tuple[Recipe, dict[str, Shard], list[dict[str, Any]] | None]:
    """The recipe, the shards by name, and the plan's test sets: parsed once per process, as the plan may be large."""
    plan = read_plan(data, where)
    recipe = Recipe.from_json(plan["recipe"])
    shards = [Shard.from_json(each, recipe) for each in plan["shards"]]
    return recipe, {shard.name: shard for shard in shards}, plan.get("tests")


def refuse_changed_input(store: Store, before: list[Shard], now: list[Shard]) -> None:
    """Raise EarthworksError if the input files are not those of the plan. If only a file's time changed, its digest is
    compared, provided that its shard is done."""
    old, new = ({(shard.subset, file.name): file for shard in each for file in shard.files} for each in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if key not in old or key not in new or old[key].bytes != new[key].bytes:
            what = "is new" if key not in old else "is gone" if key not in new else "has a different size"
            raise EarthworksError(f"the input changed since {store.location} was started: {key[1]} of {key[0]} {what}")
    if [(shard.name, [file.name for file in shard.files]) for shard in before] != [
        (shard.name, [file.name for file in shard.files]) for shard in now
    ]:
        raise EarthworksError(
            f"{store.location}/{PLAN} divides the input into different shards: choose another --output"
        )
    for shard in now:
        touched = [file for file in shard.files if file.token != old[shard.subset, file.name].token]
        digests = digests_of(store, shard) if touched else {}
        for file in touched:
            if digests.get(file.name, "") not in ("", digest(file)):
                changed = f"the input changed since {store.location} was started"
                raise EarthworksError(f"{changed}: {file.name} of {shard.subset} has different content")


def test_files(recipe: Recipe) -> dict[tuple[str, str], InputFile]:
    """The files of the test sets, by place and name."""
    return {(place, file.name): file for place in recipe.tests for file in item_files(place)}


def refuse_changed_tests(store: Store, before: list[dict[str, Any]] | None, recipe: Recipe) -> None:
    """Raise EarthworksError if the test sets are not those of the plan: they decide which documents are kept."""
    now = test_files(recipe)
    if before is None and now:
        raise EarthworksError(
            f"{store.location}/{PLAN} is from an earlier version, which did not record the content of the test sets: "
            "choose another --output"
        )
    old = {(each["place"], each["name"]): each for each in before or ()}
    for key in sorted(old.keys() | now.keys()):
        what = "is new" if key not in old else "is gone" if key not in now else ""
        if not what and old[key]["token"] != now[key].token and old[key]["digest"] != digest(now[key]):
            what = "has different content"
        if what:
            raise EarthworksError(
                f"the test sets changed since {store.location} was started: {key[1]} of {key[0]} {what}; restore them, or "
                "choose another --output"
            )


def digests_of(store: Store, shard: Shard) -> dict[str, str]:
    """Digests of a shard's files by name, recorded when it was read; empty if it was not."""
    if (manifest := read_manifest(store)) is not None:
        files = manifest["inputs"].get(shard.name, [])
    elif store.exists(name := record_of("filter", shard.name)):
        try:
            files = store.read_record(name)["files"]
        except (EarthworksError, KeyError):  # the shard is redone
            files = []
    else:
        files = []
    return {each["name"]: each["digest"] for each in files}
