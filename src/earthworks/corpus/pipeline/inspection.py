"""`earthworks corpus inspect`: a summary and an HTML page of what a build kept and dropped."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus.manifest import manifest_of, summary, written_files
from earthworks.corpus.pipeline.recipe import Recipe, bounds_of
from earthworks.corpus.readers.records import Reading, first_line, json_object
from earthworks.corpus.readers.streams import LONGEST_LINE, blocks, lines
from earthworks.corpus.rules.profiles import PROFILES, failing, rule_values
from earthworks.corpus.rules.spans import counted_spans
from earthworks.corpus.sealing import has_shape
from earthworks.corpus.store import Store
from earthworks.report.numbers import readable
from earthworks.report.page import Page, Passages, Section, Table, render
from earthworks.report.writing import refuse_foreign, write_page
from earthworks.runs import EarthworksError, json_text, lock
from earthworks.runs.files import open_regular

SHARDS, LINES = 8, 2000  # samples come from this many shards, and this many lines of each
HITS = 200  # most hits of test material listed
SHOWN = 3  # samples per rule
LONGEST = 2400  # most characters shown of a text
COMPARED = 400  # documents evaluated under the other profiles
LONGEST_SAMPLED = 1 << 20  # most bytes of a sampled line
SAMPLED = 1 << 25  # most characters of a shard to sample from
RECORD = {"id": str, "text": str}
COPY = {"kind": str, "jaccard": float, "shard": str, "id": str}
SHAPES: dict[str, Any] = {"documents": {}, "rejected": {"dropped_by": [str]}, "removed": {"dropped_by": [str]}}
HIT = {"id": str, "item": str, "shared": int, "jaccard": float, "context": [str]}
Pieces = list[tuple[str, bool]]


def inspect(
    corpus: str,
    *,
    bounds: dict[str, Any] | None = None,
    seed: int = 0,
    json: bool = False,
    open: bool = False,
    verify: bool = False,
) -> str:
    """Report what a build kept, what it dropped and why: a summary here, and a page CORPUS/inspection.html.

    Args:
        corpus: the folder of a finished build.
        bounds: other rule bounds, as {words: [100, 50000]}: count the documents kept under them, from recorded values.
        seed: seed of the samples.
        json: print the counts of the manifest instead of writing a page.
        open: open the page in the browser.
        verify: compare every file read by its full SHA-256, even if its time is unchanged.
    """
    manifest = manifest_of(corpus)
    if manifest is None:
        raise EarthworksError(f"{corpus} is not a finished build (no manifest.json): run earthworks corpus build first")
    recipe = Recipe.from_json(manifest["recipe"])
    named = manifest["histograms"].keys() & manifest["edges"].keys()
    lengths = [(len(manifest["edges"][name]), len(manifest["histograms"][name]) + 1) for name in named]
    if not named >= recipe.all_bounds.keys() or any(edges != bins for edges, bins in lengths):
        raise EarthworksError(f"{corpus}/manifest.json has no histogram for every rule: it was altered")
    if json:
        return json_text(
            {name: value for name, value in manifest.items() if name not in ("inputs", "outputs", "files")}
        )
    folder = Files(corpus, manifest, full=verify)
    page = Path(folder.store.root) / "inspection.html"
    refuse_foreign(page)
    told = [summary(manifest)]
    if bounds:
        told.append(retuned(folder, manifest, recipe, bounds))
    html = render(describe(folder, manifest, recipe, seed))
    with lock(page.parent, page.name):
        write_page(page, html)
    if open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return "\n\n".join([*told, f"the page: {page}"])


class Files:
    """The files of a local corpus named in its manifest, each verified before it is read.

    In format 1, whose manifest names documents/ only, other files are not verified."""

    def __init__(self, corpus: str, manifest: dict[str, Any], *, full: bool):
        self.store, self.full = Store(corpus), full
        if not self.store.local:
            raise EarthworksError(f"{corpus} is not a local folder: copy it to one to inspect it")
        self.written, self.all = written_files(self.store, manifest), "files" in manifest
        self.name = Path(os.path.abspath(self.store.root)).name

    def path(self, name: str) -> Path | None:
        """Path of a file; None if the build wrote no such file, as for a shard without documents."""
        path = Path(self.store.path(name))
        if name in self.written:
            self.store.verify(name, self.written[name], full=self.full)
            return path
        return path if not self.all and path.is_file() else None


def retuned(folder: Files, manifest: dict[str, Any], recipe: Recipe, bounds: dict[str, Any]) -> str:
    """Report how many documents the filters would keep under other bounds, from the recorded rule values."""
    import pyarrow.parquet

    changed = replace(recipe, bounds={**recipe.bounds, **bounds_of(recipe.profile, bounds)})
    profile = PROFILES[recipe.profile]
    kept = gained = lost = 0
    for shard in manifest["inputs"]:
        path = folder.path(f"values/{shard}.parquet")
        if path is None:
            continue
        try:
            table = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise EarthworksError(f"{path} is not a readable Parquet file ({first_line(error)})") from None
        stages = manifest["subsets"][shard.split("/")[0]]["stages"]
        names = [
            *(profile.quality if "quality" in stages else ()),
            *(profile.repetition if "repetition" in stages else ()),
        ]
        if missing := {*names, "dropped_by"} - set(table.column_names):
            raise EarthworksError(f"{path} has no column {min(missing)}: it was altered")
        values = {name: table[name].to_numpy() for name in names}
        dropped_by = table["dropped_by"].to_pylist()
        before = np.array([not each for each in dropped_by])
        now = np.array(["language" not in each for each in dropped_by])
        for dropped in failing(values, {name: changed.all_bounds[name] for name in names}).values():
            now &= ~dropped
        kept, gained, lost = kept + now.sum(), gained + (now & ~before).sum(), lost + (before & ~now).sum()
    said = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in bounds_of(recipe.profile, bounds).items())
    return f"with {said}: the filters would keep {kept:,} ({gained:,} more, {lost:,} fewer)"


def describe(folder: Files, manifest: dict[str, Any], recipe: Recipe, seed: int) -> Page:
    """The page."""
    from earthworks.corpus.pipeline.inspection_figures import flow, histograms

    copies = manifest["exact_copies"] + manifest["near_copies"]
    page = Page(
        f"Corpus {folder.name}",
        f"Of {manifest['documents']:,} documents {manifest['final']:,} are in the corpus: "
        f"{manifest['documents'] - manifest['kept']:,} were dropped by filters (profile {recipe.profile}), "
        f"{copies:,} as copies, {manifest['contaminated']:,} as test material.",
        [
            ("Documents read", f"{manifest['documents']:,}", f"{manifest['bytes'] / 1e6:,.1f} MB of text"),
            ("In the corpus", f"{manifest['final']:,}", f"{manifest['final_bytes'] / 1e6:,.1f} MB"),
            ("Not readable", f"{manifest['num_faults']:,}", "records or files"),
        ],
    )
    rejected = sample(folder, "rejected", list(manifest["inputs"]), seed)
    page.sections = [
        Section("Stages", "Documents of each subset after each stage.", [flow(manifest), subset_table(manifest)]),
        Section(
            "Rules",
            "The value of every rule over all documents read, whether or not their subset is filtered by it. Dashed lines "
            "are its bounds; documents outside are dropped. The end bins include all values beyond them.",
            [histograms(manifest, recipe.all_bounds), rule_table(manifest)],
        ),
        Section("Dropped by filters", sampling_note(rejected), rejects(rejected, recipe)),
        Section("Copies", *copies_section(folder, manifest, seed)),
        Section("Under another profile", *profiles_section(folder, manifest, recipe, seed)),
    ]
    if recipe.tests:
        page.sections.insert(4, Section("Test material", *contamination_section(folder, manifest)))
    faults = [(each["where"], each["what"]) for each in manifest["faults"][:200]]
    empty = "Everything could be read."
    page.sections.append(
        Section(
            "Faults",
            "Unreadable records and files.",
            [Table("Faults", ("where", "what"), faults, empty, "words")],
        )
    )
    return page


def subset_table(manifest: dict[str, Any]) -> Table:
    header = (
        "subset",
        "stages",
        "read",
        "kept by filters",
        "exact copies",
        "near copies",
        "test material",
        "in the corpus",
        "MB",
        "weight",
    )
    rows = []
    for name, each in manifest["subsets"].items():
        counts = [
            f"{each[what]:,}" for what in ("documents", "kept", "exact_copies", "near_copies", "contaminated", "final")
        ]
        weight = f"{each['weight']:g}" if each["weight"] else ""
        rows.append((name, ", ".join(each["stages"]) or "none", *counts, f"{each['final_bytes'] / 1e6:,.1f}", weight))
    return Table("Subsets", header, rows)


def rule_table(manifest: dict[str, Any]) -> Table:
    total = max(manifest["documents"], 1)
    alone = manifest["dropped_alone"]
    rows = [
        (name, f"{count:,}", f"{count / total:.2%}", f"{alone.get(name, 0):,}")
        for name, count in sorted(manifest["dropped"].items(), key=lambda item: -item[1])
    ]
    header = ("rule", "documents dropped", "share of all", "dropped by no other rule")
    return Table("Dropped by rule", header, rows, "No rule dropped anything.")


# Samples


def lines_of(path: Path, longest: int = LONGEST_SAMPLED) -> Iterator[dict[str, Any] | None]:
    """The records of a file of documents; None in place of a line longer than `longest` bytes."""
    with open_regular(path) as raw:
        for number, line in enumerate(lines(blocks(raw, str(path)), longest), 1):
            record = None if line is None else json_object(line, f"line {number} of {path}", Reading())
            if record is not None and not has_shape(record, RECORD):
                raise EarthworksError(f"line {number} of {path} is not a document of a build: it was altered")
            yield record


def sample(folder: Files, kind: str, shards: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Records in a seeded order from at most SHARDS evenly spaced shards: of their first LINES lines, those of at most
    LONGEST_SAMPLED bytes."""
    chosen = [shards[k] for k in np.unique(np.linspace(0, len(shards) - 1, SHARDS).astype(int))] if shards else []
    paths = [folder.path(f"{kind}/{shard}.jsonl.zst") for shard in chosen]
    columns = [list(within(islice(lines_of(path), LINES))) for path in paths if path is not None]
    found = [record for row in zip_longest(*columns) for record in row if record is not None]
    if any(not has_shape(each, SHAPES[kind]) for each in found):
        raise EarthworksError(f"{folder.store.location}/{kind} holds records that no build wrote: it was altered")
    return [found[k] for k in np.random.default_rng(seed).permutation(len(found))]


