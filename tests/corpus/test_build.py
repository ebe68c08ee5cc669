"""`corpus build`: every document ends in one place, by rules on record, whatever is killed, split or repeated."""

import argparse
import gzip
import hashlib
import inspect
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from earthworks.corpus import build, read, sources
from earthworks.corpus.manifest import manifest_of
from earthworks.corpus.pipeline import command as building
from earthworks.corpus.rules.profiles import PROFILES, failing, rule_values
from earthworks.corpus.store import Store
from earthworks.runs import EarthworksError, lock

VOCABULARY = [
    "".join(random.Random(k).choices("abcdefghijklmnopqrstuvwxyz", k=random.Random(k).randint(3, 9)))
    for k in range(2000)
]


def prose(seed: int, words: int = 150) -> str:
    """A text that passes every rule: random words, and now and then "the", "of" and "and"."""
    random_ = random.Random(seed)
    return " ".join(
        random_.choice(("the", "of", "and")) if k % 9 == 4 else random_.choice(VOCABULARY) for k in range(words)
    )


def near_copy(text: str, seed: int) -> str:
    """The text with one word in the middle exchanged: 13 of some 140 n-grams are others, a similarity of 0.82."""
    words = text.split()
    words[len(words) // 2] = f"changed{seed}"
    return " ".join(words)


def write_lines(path: Path, texts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))


@pytest.fixture
def raw(tmp_path) -> Path:
    """Three files of web pages (good, too short, repetitive), with exact and near copies across files."""
    good = {f"good-{k}": prose(k) for k in range(24)}
    names = list(good)
    bad = {f"short-{k}": prose(100 + k, words=20) for k in range(3)}
    bad |= {f"spam-{k}": f"{prose(200 + k, 12)} " * 20 for k in range(3)}
    copies = {"exact": "  " + good["good-0"].replace(" ", "  "), "near": near_copy(good["good-1"], 1)}
    write_lines(tmp_path / "raw" / "a.jsonl", {name: good[name] for name in names[:12]} | bad)
    write_lines(tmp_path / "raw" / "b.jsonl", copies)
    write_lines(tmp_path / "raw" / "c.jsonl", {name: good[name] for name in names[12:]})
    return tmp_path / "raw"


@pytest.fixture
def small_shards(monkeypatch):
    """Every file a shard by itself."""
    monkeypatch.setattr("earthworks.corpus.pipeline.shards.SHARD_BYTES", 1)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name; without the times at which they were written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / "times.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def ids(folder: Path) -> set[str]:
    return {document.id for document in read(str(folder))}


def run(raw: Path, output: Path, **options) -> dict:
    """A build in this process; its manifest."""
    built = build(str(output), input=str(raw), **{"workers": 1, **options})
    assert built.manifest is not None
    return built.manifest


def test_every_document_is_in_one_place(raw, tmp_path):
    manifest = run(raw, tmp_path / "corpus")
    kept, rejected, removed = (ids(tmp_path / "corpus" / kind) for kind in ("documents", "rejected", "removed"))
    everything = ids(raw)
    assert kept | rejected | removed == everything
    assert len(kept) + len(rejected) + len(removed) == len(everything) == manifest["documents"]
    assert rejected == {id for id in everything if id.startswith(("short", "spam"))}
    assert manifest["final"] == len(kept) == 24
    assert removed < {"good-0", "exact", "good-1", "near"}
    assert len(removed) == 2


def test_the_summary_has_a_line_for_each_subset(raw, tmp_path):
    one = str(build(str(tmp_path / "one"), input=str(raw), workers=1)).splitlines()
    assert one[1].split()[:4] == ["all", "32", "26", "(81%)"]
    subsets = {"a": str(raw / "a.jsonl"), "c": str(raw / "c.jsonl")}
    two = str(build(str(tmp_path / "two"), subsets=subsets, workers=1)).splitlines()
    assert [line.split()[:2] for line in two[1:4]] == [["a", "18"], ["c", "12"], ["together", "30"]]