def within(records: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """Records until their texts exceed SAMPLED characters in total."""
    size = 0
    for record in records:
        if record is not None:
            size += len(record["text"])
            if size > SAMPLED:
                return
            yield record


def sampling_note(records: Sequence[Any]) -> str:
    return (
        f"Drawn at random from {len(records):,} rejected documents (the first {LINES:,} of up to {SHARDS} shards). Text "
        "counted by the rule is marked; long texts are cut around the first mark."
    )


def rejects(records: list[dict[str, Any]], recipe: Recipe) -> list[Any]:
    """For every rule that drops documents, a few of them with the counted text marked."""
    parts: list[Any] = []
    names = ["language", *recipe.all_bounds]
    for name in names:
        for record in islice((each for each in records if name in each["dropped_by"]), SHOWN):
            others = [other for other in record["dropped_by"] if other != name]
            title = f"{name}: {record['id']}" + (f" (also dropped by {', '.join(others)})" if others else "")
            if name in recipe.all_bounds:
                value = rule_values([record["text"]], recipe.profile)[name][0]
                low, high = recipe.all_bounds[name]
                title += f" · {value:.4g}, passes {low:g} to {high:g}"
            marks = (
                counted_spans(record["text"], name) if recipe.profile == "literal" and name in recipe.all_bounds else []
            )
            parts.append(Passages([(title, cut(record["text"], marks))]))
    return parts or [Table("", (), (), "The filters dropped nothing.")]


def cut(text: str, marks: Sequence[tuple[int, int]]) -> Pieces:
    """The text in marked and unmarked pieces: at most LONGEST characters, from shortly before the first mark."""
    start = max(0, marks[0][0] - LONGEST // 4) if marks and len(text) > LONGEST else 0
    end = min(len(text), start + LONGEST)
    pieces: Pieces = [("… ", False)] if start else []
    at = start
    for first, last in sorted(marks):
        first, last = max(first, at), min(last, end)
        if first >= last:
            continue
        pieces += [(readable(text[at:first]), False), (readable(text[first:last]), True)]
        at = last
    pieces.append((readable(text[at:end]), False))
    return [piece for piece in [*pieces, (" …" if end < len(text) else "", False)] if piece[0]]


def copies_section(folder: Files, manifest: dict[str, Any], seed: int) -> tuple[str, list[Any]]:
    """Pairs of a removed near copy and the document kept, with differing words marked; exact copies only as a count."""
    found = [
        each
        for each in sample(folder, "removed", list(manifest["inputs"]), seed)
        if has_shape(each.get("copy_of"), COPY)
    ]
    near = [each for each in found if each["copy_of"]["kind"] == "near"]
    near.sort(key=lambda each: each["copy_of"]["jaccard"])
    shown = [near[k] for k in np.unique(np.linspace(0, len(near) - 1, 6).astype(int))] if near else []
    parts: list[Any] = []
    for each in shown:
        other = kept_document(folder, each["copy_of"])
        if other is None:
            continue
        left, right = differing(each["text"], other["text"])
        title = f"{each['id']}, removed: Jaccard {each['copy_of']['jaccard']:.3f}"
        parts.append(Passages([(title, left), (f"{other['id']}, kept", right)]))
    note = (
        f"{manifest['exact_copies']:,} exact copies (ignoring white space) and {manifest['near_copies']:,} near copies were "
        "removed. The similarity is that of n-grams with the document kept. Near pairs are sorted from least to most "
        "similar, with differing words marked."
    )
    return note, parts or [Table("", (), (), "No near copies to show.")]


def kept_document(folder: Files, place: dict[str, Any]) -> dict[str, Any] | None:
    """The document kept for a copy: in the corpus, or removed as test material."""
    for kind in ("documents", "removed"):
        path = folder.path(f"{kind}/{place['shard']}.jsonl.zst")
        for record in lines_of(path, LONGEST_LINE) if path is not None else ():
            if record is not None and record["id"] == place["id"]:
                return record
    return None


def differing(left: str, right: str) -> tuple[Pieces, Pieces]:
    """The words of both texts, with differing words marked."""
    words = [text[:LONGEST].split(" ") for text in (left, right)]
    sides: tuple[Pieces, Pieces] = ([], [])
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, all_words, start, end in ((sides[0], words[0], a, b), (sides[1], words[1], c, d)):
            if end > start:
                side.append((readable(" ".join(all_words[start:end]) + " "), tag != "equal"))
    return sides


def contamination_section(folder: Files, manifest: dict[str, Any]) -> tuple[str, list[Any]]:
    parts: list[Any] = []
    rows = []
    for shard in manifest["inputs"]:
        path = folder.path(f"contamination/{shard}.jsonl")
        for hit in hits_of(path) if path is not None and len(rows) < HITS else ():
            rows.append((hit["id"], hit["item"], f"{hit['shared']:,}", f"{hit['jaccard']:.3f}"))
            before, passage, after = map(readable, hit["context"])
            if len(parts) < 2 * SHOWN:
                title = f"{hit['id']} contains {hit['item']}"
                parts.append(Passages([(title, [(before, False), (passage, True), (after, False)])]))
    removed = f"{manifest['contaminated']:,} of them were removed by the recipe's rule"
    note = f"Documents that share n-grams with test items; {removed}."
    header = ("document", "test item", "shared n-grams", "Jaccard")
    table = Table("Hits", header, rows[:HITS], "No document shares an n-gram with a test item.", "words")
    return note, [table, *parts]


def hits_of(path: Path) -> Iterator[dict[str, Any]]:
    with open_regular(path) as raw:
        for line in islice(lines(blocks(raw, str(path))), HITS):
            hit = json_object(line or b"", f"a line of {path}", Reading())
            if not has_shape(hit, HIT) or len(hit["context"]) != 3:
                raise EarthworksError(f"{path} holds records that no build wrote: it was altered")
            yield hit


def profiles_section(folder: Files, manifest: dict[str, Any], recipe: Recipe, seed: int) -> tuple[str, list[Any]]:
    """The same documents under every profile's own bounds: shares dropped, and examples decided differently."""
    filtered = [name for name, each in manifest["subsets"].items() if {"quality", "repetition"} <= set(each["stages"])]
    shards = [shard for shard in manifest["inputs"] if shard.split("/")[0] in filtered]
    records = (
        [each for kind in ("documents", "removed", "rejected") for each in sample(folder, kind, shards, seed)]
        if shards
        else []
    )
    total = max(len(records), 1)
    records = [records[k] for k in np.random.default_rng(seed).permutation(len(records))[:COMPARED]]
    texts = [each["text"][:200_000] for each in records]
    note = f"{len(records):,} of {total:,} sampled documents of the filtered subsets, under each profile's own bounds."
    if not texts:
        return "No subset passes the quality and repetition rules.", []
    verdicts = {}
    for name, profile in PROFILES.items():
        drops = failing(rule_values(texts, name), profile.bounds)
        verdicts[name] = [[rule for rule, dropped in drops.items() if dropped[k]] for k in range(len(texts))]
    here = verdicts[recipe.profile]
    rows, parts = [], []
    for name, lists in verdicts.items():
        more = sum(bool(a) and not b for a, b in zip(lists, here))
        fewer = sum(bool(b) and not a for a, b in zip(lists, here))
        rows.append((name, f"{sum(map(bool, lists)) / len(texts):.1%}", f"{more:,}", f"{fewer:,}"))
        changed = [k for k in range(len(texts)) if bool(lists[k]) != bool(here[k])]
        for k in changed[:2] if name != recipe.profile else ():
            said = [
                f"{which}: {', '.join(found) or 'kept'}"
                for which, found in ((recipe.profile, here[k]), (name, lists[k]))
            ]
            parts.append(Passages([(f"{records[k]['id']} · {' · '.join(said)}", cut(texts[k], []))]))
    header = ("profile", "dropped", f"dropped, kept by {recipe.profile}", f"kept, dropped by {recipe.profile}")
    return note, [Table("Profiles", header, rows), *parts]