def test_the_values_on_record_decide(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    table = pa.parquet.read_table(tmp_path / "corpus" / "values" / "all" / "00000.parquet")
    documents = {document.id: document.text for document in read(str(raw))}
    assert table["id"].to_pylist() == list(documents)
    values = rule_values(list(documents.values()))
    for name in PROFILES["literal"].bounds:
        assert table[name].to_numpy().tobytes() == values[name].tobytes(), name
    dropped = failing(values)
    expected = [[name for name in dropped if dropped[name][k]] for k in range(len(documents))]
    assert table["dropped_by"].to_pylist() == expected


def test_a_copy_names_the_document_that_stays(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    rows = pa.parquet.read_table(tmp_path / "corpus" / "duplicates.parquet").to_pylist()
    pairs = {frozenset((row["id"], row["kept_id"])): row for row in rows}
    assert pairs.keys() == {frozenset(("good-0", "exact")), frozenset(("good-1", "near"))}
    near = pairs[frozenset(("good-1", "near"))]
    words = [prose(1).split(), near_copy(prose(1), 1).split()]
    grams = [{tuple(each[k : k + 13]) for k in range(len(each) - 12)} for each in words]
    assert near["jaccard"] == len(grams[0] & grams[1]) / len(grams[0] | grams[1]) > 0.8
    kept = ids(tmp_path / "corpus" / "documents")
    assert all(row["kept_id"] in kept and row["id"] not in kept for row in rows)


def test_which_copy_stays_depends_on_the_seed_alone(raw, tmp_path, small_shards):
    kept = {seed: ids_after(raw, tmp_path, seed) for seed in range(8)}
    assert len({frozenset(each & {"good-1", "near"}) for each in kept.values()}) == 2


def ids_after(raw: Path, tmp_path: Path, seed: int) -> set[str]:
    run(raw, tmp_path / f"seed-{seed}", seed=seed)
    return ids(tmp_path / f"seed-{seed}" / "documents")


def test_a_subset_passes_the_stages_that_its_recipe_names(raw, tmp_path):
    subsets = {
        "web": {"input": str(raw / "a.jsonl"), "weight": 3},
        "books": {"input": str(raw / "a.jsonl"), "weight": 1, "stages": []},
    }
    built = build(str(tmp_path / "corpus"), subsets=subsets, workers=1, exact=False, near=None)
    assert built.manifest["subsets"]["web"]["kept"] == 12
    assert built.manifest["subsets"]["books"]["kept"] == 18
    found = sources(str(tmp_path / "corpus"))
    assert [(each.name, each.weight) for each in found] == [("web", 0.75), ("books", 0.25)]
    assert [sum(1 for _ in read(each.location)) for each in found] == [12, 18]


ENGLISH = re.findall(
    r"[a-z]{2,}", " ".join(inspect.getdoc(each) or "" for each in (argparse, json, textwrap, int, str))
)
GERMAN = re.findall(
    r"\w+",
    "die Taschenratte gr\u00e4bt einen Bau und schiebt die Erde mit der Brust vor sich her hinaus bis sie ganz "
    "m\u00fcde ist und nicht mehr weiter will",
)


def shuffled(words: list[str], seed: str, count: int) -> str:
    return " ".join(random.Random(seed).choices(words, k=count))


def test_the_documented_recipe_of_massivetext_builds_a_corpus(tmp_path, monkeypatch, command):
    pytest.importorskip("py3langid")
    recipe = Path(__file__).parents[2] / "examples" / "massivetext.yaml"
    monkeypatch.chdir(tmp_path)
    for subset in ("web", "books", "c4", "news", "github", "wikipedia"):
        texts = {f"{subset}-{code}": shuffled(words, subset, 40) for code, words in (("en", ENGLISH), ("de", GERMAN))}
        write_lines(tmp_path / "raw" / subset / "a.jsonl", texts)
    item = shuffled([*ENGLISH, "the", "and"], "item", 80)
    page = shuffled([*ENGLISH, *["the", "and", "of", "with"] * 20], "page", 200)
    write_lines(tmp_path / "raw/web/b.jsonl", {"good": page, "test": item})
    write_lines(tmp_path / "raw/tests/test.jsonl", {"item": item})
    outcome = command("corpus build", recipe, output=tmp_path / "corpus", workers=1)
    assert outcome.code == 0, outcome.err
    english = {f"{subset}-en" for subset in ("books", "c4", "news", "wikipedia")}
    assert ids(tmp_path / "corpus") == english | {"good", "github-en", "github-de"}
    manifest = manifest_of(tmp_path / "corpus")
    assert manifest is not None
    assert manifest["dropped"]["language"] == 5
    assert manifest["contaminated"] == 1
    assert [source.weight for source in sources("corpus")] == [0.48, 0.27, 0.10, 0.10, 0.03, 0.02]
    assert command("corpus inspect corpus").code == 0


def test_bounds_of_the_recipe_take_the_place_of_the_profiles(raw, tmp_path):
    manifest = run(raw, tmp_path / "corpus", bounds={"words": [10, 1000]})
    assert "words" not in manifest["dropped"]
    assert {"short-0", "short-1", "short-2"} <= ids(tmp_path / "corpus" / "documents")


@pytest.mark.parametrize(("rule", "found"), [("any", {"page", "much"}), ("jaccard", {"much"})])
def test_test_material_goes(tmp_path, rule, found):
    item = prose(7, 60)
    texts = {"page": f"{prose(1, 100)} {item} {prose(2, 100)}", "much": f"{item} tail", "clean": prose(3)}
    write_lines(tmp_path / "raw.jsonl", texts)
    write_lines(tmp_path / "tests" / "items.jsonl", {"question": item})
    manifest = run(tmp_path / "raw.jsonl", tmp_path / "corpus", tests=[str(tmp_path / "tests")], test_rule=rule)
    assert manifest["contaminated"] == len(found)
    assert ids(tmp_path / "corpus" / "documents") == texts.keys() - found
    hits = [json.loads(line) for line in (tmp_path / "corpus/contamination/all/00000.jsonl").read_text().splitlines()]
    assert {hit["id"] for hit in hits} == {"page", "much"}
    assert all(hit["context"][1] == item for hit in hits)


# Resuming, ranks, workers


def test_the_same_command_again_changes_nothing(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    before = tree(tmp_path / "corpus")
    assert "is already built" in str(build(str(tmp_path / "corpus"), input=str(raw), workers=1))
    assert tree(tmp_path / "corpus") == before


@pytest.mark.parametrize("stage", building.STAGES)
def test_a_build_stopped_in_any_stage_resumes_to_the_same_bytes(raw, tmp_path, small_shards, monkeypatch, stage):
    run(raw, tmp_path / "whole")
    table = building.OVER_ALL if stage in building.OVER_ALL else building.BY_SHARD
    calls = []

    def stop(*arguments, through=table[stage]):
        calls.append(arguments)
        if len(calls) == 2 or stage in building.OVER_ALL:
            raise KeyboardInterrupt
        return through(*arguments)

    with monkeypatch.context() as patch:
        patch.setitem(table, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "broken")
    run(raw, tmp_path / "broken")
    assert same_but_for_the_place(tmp_path / "whole", tmp_path / "broken")


def same_but_for_the_place(a: Path, b: Path) -> bool:
    left, right = tree(a), tree(b)
    differing = [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
    assert not differing
    return True


def test_ranks_together_build_what_one_does(raw, tmp_path, small_shards):
    run(raw, tmp_path / "whole")
    for rank in (2, 0, 1):
        part = build(str(tmp_path / "ranks"), input=str(raw), workers=1, rank=rank, world_size=3)
        assert part.manifest is None
    run(raw, tmp_path / "ranks")
    assert same_but_for_the_place(tmp_path / "whole", tmp_path / "ranks")


def test_two_workers_build_what_one_does(raw, tmp_path, small_shards):
    run(raw, tmp_path / "one")
    run(raw, tmp_path / "two", workers=2)
    assert same_but_for_the_place(tmp_path / "one", tmp_path / "two")


def test_an_object_store_receives_what_a_folder_does(raw, tmp_path):
    import fsspec

    run(raw, tmp_path / "folder")
    build("memory://corpus", input=str(raw), workers=1)
    memory = fsspec.filesystem("memory")
    found = {name.removeprefix("/corpus/"): memory.cat_file(name) for name in memory.find("/corpus")}
    assert found == tree(tmp_path / "folder")
    assert "is already built" in str(build("memory://corpus", input=str(raw), workers=1, verify=True))
    (source,) = sources("memory://corpus")
    assert {document.id for document in read(source.location)} == ids(tmp_path / "folder" / "documents")


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_builds_what_one_process_does(raw, tmp_path, small_shards):
    ray = pytest.importorskip("ray")
    run(raw, tmp_path / "local")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run(raw, tmp_path / "ray", executor="ray", workers=2)
    finally:
        ray.shutdown()
    assert same_but_for_the_place(tmp_path / "local", tmp_path / "ray")


def kills(output: Path, raw: Path, num: int, seed: int) -> None:
    """Build by the command, with workers (and sometimes the command itself) killed at random, until it is done."""
    random_ = random.Random(seed)
    script = (
        "import sys; from earthworks.corpus.pipeline import shards; shards.SHARD_BYTES = 1; "
        "from earthworks.cli import main; main(sys.argv[1:])"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "corpus",
        "build",
        "--input",
        str(raw),
        "--output",
        str(output),
        "--workers",
        "2",
    ]
    done = 0
    for _ in range(3 * num + 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(random_.uniform(0.05, 0.6))
            found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
            workers = [int(each) for each in found.stdout.split()]
            if done < num and workers:
                victim = random_.choice([*workers, process.pid] if random_.random() < 0.3 else workers)
                try:
                    os.kill(victim, signal.SIGKILL)
                    done += 1
                except ProcessLookupError:
                    continue
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert done == num


def test_workers_end_with_the_command_that_is_killed(tmp_path):
    script = (
        "import os, sys, time; from earthworks.corpus.pipeline.executors import Local; local = Local(2); "
        "futures = [local.submit(os.getpid) for _ in range(8)]; "
        "print(*{each.result() for each in futures}, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(each) for each in process.stdout.readline().split()]
    process.kill()
    process.wait()
    for _ in range(100):
        time.sleep(0.1)
        if not any(alive(each) for each in workers):
            return
    raise AssertionError("a worker outlived its command by ten seconds")


def alive(process: int) -> bool:
    """Running, and not merely waiting for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_twenty_kills_at_random_change_no_byte(tmp_path, small_shards):
    for k in range(40):
        write_lines(tmp_path / "raw" / f"{k:02d}.jsonl", {f"{k}-{j}": prose(1000 * k + j, 400) for j in range(600)})
    run(tmp_path / "raw", tmp_path / "whole")
    kills(tmp_path / "killed", tmp_path / "raw", 20, seed=0)
    assert same_but_for_the_place(tmp_path / "whole", tmp_path / "killed")


# What is refused


def test_another_recipe_is_refused_where_one_was_started(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    with pytest.raises(EarthworksError, match=r"started with a different recipe \(near changed\)"):
        run(raw, tmp_path / "corpus", near=0.7)


def interrupted(*_):
    raise KeyboardInterrupt


def test_input_that_changed_is_refused_and_input_that_was_touched_is_not(raw, tmp_path, small_shards, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(building.OVER_ALL, "candidates", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "corpus")
    os.utime(raw / "a.jsonl", (1, 1))
    content = (raw / "c.jsonl").read_text()
    (raw / "c.jsonl").write_text(content.replace("the", "teh", 1))
    with pytest.raises(EarthworksError, match=r"c\.jsonl of all has different content"):
        run(raw, tmp_path / "corpus")
    (raw / "c.jsonl").write_text(content)
    assert run(raw, tmp_path / "corpus")["final"] == 24


def test_input_that_changed_after_the_build_is_refused(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    content = (raw / "c.jsonl").read_text()
    (raw / "c.jsonl").write_text(content.replace("the", "teh", 1))
    with pytest.raises(EarthworksError, match=r"c\.jsonl of all has different content"):
        run(raw, tmp_path / "corpus")


def test_what_a_kill_after_the_manifest_left_goes(raw, tmp_path, small_shards, monkeypatch):
    run(raw, tmp_path / "whole")
    removing = Store.remove_files
    with monkeypatch.context() as patch:
        calls = []

        def killed(store, names):
            calls.append(names)
            if len(calls) == 4:
                raise KeyboardInterrupt
            removing(store, names)

        patch.setattr(Store, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "corpus")
    assert (tmp_path / "corpus/manifest.json").exists()
    assert (tmp_path / "corpus/work").exists()
    left_by_a_dead(tmp_path / "corpus/documents/all/00000.jsonl.zst")
    run(raw, tmp_path / "corpus")
    assert same_but_for_the_place(tmp_path / "whole", tmp_path / "corpus")


def test_the_lock_file_of_a_build_that_was_killed_after_its_manifest_goes_and_a_held_one_stays(raw, tmp_path):
    run(raw, tmp_path / "corpus")
    free, held = (tmp_path / "corpus" / f".earthworks-lock-building{rank}" for rank in ("", "-rank-1"))
    free.write_text("")
    with lock(tmp_path / "corpus", "building-rank-1"):
        run(raw, tmp_path / "corpus")
        assert (free.exists(), held.exists()) == (False, True)


def left_by_a_dead(path: Path) -> None:
    """A temporary file as a process that was killed leaves it."""
    script = "import sys; from pathlib import Path; from earthworks.runs.temporary import temporary_name; "
    script += "print(temporary_name(Path(sys.argv[1])))"
    name = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True).stdout
    Path(name.strip()).write_bytes(b"left")


def test_files_of_a_person_in_the_folder_of_a_build_survive_every_build_and_every_stop(raw, tmp_path, monkeypatch):
    """Also in folders of the build, and under names like those of its temporaries."""
    corpus = tmp_path / "corpus"
    mine = ["work/notes.txt", "work/filter/notes.txt", "documents/mine.txt", "documents/all/mine.txt", "times.txt"]
    mine += [".tmp-mine/deep/letter.txt", "documents/.tmp-host-1-00000.jsonl.zst", "thesis/chapter.txt"]

    def add(*arguments, through=building.OVER_ALL["duplicates"]):
        for name in mine:
            (corpus / name).parent.mkdir(parents=True, exist_ok=True)
            (corpus / name).write_text(name)
        through(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(building.OVER_ALL, "duplicates", add)
        with pytest.raises(KeyboardInterrupt):
            run(raw, corpus)
    for _ in range(3):
        run(raw, corpus)
        assert {name: (corpus / name).read_text() for name in mine} == {name: name for name in mine}
    assert sorted(path.name for path in (corpus / "work").iterdir()) == ["filter", "notes.txt"]
    for name in mine:
        (corpus / name).unlink()
    run(raw, corpus)
    run(raw, tmp_path / "other")
    assert tree(corpus) == tree(tmp_path / "other")


def test_test_sets_that_changed_are_refused_and_those_that_were_touched_are_not(
    raw, tmp_path, small_shards, monkeypatch
):
    items = tmp_path / "tests/items.jsonl"
    write_lines(items, {"0": prose(0)})
    wanted = {"tests": [str(tmp_path / "tests")]}
    with monkeypatch.context() as patch:
        calls = []

        def once(*arguments, through=building.BY_SHARD["filter"]):
            calls.append(arguments)
            return through(*arguments) if len(calls) == 1 else interrupted()

        patch.setitem(building.BY_SHARD, "filter", once)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "corpus", **wanted)
    for state in ("stopped", "built"):
        content = items.read_bytes()
        write_lines(items, {f"{k}": prose(k) for k in range(5)})
        with pytest.raises(EarthworksError, match=r"items\.jsonl of .*tests has different content; restore them"):
            run(raw, tmp_path / "corpus", **wanted)
        items.write_bytes(content)
        write_lines(tmp_path / "tests/more.jsonl", {"1": prose(1)})
        with pytest.raises(EarthworksError, match=r"more\.jsonl of .*tests is new"):
            run(raw, tmp_path / "corpus", **wanted)
        (tmp_path / "tests/more.jsonl").unlink()
        assert run(raw, tmp_path / "corpus", **wanted)["contaminated"] == 1, state
    manifest = manifest_of(tmp_path / "corpus")
    assert [each["digest"] for each in manifest["tests"]] == [hashlib.sha256(content).hexdigest()]


def test_test_sets_that_change_while_shards_are_filtered_stop_the_build(raw, tmp_path, small_shards, monkeypatch):
    items = tmp_path / "items.jsonl"
    write_lines(items, {"0": prose(0)})

    def changing(*arguments, through=building.BY_SHARD["filter"]):
        write_lines(items, {f"{k}": prose(k) for k in range(5)})
        return through(*arguments)

    monkeypatch.setitem(building.BY_SHARD, "filter", changing)
    with pytest.raises(EarthworksError, match="the test sets changed"):
        run(raw, tmp_path / "corpus", tests=[str(items)])


def test_a_build_in_the_same_process_reads_the_test_sets_anew(raw, tmp_path):
    items = tmp_path / "items.jsonl"
    for k in (1, 5):
        write_lines(items, {f"{each}": prose(each) for each in range(k)})
        assert run(raw, tmp_path / f"corpus-{k}", tests=[str(items)])["contaminated"] == k


def test_a_file_that_came_or_went_is_refused(raw, tmp_path, monkeypatch):
    run(raw, tmp_path / "corpus")
    write_lines(raw / "d.jsonl", {"new": prose(5)})
    with pytest.raises(EarthworksError, match=r"d\.jsonl of all is new"):
        run(raw, tmp_path / "corpus")


def test_a_folder_with_other_things_is_not_built_in(raw, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(EarthworksError, match="holds files that are not of a build"):
        run(raw, tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bounds": {"wrods": 3}}, "the rule 'wrods'"),
        ({"bounds": {"words": "many"}}, "bounds of words are 'many'"),
        ({"profile": "gopher"}, "--profile is 'gopher'"),
        ({"stages": ["spelling"]}, "the stage 'spelling'"),
        ({"near": 1.5}, "--near is 1.5"),
        ({"hashes": 0}, "--hashes 0"),
        ({"hashes": 100_000_000}, "--hashes 100000000: both are whole numbers from 1 to 16,384"),
        ({"test_rule": "some"}, "--test_rule is 'some'"),
        ({"language": "fr"}, "--language fr is what the stage language keeps, and no subset has that stage"),
        ({"tests": ["nowhere/"]}, "nowhere/ does not exist"),
        ({"executor": "spark"}, "--executor is 'spark'"),
        ({"rank": 2, "world_size": 2}, "--rank 2 of --world_size 2"),
        ({"world_size": 2}, "--rank None of --world_size 2"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_one_sentence(raw, tmp_path, options, sentence):
    with pytest.raises(EarthworksError, match=re.escape(sentence)):
        run(raw, tmp_path / "corpus", **options)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a b", "x" * 101])
def test_a_subsets_name_cannot_lead_elsewhere(raw, tmp_path, name):
    with pytest.raises(EarthworksError, match="a name consists of letters"):
        build(str(tmp_path / "corpus"), subsets={name: str(raw)})


def test_weights_are_for_all_subsets_or_none(raw, tmp_path):
    with pytest.raises(EarthworksError, match="weight all or none"):
        build(str(tmp_path / "corpus"), subsets={"a": {"input": str(raw), "weight": 1}, "b": str(raw)})


# Bad input


def broken(raw: Path) -> None:
    """A gzip cut in the middle, a line that is no JSON, a record without text, one whose text is a number, bad UTF-8."""
    content = gzip.compress(
        "".join(json.dumps({"id": f"cut-{k}", "text": prose(300 + k)}) + "\n" for k in range(50)).encode()
    )
    (raw / "cut.jsonl.gz").write_bytes(content[: len(content) // 2])
    records = [
        b"{no json",
        b'{"id": 1}',
        b'{"text": 17}',
        b'{"id": "latin", "text": "' + prose(400).encode() + b' caf\xe9"}',
    ]
    (raw / "odd.jsonl").write_bytes(b"\n".join(records) + b"\n")


def test_what_cannot_be_read_is_listed_and_the_build_continues(raw, tmp_path, command):
    broken(raw)
    outcome = command("corpus build", input=raw, output=tmp_path / "corpus", workers=1)
    assert outcome.code == 3
    assert "4 records or files could not be read" in outcome.out
    manifest = manifest_of(tmp_path / "corpus")
    assert manifest is not None
    assert manifest["num_faults"] == len(manifest["faults"]) == 4
    assert {fault["where"].split(":")[0].split("/")[-1] for fault in manifest["faults"]} <= {
        "cut.jsonl.gz",
        "odd.jsonl",
        "line 1 of odd.jsonl",
    } | {fault["where"].split(":")[0].split("/")[-1] for fault in manifest["faults"]}
    assert manifest["replaced_bytes"] == 1
    kept = ids(tmp_path / "corpus" / "documents")
    assert "latin" in kept
    assert sum(id.startswith("cut-") for id in kept) > 10


def test_strict_stops_at_the_first_fault_and_keeps_what_was_done(raw, tmp_path, small_shards):
    broken(raw)
    with pytest.raises(EarthworksError):
        run(raw, tmp_path / "corpus", strict=True)
    assert (tmp_path / "corpus/work/filter/all/00000.json").exists()
    assert not (tmp_path / "corpus/manifest.json").exists()


def test_an_output_that_cannot_be_written_is_one_sentence(raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EarthworksError, match="file"):
        run(raw, tmp_path / "file" / "corpus")


def test_nothing_readable_is_a_corpus_of_nothing_not_a_crash(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "bad.jsonl").write_text("{\n")
    manifest = run(tmp_path / "raw", tmp_path / "corpus")
    assert (manifest["documents"], manifest["final"], manifest["num_faults"]) == (0, 0, 1)


# Looking


def test_the_page_marks_what_repeated_and_shows_copies_side_by_side(raw, tmp_path, command):
    run(raw, tmp_path / "corpus")
    outcome = command("corpus inspect", tmp_path / "corpus")
    assert outcome.code == 0
    with lock(tmp_path / "corpus", "inspection.html"):
        assert command("corpus inspect", tmp_path / "corpus").refuses("inspection.html")
    page = (tmp_path / "corpus" / "inspection.html").read_text()
    assert "spam-0" in page
    assert "<mark>" in page
    assert "<mark>changed1 </mark>" in page
    assert "https://" not in page
    for rule in PROFILES["literal"].bounds:
        assert rule in page


@pytest.mark.slow
def test_other_bounds_are_tried_on_the_values_on_record(raw, tmp_path, command):
    run(raw, tmp_path / "corpus")
    outcome = command("corpus inspect", tmp_path / "corpus", bounds=json.dumps({"words": [10, 1000]}))
    assert "the filters would keep 29 (3 more, 0 fewer)" in outcome.out


def test_a_page_of_html_in_a_document_stays_text(tmp_path, command):
    write_lines(tmp_path / "raw.jsonl", {"<script>alert(1)</script>": "<script>alert(2)</script> " * 30})
    run(tmp_path / "raw.jsonl", tmp_path / "corpus")
    command("corpus inspect", tmp_path / "corpus")
    assert "<script" not in (tmp_path / "corpus" / "inspection.html").read_text()


@pytest.mark.parametrize("sampling", ["windows", "documents"])
def test_a_built_corpus_trains_a_model(raw, tmp_path, flea, capsys, sampling):
    from earthworks.gopher import train

    run(raw, tmp_path / "corpus")
    options = {"size": "flea", "tokenizer": "bytes", "context": 8, "batch": 2, "max_steps": 2, "sampling": sampling}
    train(str(tmp_path / "corpus"), run=str(tmp_path / "run"), **options)
    assert "more than once" not in capsys.readouterr().err


def test_a_subset_that_is_read_more_than_once_is_named(tmp_path, flea, capsys):
    from earthworks.gopher import train

    write_lines(tmp_path / "large.jsonl", {str(k): prose(k) for k in range(9)})
    write_lines(tmp_path / "small.jsonl", {str(k): prose(100 + k, 60) for k in range(2)})
    subsets = {
        "large": {"input": str(tmp_path / "large.jsonl"), "weight": 1},
        "small": {"input": str(tmp_path / "small.jsonl"), "weight": 9},
    }
    build(str(tmp_path / "corpus"), subsets=subsets, workers=1)
    train(
        str(tmp_path / "corpus"),
        run=str(tmp_path / "run"),
        size="flea",
        tokenizer="bytes",
        context=64,
        batch=8,
        max_steps=4,
    )
    assert "some subsets are read more than once: small " in capsys.readouterr().err
